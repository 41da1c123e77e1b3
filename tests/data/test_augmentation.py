"""A user's own augmentation is tried before anything is written."""

import warnings
from collections import Counter
from itertools import product
from pathlib import Path

import albumentations as A
import numpy as np
import pytest
from albumentations.pytorch import ToTensorV2

from anatosegnet.config.objects import instantiate
from anatosegnet.data.augmentation import check_augmentation
from anatosegnet.data.datamodule import SegmentationDataModule
from anatosegnet.data.datasets.folder import FolderSource
from anatosegnet.data.datasets.phantom import PhantomSource
from anatosegnet.data.transforms import seed_augmentation
from anatosegnet.errors import UserError
from anatosegnet.run import Run
from anatosegnet.train import train
from tests.conftest import grey_image, write_png
from tests.preparing import prepared
from tests.running import compose, compose_tiny

DRAWS = 4000
GREY = np.full((32, 48, 1), 90, np.uint8)
COLOUR = np.dstack([np.full((32, 48), value, np.uint8) for value in (90, 120, 30)])
MASK = np.pad(np.ones((8, 8), np.uint8), ((4, 20), (9, 31)))


class LosesMask(A.DualTransform):
    """Gives the mask as floats of another range."""

    def apply(self, img: np.ndarray, **params: object) -> np.ndarray:
        return img

    def apply_to_mask(self, mask: np.ndarray, **params: object) -> np.ndarray:
        return mask * np.uint8(255)


BROKEN = {
    "normalised": (A.Normalize(), "images of type float32"),
    "floats": (A.ToFloat(), "images of type float32"),
    "tensors": (ToTensorV2(), "images of type torch.uint8"),
    "smaller": (A.Resize(16, 16), "into \\(16, 16"),
    "cropped": (A.RandomCrop(24, 24), "into \\(24, 24"),
    "padded": (A.PadIfNeeded(64, 64), "into \\(64, 64"),
    "other mask": (LosesMask(p=1), "masks with the value 255"),
    "too large a crop": (A.RandomCrop(64, 64), "\\(RandomCrop\\) fails on"),
    "rarely": (A.OneOf([A.HorizontalFlip(p=1), A.ToFloat(p=1)], p=1), "type float32"),
}


@pytest.mark.parametrize("what", BROKEN)
@pytest.mark.parametrize("image", [GREY, COLOUR], ids=["grey", "colour"])
def test_other_kinds_of_pixels_are_refused(what: str, image: np.ndarray) -> None:
    """Breaks if training goes on with normalised, resized or converted images."""
    transform, complaint = BROKEN[what]
    with pytest.raises(UserError, match=complaint) as caught:
        check_augmentation(A.Compose([A.HorizontalFlip(), transform]), [(image, MASK)])
    assert str(caught.value).startswith("augmentation")
    assert "\n" not in str(caught.value)


def test_colour_transforms_on_grey_images_are_named() -> None:
    """Breaks if a transform that needs three channels ends in OpenCV's own words."""
    pipeline = A.Compose([A.ISONoise(p=1)])
    check_augmentation(pipeline, [(COLOUR, MASK)])
    with pytest.raises(UserError, match=r"\(ISONoise\) fails on grey images") as caught:
        check_augmentation(pipeline, [(COLOUR, MASK), (GREY, MASK)])
    assert "\n" not in str(caught.value)


def test_what_is_no_pipeline_is_refused() -> None:
    """Breaks if any callable passes for an augmentation."""
    with pytest.raises(UserError, match="no pipeline of albumentations"):
        check_augmentation(lambda **pixels: pixels, [(GREY, MASK)])


def test_it_is_tried_on_grey_and_colour_images(folder_data: Path) -> None:
    """Breaks if a dataset of both kinds is tried on one, or trying changes what training draws."""
    colour = np.dstack([grey_image(number) for number in (1, 2, 3)])
    write_png(folder_data / "images" / "malignant_12.png", colour)
    mixed = prepared(FolderSource(str(folder_data)))
    with pytest.raises(UserError, match="fails on grey images"):
        SegmentationDataModule(mixed, A.Compose([A.ISONoise(p=1)]))
    data = SegmentationDataModule(prepared(PhantomSource(10)), A.Compose([A.Rotate()]))
    drawn = data.dataset("train")[0]["image"]
    again = data.dataset("train")[0]["image"]
    assert (drawn == again).all()


def test_nothing_is_written_before(tmp_path: Path) -> None:
    """Breaks if the run directory is there before the augmentation is found to be wrong."""
    config = compose_tiny(tmp_path / "run")
    config.augmentation = {
        "_target_": "albumentations.Compose",
        "transforms": [{"_target_": "albumentations.Normalize"}],
    }
    with pytest.raises(UserError, match="images of type float32"):
        train(config, Run(tmp_path / "run"))
    assert not (tmp_path / "run" / "config.yaml").exists()


def test_what_is_refused_is_said_without_a_librarys_warnings() -> None:
    """Breaks if the line stands below a warning, here of pixels that may not be written."""
    image = COLOUR.copy()
    image.setflags(write=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(UserError, match="images of type"):
            check_augmentation(A.Compose([ToTensorV2()]), [(image, MASK)])


@pytest.mark.parametrize(
    ("transform", "message"),
    [
        (A.Normalize(), r"augmentation \(Normalize\) gives images of type float32"),
        (A.RandomCrop(8, 8), r"augmentation \(RandomCrop\) makes images of shape"),
        (A.OneOf([A.Resize(8, 8)]), r"augmentation \(Resize\) makes images of shape"),
    ],
)
def test_the_transform_at_fault_is_named(transform: A.BasicTransform, message: str) -> None:
    """Breaks if one has to guess which of many transforms changes kind or size."""
    pipeline = A.Compose([A.HorizontalFlip(), transform])
    with pytest.raises(UserError, match=message):
        check_augmentation(pipeline, [(COLOUR, MASK)], draws=30)


def test_the_benchmark_turns_and_flips_as_its_code_does() -> None:
    """Breaks if a turn or a flip is more or less often drawn than there, or mask and image part.

    A turn by 0, 90, 180 or 270° half of the time, then a flip of three kinds half of the time.
    """
    config = compose("augmentation=benchmark")
    augmentation = instantiate(config, "augmentation")
    image = np.arange(4, dtype=np.uint8).reshape(2, 2)
    counts: Counter[bytes] = Counter()
    for draw in range(DRAWS):
        seed_augmentation(augmentation, (draw,))
        result = augmentation(image=image[..., None], mask=image % 2)
        assert (result["mask"] == result["image"][..., 0] % 2).all()
        counts[result["image"].tobytes()] += 1
    turns = {k: 0.125 + 0.5 * (k == 0) for k in range(4)}
    flips = {(): 1 / 2, (0,): 1 / 6, (1,): 1 / 6, (0, 1): 1 / 6}
    expected: Counter[bytes] = Counter()
    for (k, turn), (axes, flip) in product(turns.items(), flips.items()):
        expected[np.flip(np.rot90(image, k), axes).tobytes()] += turn * flip
    assert len(expected) == 8
    for outcome, share in expected.items():
        spread = (share * (1 - share) / DRAWS) ** 0.5
        assert abs(counts[outcome] / DRAWS - share) < 4 * spread
