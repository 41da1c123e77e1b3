"""Augmentation that a scanner could have caused: each transform's range, and what it leaves."""

from typing import Any

import albumentations as A
import numpy as np
import pytest

from anatosegnet.data.transforms import seed_augmentation
from anatosegnet.data.ultrasound import (
    GREY_PER_DB,
    AcousticShadow,
    DepthGain,
    Gain,
    Speckle,
    TissueDeformation,
    add_decibels,
)
from tests.conftest import grey_image

SIZE = (96, 128)
FLAT = np.full((*SIZE, 1), 128, np.uint8)
MASK = np.zeros(SIZE, np.uint8)
MASK[30:60, 40:80] = 1
ON_IMAGES = [DepthGain, Gain, Speckle, AcousticShadow]


def apply(step: A.BasicTransform, seed: int, image: np.ndarray = FLAT) -> dict[str, np.ndarray]:
    """Image and mask after one seeded call."""
    pipeline = A.Compose([step])
    seed_augmentation(pipeline, [seed])
    fits = image.shape[:2] == MASK.shape
    return pipeline(image=image, mask=MASK if fits else np.zeros(image.shape[:2], np.uint8))


def decibels(image: np.ndarray) -> np.ndarray:
    """What a transform added to FLAT, dB."""
    return (image.astype(float) - 128) / GREY_PER_DB


@pytest.mark.parametrize("kind", [*ON_IMAGES, TissueDeformation])
@pytest.mark.parametrize("channels", [1, 3])
def test_type_and_shape_stay_and_the_seed_decides(kind: Any, channels: int) -> None:
    """Breaks if a transform changes type or shape, parts grey channels, or draws unseeded."""
    image = np.repeat(grey_image(0, SIZE)[..., None], channels, axis=2)
    image.setflags(write=False)  # as records of the cache are
    one, again, other = (apply(kind(p=1), seed, image) for seed in (1, 1, 2))
    assert one["image"].shape == image.shape
    assert one["image"].dtype == one["mask"].dtype == np.uint8
    assert (one["image"] == again["image"]).all()
    assert (one["mask"] == again["mask"]).all()
    assert (one["image"] != other["image"]).any()
    assert (one["image"] == one["image"][..., :1]).all()
    single = apply(kind(p=1), 1, image[..., :1])["image"]
    assert (single == one["image"][..., :1]).all()


@pytest.mark.parametrize("kind", ON_IMAGES)
def test_masks_and_black_stay(kind: Any) -> None:
    """Breaks if a change of brightness touches the mask, or lights up a margin or a frame."""
    image = FLAT.copy()
    image[:, :20] = 0
    for seed in range(20):
        result = apply(kind(p=1), seed, image)
        assert (result["mask"] == MASK).all()
        assert (result["image"][:, :20] == 0).all()


def test_decibels_are_offsets_in_grey() -> None:
    """Breaks if the logarithmic scale of 60 dB is lost, or levels wrap around."""
    image = np.array([[[0], [16], [32], [128], [250]]], np.uint8)
    raised = add_decibels(image, np.full((1, 1, 1), 4, np.float32))[0, :, 0]
    assert raised.tolist() == [0, 16 + 8, 32 + 17, 128 + 17, 255]
    lowered = add_decibels(image, np.full((1, 1, 1), -40, np.float32))[0, :, 0]
    assert lowered.tolist() == [0, 0, 0, 0, 80]


def test_depth_gain_follows_depth_alone() -> None:
    """Breaks if gain changes across the beam, jumps, or leaves its range."""
    bottoms = []
    for seed in range(60):
        level = decibels(apply(DepthGain((-10, 6), slider_db=2, p=1), seed)["image"])[..., 0]
        assert (level == level[:, :1]).all()
        rows = level[:, 0]
        assert np.abs(np.diff(rows)).max() < 0.7
        assert -2.6 < rows[0] < 2.6  # cubic curves overshoot the sliders a little
        assert rows.min() > -12.9 and rows.max() < 8.9
        bottoms.append(rows[-1])
    assert min(bottoms) < -6
    assert max(bottoms) > 3
    straight = decibels(apply(DepthGain((-6, -6), slider_db=0, p=1), 0)["image"])[:, 0, 0]
    assert np.abs(straight - np.linspace(0, -6, SIZE[0])).max() < 0.5 / GREY_PER_DB + 1e-6


def test_gain_is_one_monotonic_curve() -> None:
    """Breaks if equal grey levels part, their order turns, or a setting has no effect."""
    ramp = np.arange(256, dtype=np.uint8).reshape(8, 32, 1)
    for seed in range(30):
        curve = apply(Gain(p=1), seed, ramp)["image"].reshape(-1).astype(int)
        assert (np.diff(curve) >= 0).all()
    fixed = {"gain_db": (0, 0), "stretch": (1, 1), "gamma": (1, 1)}
    assert (apply(Gain(**fixed, p=1), 0, ramp)["image"] == ramp).all()

    def at_128(**setting: tuple[float, float]) -> int:
        return int(apply(Gain(**{**fixed, **setting}, p=1), 0)["image"][0, 0, 0])

    assert at_128(gain_db=(4, 4)) == 128 + 17
    assert at_128(gamma=(2, 2)) == round(255 * (128 / 255) ** 2)
    stretched = apply(Gain(**{**fixed, "stretch": (1.2, 1.2)}, p=1), 0, ramp)["image"].reshape(-1)
    assert stretched[192] == round(1.2 * (192 - 127.5) + 127.5)


def test_speckle_has_its_spread_and_is_wider_than_high() -> None:
    """Breaks if the noise is white, biased, of another size, or stretched along the beam."""
    image = np.full((256, 256, 1), 128, np.uint8)
    for seed in range(4):
        step = Speckle(spread_db=(2, 2), lateral=(0.008, 0.008), p=1)
        level = decibels(apply(step, seed, image)["image"])[..., 0]
        assert level.std() == pytest.approx(2, rel=0.1)
        assert abs(level.mean()) < 0.15
        centred = level - level.mean()
        across = (centred[:, 1:] * centred[:, :-1]).mean() / level.var()
        along = (centred[1:] * centred[:-1]).mean() / level.var()
        assert across > 0.85
        assert 0.5 < along < across - 0.05
        far = (centred[:, 16:] * centred[:, :-16]).mean() / level.var()
        assert abs(far) < 0.05
        kurtosis = (centred**4).mean() / level.var() ** 2
        assert kurtosis == pytest.approx(3, abs=0.3)  # Gaussian; one byte alone has 1.8


def test_shadow_runs_down_from_a_start() -> None:
    """Breaks if a shadow brightens, reaches upwards, has hard sides, or leaves its strength."""
    step = AcousticShadow(strength_db=(10, 10), width=(0.05, 0.05), start=(0.4, 0.4), p=1)
    middles = set()
    for seed in range(20):
        level = decibels(apply(step, seed)["image"])[..., 0]
        assert level.max() <= 0
        assert (level[: int(0.4 * SIZE[0])] == 0).all()
        assert (np.diff(level, axis=0) <= 0).all()
        assert level[-1].min() == pytest.approx(-10, abs=0.3)
        assert np.abs(np.diff(level[-1])).max() < 3.5
        assert (level[-1] < -5).mean() < 0.15
        middles.add(int(level[-1].argmin()))
    assert len(middles) > 10


def test_deformation_moves_image_and_mask_together() -> None:
    """Breaks if mask and image part, a mask gets new values, or tissue folds or leaves."""
    image = (60 + 150 * MASK)[..., None].astype(np.uint8)
    moved = 0
    for seed in range(30):
        result = apply(TissueDeformation(p=1), seed, image)
        assert set(np.unique(result["mask"])) == {0, 1}
        lesion = result["image"][..., 0] > 135
        differs = (lesion != (result["mask"] > 0)).sum()
        assert differs < 0.05 * MASK.sum()  # the border's half pixels
        moved += (result["mask"] != MASK).any()
        assert result["image"].min() >= 60  # nothing black comes in
        assert 0.7 < result["mask"].sum() / MASK.sum() < 1.4
        step = TissueDeformation(amount=(0.035, 0.035), p=1)
        step.set_random_seed(seed)
        maps = step.get_params_dependent_on_data({"shape": SIZE}, {})
        assert np.diff(maps["columns"], axis=1).min() > 0  # no fold
        assert np.diff(maps["rows"], axis=0).min() > 0
    assert moved == 30


@pytest.mark.parametrize(
    ("kind", "setting"),
    [
        (DepthGain, {"bottom_db": [3, -3]}),
        (DepthGain, {"sliders": 1}),
        (Gain, {"gamma": [0, 1]}),
        (Gain, {"gain_db": [1]}),
        (Speckle, {"spread_db": [-1, 1]}),
        (AcousticShadow, {"width": [0, 0.1]}),
        (TissueDeformation, {"amount": [0, 0.2]}),
    ],
)
def test_wrong_ranges_are_named(kind: Any, setting: dict[str, Any]) -> None:
    """Breaks if a range without sense is taken and fails in the middle of training."""
    with pytest.raises(ValueError, match=next(iter(setting))):
        kind(**setting)


def test_probability_is_kept() -> None:
    """Breaks if p is ignored."""
    changed = sum((apply(Gain(p=0.3), seed)["image"] != FLAT).any() for seed in range(200))
    assert abs(changed - 60) < 26  # four standard deviations
