"""Axes, area, perimeter and depth of lesions whose sizes are known."""

import time
from typing import Any

import numpy as np
import pytest

from anatosegnet.metrics.measurement import Lesion, Measurement, lesions
from anatosegnet.metrics.measurement import measure as measure_lesion


def measure(mask: np.ndarray, *settings: Any, **more: Any) -> Measurement:
    """All of a mask."""
    return measure_lesion(Lesion.of(mask), *settings, **more)


def ellipse(
    long_axis: float,
    short_axis: float,
    angle: float,
    spacing: tuple[float, float] = (1.0, 1.0),
    size: tuple[int, int] = (240, 260),
    centre: tuple[float, float] | None = None,
) -> np.ndarray:
    """(H, W) bool; the axes in the unit of the spacing, the angle in degrees from the rows."""
    height, width = spacing
    y, x = centre or (size[0] / 2 + 0.2, size[1] / 2 - 0.3)
    down = (np.arange(size[0])[:, None] + 0.5 - y) * height
    right = (np.arange(size[1])[None] + 0.5 - x) * width
    turn = np.deg2rad(angle)
    along = right * np.cos(turn) + down * np.sin(turn)
    across = down * np.cos(turn) - right * np.sin(turn)
    return np.asarray((2 * along / long_axis) ** 2 + (2 * across / short_axis) ** 2 <= 1)


def ramanujan(long_axis: float, short_axis: float) -> float:
    """Perimeter of an ellipse, to 0.01 % for the shapes here."""
    a, b = long_axis / 2, short_axis / 2
    share = 3 * ((a - b) / (a + b)) ** 2
    return float(np.pi * (a + b) * (1 + share / (10 + np.sqrt(4 - share))))


@pytest.mark.parametrize("angle", [0, 17, 30, 45, 61, 90, 118, 163])
@pytest.mark.parametrize("axes", [(120, 110), (150, 100), (160, 60), (140, 30)])
@pytest.mark.parametrize("spacing", [(1.0, 1.0), (0.07, 0.07), (0.05, 0.1), (0.12, 0.08)])
def test_axes_of_ellipses(
    axes: tuple[int, int], angle: float, spacing: tuple[float, float]
) -> None:
    """Breaks if an axis is off by more than a pixel, or scaled after it was measured in pixels."""
    unit = min(spacing)
    long_axis, short_axis = axes[0] * unit, axes[1] * unit
    found = measure(ellipse(long_axis, short_axis, angle, spacing), spacing)
    pixel = max(spacing)
    assert found.long_axis == pytest.approx(long_axis, abs=pixel)
    # a round lesion may be long in any direction; the axis across is then a little longer
    assert found.short_axis == pytest.approx(short_axis, abs=1.5 * pixel)
    assert found.area == pytest.approx(np.pi * long_axis * short_axis / 4, rel=0.015)
    assert found.perimeter == pytest.approx(ramanujan(long_axis, short_axis), rel=0.04)
    ends = found.ends * (spacing[1], spacing[0])
    assert np.linalg.norm(ends[1] - ends[0]) == pytest.approx(found.long_axis)
    assert np.linalg.norm(ends[3] - ends[2]) == pytest.approx(found.short_axis)
    assert (ends[1] - ends[0]) @ (ends[3] - ends[2]) == pytest.approx(0, abs=1e-9)
    if axes[0] > 2 * axes[1]:  # rounder ones are nearly as long in other directions
        direction = np.rad2deg(np.arctan2(*(ends[1] - ends[0])[::-1])) % 180
        assert min(abs(direction - angle), 180 - abs(direction - angle)) < 4


@pytest.mark.parametrize("diameter", [3, 10, 25.5, 80, 180])
def test_a_disc_is_as_wide_as_it_is(diameter: float) -> None:
    """Breaks if the extent of the pixels is forgotten, or counted twice."""
    generator = np.random.default_rng(1)
    for _ in range(10):
        centre = tuple(100 + generator.random(2))
        found = measure(ellipse(diameter, diameter, 0, size=(200, 200), centre=centre))
        assert found.long_axis == pytest.approx(diameter, abs=1)
        assert found.short_axis == pytest.approx(diameter, abs=1)
        assert found.short_axis <= found.long_axis + 1e-9


def test_an_axis_is_the_longest_in_mm_not_in_pixels() -> None:
    """Breaks if the direction of the long axis is found in pixels: 30 × 20 px are 3 × 4 mm here."""
    mask = np.zeros((50, 50), bool)
    mask[10:30, 5:35] = True
    assert mask.sum() == 600
    found = measure(mask, (0.2, 0.1))
    along = found.ends[1] - found.ends[0]
    assert abs(along[1]) * 0.2 > abs(along[0]) * 0.1
    assert found.area == pytest.approx(12)
    assert found.depth == pytest.approx(2.0)


@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (5, 1)])
def test_the_smallest(shape: tuple[int, int]) -> None:
    """Breaks if a single pixel or a line has no length, or fails."""
    for pad in (0, 3):
        found = measure(np.pad(np.ones(shape, bool), pad))
        assert (found.long_axis, found.short_axis) == (max(shape), 1)
        assert found.area == max(shape)
        assert found.depth == pad


def test_the_short_axis_is_a_line_within_the_lesion() -> None:
    """Breaks if the short axis is a slanting lesion's shadow instead of a line across it."""
    mask = np.zeros((120, 220), bool)
    for row in range(60):  # a parallelogram
        mask[30 + row, 20 + 2 * row : 80 + 2 * row] = True
    found = measure(mask)
    start, end = np.array([20, 30]), np.array([198, 90])
    long_axis = float(np.linalg.norm(end - start))
    assert found.long_axis == pytest.approx(long_axis, abs=1.5)
    # its corner (80, 30): across through it
    (x, y), (u, v) = end - start, np.array([80, 30]) - start
    across = abs(x * v - y * u) / long_axis
    assert found.short_axis < 2 * across - 1


def test_depth_is_from_the_top_of_the_tissue() -> None:
    """Breaks if a header above the tissue counts as depth, or a lesion above it is negative."""
    mask = np.zeros((60, 60), bool)
    mask[20:30, 10:20] = True
    assert measure(mask, (0.5, 1.0), top=12).depth == 4
    assert measure(mask, top=25).depth == 0


def test_the_largest_lesion_comes_first() -> None:
    """Breaks if lesions are others than those that scoring counts, or in no order."""
    mask = np.zeros((40, 40), bool)
    mask[2:5, 2:5] = mask[10:20, 10:20] = True
    mask[20, 20] = True  # touches at a corner
    found = list(lesions(mask))
    assert [lesion.mask.sum() for lesion in found] == [101, 9]
    assert (found[0].rows, found[0].columns) == (slice(10, 21), slice(10, 21))
    values = np.arange(1600).reshape(40, 40)
    assert found[1].within(values).tolist() == values[2:5, 2:5].ravel().tolist()
    assert not list(lesions(np.zeros((4, 4), bool)))


def test_a_thousand_specks_take_seconds() -> None:
    """Breaks if each lesion costs a look at the whole image."""
    mask = np.zeros((1000, 1000), bool)
    mask[::25, ::25] = True
    began = time.process_time()
    assert sum(measure_lesion(one).area for one in lesions(mask)) == 1600
    assert time.process_time() - began < 5
