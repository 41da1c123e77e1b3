"""The losses against their formulas and hand-worked numbers."""

import doctest
import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import anatosegnet.losses
from anatosegnet.losses import DiceCELoss, FocalLoss, HausdorffLoss, TverskyLoss
from anatosegnet.metrics.logits import two_logits

LOSSES = [DiceCELoss(), FocalLoss(), TverskyLoss(), HausdorffLoss()]


def logits_of(probabilities: list[list[float]]) -> Tensor:
    """Logits (1, 2, H, W) whose softmax gives the lesion these probabilities."""
    p = torch.tensor(probabilities)[None]
    return torch.stack([torch.zeros_like(p), torch.log(p / (1 - p))], dim=1)


def test_value_is_the_formula() -> None:
    """Breaks if background enters the Dice term, or a weight is ignored."""
    logits, mask = torch.randn(3, 2, 6, 5), torch.randint(0, 2, (3, 6, 5))
    p, y = logits.softmax(1)[:, 1].flatten(1), mask.flatten(1)
    dice = (1 - (2 * (p * y).sum(1) + 1e-5) / (p.sum(1) + y.sum(1) + 1e-5)).mean()
    expected = 0.5 * dice + 2 * F.cross_entropy(logits, mask)
    torch.testing.assert_close(DiceCELoss(0.5, 2.0)(logits, mask), expected)


def test_cross_entropy_of_two_classes_is_binary() -> None:
    """Breaks if the benchmark's 0.5·BCE + Dice is not what ce_weight=0.5 gives."""
    logits, mask = torch.randn(2, 2, 6, 5), torch.randint(0, 2, (2, 6, 5))
    x, y = logits[:, 1] - logits[:, 0], mask.float()
    p = x.sigmoid()
    overlap = 2 * (p * y).sum((1, 2)) + 1e-5
    dice = 1 - (overlap / (p.sum((1, 2)) + y.sum((1, 2)) + 1e-5)).mean()
    expected = 0.5 * F.binary_cross_entropy_with_logits(x, y) + dice
    torch.testing.assert_close(DiceCELoss(1.0, 0.5)(logits, mask), expected)


def test_focal_by_hand() -> None:
    """Breaks if the mean is taken over classes too, or alpha weighs the wrong class."""
    logits, mask = logits_of([[0.8, 0.3]]), torch.tensor([[[1, 0]]])
    lesion, background = -(0.2**2) * math.log(0.8), -(0.3**2) * math.log(0.7)
    assert FocalLoss()(logits, mask).item() == pytest.approx((lesion + background) / 2)
    weighed = FocalLoss(alpha=0.75)(logits, mask).item()
    assert weighed == pytest.approx((0.75 * lesion + 0.25 * background) / 2)
    plain = F.cross_entropy(logits, mask).item()
    assert FocalLoss(gamma=0)(logits, mask).item() == pytest.approx(plain)
    with pytest.raises(ValueError, match=r"gamma=0\.5 must be 0 or at least 1"):
        FocalLoss(gamma=0.5)


def test_tversky_by_hand() -> None:
    """Breaks if the prices of false alarms and misses are exchanged."""
    logits, mask = logits_of([[0.8, 0.3, 0.5]]), torch.tensor([[[1, 0, 1]]])
    hits, false_alarms, misses = 1.3, 0.3, 0.7
    expected = 1 - hits / (hits + 0.3 * false_alarms + 0.7 * misses)
    assert TverskyLoss()(logits, mask).item() == pytest.approx(expected, abs=1e-5)
    dice = 1 - 2 * hits / (1.6 + 2)
    assert TverskyLoss(0.5, 0.5)(logits, mask).item() == pytest.approx(dice, abs=1e-5)


def test_hausdorff_by_hand() -> None:
    """Breaks if distances are not of both outlines, or the mean is not over pixels, then images.

    Truth 1 0 0 0, prediction 0 0 0 1 at p = 0.9 and 0.1. Distances (inside to the background,
    outside to the lesion) of the truth are 1 1 2 3, of the prediction 3 2 1 1; their squares add
    up to 10 5 5 10. Errors squared are .81 .01 .01 .81.
    """
    logits, mask = logits_of([[0.1, 0.1, 0.1, 0.9]]), torch.tensor([[[1, 0, 0, 0]]])
    expected = math.log(1 + (0.81 * 10 + 0.01 * 5 + 0.01 * 5 + 0.81 * 10) / 4)
    loss = HausdorffLoss(hausdorff_weight=2.0, dice_weight=0, ce_weight=0)
    assert loss(logits, mask).item() == pytest.approx(2 * expected, abs=1e-5)
    right = torch.tensor([[[0, 0, 0, 1]]])
    both = loss(torch.cat([logits, logits]), torch.cat([mask, right])).item()
    other = math.log(1 + 0.01 * (18 + 8 + 2 + 2) / 4)
    assert both == pytest.approx(expected + other, abs=1e-5)
    rest = DiceCELoss()(logits, mask).item()
    assert HausdorffLoss()(logits, mask).item() == pytest.approx(rest + 0.1 * expected, abs=1e-5)


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: type(loss).__name__)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_empty_full_and_far_off(loss: nn.Module, dtype: torch.dtype) -> None:
    """Breaks if an empty or full mask, or a certain wrong answer, gives NaN or no gradient.

    65,536 pixels of a lesion do not fit into float16's sums.
    """
    for truth in (0, 1):
        mask = torch.full((2, 256, 256), truth)
        for lesion in (-12.0, 0.0, 12.0):
            logits = torch.zeros(2, 2, 256, 256, dtype=dtype)
            logits[:, 1] = lesion
            logits.requires_grad_()
            half = dtype if dtype != torch.float32 else torch.bfloat16
            with torch.autocast("cpu", half, enabled=dtype != torch.float32):
                value = loss(logits, mask)
            assert value.dtype == torch.float32
            assert torch.isfinite(value)
            value.backward()
            assert logits.grad is not None
            assert torch.isfinite(logits.grad).all()


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: type(loss).__name__)
def test_a_certain_right_answer_costs_nothing(loss: nn.Module) -> None:
    """Breaks if a loss has a floor above 0, for instance on an empty mask."""
    square = torch.zeros(1, 8, 8, dtype=torch.int64)
    square[:, 2:5, 3:6] = 1
    for mask in (torch.zeros_like(square), square):
        logits = torch.stack([20.0 - 40 * mask, 40.0 * mask - 20], dim=1)
        assert loss(logits, mask).item() < 1e-3
        assert loss(-logits, mask).item() > 0.5  # and the opposite does


def test_the_examples_in_the_docstrings() -> None:
    """Breaks if an example no longer gives what it says."""
    result = doctest.testmod(anatosegnet.losses)
    assert result.attempted >= 10
    assert result.failed == 0


def test_dice_ce_is_monais() -> None:
    """Breaks if the default loss is not the published one, or its gradient is another."""
    import monai.losses

    logits = torch.randn(3, 2, 9, 7, dtype=torch.float32, requires_grad=True)
    mask = torch.randint(0, 2, (3, 9, 7))
    mask[1] = 0  # an image without a lesion
    theirs = monai.losses.DiceCELoss(
        include_background=False, to_onehot_y=True, softmax=True, lambda_dice=0.7, lambda_ce=1.3
    )(logits, mask[:, None])
    ours = DiceCELoss(0.7, 1.3)(logits, mask)
    torch.testing.assert_close(ours, theirs)
    gradients = [torch.autograd.grad(loss, logits, retain_graph=True)[0] for loss in (ours, theirs)]
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize(
    "loss", [nn.CrossEntropyLoss(), *LOSSES], ids=lambda loss: type(loss).__name__
)
def test_one_logit_is_the_difference_of_two(loss: nn.Module) -> None:
    """Breaks if a network with a sigmoid is trained by another loss than one with a softmax."""
    two, mask = torch.randn(2, 2, 6, 6), torch.randint(0, 2, (2, 6, 6))
    one = two[:, 1:] - two[:, :1]
    torch.testing.assert_close(loss(two_logits(one), mask), loss(two, mask))
