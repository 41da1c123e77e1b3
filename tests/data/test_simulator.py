"""Tests of the breast-ultrasound simulator: contract, physics and sonographic features."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from anatosegnet.data.simulator import Phantom, form_envelope, label_of, simulate


@cache
def phantoms() -> tuple[Phantom, ...]:
    """Simulate the 48 phantoms that the statistical tests share."""
    return tuple(simulate(20, index) for index in range(48))


def means_of(label: str, measure: Callable[[Phantom], float]) -> NDArray[np.float64]:
    """Apply `measure` to the phantoms of a class and drop the nan results."""
    values = [measure(p) for p in phantoms() if p.label == label]
    return np.array([value for value in values if np.isfinite(value)], np.float64)


def darkness(phantom: Phantom) -> float:
    """Mean grey of a 2 mm ring around the lesion minus the mean grey of the lesion."""
    ring = cv2.dilate(phantom.mask, np.ones((41, 41), np.uint8)) > phantom.mask
    return float(phantom.image[ring].mean() - phantom.image[phantom.mask > 0].mean())


def aspect(phantom: Phantom) -> float:
    """Width over height of the lesion's bounding box."""
    rows, columns = np.nonzero(phantom.mask)
    return float(np.ptp(columns) + 1) / float(np.ptp(rows) + 1)


def posterior_difference(phantom: Phantom) -> float:
    """Grey in the middle half below the lesion minus that beside it at the same depth (5 mm)."""
    rows, columns = np.nonzero(phantom.mask)
    left, width, top = columns.min(), np.ptp(columns), rows.max() + 8
    below = phantom.image[top : top + 50, left + width // 4 : left + 3 * width // 4]
    sides = [phantom.image[top : top + 50, max(left - 80, 0) : max(left - 20, 0)]]
    sides.append(phantom.image[top : top + 50, left + width + 20 : left + width + 80])
    beside = np.concatenate([side.ravel() for side in sides])
    return float(below.mean() - beside.mean()) if below.size and beside.size else float("nan")


def test_same_seed_and_index_repeat_and_others_differ() -> None:
    """Breaks if global random state or unseeded draws enter, or if an argument is ignored."""
    first, again = simulate(3, 5), simulate(3, 5)
    np.testing.assert_array_equal(first.image, again.image)
    np.testing.assert_array_equal(first.mask, again.mask)
    assert first.pixel_size_mm == again.pixel_size_mm
    for other in (simulate(3, 6), simulate(4, 5)):
        assert other.image.shape != first.image.shape or (other.image != first.image).any()


@pytest.mark.slow
def test_contract_of_arrays() -> None:
    """Breaks if dtype, size, mask values or position leave the documented ranges."""
    for phantom in phantoms():
        height, width = phantom.image.shape
        assert phantom.mask.shape == (height, width)
        assert 300 <= height <= 450 and 380 <= width <= 500
        assert phantom.image.dtype == phantom.mask.dtype == np.uint8
        assert set(np.unique(phantom.mask)) == {0, 1}
        edges = (phantom.mask[0], phantom.mask[-1], phantom.mask[:, 0], phantom.mask[:, -1])
        assert not any(edge.any() for edge in edges), "the lesion is cut by the image border"
        assert 0.09 <= phantom.pixel_size_mm <= 0.11
        assert 20 < phantom.image.mean() < 170 and phantom.image.std() > 15


def test_label_of_agrees_and_is_two_to_one() -> None:
    """Breaks if simulate() draws anything before the label, or the share of classes changes."""
    assert [p.label for p in phantoms()] == [label_of(20, index) for index in range(48)]
    labels = [label_of(0, index) for index in range(3000)]
    assert set(labels) == {"benign", "malignant"}
    assert labels.count("malignant") / 3000 == pytest.approx(1 / 3, abs=0.04)


@pytest.mark.parametrize("label", ["benign", "malignant"])
def test_lesion_is_darker_than_its_surroundings(label: str) -> None:
    """Breaks if the body is painted at another place than the mask, or brighter than tissue."""
    differences = means_of(label, darkness)
    assert differences.mean() > 20.0
    assert (differences > 0.0).mean() > 0.9


def test_benign_is_wide_and_malignant_is_tall() -> None:
    """Breaks if width and height are swapped or the classes are painted with wrong outlines."""
    assert means_of("benign", aspect).min() > 1.2
    assert means_of("malignant", aspect).mean() < 1.0


def test_enhancement_behind_benign_and_shadow_behind_malignant() -> None:
    """Breaks if the attenuation is not accumulated in depth or its sign or class is wrong."""
    assert means_of("benign", posterior_difference).mean() > 3.0
    assert means_of("malignant", posterior_difference).mean() < -10.0


def test_envelope_of_even_tissue_is_rayleigh() -> None:
    """Breaks if scatterers are not complex Gaussian, or looks are averaged before this point.

    Fully developed speckle has mean/std = 1.91 (Wagner et al. 1983); no energy is lost either.
    """
    noise = np.random.default_rng(0).standard_normal((2, 420, 480), dtype=np.float32)
    even = np.ones((420, 480), np.float32)
    envelope = form_envelope(noise, even, np.zeros_like(even), 0.1)[100:400, 20:-20]
    assert envelope.mean() / envelope.std() == pytest.approx(1.91, abs=0.06)
    assert np.mean(envelope**2) == pytest.approx(2.0, rel=0.1)
