"""Ranks of networks: against cases worked by hand and published critical values."""

import numpy as np
import pytest

from anatosegnet.metrics.ranks import critical_difference, mean_ranks, ranks
from anatosegnet.report.ranks import joined


def test_critical_differences_of_the_literature() -> None:
    """Breaks if the value is not that of Demšar (2006), table 5: q 2.569 of 4, 2.728 of 5."""
    assert critical_difference(4, 14) == pytest.approx(2.569 * np.sqrt(4 * 5 / (6 * 14)), abs=1e-3)
    assert critical_difference(5, 30) == pytest.approx(2.728 * np.sqrt(5 * 6 / (6 * 30)), abs=1e-3)


def test_mean_ranks_by_hand() -> None:
    """Breaks if ties do not share places, or images of a group count several times."""
    scores = np.array([[0.9, 0.8, 0.1], [0.7, 0.7, 0.2], [0.1, 0.4, 0.3], [0.9, 0.0, 0.3]])
    places, groups = mean_ranks(scores, ["a", "b", "c", "c"])
    assert groups == 3  # the two of c: means 0.5, 0.2, 0.3
    assert places.tolist() == pytest.approx([(1 + 1.5 + 1) / 3, (2 + 1.5 + 3) / 3, (3 + 3 + 2) / 3])


def test_a_clear_order_is_sure_and_a_tie_is_not() -> None:
    """Breaks if the interval of ranks does not come from the groups drawn."""
    random = np.random.default_rng(0)
    base = random.uniform(0.4, 0.8, 60)
    noise = random.normal(0, 0.05, (60, 3))
    scores = np.stack([base + 0.2, base, base, base - 0.2, base - 0.3], axis=1)
    scores[:, 1:4] += noise
    found = ranks(scores, [str(index) for index in range(60)])
    assert found[0] == (1, 1, 1, 1)
    assert {found[1].low, found[1].high} == {2, 3} and found[1].among_best == 1
    assert found[3].rank == 4 and found[3].among_best == 0
    together = ranks(scores, ["one"] * 60)  # nothing to draw from
    assert all(rank.low == rank.high == rank.rank for rank in together)


def test_bars_join_what_does_not_differ() -> None:
    """Breaks if a bar lies within another, or joins ranks that differ."""
    assert joined([1.0, 1.5, 2.4, 4.0], 1.0) == [(0, 1), (1, 2)]
    assert joined([1.0, 3.0], 1.0) == []
    assert joined([1.0, 1.1, 1.2], 1.0) == [(0, 2)]
