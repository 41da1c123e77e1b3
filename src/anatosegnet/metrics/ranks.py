"""Ranks of several networks scored on the same images, and how far they can be trusted."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

from anatosegnet.metrics.statistics import CONFIDENCE, RESAMPLES

BEST = 3  # places that count as being among the best
LEVEL = 0.05  # of the critical difference


class Rank(NamedTuple):
    """The rank of a network by its mean score, 1 the best.

    Attributes:
        rank: Of the mean over all images.
        low: End of the interval over resampled groups of images.
        high: The other.
        among_best: Share of the resamples in which it is among the best `BEST`.
    """

    rank: float
    low: float
    high: float
    among_best: float


def ranks(
    scores: np.ndarray,
    groups: Sequence[str],
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> list[Rank]:
    """Rank networks by their mean score; a bootstrap over groups of images says how surely.

    Args:
        scores: (N, K) of K networks on N images; higher is better.
        groups: (N,) images of one name are drawn together.
        resamples: Drawn.
        seed: Of the draws.

    Returns:
        K ranks; networks of the same mean share the mean of their places.
    """
    sums, sizes = _by_group(scores, groups)
    generator = np.random.default_rng(seed)
    count = len(sizes)
    drawn = generator.multinomial(count, np.full(count, 1 / count), size=resamples)
    means = (drawn @ sums) / (drawn @ sizes)[:, None]  # (resamples, K)
    places = stats.rankdata(-means, axis=1)
    tail = (1 - CONFIDENCE) / 2
    ends = np.quantile(places, [tail, 1 - tail], axis=0)
    whole = stats.rankdata(-sums.sum(axis=0))
    return [
        Rank(float(rank), float(low), float(high), float(share))
        for rank, low, high, share in zip(whole, *ends, (places <= BEST).mean(axis=0), strict=True)
    ]


def mean_ranks(scores: np.ndarray, groups: Sequence[str]) -> tuple[np.ndarray, int]:
    """Mean rank of each network over groups of images, and the number of groups.

    Args:
        scores: (N, K), higher is better; a group's score is the mean over its images.
        groups: (N,) name of the group of each image.

    Returns:
        (K,) mean ranks, 1 the best, and how many groups they are over.
    """
    sums, sizes = _by_group(scores, groups)
    places = stats.rankdata(-np.round(sums / sizes[:, None], 9), axis=1)
    return places.mean(axis=0), len(sizes)


def critical_difference(networks: int, blocks: int, level: float = LEVEL) -> float:
    """How far mean ranks must lie apart to differ at a level (Nemenyi 1963; Demšar 2006).

    Args:
        networks: That were ranked, at least two.
        blocks: Independent groups that each ranked them.
        level: Of the family of all pairs.
    """
    q = stats.studentized_range.ppf(1 - level, networks, np.inf) / np.sqrt(2)
    return float(q * np.sqrt(networks * (networks + 1) / (6 * blocks)))


def _by_group(scores: np.ndarray, groups: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """(G, K) sums and (G,) sizes of groups of images."""
    scores = np.asarray(scores, np.float64)
    index = np.unique(np.asarray(groups), return_inverse=True)[1]
    sums = np.stack([np.bincount(index, column) for column in scores.T], axis=1)
    return sums, np.bincount(index).astype(np.float64)
