"""Whether what was exported computes what the run computes, on images, and what it costs."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from omegaconf import DictConfig

from anatosegnet.console import Progress, say, say_table
from anatosegnet.data.case import Case, CaseError
from anatosegnet.data.datasets.phantom import PhantomSource
from anatosegnet.deployment.original import Original
from anatosegnet.errors import UserError
from anatosegnet.evaluation.cohort import Cohort, OwnTestCases, find_cohort
from anatosegnet.evaluation.scoring import readable_batches
from anatosegnet.metrics.scores import MAIN, Segmentation, find
from anatosegnet.metrics.statistics import independent_groups, interval
from anatosegnet.prediction.masks import probability_at
from anatosegnet.prediction.predictor import ImagePredictor
from anatosegnet.run import Run

COMPARED = 8  # images
# what an exported probability may differ by: of float32 and half precision the largest difference
# over all pixels, of 8-bit integers the mean, since the border of a lesion moves by a pixel
TOLERANCE = {"float32": 1e-3, "fp16": 0.05, "int8": 0.05}
Network = Callable[[np.ndarray], np.ndarray]  # (B, C, h, w) -> probabilities (B, h, w)


class Check:
    """Compares exported networks with the original on images, and refuses those that are others.

    Attributes:
        told: What was compared on what, and found, for each precision.
    """

    def __init__(self, original: Original, run: Run, config: DictConfig, own_data: bool) -> None:
        images, self.of = images_of(run, config, own_data)
        self.original = original
        self.batch = original.processing(images)
        self.told: dict[str, Any] = {}

    def __call__(
        self, precision: str, exported: Callable[[np.ndarray], np.ndarray]
    ) -> dict[str, Any]:
        """Compare; raises UserError where the difference is above `TOLERANCE`."""
        apart = difference(self.original.probabilities, exported, self.batch)
        largest, mean = float(apart.max()), float(apart.mean())
        measure, value = ("mean", mean) if precision == "int8" else ("largest", largest)
        say(
            f"{precision:8} largest difference of a probability {largest:.2g}, mean {mean:.2g} "
            f"({self.of})"
        )
        if not value <= TOLERANCE[precision]:
            raise UserError(
                f"the {precision} network computes something else: its {measure} difference to the "
                f"run is {value:.3g}, more than {TOLERANCE[precision]}; nothing was written"
            )
        found = {
            "largest_difference": largest,
            "mean_difference": mean,
            "tolerance": {measure: TOLERANCE[precision]},
            "images": self.of,
        }
        self.told[precision] = found
        return found


def images_of(run: Run, config: DictConfig, own_data: bool) -> tuple[list[np.ndarray], str]:
    """A few images (H, W, 3) uint8 to compare networks on, and what they are.

    Test images of the run, or images of ``config.data``; phantoms where these are not to be had.
    """
    try:
        cohort = find_cohort(run, config, own_data)
        names = cohort.names[:COMPARED]
        images = [cohort.data.read(name)[0] for name in names]
        return images, f"{len(images)} {kind_of(cohort)}images of {cohort.data.name}"
    except (CaseError, UserError) as error:
        source = PhantomSource(COMPARED)
        images = [source.read(case)[0] for case in source.find_cases().cases]
        why = str(error).splitlines()[0]
        return images, f"{len(images)} phantoms, the images not being there ({why})"


def difference(original: Network, exported: Network, batch: np.ndarray) -> np.ndarray:
    """What two networks disagree by, of several images at once and of one alone.

    Args:
        original: The one.
        exported: The other.
        batch: (B, C, h, w) float32, prepared.

    Returns:
        (B + 1, h, w) float32 in [0, 1]; infinite where one gives no number.
    """
    wanted = original(batch)
    found = np.concatenate([exported(batch), exported(batch[:1])])
    apart = np.abs(found - np.concatenate([wanted, wanted[:1]]))
    return np.where(np.isfinite(apart), apart, np.inf)


def iou_costs(
    run: Run, config: DictConfig, own_data: bool, predictors: Mapping[str, ImagePredictor]
) -> dict[str, Any]:
    """The IoU of several predictors on the cases that evaluate scores, each beside the first.

    Args:
        run: The run.
        config: Of the verb: data, paths, accept_changed_data.
        own_data: Whether on the run's test cases; else on ``config.data``.
        predictors: By name.

    Returns:
        Of each its mean ``iou`` and, but of the first, the mean ``difference`` to the first with
        the ``interval`` of paired images (95 %, over independent groups); and ``cases``.

    Raises:
        UserError: The run's data are not there, or were changed.
    """
    cohort = find_cohort(run, config, own_data)
    cases, values = ious(cohort, predictors)
    judged = cohort.judge()
    groups = independent_groups([case.name for case in cases], [case.group for case in cases])
    first, *others = values
    costs: dict[str, Any] = {first: {"iou": round(float(np.mean(values[first])), 6)}}
    for name in others:
        apart = np.subtract(values[name], values[first])
        ends = interval(apart, groups)
        costs[name] = {
            "iou": round(float(np.mean(values[name])), 6),
            "difference": round(float(np.mean(apart)), 6),
            "interval": None if ends is None else [round(end, 6) for end in ends],
        }
    return {"cases": title_of(cohort, len(cases)), "split": judged.split, **costs}


def ious(
    cohort: Cohort, predictors: Mapping[str, ImagePredictor]
) -> tuple[list[Case], dict[str, list[float]]]:
    """The cases of a cohort, and the IoU that each predictor has of each, at original size."""
    score = find(MAIN)
    assert score is not None and score.function is not None
    values: dict[str, list[float]] = {name: [] for name in predictors}
    cases = []
    with Progress("IoU of each predictor", len(cohort.names)) as show:
        for batch in readable_batches(cohort.data, cohort.names, COMPARED, cohort.notice):
            images = [image for _, image, _ in batch]
            for name, predictor in predictors.items():
                for (_, _, mask), small in zip(
                    batch, predictor.predict(images).probability, strict=True
                ):
                    probability = probability_at(small, (mask.shape[0], mask.shape[1]))
                    value = score.function(Segmentation(probability, mask > 0, None))
                    values[name].append(float(value or 0))
            cases += [case for case, _, _ in batch]
            show(len(cases))
    return cases, values


def title_of(cohort: Cohort, count: int) -> str:
    """``"130 test cases of busi, at original size"``."""
    return f"{count} {kind_of(cohort)}cases of {cohort.data.title}, at original size"


def kind_of(cohort: Cohort) -> str:
    """What sets the images of a cohort apart from others of their dataset."""
    return "test " if isinstance(cohort, OwnTestCases) else ""


def say_costs(costs: Mapping[str, Any], precision: str) -> None:
    """Print what each precision costs."""
    rows = []
    for name, cost in costs.items():
        if not isinstance(cost, dict):
            continue
        ends = cost.get("interval")
        rows.append(
            [
                f"the run ({precision})" if name == "run" else name,
                f"{cost['iou']:.4f}",
                f"{cost['difference']:+.4f}" if "difference" in cost else "",
                "{:+.4f} to {:+.4f}".format(*ends) if ends else "",
            ]
        )
    say_table(["network", "IoU", "difference", "95 % interval"], rows, f"IoU of {costs['cases']}")
