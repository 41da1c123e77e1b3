"""Intervals cover, tests keep their level, corrections are right."""

import numpy as np
import pytest
from scipy import stats

from anatosegnet.metrics.statistics import (
    holm,
    independent_groups,
    interval,
    mean_and_deviation,
    paired_p,
)


@pytest.mark.slow
def test_intervals_cover_the_truth() -> None:
    """Breaks if 95 % intervals of skewed scores hold the true mean in other than 93 to 97 %."""
    random = np.random.default_rng(4)
    truth = 5 / 6.5
    scores = random.beta(5, 1.5, (500, 120))  # as IoU: most good, a tail of failures
    covered = [low <= truth <= high for low, high in map(interval_of_thousand, scores)]
    assert 0.93 <= np.mean(covered) <= 0.97


def interval_of_thousand(scores: np.ndarray) -> tuple[float, float]:
    """With fewer draws than by default: the test is about coverage, not digits."""
    ends = interval(scores, resamples=1000)
    assert ends is not None
    return ends


@pytest.mark.slow
def test_groups_widen_intervals_to_cover() -> None:
    """Breaks if images of one patient count as independent: intervals are then too narrow."""
    random = np.random.default_rng(5)
    groups = np.repeat([f"patient {i}" for i in range(60)], 4)
    alone, grouped = [], []
    for _ in range(200):
        scores = np.repeat(random.normal(0.7, 0.1, 60), 4) + random.normal(0, 0.03, 240)
        low, high = interval(scores, resamples=500) or (0, 0)
        alone.append(low <= 0.7 <= high)
        low, high = interval(scores, groups, resamples=500) or (0, 0)
        grouped.append(low <= 0.7 <= high)
    assert np.mean(alone) < 0.8
    assert 0.91 <= np.mean(grouped) <= 0.98


def test_ratio_of_sums() -> None:
    """Breaks if a pooled score's interval is that of the mean of ratios."""
    hits, unions = np.tile([90.0, 1, 80, 2], 20), np.tile([100.0, 10, 100, 10], 20)
    low, high = interval(hits, weights=unions) or (0, 0)
    assert low < hits.sum() / unions.sum() < high
    assert low > (hits / unions).mean()


def test_degenerate_intervals() -> None:
    """Breaks if one image, or images that all agree, give NaN or a warning."""
    assert interval([0.4]) is None
    assert interval([0.4, 0.6], ["same", "same"]) is None
    assert interval([0.4, 0.4, 0.4]) == (0.4, 0.4)
    low, high = interval([1.0] * 50 + [0.0]) or (0, 0)
    assert 0 < low < high <= 1
    assert interval([0.2, 0.9, 0.4], seed=3) == interval([0.2, 0.9, 0.4], seed=3)


@pytest.mark.slow
def test_paired_p_keeps_its_level_and_finds_differences() -> None:
    """Breaks if the test rejects equal models too often, or overlooks a real difference."""
    random = np.random.default_rng(6)
    p = [paired_p(a, b, permutations=199) for a, b in random.normal(size=(400, 2, 30)) * 0.1]
    assert 0.02 <= np.mean(np.array(p) <= 0.05) <= 0.08
    baseline = random.uniform(0.5, 0.9, 40)
    assert paired_p(baseline + random.normal(0.03, 0.02, 40), baseline) < 0.001


def test_paired_p_against_wilcoxon_and_by_hand() -> None:
    """Breaks if the test is not paired, or not exact where it can be."""
    baseline = np.array([0.5, 0.6, 0.7, 0.8])
    better = baseline + np.array([0.1, 0.2, 0.3, 0.4])
    assert paired_p(better, baseline) == pytest.approx(2 / 2**4)  # only all signs alike are as far
    assert stats.wilcoxon(better, baseline).pvalue == pytest.approx(2 / 2**4)
    assert paired_p(better, baseline, ["a", "a", "b", "b"]) == pytest.approx(2 / 2**2)
    assert paired_p(baseline, baseline) == 1
    with pytest.raises(ValueError, match="pairs"):
        paired_p(baseline, baseline[:2])


def test_holm() -> None:
    """Breaks if the correction is Bonferroni's, is not monotone, or loses the order."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.7]) == [1, 1]
    assert holm([]) == []


def test_mean_and_deviation() -> None:
    """Breaks if the deviation over runs divides by n, or one run pretends to have one."""
    assert mean_and_deviation([0.6, 0.8]) == pytest.approx((0.7, np.sqrt(0.02)))
    assert mean_and_deviation([0.6]) == (0.6, None)


def test_cases_without_a_group_stand_alone() -> None:
    """Breaks if all cases without a group become one, or a name collides with a group."""
    groups = independent_groups(["a", "b", "c", "d"], ["", "", "a", "a"])
    assert len(set(groups)) == 3
    assert groups[2] == groups[3]
