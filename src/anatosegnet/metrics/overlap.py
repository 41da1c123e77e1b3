"""Per-image scores of the lesion class, and their conventions.

Counts of pixels are kept per image and turned into scores at the end, so no score depends on
the batch size or on the number of processes. Where truth and prediction are both empty every
overlap is 1; where one of them is, it is 0. Nothing is NaN, nothing is dropped. Boundaries are
scored in `surface`, whole lesions in `lesions`, probabilities in `calibration`.
"""

import numpy as np

BENCHMARK_BATCH = 8  # images of a validation batch in the public 2-D segmentation benchmark


def overlap_scores(counts: np.ndarray) -> dict[str, np.ndarray]:
    """IoU, Dice, precision and recall of each image from its pixel counts.

    Args:
        counts: (N, 3) integers: true positives, false positives, false negatives.

    Returns:
        ``iou``, ``dice``, ``precision``, ``recall``, each (N,) float64 in [0, 1].
    """
    hits, false_alarms, misses = np.asarray(counts, np.float64).reshape(-1, 3).T
    denominators = {
        "iou": hits + false_alarms + misses,
        "dice": hits + (false_alarms + misses) / 2,
        "precision": hits + false_alarms,
        "recall": hits + misses,
    }
    empty = (hits + false_alarms + misses) == 0
    return {
        score: np.where(empty, 1.0, hits / np.maximum(denominator, 0.5))
        for score, denominator in denominators.items()
    }


def specificity(counts: np.ndarray, pixels: np.ndarray) -> np.ndarray:
    """Share of each image's background that the prediction leaves alone.

    Args:
        counts: (N, 3) integers: true positives, false positives, false negatives.
        pixels: (N,) integers: pixels of the images.

    Returns:
        (N,) float64 in [0, 1]; 1 where an image has no background.
    """
    hits, false_alarms, misses = np.asarray(counts, np.float64).reshape(-1, 3).T
    background = pixels - hits - misses
    return np.where(background > 0, 1 - false_alarms / np.maximum(background, 1), 1.0)


def relative_area_error(counts: np.ndarray) -> np.ndarray:
    """Signed error of the lesion's area, relative to the larger of the two areas.

    Args:
        counts: (N, 3) integers: true positives, false positives, false negatives.

    Returns:
        (N,) float64 in [-1, 1]: (predicted - true) / max(predicted, true). -0.2 = the predicted
        area is a fifth too small; 0 where both are empty, ±1 where one is.
    """
    hits, false_alarms, misses = np.asarray(counts, np.float64).reshape(-1, 3).T
    larger = hits + np.maximum(false_alarms, misses)
    return (false_alarms - misses) / np.maximum(larger, 1)


def pooled_scores(counts: np.ndarray, batch: int | None = None) -> dict[str, float]:
    """IoU and Dice from pixels pooled over images: large lesions weigh more.

    Args:
        counts: (N, 3) integers: true positives, false positives, false negatives.
        batch: Pool inside batches of so many images in the given order, and average over the
            batches, each weighing as many as its images. None pools all images.

    Returns:
        ``iou`` and ``dice`` in [0, 1].
    """
    counts = np.asarray(counts).reshape(-1, 3)
    starts = np.arange(0, len(counts), batch or len(counts))
    sizes = np.diff([*starts, len(counts)])
    scores = overlap_scores(np.add.reduceat(counts, starts))
    return {name: float(np.average(scores[name], weights=sizes)) for name in ("iou", "dice")}
