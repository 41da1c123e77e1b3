"""Boundary scores against hand-worked cases, brute force, and MONAI's own functions."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis.extra.numpy import arrays
from scipy import ndimage
from scipy.spatial.distance import cdist

from anatosegnet.metrics.scores import Segmentation, with_tolerances
from anatosegnet.metrics.surface import boundary_iou, surface_distances

OVERLAPS = ("boundary_iou", "nsd_2px", "nsd_5px", "nsd_1mm")
DISTANCES = ("hd95", "assd", "hd95_mm", "assd_mm")


def surface_scores(
    prediction: np.ndarray,
    truth: np.ndarray,
    tolerances: tuple[float, ...] = (2, 5),
    pixel_size_mm: float | None = None,
    tolerances_mm: tuple[float, ...] = (1,),
) -> dict[str, float]:
    """The registry's scores of the boundary."""
    image = Segmentation(prediction.astype(np.float32), truth, pixel_size_mm)
    there = {"boundary"} | ({"mm"} if pixel_size_mm else set())
    return {
        score.name: score.function(image)
        for score in with_tolerances(tolerances, tolerances_mm)
        if score.needs and {*score.needs} <= there
    }


def random_pairs(count: int = 200) -> list[tuple[np.ndarray, np.ndarray]]:
    """Mask pairs (H, W) bool: blobs, empty, full, one pixel, and lesions at the border."""
    random = np.random.default_rng(0)
    pairs = []
    for index in range(count):
        shape = tuple(random.integers(12, 40, 2))
        pair = []
        for side in range(2):
            kind = (index + 3 * side) % 10
            mask = ndimage.gaussian_filter(random.normal(size=shape), 2.5) > 0.05
            if kind == 0:
                mask[:] = False
            elif kind == 1:
                mask[:] = True
            elif kind == 2:
                mask[:] = False
                mask[random.integers(shape[0]), random.integers(shape[1])] = True
            pair.append(mask)
        pairs.append((pair[0], pair[1]))
    return pairs


def brute_force(prediction: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """The same scores from the definitions, by loops and a full table of distances."""
    height, width = truth.shape
    if not prediction.any() or not truth.any():
        agreed = not prediction.any() and not truth.any()
        far = 0.0 if agreed else float(np.sqrt(height**2 + width**2))
        return {"hd95": far, "assd": far, "nsd_2px": float(agreed), "boundary_iou": float(agreed)}

    def edge(mask: np.ndarray) -> np.ndarray:
        padded = np.pad(mask, 1)
        neighbours = [padded[:-2, 1:-1], padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:]]
        return np.argwhere(mask & ~np.all(neighbours, axis=0))

    table = cdist(edge(prediction), edge(truth))
    there, back = table.min(axis=1), table.min(axis=0)
    band = max(1, round(0.02 * float(np.sqrt(height**2 + width**2))))

    def inside_band(mask: np.ndarray) -> np.ndarray:
        depth = ndimage.distance_transform_cdt(np.pad(mask, 1), metric="chessboard")[1:-1, 1:-1]
        return (depth > 0) & (depth <= band)

    bands = inside_band(prediction), inside_band(truth)
    return {
        "hd95": max(np.percentile(there, 95), np.percentile(back, 95)),
        "assd": (there.sum() + back.sum()) / (len(there) + len(back)),
        "nsd_2px": ((there <= 2).sum() + (back <= 2).sum()) / (len(there) + len(back)),
        "boundary_iou": (bands[0] & bands[1]).sum() / (bands[0] | bands[1]).sum(),
    }


@pytest.mark.slow
def test_random_pairs_against_brute_force() -> None:
    """Breaks if an edge, a distance, a percentile or an empty-mask rule is computed otherwise."""
    empty = 0
    for prediction, truth in random_pairs():
        scores = surface_scores(prediction, truth)
        for name, expected in brute_force(prediction, truth).items():
            assert scores[name] == pytest.approx(expected, abs=1e-5), name
        empty += not prediction.any() or not truth.any()
    assert empty >= 30


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_random_pairs_against_monai() -> None:
    """Breaks if cropping once instead of MONAI's way changes a number."""
    from monai.metrics import (
        compute_average_surface_distance,
        compute_hausdorff_distance,
        compute_surface_dice,
    )

    compared = 0
    for prediction, truth in random_pairs(60):
        if not prediction.any() or not truth.any():
            continue
        y_pred, y = (torch.from_numpy(mask)[None, None] for mask in (prediction, truth))
        scores = surface_scores(prediction, truth)
        everything = {"include_background": True}
        expected = {
            "hd95": compute_hausdorff_distance(y_pred, y, percentile=95, **everything),
            "assd": compute_average_surface_distance(y_pred, y, symmetric=True, **everything),
            "nsd_2px": compute_surface_dice(y_pred, y, [2.0], **everything),
        }
        for name, value in expected.items():
            assert scores[name] == pytest.approx(value.item(), abs=1e-4), name
        compared += 1
    assert compared > 40


def test_hand_worked_squares() -> None:
    """Breaks if distances are of areas instead of edges, or mm are not pixels times their size.

    Two 4×4 squares, three columns apart: every edge pixel of the outer columns is 3 away, of the
    others 2, 1 or 0.
    """
    truth, prediction = np.zeros((2, 20, 30), bool)
    truth[5:9, 5:9] = prediction[5:9, 8:12] = True
    scores = surface_scores(prediction, truth, (0, 3), 0.2, (0.6,))
    # per direction 12 edge pixels: far column 4 at 3, its neighbours 2 at 2 and 2 at 1, near 4 at 0
    distances = [3] * 4 + [2] * 2 + [1] * 2 + [0] * 4
    assert scores["assd"] == pytest.approx(np.mean(distances))
    assert scores["hd95"] == pytest.approx(3)
    assert scores["nsd_0px"] == pytest.approx(4 / 12)
    assert scores["nsd_3px"] == scores["nsd_0.6mm"] == 1
    assert scores["hd95_mm"] == pytest.approx(0.6)
    assert scores["assd_mm"] == pytest.approx(0.2 * scores["assd"])
    assert boundary_iou(prediction, truth, 1) == pytest.approx(4 / 20)


@pytest.mark.parametrize(
    ("predicted", "true", "overlap", "distance"),
    [(False, False, 1, 0), (True, False, 0, 50), (False, True, 0, 50), (True, True, 1, 0)],
)
def test_empty_masks(predicted: bool, true: bool, overlap: float, distance: float) -> None:
    """Breaks if a missed or made-up lesion is NaN, is dropped, or is forgiven by a tolerance.

    The image is 30 × 40, its diagonal 50 px; a tolerance above that must not help.
    """
    prediction, truth = np.zeros((2, 30, 40), bool)
    prediction[10, 10], truth[10, 10] = predicted, true
    scores = surface_scores(prediction, truth, (2, 5, 100), 0.1, (1, 100))
    assert {scores[name] for name in scores if not name.startswith(("hd", "assd"))} == {overlap}
    assert scores["hd95"] == scores["assd"] == distance
    assert scores["hd95_mm"] == pytest.approx(0.1 * distance)


masks = arrays(bool, (9, 11))


@settings(max_examples=60, deadline=None)
@given(masks, masks)
def test_symmetry_range_and_flips(prediction: np.ndarray, truth: np.ndarray) -> None:
    """Breaks if a score depends on the order of the masks or on the image's orientation."""
    scores = surface_scores(prediction, truth, pixel_size_mm=0.5)
    swapped = surface_scores(truth, prediction, pixel_size_mm=0.5)
    flipped = surface_scores(prediction[::-1, ::-1], truth[::-1, ::-1], pixel_size_mm=0.5)
    turned = surface_scores(prediction.T, truth.T, pixel_size_mm=0.5)
    for other in (swapped, flipped, turned):
        assert other == pytest.approx(scores)
    assert all(0 <= scores[name] <= 1 for name in OVERLAPS)
    diagonal = float(np.hypot(9, 11))
    assert all(0 <= scores[name] <= diagonal for name in DISTANCES)
    assert scores["nsd_2px"] <= scores["nsd_5px"]
    same = surface_scores(truth, truth)
    assert (same["hd95"], same["nsd_2px"], same["boundary_iou"]) == (0, 1, 1)


def test_distances_are_given_in_both_directions() -> None:
    """Breaks if a far speck of one mask only counts in the other's direction."""
    truth, prediction = np.zeros((2, 20, 20), bool)
    truth[5, 5] = prediction[5, 5] = prediction[5, 15] = True
    there, back = surface_distances(prediction, truth)
    assert sorted(there) == [0, 10]
    assert back.tolist() == [0]
