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
