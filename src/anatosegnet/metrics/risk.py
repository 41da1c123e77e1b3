"""Whether the least sure masks are the bad ones: what is gained by handing them to a person.

Images are put in order by their uncertainty, surest first. At a **coverage** of k of N images the
first k are kept, and the **risk** is the mean loss of those, here 1 - IoU. Images of equal
uncertainty stand in any order, so each counts as their mean. Weights are how often an image was
drawn, in whole numbers, for the bootstrap.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from anatosegnet.metrics.statistics import bootstrap_interval

FAILED = 0.5  # a mask of a lower IoU is a failure
DIGITS = 6  # behind the point of an uncertainty, as scores.csv keeps it: beyond, images are equal
SCORES = ("aurc", "excess_aurc", "failure_auroc")
POINTS = 100  # of a curve at most


class Ordered(NamedTuple):
    """Images in order of uncertainty; arrays of one entry for each.

    Attributes:
        order: Index of the image, surest first.
        starts: Where images of another uncertainty begin.
        loss: In that order.
    """

    order: np.ndarray
    starts: np.ndarray
    loss: np.ndarray

    @classmethod
    def by(cls, uncertainty: np.ndarray, loss: np.ndarray) -> "Ordered":
        """Order losses (N,) by uncertainty (N,)."""
        rounded = np.round(np.asarray(uncertainty, np.float64), DIGITS)
        order = np.argsort(rounded, kind="stable")
        starts = np.flatnonzero(np.diff(rounded[order], prepend=-np.inf))
        return cls(order, starts, np.asarray(loss, np.float64)[order])

    def sums(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Weights (R, N) -> images and summed losses (R, T) of each uncertainty, surest first."""
        drawn = weights[:, self.order]
        pairs = (drawn, drawn * self.loss)
        images, losses = (np.add.reduceat(each, self.starts, axis=1) for each in pairs)
        return images, losses


def area_under_risk(ordered: Ordered, weights: np.ndarray) -> np.ndarray:
    """AURC: the risk, averaged over all coverages 1/N, 2/N, … 1 (Geifman & El-Yaniv 2017).

    Args:
        ordered: N images.
        weights: (R, N) whole numbers.

    Returns:
        (R,) float64; 0 is best, and the mean loss is what an order at random gives.
    """
    images, losses = ordered.sums(weights)
    until, total = images.cumsum(axis=1), losses.cumsum(axis=1)
    before, lost = until - images, total - losses
    mean = losses / np.maximum(images, 1)
    # sum over j = 1 … n of (lost + j·mean) / (before + j), the risks while n equals are added
    numbers = np.arange(1, int(until[:, -1].max()) + 1)
    harmonic = np.concatenate([[0.0], np.cumsum(1 / numbers)])
    steps = harmonic[until.astype(np.int64)] - harmonic[before.astype(np.int64)]
    risks = losses + (lost - before * mean) * steps
    return risks.sum(axis=1) / until[:, -1]


def auroc(ordered: Ordered, weights: np.ndarray) -> np.ndarray:
    """How likely a failed image is less sure than one that did not fail (ties count half).

    Args:
        ordered: N images whose loss is 1 where they failed, else 0.
        weights: (R, N) whole numbers.

    Returns:
        (R,) float64 in [0, 1], 0.5 by chance; NaN where none failed, or all did.
    """
    images, failed = ordered.sums(weights)
    right = images - failed
    below = right.cumsum(axis=1) - right / 2
    pairs = failed.sum(axis=1) * right.sum(axis=1)
    with np.errstate(invalid="ignore"):
        return (failed * below).sum(axis=1) / pairs


class Risk:
    """Images by how sure they are and how good.

    Args:
        uncertainty: (N,) higher = less sure.
        iou: (N,) in [0, 1].
    """

    def __init__(self, uncertainty: Sequence[float], iou: Sequence[float]) -> None:
        sure, loss = np.asarray(uncertainty, np.float64), 1 - np.asarray(iou, np.float64)
        self.by_uncertainty = Ordered.by(sure, loss)
        self.by_loss = Ordered.by(loss, loss)
        self.failed = Ordered.by(sure, loss > 1 - FAILED)
        self.images = len(loss)

    def score(self, name: str, weights: np.ndarray | None = None) -> np.ndarray:
        """One of the `SCORES`.

        Args:
            name: ``aurc``; ``excess_aurc``, the AURC less that of the ideal order, in which a worse
                mask is less sure (Geifman et al. 2019); ``failure_auroc``, of IoU < 0.5.
            weights: (R, N) whole numbers; by default each image once.

        Returns:
            (R,) float64.
        """
        drawn = np.ones((1, self.images)) if weights is None else weights
        if name == "failure_auroc":
            return auroc(self.failed, drawn)
        area = area_under_risk(self.by_uncertainty, drawn)
        return area - area_under_risk(self.by_loss, drawn) if name == "excess_aurc" else area

    def curve(self, points: int = POINTS) -> list[list[float]]:
        """The mean IoU of the surest images: (coverage, IoU) from few to all."""
        once = np.ones((1, self.images))
        images, losses = (each[0] for each in self.by_uncertainty.sums(once))
        each = np.repeat(losses / images, images.astype(np.int64))  # equals count as their mean
        kept = np.arange(1, self.images + 1)
        shown = np.unique(np.linspace(0, self.images - 1, min(points, self.images)).round())
        iou = 1 - each.cumsum() / kept
        return [[kept[at] / self.images, iou[at]] for at in shown.astype(np.int64)]


def risk_summary(
    uncertainty: Sequence[float], iou: Sequence[float], groups: Sequence[str]
) -> tuple[dict[str, Any], dict[str, list[float]]]:
    """What the order by uncertainty is worth, for ``summary.json``.

    Args:
        uncertainty: (N,) of the images.
        iou: (N,) of the same.
        groups: (N,) images of one name are drawn together.

    Returns:
        The `SCORES` (None where there is none), ``failures`` and ``risk_coverage``, the curve; and
        the 95 % intervals by name.
    """
    risk = Risk(uncertainty, iou)
    values = {name: float(risk.score(name)[0]) for name in SCORES}
    summary: dict[str, Any] = {
        **{name: value if np.isfinite(value) else None for name, value in values.items()},
        "failures": int(np.sum(np.asarray(iou) < FAILED)),
        "risk_coverage": risk.curve(),
    }
    intervals = {}
    for name in SCORES:
        ends = bootstrap_interval(partial(risk.score, name), groups)
        if summary[name] is not None and ends is not None:
            intervals[name] = list(ends)
    return summary, intervals
