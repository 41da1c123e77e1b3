"""What an augmentation may do: change pixels, not their kind. It may be a user's own."""

import warnings
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

import albumentations as A
import numpy as np

from anatosegnet.data.case import CaseError
from anatosegnet.data.records import Resized
from anatosegnet.data.transforms import seed_augmentation
from anatosegnet.errors import UserError, reason


def augmented(
    augmentation: A.Compose, image: np.ndarray, mask: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Apply an augmentation, and hold it to its contract: it changes pixels, not their kind.

    Args:
        augmentation: The pipeline, seeded.
        image: (H, W, C) uint8; C is 3, or 1 for grey.
        mask: (H, W) uint8 in {0, 1}.

    Returns:
        Both, of the same shape and type.

    Raises:
        CaseError: It fails, or gives something else.
    """
    try:
        result = augmentation(image=image, mask=mask)
        found, found_mask = result["image"], result["mask"]
    except Exception as error:  # OpenCV and albumentations raise many kinds
        kind = "grey images (one channel)" if image.shape[2] == 1 else "colour images"
        raise CaseError(
            f"augmentation{_failing(error)} fails on {kind}: {reason(error)}"
        ) from error
    for what, before, after in (("images", image, found), ("masks", mask, found_mask)):
        if not isinstance(after, np.ndarray) or after.dtype != np.uint8:
            kind = str(getattr(after, "dtype", type(after).__name__))
            raise CaseError(
                f"augmentation{_breaking(augmentation, image, mask)} gives {what} of type {kind}, "
                "where uint8 is needed; take out what scales or converts (Normalize, ToFloat, "
                "ToTensorV2): that comes after it"
            )
        if after.shape != before.shape:
            raise CaseError(
                f"augmentation{_breaking(augmentation, image, mask)} makes {what} of shape "
                f"{before.shape} into {after.shape}; take out what resizes, crops or adds channels "
                "(the size is data.image_size)"
            )
    if found_mask.max() > 1:
        raise CaseError(
            f"augmentation gives masks with the value {found_mask.max()}; they hold 0 and 1 alone"
        )
    return found, found_mask


def _breaking(augmentation: Any, image: np.ndarray, mask: np.ndarray) -> str:
    """`` (Name)`` of the first transform that changes kind or shape by itself, or nothing."""
    if isinstance(augmentation, A.BaseCompose):
        names = (_breaking(inner, image, mask) for inner in augmentation.transforms)
        return next((name for name in names if name), "")
    with suppress(Exception):  # one that needs those before it
        result = augmentation(image=image, mask=mask, force_apply=True)
        for name, before in (("image", image), ("mask", mask)):
            after = result[name]
            if (after.shape, str(after.dtype)) != (before.shape, str(before.dtype)):
                return f" ({type(augmentation).__name__})"
    return ""


def _failing(error: BaseException) -> str:
    """`` (Name)`` of the innermost transform that an error comes from, or nothing."""
    name, trace = "", error.__traceback__
    while trace is not None:
        owner = trace.tb_frame.f_locals.get("self")
        if isinstance(owner, A.BasicTransform):
            name = f" ({type(owner).__name__})"
        trace = trace.tb_next
    return name


def check_augmentation(augmentation: A.Compose, cases: Iterable[Resized], draws: int = 8) -> None:
    """Try an augmentation on some cases before training begins.

    Args:
        augmentation: The pipeline.
        cases: Images (H, W, C) and masks (H, W); the first grey and the first colour one are used.
        draws: Times that each is augmented: not every transform is drawn each time.

    Raises:
        UserError: It does not keep what `augmented` asks for.
    """
    tried: set[int] = set()
    for image, mask in cases:
        if image.shape[2] in tried:
            continue
        tried.add(image.shape[2])
        for draw in range(draws):
            try:
                with warnings.catch_warnings():  # they come in training, or it is refused
                    warnings.simplefilter("ignore")
                    seed_augmentation(augmentation, (draw,))
                    augmented(augmentation, image, mask)
            except CaseError as error:
                raise UserError(str(error)) from error
            except (AttributeError, TypeError) as error:
                raise UserError(
                    f"augmentation is a {type(augmentation).__name__}, no pipeline of "
                    "albumentations (albumentations.Compose)"
                ) from error
