"""Lesion-wise detection against hand-worked cases."""

import numpy as np
import pytest
from scipy import ndimage

from anatosegnet.metrics.lesions import Detection, detect


def image(*squares: tuple[int, int, int, int]) -> np.ndarray:
    """(20, 20) bool with rectangles top, bottom, left, right."""
    mask = np.zeros((20, 20), bool)
    for top, bottom, left, right in squares:
        mask[top:bottom, left:right] = True
    return mask


A, B = (0, 4, 0, 4), (10, 14, 10, 14)


@pytest.mark.parametrize(
    ("predicted", "true", "expected"),
    [
        ([], [], (0, 0, 0, 0)),
        ([A], [], (0, 0, 0, 1)),
        ([], [A, B], (2, 0, 2, 0)),
        ([A, B], [A, B], (2, 2, 0, 0)),
        ([A, (16, 18, 0, 2)], [A, B], (2, 1, 1, 1)),
        ([(0, 4, 0, 2)], [A], (1, 1, 0, 0)),  # IoU exactly 0.5 is a hit
        ([(0, 4, 2, 6)], [A], (1, 0, 1, 1)),  # IoU 1/3
        ([(0, 4, 0, 2), (0, 2, 3, 4)], [A], (1, 1, 0, 1)),  # split: one hit, the rest is false
        ([(0, 14, 0, 14)], [A, B], (2, 0, 2, 1)),  # merged: neither reaches 0.5
    ],
)
def test_hand_worked_lesions(predicted: list, true: list, expected: tuple) -> None:
    """Breaks if the threshold, the matching or a count changes."""
    assert detect(image(*predicted), image(*true)) == Detection(*expected)


def test_corners_touch() -> None:
    """Breaks if lesions that touch at a corner become two."""
    diagonal = image((0, 3, 0, 3), (3, 6, 3, 6))
    assert detect(diagonal, diagonal).lesions == 1


def test_two_halves_cannot_both_hit() -> None:
    """Breaks if one lesion is found twice: halves of IoU 0.5 each match it only once."""
    truth = image((0, 8, 0, 5))
    prediction = truth.copy()
    prediction[:, 2] = False
    assert detect(prediction, truth, hit_iou=0.4) == Detection(1, 1, 0, 1)


def test_random_masks_against_components_of_scipy() -> None:
    """Breaks if labels of the two masks are mixed up: compares with pairs of scipy's labels."""
    random = np.random.default_rng(1)
    hits = 0
    for _ in range(50):
        truth = ndimage.gaussian_filter(random.normal(size=(40, 50)), 3) > 0.08
        prediction = ndimage.binary_dilation(truth, iterations=int(random.integers(0, 2)))
        prediction ^= ndimage.gaussian_filter(random.normal(size=(40, 50)), 2) > 0.25
        square = np.ones((3, 3))
        (true, true_count), (predicted, count) = (
            ndimage.label(mask, square) for mask in (truth, prediction)
        )
        expected = sum(
            any(
                ((true == i) & (predicted == j)).sum()
                >= 0.5 * ((true == i) | (predicted == j)).sum()
                for j in range(1, count + 1)
            )
            for i in range(1, true_count + 1)
        )
        found = detect(prediction, truth)
        assert found == Detection(true_count, expected, true_count - expected, count - expected)
        hits += expected
    assert hits > 20
