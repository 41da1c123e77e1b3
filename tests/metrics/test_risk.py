"""Risk-coverage on orders that can be counted by hand, and against scikit-learn."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from anatosegnet.metrics.risk import Risk, risk_summary
from anatosegnet.metrics.statistics import bootstrap_interval, interval


def drawn(count: int = 60, seed: int = 0, ties: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """Uncertainty that knows a little of the IoU, both (count,)."""
    rng = np.random.default_rng(seed)
    iou = rng.random(count)
    uncertainty = 0.5 * (1 - iou) + 0.5 * rng.random(count)
    return (uncertainty.round(1) if ties else uncertainty), iou


def area_by_hand(uncertainty: np.ndarray, iou: np.ndarray) -> float:
    """The AURC over many random orders of equals."""
    rng, areas = np.random.default_rng(1), []
    for _ in range(4000):
        order = np.lexsort([rng.random(len(iou)), uncertainty])
        loss = 1 - iou[order]
        areas.append(np.mean(loss.cumsum() / np.arange(1, len(loss) + 1)))
    return float(np.mean(areas))


def test_a_curve_by_hand() -> None:
    """Breaks if the surest images are not kept first, or a coverage is left out."""
    risk = Risk([0.1, 0.4, 0.2, 0.3], [1.0, 0.0, 0.8, 0.6])
    assert np.array(risk.curve()) == pytest.approx(
        np.array([[0.25, 1], [0.5, 0.9], [0.75, 0.8], [1, 0.6]])
    )
    assert risk.score("aurc")[0] == pytest.approx((0 + 0.1 + 0.2 + 0.4) / 4)
    assert risk.score("excess_aurc")[0] == pytest.approx(0)
    assert risk.score("failure_auroc")[0] == 1
    worst = Risk([0.4, 0.1, 0.3, 0.2], [1.0, 0.0, 0.8, 0.6])
    assert worst.score("aurc")[0] == pytest.approx((1 + 0.7 + 1.6 / 3 + 0.4) / 4)
    assert worst.score("failure_auroc")[0] == 0


def test_equals_count_as_their_mean() -> None:
    """Breaks if images of one uncertainty are scored in the order they come."""
    uncertainty, iou = drawn()
    found = Risk(uncertainty, iou).score("aurc")[0]
    assert found == pytest.approx(area_by_hand(uncertainty, iou), abs=1e-3)
    again = np.random.default_rng(2).permutation(len(iou))
    assert Risk(uncertainty[again], iou[again]).score("aurc")[0] == pytest.approx(found)
    same = Risk(np.full(60, 0.3), iou)
    assert same.score("aurc")[0] == pytest.approx(1 - iou.mean())
    assert same.score("failure_auroc")[0] == 0.5
    assert np.array(same.curve())[:, 1] == pytest.approx(iou.mean())


def test_auroc_against_scikit_learn() -> None:
    """Breaks if failures are counted at another IoU, or ties as wins."""
    for seed in range(5):
        uncertainty, iou = drawn(seed=seed)
        expected = roc_auc_score(iou < 0.5, uncertainty)
        assert Risk(uncertainty, iou).score("failure_auroc")[0] == pytest.approx(expected)


def test_weights_are_images_that_come_again() -> None:
    """Breaks if the bootstrap scores other draws than those of whole images."""
    uncertainty, iou = drawn(ties=False)
    times = np.random.default_rng(3).integers(0, 4, (3, len(iou)))
    for name in ("aurc", "excess_aurc", "failure_auroc"):
        together = Risk(uncertainty, iou).score(name, times)
        for row, value in zip(times, together, strict=True):
            repeated = Risk(np.repeat(uncertainty, row), np.repeat(iou, row))
            assert value == pytest.approx(repeated.score(name)[0])


def test_no_failure_or_nothing_else_has_no_auroc() -> None:
    """Breaks if a score is made up where there is none, or the summary holds NaN."""
    summary, intervals = risk_summary([0.1, 0.2, 0.3], [0.9, 0.8, 0.7], ["a", "b", "c"])
    assert summary["failure_auroc"] is None and summary["failures"] == 0
    assert "failure_auroc" not in intervals and {*intervals} == {"aurc", "excess_aurc"}
    summary, intervals = risk_summary([0.1], [0.2], ["a"])
    assert summary["aurc"] == pytest.approx(0.8) and intervals == {}
    assert summary["risk_coverage"] == [[1.0, pytest.approx(0.2)]]


def test_intervals_hold_the_value_and_draw_groups_together() -> None:
    """Breaks if cases of one group are drawn apart."""
    uncertainty, iou = drawn(80)
    alone, ends = risk_summary(uncertainty, iou, [str(index) for index in range(80)])
    for name in ("aurc", "excess_aurc", "failure_auroc"):
        low, high = ends[name]
        assert low <= alone[name] <= high
    twice, groups = np.repeat(iou, 2), [str(index // 2) for index in range(160)]
    unsure = np.repeat(uncertainty, 2)
    _, together = risk_summary(unsure, twice, groups)
    assert together["failure_auroc"] == pytest.approx(ends["failure_auroc"])
    assert len(risk_summary(unsure, twice, groups)[0]["risk_coverage"]) == 100


def test_the_interval_of_any_statistic_is_that_of_a_mean() -> None:
    """Breaks if weights are not how often an image was drawn."""
    values = np.random.default_rng(0).random(40)
    groups = [str(index // 2) for index in range(40)]

    def mean(weights: np.ndarray) -> np.ndarray:
        return (weights * values).sum(axis=1) / weights.sum(axis=1)

    assert bootstrap_interval(mean, groups) == pytest.approx(interval(values, groups))
    assert bootstrap_interval(mean, ["one"] * 40) is None
