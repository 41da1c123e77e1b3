"""Whether probabilities mean what they say: of the pixels said to be lesion at 70 %, are 70 %?"""

from collections.abc import Sequence
from typing import Any

import numpy as np

BINS = 10


def reliability(probability: np.ndarray, truth: np.ndarray, bins: int = BINS) -> np.ndarray:
    """Sums of one image by bins of its lesion probability, per pixel of the image.

    Args:
        probability: (H, W) in [0, 1], at the size that is scored.
        truth: (H, W) bool.
        bins: Of equal width over [0, 1].

    Returns:
        (3, bins) float64: share of the pixels, sum of their probabilities, share that is lesion.
    """
    flat = probability.ravel()
    index = np.minimum((flat * bins).astype(np.int64), bins - 1)
    sums = [
        np.bincount(index, minlength=bins),
        np.bincount(index, flat, bins),
        np.bincount(index[truth.ravel()], minlength=bins),
    ]
    return np.stack(sums) / flat.size


def brier_score(probability: np.ndarray, truth: np.ndarray) -> float:
    """Mean over pixels of (probability - truth)², in [0, 1]; 0 is best."""
    return float(np.mean(np.square(probability - truth), dtype=np.float64))


def calibration_summary(images: Sequence[np.ndarray], brier: Sequence[float]) -> dict[str, Any]:
    """Calibration over images, each image weighing the same.

    Args:
        images: What `reliability` gave for each image.
        brier: Their Brier scores.

    Returns:
        ``ece``, the expected calibration error: mean over pixels of |frequency - confidence| of
        their bin; ``brier``; ``pixels``, which pixels were used; and ``bins``, a list of
        ``confidence`` (mean probability), ``frequency`` (share that is lesion) and ``share`` (of
        all pixels), empty bins left out.
    """
    shares, confidences, frequencies = np.mean(images, axis=0)
    used = shares > 0
    return {
        "ece": float(np.abs(frequencies - confidences).sum()),
        "brier": float(np.mean(brier)),
        "pixels": "all pixels at the scored size, each image weighing the same",
        "bins": [
            {"confidence": confidence / share, "frequency": frequency / share, "share": share}
            for share, confidence, frequency in zip(
                shares[used].tolist(),
                confidences[used].tolist(),
                frequencies[used].tolist(),
                strict=True,
            )
        ],
    }
