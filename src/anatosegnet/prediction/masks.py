"""From what a network says to a mask; knows no framework."""

import cv2
import numpy as np

THRESHOLD = 0.5  # of the probability; lesion lies above

WHY_NO_NUMBER = "its training diverged, or its precision is too low"
NO_NUMBER = f"the network's output is NaN or infinite: {WHY_NO_NUMBER}"


def mask_at(
    probability: np.ndarray, size: tuple[int, int], threshold: float = THRESHOLD
) -> np.ndarray:
    """Threshold a probability map (h, w) after linear resizing to (height, width)."""
    return probability_at(probability, size) > threshold


def probability_at(probability: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize a probability map (h, w) linearly to (height, width)."""
    if probability.shape == size:
        return probability
    height, width = size
    return cv2.resize(probability, (width, height), interpolation=cv2.INTER_LINEAR)
