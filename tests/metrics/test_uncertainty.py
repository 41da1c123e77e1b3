"""Entropy, and what members disagree about, on cases known by heart."""

import numpy as np
import pytest
from scipy.stats import entropy

from anatosegnet.metrics.uncertainty import (
    image_uncertainty,
    mutual_information,
    predictive_entropy,
)


def test_entropy_is_that_of_a_coin() -> None:
    """Breaks if it is in other units, or no number where the network is sure."""
    p = np.array([0, 1e-45, 0.1, 0.5, 0.9, 1], np.float32)
    expected = [entropy([each, 1 - each], base=2) for each in p.astype(float)]
    assert predictive_entropy(p) == pytest.approx(expected, abs=1e-6)
    assert np.isnan(predictive_entropy(np.array([np.nan]))).all()


def test_members_that_agree_share_no_uncertainty() -> None:
    """Breaks if mutual information is that of one member, or below 0."""
    unsure = np.full((3, 2, 4, 4), 0.5, np.float32)
    assert (mutual_information(unsure) == 0).all()
    apart = np.stack([np.zeros((1, 2, 2)), np.ones((1, 2, 2))])
    assert (mutual_information(apart) == 1).all()
    drawn = np.random.default_rng(0).random((5, 3, 8, 8), np.float32)
    found = mutual_information(drawn)
    assert found.shape == (3, 8, 8) and (found >= 0).all()
    assert (found <= predictive_entropy(drawn.mean(axis=0)) + 1e-6).all()


def test_the_uncertainty_of_an_image_by_hand() -> None:
    """Breaks if it is not 1 - soft Dice, or an empty mask is called sure."""
    probability = np.array([[1.0, 0.6], [0.4, 0.0]], np.float32)
    mask = probability > 0.5
    assert image_uncertainty(probability, mask) == pytest.approx(1 - 2 * 1.6 / (2 + 2))
    assert image_uncertainty(mask.astype(np.float32), mask) == 0
    assert image_uncertainty(np.zeros((4, 4), np.float32), np.zeros((4, 4), bool)) == 1
    large = np.full((3000, 3000), 0.51, np.float32)
    assert image_uncertainty(large, large > 0.5) == pytest.approx(1 - 2 * 0.51 / 1.51)
