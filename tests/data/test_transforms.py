"""Resizing, normalisation and augmentation."""

from collections import Counter
from typing import Any

import albumentations as A
import cv2
import hydra
import numpy as np
import pytest
import torch
import yaml

from anatosegnet.config.composition import config_directory
from anatosegnet.data.normalization import IMAGENET_MEAN, IMAGENET_STD
from anatosegnet.data.resizing import resize_image, resize_mask, two_sizes
from anatosegnet.data.transforms import (
    image_to_tensor,
    normalize,
    released_augmentation,
    seed_augmentation,
)
from anatosegnet.errors import UserError
from tests.conftest import grey_image


def disc(height: int = 200, width: int = 240) -> np.ndarray:
    """(H, W) uint8 in {0, 1}: an ellipse."""
    mask = np.zeros((height, width), np.uint8)
    centre, axes = (width // 3, height // 2), (width // 5, height // 4)
    cv2.ellipse(mask, centre, axes, 0, 0, 360, 1, -1)
    return mask


def test_shrinking_averages_and_enlarging_is_cubic() -> None:
    """Breaks if shrinking skips pixels (aliasing), or enlarging is blocky or linear."""
    image = np.repeat(grey_image(0, (64, 48))[..., None], 3, axis=2)
    shrunk = resize_image(image, (32, 24))
    blocks = image.reshape(32, 2, 24, 2, 3).mean(axis=(1, 3))
    assert np.abs(shrunk - blocks).max() <= 0.5
    enlarged = resize_image(image, (100, 90))
    assert (enlarged == cv2.resize(image, (90, 100), interpolation=cv2.INTER_CUBIC)).all()


@pytest.mark.parametrize("size", [(64, 48), (256, 256), (32, 200), (33, 47)])
def test_sizes_are_as_asked(size: tuple[int, int]) -> None:
    """Breaks if height and width are swapped, or a grey image fails."""
    assert resize_image(np.zeros((64, 48, 3), np.uint8), size).shape == (*size, 3)
    assert resize_image(np.zeros((64, 48), np.uint8), size).shape == size
    assert resize_mask(np.zeros((64, 48), np.uint8), size).shape == size


@pytest.mark.parametrize("size", [(100, 120), (256, 256), (128, 300), (400, 480), (97, 131)])
def test_resized_masks_keep_area_values_and_place(size: tuple[int, int]) -> None:
    """Breaks if masks are interpolated and truncated, which shrinks lesions, or shifted."""
    mask = disc()
    resized = resize_mask(mask, size)
    assert resized.dtype == np.uint8
    assert set(np.unique(resized)) == {0, 1}
    assert resized.mean() == pytest.approx(mask.mean(), rel=0.02)
    before = (np.argwhere(mask).mean(axis=0) + 0.5) / mask.shape
    after = (np.argwhere(resized).mean(axis=0) + 0.5) / size
    assert np.abs(before - after).max() < 0.003


@pytest.mark.parametrize("normalization", ["imagenet", "symmetric", "benchmark"])
@pytest.mark.parametrize(("given", "wanted"), [(3, 3), (1, 3), (1, 1)])
def test_the_table_is_the_formula(given: int, wanted: int, normalization: Any) -> None:
    """Breaks if the CPU's table and the GPU's arithmetic differ by one bit, or channels move."""
    pixels = torch.arange(2 * given * 256).remainder(256).to(torch.uint8)
    pixels = pixels.view(2, given, 16, 16).flip(3)[..., 1:]  # not contiguous either
    mean, deviation = torch.tensor(IMAGENET_MEAN), torch.tensor(IMAGENET_STD)
    if wanted == 1:
        mean, deviation = mean.mean()[None], deviation.mean()[None]
    if normalization == "symmetric":
        mean = deviation = torch.full((wanted,), 0.5)
    if normalization == "benchmark":
        deviation = deviation * 255
    expected = (pixels.float() / 255 - mean[:, None, None]) / deviation[:, None, None]
    assert torch.equal(normalize(pixels, wanted, normalization), expected)


def test_image_size_is_an_edge_or_two() -> None:
    """Breaks if [H, W] is swapped, or a wrong image_size gives a traceback."""
    assert two_sizes(64) == (64, 64)
    assert two_sizes([32, 96]) == (32, 96)
    for wrong in ([64], [64, 64, 3], "64", None, [16, 64], 31):
        with pytest.raises(UserError, match="image_size"):
            two_sizes(wrong)


def test_the_benchmark_divides_twice() -> None:
    """Breaks if its images are not ImageNet's normalised ones divided by 255 again: ±0.01."""
    image = np.arange(192, dtype=np.uint8).reshape(8, 8, 3)
    twice = image_to_tensor(image, normalization="benchmark")
    assert torch.allclose(twice, image_to_tensor(image) / 255, rtol=1e-6)
    assert twice.abs().max() < 0.011


def test_symmetric_normalisation() -> None:
    """Breaks if the released scale x / 127.5 - 1 changes, or channels move."""
    ramp = np.arange(256, dtype=np.uint8).reshape(16, 16)
    image = np.dstack([ramp, ramp[::-1], ramp.T])
    tensor = image_to_tensor(image, normalization="symmetric")
    assert tensor.shape == (3, 16, 16)
    expected = image.transpose(2, 0, 1) / 127.5 - 1
    assert np.allclose(tensor.numpy(), expected, atol=1e-6)


def test_imagenet_normalisation() -> None:
    """Breaks if mean or deviation change, or are applied to BGR."""
    pixel = np.array([[[10, 20, 30]]], np.uint8)
    # (10/255 - 0.485) / 0.229, (20/255 - 0.456) / 0.224, (30/255 - 0.406) / 0.225
    assert image_to_tensor(pixel).flatten().tolist() == pytest.approx(
        [-1.946656, -1.685574, -1.281569], abs=1e-5
    )


def test_one_channel() -> None:
    """Breaks if grey is not the luminance, or has another shape or scale."""
    pixel = np.array([[[10, 20, 30]]], np.uint8)  # luminance 0.299 R + 0.587 G + 0.114 B = 18
    grey = image_to_tensor(pixel, 1, "symmetric")
    assert grey.shape == (1, 1, 1)
    assert grey.item() == pytest.approx(18 / 127.5 - 1, abs=1e-6)
    # the means of ImageNet's three: (18/255 - 0.449) / 0.226
    assert image_to_tensor(pixel, 1).item() == pytest.approx(-1.674388, abs=1e-5)


def kind_of(image: np.ndarray, augmented: np.ndarray) -> str:
    """Which of the released augmentations was applied."""
    candidates = {
        "none": image,
        "vertical": image[::-1],
        "horizontal": image[:, ::-1],
        "both": image[::-1, ::-1],
    }
    return next((k for k, v in candidates.items() if (v == augmented).all()), "rotation")


def test_released_augmentation_has_five_kinds_of_equal_chance() -> None:
    """Breaks if a kind is lost or favoured, masks blur, or a rotation shrinks the lesion."""
    augmentation, mask = released_augmentation(), disc(64, 64)
    image = np.repeat(grey_image(0, (64, 64))[..., None], 3, axis=2)
    kinds: Counter[str] = Counter()
    for seed in range(400):
        seed_augmentation(augmentation, [seed])
        result = augmentation(image=image, mask=mask)
        kind = kind_of(image, result["image"])
        kinds[kind] += 1
        assert set(np.unique(result["mask"])) == {0, 1}
        assert int(result["mask"].sum()) == pytest.approx(int(mask.sum()), rel=0.02)
        if kind != "rotation":
            assert kind_of(mask, result["mask"]) == kind
    assert len(kinds) == 5
    assert all(abs(count - 80) < 32 for count in kinds.values())  # four standard deviations


def test_released_rotations_are_whole_degrees_up_to_five() -> None:
    """Breaks if an angle of the released ±1…±5 is lost, or others come in."""
    image, expected = grey_image(0, (64, 64)), {}
    for degree in (-5, -4, -3, -2, -1, 1, 2, 3, 4, 5):
        rotate = A.Rotate((degree, degree), border_mode=cv2.BORDER_CONSTANT, p=1)
        expected[rotate(image=image)["image"].tobytes()] = degree
    augmentation, found = released_augmentation(), set()
    for seed in range(300):
        seed_augmentation(augmentation, [seed])
        augmented = augmentation(image=image)["image"]
        if kind_of(image, augmented) == "rotation":
            found.add(expected[augmented.tobytes()])
    assert found == set(expected.values())


def load_augmentation(name: str) -> Any:
    """The augmentation of a shipped config."""
    path = config_directory() / "augmentation" / f"{name}.yaml"
    return hydra.utils.instantiate(yaml.safe_load(path.read_text()), _convert_="all")


@pytest.mark.parametrize("name", ["light", "strong"])
@pytest.mark.parametrize("shape", [(64, 64, 3), (48, 80, 1)])
def test_augmentations_keep_the_contract(name: str, shape: tuple[int, int, int]) -> None:
    """Breaks if an image changes its type or size, a mask blurs, or image and mask part."""
    augmentation = load_augmentation(name)
    mask = disc(*shape[:2])
    image = np.repeat((255 * mask)[..., None], shape[2], axis=2)
    changed = 0
    for seed in range(60):
        seed_augmentation(augmentation, [seed])
        result = augmentation(image=image, mask=mask)
        assert result["image"].shape == image.shape
        assert result["image"].dtype == np.uint8
        assert (result["image"] == result["image"][..., :1]).all()
        assert result["mask"].shape == mask.shape
        assert result["mask"].dtype == np.uint8
        assert set(np.unique(result["mask"])) == {0, 1}
        lesion = result["image"][..., 0] > 60  # black stays black, and white is not lost
        overlap = (lesion & (result["mask"] > 0)).sum() / (lesion | (result["mask"] > 0)).sum()
        assert overlap > 0.85
        changed += kind_of(image, result["image"]) == "rotation"
    assert changed > 20


def test_transforms_of_a_pipeline_draw_independently() -> None:
    """Breaks if a rare transform happens only together with the frequent ones."""
    steps = [A.HorizontalFlip(p=0.5), A.VerticalFlip(p=0.5), A.Transpose(p=0.5)]
    augmentation, image = A.Compose(steps, save_applied_params=True), grey_image(0, (32, 32))
    combinations: Counter[tuple[str, ...]] = Counter()
    for seed in range(400):
        seed_augmentation(augmentation, (seed, 0))
        applied = augmentation(image=image)["applied_transforms"]
        combinations[tuple(name for name, _ in applied)] += 1
    assert len(combinations) == 8
    assert all(abs(count - 50) < 28 for count in combinations.values())  # four deviations


@pytest.mark.parametrize("name", ["light", "strong"])
def test_depth_is_never_turned_upside_down(name: str) -> None:
    """Breaks if a vertical flip comes in: sound fades with depth."""
    augmentation = load_augmentation(name)
    image = np.zeros((64, 64, 3), np.uint8)
    image[:32] = 200
    for seed in range(40):
        seed_augmentation(augmentation, [seed])
        rows = augmentation(image=image)["image"].astype(float).mean(axis=(1, 2))
        assert rows[16:32].mean() > rows[32:48].mean()


def test_no_augmentation_is_an_empty_config() -> None:
    """Breaks if augmentation=none does something."""
    assert load_augmentation("none") is None
