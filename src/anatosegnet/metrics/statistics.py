"""Uncertainty of scores: intervals over images, tests between models, Holm's correction.

Cases of one group (a patient, near-duplicates) are not independent. They are resampled and
permuted together; a case without a group stands alone.
"""

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from scipy import stats

CONFIDENCE = 0.95
RESAMPLES = 2000
PERMUTATIONS = 9999
BATCH = 250  # resamples at once, of any statistic


def interval(
    values: Sequence[float] | np.ndarray,
    groups: Sequence[str] | None = None,
    weights: Sequence[float] | np.ndarray | None = None,
    confidence: float = CONFIDENCE,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> tuple[float, float] | None:
    """Bootstrap interval of a mean, or of a ratio of sums, over independent groups of images.

    The bias-corrected and accelerated bootstrap (Efron 1987) of ``scipy.stats.bootstrap``.

    Args:
        values: (N,) one per image.
        groups: (N,) images of one name are drawn together; default: each image alone.
        weights: (N,) the ratio's denominator: sum(values) / sum(weights); default: ones, which
            gives the mean.
        confidence: Of the interval.
        resamples: Drawn.
        seed: Of the draws.

    Returns:
        (low, high), or None where fewer than two groups leave nothing to draw from.
    """
    values = np.asarray(values, np.float64)
    weights = np.ones_like(values) if weights is None else np.asarray(weights, np.float64)
    index = _group_index(groups, len(values))
    sums, sizes = np.bincount(index, values), np.bincount(index, weights)
    sums, sizes = sums[sizes > 0], sizes[sizes > 0]  # without weight nothing would be divided
    if len(sums) < 2:
        return None
    ratios = sums / sizes
    if np.ptp(ratios) == 0:
        return float(ratios[0]), float(ratios[0])
    return _bca((sums, sizes), _ratio, confidence, resamples, seed, paired=True)


def bootstrap_interval(
    statistic: Callable[[np.ndarray], np.ndarray],
    groups: Sequence[str],
    confidence: float = CONFIDENCE,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> tuple[float, float] | None:
    """The bootstrap interval of `interval`, of any statistic of images.

    Args:
        statistic: Weights (R, N), how often each image was drawn -> its values (R,); NaN where
            there is none.
        groups: (N,) images of one name are drawn together.
        confidence: Of the interval.
        resamples: Drawn.
        seed: Of the draws.

    Returns:
        (low, high), or None where fewer than two groups, or draws without a value, leave nothing.
    """
    index = _group_index(groups, len(groups))
    count = int(index.max(initial=-1)) + 1
    if count < 2:
        return None

    def drawn(sample: np.ndarray, axis: int = -1) -> np.ndarray:
        rows = np.atleast_2d(sample)
        places = rows + count * np.arange(len(rows))[:, None]
        times = np.bincount(places.ravel(), minlength=len(rows) * count).reshape(-1, count)
        return statistic(times[:, index]).reshape(sample.shape[:-1])

    return _bca((np.arange(count),), drawn, confidence, resamples, seed, batch=BATCH)


def paired_p(
    values: Sequence[float] | np.ndarray,
    baseline: Sequence[float] | np.ndarray,
    groups: Sequence[str] | None = None,
    permutations: int = PERMUTATIONS,
    seed: int = 0,
) -> float:
    """Two-sided p of a paired permutation test of the mean difference on the same images.

    ``scipy.stats.permutation_test``: within each group of images the two models change places
    or not; exact where fewer permutations exist than are asked for.

    Args:
        values: (N,) scores of one model.
        baseline: (N,) scores of the other, of the same images in the same order.
        groups: (N,) images of one name change places together.
        permutations: Drawn; the smallest p is 2 / (permutations + 1).
        seed: Of the draws.

    Returns:
        p in (0, 1]; 1 where nothing differs.
    """
    values, baseline = np.asarray(values, np.float64), np.asarray(baseline, np.float64)
    if len(values) != len(baseline):
        raise ValueError(f"{len(values)} and {len(baseline)} scores are not pairs")
    index = _group_index(groups, len(values))
    first, second = np.bincount(index, values), np.bincount(index, baseline)
    if np.allclose(first, second, rtol=0, atol=1e-12):
        return 1.0
    if len(first) < 2:
        return 1.0  # a single pair can be swapped to the same distance only
    result = stats.permutation_test(
        (first, second),
        _difference,
        permutation_type="samples",
        vectorized=True,
        n_resamples=permutations,
        rng=np.random.default_rng(seed),
    )
    return min(float(result.pvalue), 1.0)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction for several tests (Holm 1979).

    Args:
        p_values: Of the tests, in any order.

    Returns:
        Corrected p in the same order; below a level, the family's error is too.
    """
    order = np.argsort(p_values, kind="stable")
    corrected = np.empty(len(p_values))
    largest = 0.0
    for rank, position in enumerate(order):
        largest = max(largest, min((len(p_values) - rank) * p_values[position], 1.0))
        corrected[position] = largest
    return corrected.tolist()


def mean_and_deviation(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean and sample standard deviation (n - 1) over runs; None for a single run."""
    deviation = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return float(np.mean(values)), deviation


def independent_groups(names: Sequence[str], groups: Sequence[str]) -> list[str]:
    """The group of each case, or one of its own where it has none (``""``)."""
    return [
        f"group {group}" if group else f"case {name}"
        for name, group in zip(names, groups, strict=True)
    ]


def _group_index(groups: Sequence[str] | None, count: int) -> np.ndarray:
    if groups is None:
        return np.arange(count)
    if len(groups) != count:
        raise ValueError(f"{len(groups)} groups do not fit {count} values")
    return np.unique(np.asarray(groups), return_inverse=True)[1]


def _ratio(sums: np.ndarray, sizes: np.ndarray, axis: int = -1) -> Any:
    return sums.sum(axis=axis) / sizes.sum(axis=axis)


def _difference(first: np.ndarray, second: np.ndarray, axis: int = -1) -> Any:
    return (first - second).mean(axis=axis)


def _bca(
    data: tuple[np.ndarray, ...],
    statistic: Callable[..., Any],
    confidence: float,
    resamples: int,
    seed: int,
    **options: Any,
) -> tuple[float, float] | None:
    """The BCa interval of ``scipy.stats.bootstrap``, or of percentiles where draws degenerate.

    None where no draw has a value.
    """
    with warnings.catch_warnings():  # a degenerate draw is dealt with below
        warnings.simplefilter("ignore", stats.DegenerateDataWarning)
        warnings.simplefilter("ignore", RuntimeWarning)
        result = stats.bootstrap(
            data,
            statistic,
            vectorized=True,
            n_resamples=resamples,
            confidence_level=confidence,
            method="BCa",
            rng=np.random.default_rng(seed),
            **options,
        )
    low, high = (float(end) for end in result.confidence_interval)
    if not np.isfinite([low, high]).all():
        values = result.bootstrap_distribution[np.isfinite(result.bootstrap_distribution)]
        if not len(values):
            return None
        tail = (1 - confidence) / 2
        low, high = np.quantile(values, [tail, 1 - tail]).tolist()
    return low, high
