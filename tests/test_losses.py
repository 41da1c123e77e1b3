"""The Dice + cross-entropy loss against its formula."""

import torch
from torch.nn import functional as F

from anatosegnet.losses import DiceCELoss


def test_value_is_the_formula() -> None:
    """Breaks if background enters the Dice term, or a weight is ignored."""
    torch.manual_seed(0)
    logits, mask = torch.randn(3, 2, 6, 5), torch.randint(0, 2, (3, 6, 5))
    p, y = logits.softmax(1)[:, 1].flatten(1), mask.flatten(1)
    dice = (1 - (2 * (p * y).sum(1) + 1e-5) / (p.sum(1) + y.sum(1) + 1e-5)).mean()
    expected = 0.5 * dice + 2 * F.cross_entropy(logits, mask)
    torch.testing.assert_close(DiceCELoss(0.5, 2.0)(logits, mask), expected)


def test_a_certain_right_answer_costs_nothing() -> None:
    """Breaks if the loss has a floor above 0, for instance on an empty mask."""
    mask = torch.zeros(1, 4, 4, dtype=torch.int64)
    logits = torch.stack([torch.full((1, 4, 4), 20.0), torch.full((1, 4, 4), -20.0)], dim=1)
    assert DiceCELoss()(logits, mask).item() < 1e-3
