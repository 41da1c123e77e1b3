"""Per-image scores against hand-worked cases."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from anatosegnet.metrics.logits import PixelCounts, count_pixels, lesion_probability, two_logits
from anatosegnet.metrics.overlap import overlap_scores


@pytest.mark.parametrize(
    ("counts", "iou", "dice", "precision", "recall"),
    [
        ((6, 2, 4), 6 / 12, 12 / 18, 6 / 8, 6 / 10),  # partial overlap
        ((5, 0, 0), 1, 1, 1, 1),  # exact
        ((0, 3, 4), 0, 0, 0, 0),  # disjoint
        ((0, 0, 0), 1, 1, 1, 1),  # both empty: agreed
        ((0, 7, 0), 0, 0, 0, 0),  # only the prediction: false lesion
        ((0, 0, 7), 0, 0, 0, 0),  # only the truth: missed lesion
    ],
)
def test_hand_worked_scores(
    counts: tuple, iou: float, dice: float, precision: float, recall: float
) -> None:
    """Breaks if a formula or an empty-mask rule changes."""
    scores = overlap_scores(np.array([counts]))
    actual = [float(scores[name][0]) for name in ("iou", "dice", "precision", "recall")]
    assert actual == pytest.approx([iou, dice, precision, recall])


@given(st.tuples(*[st.integers(0, 300)] * 3))
def test_dice_follows_from_iou(counts: tuple[int, int, int]) -> None:
    """Breaks if Dice and IoU of one image stop being the same fact: D = 2·IoU/(1 + IoU)."""
    scores = overlap_scores(np.array([counts]))
    iou, dice = scores["iou"][0], scores["dice"][0]
    assert dice == pytest.approx(2 * iou / (1 + iou))
    assert all(0 <= values[0] <= 1 for values in scores.values())


def test_count_pixels() -> None:
    """Breaks if misses and false alarms are swapped, or images are pooled."""
    prediction = torch.tensor([[[1, 1, 0]], [[0, 0, 0]]]).bool()
    truth = torch.tensor([[[1, 0, 1]], [[0, 1, 1]]]).bool()
    assert count_pixels(prediction, truth).tolist() == [[1, 1, 1], [0, 0, 2]]


def test_lesion_probability_is_in_full_precision() -> None:
    """Breaks if the background's is given, or half precision leaks in."""
    logits = torch.log(torch.tensor([0.2, 0.8])).reshape(1, 2, 1, 1)
    probability = lesion_probability(logits.to(torch.bfloat16))
    assert probability.dtype == torch.float32
    assert probability.item() == pytest.approx(0.8, abs=5e-3)


@pytest.mark.parametrize("background", [0.0, -3.0, 40.0])
def test_one_logit_is_the_difference_of_two(background: float) -> None:
    """Breaks if a sigmoid's output scores otherwise than a softmax's, at the threshold too."""
    one = torch.linspace(-30, 30, 7 * 2 * 9).reshape(7, 1, 2, 9)  # it passes 0 without touching it
    one[0, 0, 0, 0] = 0.0  # as sure of one as of the other: no lesion
    two = torch.cat([torch.full_like(one, background), background + one], dim=1)
    assert torch.equal(two_logits(two), two)
    assert two_logits(one).shape == two.shape
    torch.testing.assert_close(lesion_probability(one), lesion_probability(two))
    torch.testing.assert_close(lesion_probability(one), one[:, 0].sigmoid())
    counts = []
    for logits in (one, two):
        pixels = PixelCounts()
        pixels.update(logits, (one[:, 0] > 5).long(), list(range(7)))
        counts.append(pixels.compute())
    assert torch.equal(*counts)


def test_counts_do_not_depend_on_batches_and_repeats() -> None:
    """Breaks if a score depends on the batch size, or a padded case counts twice."""
    logits, mask = torch.randn(7, 2, 8, 8), torch.randint(0, 2, (7, 8, 8))
    index = list(range(7))
    whole, pieces = PixelCounts(), PixelCounts()
    whole.update(logits, mask, index)
    for part in ([6], [0, 1, 2], [3, 4], [5, 6]):  # out of order, and case 6 twice
        pieces.update(logits[part], mask[part], part)
    assert torch.equal(whole.compute(), pieces.compute())
    assert whole.compute()[:, 0].tolist() == list(range(7))
