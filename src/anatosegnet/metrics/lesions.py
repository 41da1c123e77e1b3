"""Whole lesions: which were found, which were missed, which were made up."""

from typing import NamedTuple

import cv2
import numpy as np
from scipy.optimize import linear_sum_assignment

HIT_IOU = 0.5
CONNECTIVITY = 8  # pixels that touch at edges or corners are of one lesion


class Detection(NamedTuple):
    """Lesions of one image: those there are, found, missed; and predicted ones without a match."""

    lesions: int
    hit: int
    missed: int
    false: int


def detect(prediction: np.ndarray, truth: np.ndarray, hit_iou: float = HIT_IOU) -> Detection:
    """Match the lesions of a prediction with those of the truth.

    A lesion is a set of pixels that touch at edges or corners; there is no smallest size. Pairs
    of IoU ≥ ``hit_iou`` are matched one to one, as many as possible.

    Args:
        prediction: (H, W) bool.
        truth: (H, W) bool.
        hit_iou: At and above this IoU a lesion counts as found.
    """
    either = prediction | truth
    if not either.any():
        return Detection(0, 0, 0, 0)
    rows, columns = bounding_box(either)
    predicted_count, predicted = _components(prediction[rows, columns])
    true_count, true = _components(truth[rows, columns])
    if predicted_count == 0 or true_count == 0:
        return Detection(true_count, 0, true_count, predicted_count)
    # overlap[i, j]: pixels that are in component i of the truth and j of the prediction
    pairs = true.astype(np.int64) * (predicted_count + 1) + predicted
    bins = (true_count + 1) * (predicted_count + 1)
    overlap = np.bincount(pairs.ravel(), minlength=bins).reshape(true_count + 1, -1)
    areas, predicted_areas = overlap.sum(axis=1)[1:, None], overlap.sum(axis=0)[None, 1:]
    overlap = overlap[1:, 1:]
    found = overlap >= hit_iou * (areas + predicted_areas - overlap)
    hit = int(found[linear_sum_assignment(found, maximize=True)].sum())
    return Detection(true_count, hit, true_count - hit, predicted_count - hit)


def bounding_box(mask: np.ndarray) -> tuple[slice, slice]:
    """Rows and columns that hold all of a mask (H, W) that is not empty."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)


def _components(mask: np.ndarray) -> tuple[int, np.ndarray]:
    count, labels = cv2.connectedComponents(mask.astype(np.uint8), connectivity=CONNECTIVITY)
    return count - 1, labels
