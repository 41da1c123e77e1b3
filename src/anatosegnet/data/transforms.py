"""From pixels to tensors: resizing, normalisation, and the released augmentation."""

import os
import random
from collections.abc import Sequence
from typing import Literal

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # it would ask the network at import

import albumentations as A
import cv2
import numpy as np
import torch
from torch import Tensor

from anatosegnet.errors import UserError

Normalization = Literal["imagenet", "symmetric", "benchmark"]

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

LARGEST = 8192  # pixels of an edge of what a network sees


def two_sizes(size: int | Sequence[int]) -> tuple[int, int]:
    """An edge, or (height, width), as (height, width)."""
    try:
        height, width = (size, size) if isinstance(size, int) else tuple(size)
    except (TypeError, ValueError) as error:
        raise UserError(f"data.image_size={size} must be an edge or [height, width]") from error
    if not (isinstance(height, int) and isinstance(width, int)):
        raise UserError(f"data.image_size={size} must be whole numbers of pixels")
    if max(height, width) > LARGEST:
        raise UserError(f"data.image_size={height}×{width} is too large; at most {LARGEST} px")
    if min(height, width) < 32:
        raise UserError(f"data.image_size={height}×{width} is too small; at least 32×32")
    return height, width


def resize_image(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize an image (H, W[, C]) to (height, width): by area if it shrinks, else cubic."""
    height, width = size
    if image.shape[:2] == (height, width):
        return image
    shrinks = height * width < image.shape[0] * image.shape[1]
    interpolation = cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
    return cv2.resize(image, (width, height), interpolation=interpolation)


def resize_mask(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize a mask (H, W) to (height, width) by nearest neighbour; no new value arises."""
    height, width = size
    if mask.shape == (height, width):
        return mask
    # INTER_NEAREST of OpenCV is off by half a pixel
    return cv2.resize(mask, (width, height), interpolation=cv2.INTER_NEAREST_EXACT)


def image_to_tensor(
    image: np.ndarray, in_channels: int = 3, normalization: Normalization = "imagenet"
) -> Tensor:
    """Normalise an RGB image for the network.

    Args:
        image: (H, W, 3) uint8 RGB.
        in_channels: 3, or 1 for grey (the mean of the channels weighted by luminance).
        normalization: See `normalize`.

    Returns:
        (in_channels, H, W) float32.
    """
    if in_channels == 1:
        image = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[..., None]
    pixels = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)
    return normalize(pixels, in_channels, normalization)


def normalize(pixels: Tensor, in_channels: int, normalization: Normalization) -> Tensor:
    """Bring grey levels to the range that the network expects, on the device they are on.

    Args:
        pixels: (..., C, H, W) uint8; C is in_channels, or 1 (three equal channels).
        in_channels: 3 or 1.
        normalization: ``imagenet`` = ImageNet's mean and deviation; ``symmetric`` = x/127.5 - 1;
            ``benchmark`` = ``imagenet`` divided by 255 once more, about ±0.01, as the code of the
            public 2-D segmentation benchmark does.

    Returns:
        (..., in_channels, H, W) float32.
    """
    if normalization == "symmetric":
        mean = deviation = torch.full((in_channels,), 0.5)
    else:
        mean, deviation = torch.tensor(IMAGENET_MEAN), torch.tensor(IMAGENET_STD)
        if in_channels == 1:
            mean, deviation = mean.mean()[None], deviation.mean()[None]
        if normalization == "benchmark":
            deviation = deviation * 255
    if pixels.device.type == "cpu":  # the same arithmetic, once for each of 256 grey levels
        table = (torch.arange(256).float()[:, None] / 255 - mean) / deviation
        return _look_up(pixels, table)
    mean, deviation = (values.to(pixels.device)[:, None, None] for values in (mean, deviation))
    return (pixels.float() / 255 - mean) / deviation


def _look_up(pixels: Tensor, table: Tensor) -> Tensor:
    """(..., C, H, W) uint8 through a table (256, K) -> (..., K, H, W) float32; C is K or 1."""
    *batch, channels, height, width = pixels.shape
    result = torch.empty(*batch, table.shape[1], height, width)
    source = pixels.reshape(-1, channels, height, width).numpy()
    target = result.view(-1, table.shape[1], height, width).numpy()
    columns = np.ascontiguousarray(table.numpy().T)
    for image, normalised in zip(source, target, strict=True):
        for channel, column in enumerate(columns):
            cv2.LUT(image[channel % channels], column, dst=normalised[channel])
    return result


def seed_augmentation(augmentation: A.Compose, seed: Sequence[int]) -> None:
    """Fix everything that the next call of an augmentation draws.

    The whole pipeline shares one state. Albumentations' own ``set_random_seed`` gives every
    transform a state of its own, all alike: each would then draw the same number, so that a
    transform of p = 0.1 happens only together with all those of larger p.

    Args:
        augmentation: The pipeline.
        seed: Integers from 0, such as (seed, epoch, case).
    """
    sequence = np.random.SeedSequence(seed)
    state = random.Random(int(sequence.generate_state(1)[0]))
    augmentation.set_random_state(np.random.default_rng(sequence), state)


def released_augmentation() -> A.Compose:
    """The authors' augmentation: one of five, with equal chance.

    Flip of both axes, vertical flip, horizontal flip, rotation by ±1…±5° in whole degrees, or
    nothing. Unlike the released code, masks are rotated by nearest neighbour, so lesions keep
    their size.
    """
    degrees = [degree for degree in range(-5, 6) if degree != 0]
    rotations = [A.Rotate((k, k), border_mode=cv2.BORDER_CONSTANT, p=1) for k in degrees]
    return A.Compose(
        [
            A.OneOf(
                [
                    A.Sequential([A.HorizontalFlip(p=1), A.VerticalFlip(p=1)], p=1),
                    A.VerticalFlip(p=1),
                    A.HorizontalFlip(p=1),
                    A.OneOf(rotations, p=1),
                    A.NoOp(p=1),
                ],
                p=1,
            )
        ]
    )
