"""How sure a segmentation is: of each pixel, of its members, and of the image as a whole."""

import numpy as np


def predictive_entropy(probability: np.ndarray) -> np.ndarray:
    """Entropy of lesion or background in each pixel.

    Args:
        probability: (...) in [0, 1], of lesion.

    Returns:
        (...) float32 in [0, 1], in bits: 0 where it is sure, 1 where the probability is one half.
    """
    p = np.asarray(probability, np.float32)
    q = 1 - p
    tiny = np.finfo(np.float32).tiny  # 0 log 0 = 0
    bits = -(p * np.log2(np.maximum(p, tiny)) + q * np.log2(np.maximum(q, tiny)))
    return np.clip(bits, 0, 1)


def mutual_information(members: np.ndarray) -> np.ndarray:
    """What the members of an ensemble disagree about (Depeweg et al. 2018).

    The entropy of their mean without the mean of their entropies: 0 where all say the same, however
    unsure each is, and 1 where half of them are sure of a lesion and half of background.

    Args:
        members: (M, ...) in [0, 1], the probability that each gives.

    Returns:
        (...) float32 in [0, 1], in bits.
    """
    apart = predictive_entropy(members.mean(axis=0)) - predictive_entropy(members).mean(axis=0)
    return np.clip(apart, 0, 1)


def image_uncertainty(probability: np.ndarray, mask: np.ndarray) -> float:
    """How likely the mask of an image is a bad one: 1 - its soft Dice with its own probability.

    1 - 2 Σ p·mask / (Σ p + Σ mask), one less the soft Dice confidence of Borges et al. (2024): the
    Dice that the mask has with the probability that it was cut from.

    Args:
        probability: (H, W) in [0, 1], of lesion.
        mask: (H, W) bool, that was predicted.

    Returns:
        In [0, 1]; 0 = sure. 1 where the mask is empty: of nothing found nothing can be known to be
        right, and a lesion that was missed is the dearest mistake.
    """
    found = int(np.count_nonzero(mask))
    if not found:
        return 1.0
    inside = float(probability[mask].sum(dtype=np.float64))
    return 1 - 2 * inside / (float(probability.sum(dtype=np.float64)) + found)
