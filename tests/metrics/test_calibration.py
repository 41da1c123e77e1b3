"""Calibration against hand-worked cases and a simulation."""

import numpy as np
import pytest

from anatosegnet.metrics.calibration import brier_score, calibration_summary, reliability


def summary(*pairs: tuple[np.ndarray, np.ndarray]) -> dict:
    """Calibration of (probability, truth) images."""
    return calibration_summary(
        [reliability(*pair) for pair in pairs], [brier_score(*pair) for pair in pairs]
    )


def test_hand_worked() -> None:
    """Breaks if bins, frequencies or their weights are computed otherwise.

    Four pixels: two at 0.1 of which none is lesion, two at 0.85 of which one is.
    """
    probability = np.array([[0.1, 0.1, 0.85, 0.85]], np.float32)
    truth = np.array([[False, False, True, False]])
    result = summary((probability, truth))
    assert result["ece"] == pytest.approx(0.5 * 0.1 + 0.5 * 0.35, abs=1e-6)
    assert result["brier"] == pytest.approx((0.01 * 2 + 0.15**2 + 0.85**2) / 4, abs=1e-6)
    low, high = result["bins"]
    assert (low["share"], high["share"]) == (0.5, 0.5)
    assert (low["frequency"], high["frequency"]) == (0, 0.5)
    assert (low["confidence"], high["confidence"]) == pytest.approx((0.1, 0.85), abs=1e-6)


def test_images_weigh_the_same() -> None:
    """Breaks if a large image counts for more than a small one."""
    right = (np.zeros((4, 4), np.float32), np.zeros((4, 4), bool))
    wrong = (np.ones((40, 40), np.float32), np.zeros((40, 40), bool))
    result = summary(right, wrong)
    assert result["ece"] == result["brier"] == pytest.approx(0.5)


def test_calibrated_and_overconfident() -> None:
    """Breaks if ECE does not tell honest probabilities from exaggerated ones."""
    random = np.random.default_rng(0)
    honest = random.uniform(0, 1, (300, 300)).astype(np.float32)
    truth = random.uniform(0, 1, honest.shape) < honest
    assert summary((honest, truth))["ece"] < 0.01
    exaggerated = (honest > 0.5).astype(np.float32)
    assert summary((exaggerated, truth))["ece"] == pytest.approx(0.25, abs=0.01)


def test_certain_probabilities_have_a_bin() -> None:
    """Breaks if a probability of exactly 1 falls out of the last bin."""
    result = summary((np.ones((2, 2), np.float32), np.ones((2, 2), bool)))
    assert result["bins"] == [{"confidence": 1, "frequency": 1, "share": 1}]
