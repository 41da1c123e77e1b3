"""Cases to scores: a row per image, means with their intervals, and the pictures."""

import importlib
import math
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from omegaconf import DictConfig

from anatosegnet.console import Progress, plain, some
from anatosegnet.data.case import Case, CaseError
from anatosegnet.data.resizing import resize_mask
from anatosegnet.errors import UserError, reason
from anatosegnet.metrics.calibration import reliability
from anatosegnet.metrics.scores import TEXT, Score, Segmentation, find, with_tolerances
from anatosegnet.prediction.masks import WHY_NO_NUMBER, mask_at, probability_at
from anatosegnet.report.overlay import OVERLAY_JPEG, encode_jpeg, error_overlay, thumbnails

if TYPE_CHECKING:
    from anatosegnet.data.prepared import FoundData
    from anatosegnet.prediction.predictor import ImagePredictor

Read = tuple[Case, np.ndarray, np.ndarray]
Notice = Callable[[str, np.ndarray, np.ndarray], bool]
NAME = re.compile(r"(?!.*_(sd|low|high|holm|p|pooled|difference)$)[a-z][a-z0-9_]*")
TAKEN = {  # what else summary.json and the tables hold
    *("by", "value", "setting", "runs", "repeated_over", "split_fingerprint"),
    *("images", "independent_groups", "intervals", "detection", "calibration", "extremes"),
    *("conditions", "own_scores", "without_leaks", "scores_sha256", "checkpoint_sha256"),
    *("run", "changed_data", "versions", "git_commit", "machine", "predictor", "risk"),
}


@dataclass(frozen=True)
class Scoring:
    """What is scored, and how.

    Attributes:
        at: ``original`` size of each image, or the network's (``model``).
        surface: Score boundaries too.
        tolerances: Of the normalised surface distance, in pixels.
        tolerances_mm: Of the normalised surface distance, in mm.
        own: Scores from outside the package, by name.
    """

    at: str = "original"
    surface: bool = True
    tolerances: tuple[float, ...] = (2, 5)
    tolerances_mm: tuple[float, ...] = (1,)
    own: Mapping[str, Score] = field(default_factory=dict)

    @classmethod
    def from_config(cls, config: DictConfig) -> "Scoring":
        """The settings of the verb; raises UserError for impossible ones."""
        if config.at not in ("original", "model"):
            raise UserError(f"at={config.at} is neither original nor model")
        tolerances = {}
        for key in ("tolerances", "tolerances_mm"):
            given = config[key]
            values = tuple(given) if isinstance(given, Sequence) else (given,)
            if not all(isinstance(value, int | float) and value >= 0 for value in values):
                raise UserError(f"{key}={config[key]} must be distances, such as [2,5]")
            tolerances[key] = values
        own = {score.name: score for score in map(own_score, config.own_scores or ())}
        return cls(config.at, bool(config.surface), **tolerances, own=own)

    @cached_property
    def scores(self) -> list[Score]:
        """Those of this package, in order of the columns."""
        return with_tolerances(self.tolerances, self.tolerances_mm)

    def row(self, image: Segmentation) -> dict[str, float | None]:
        """The scores of an image by name, in order of the columns.

        Raises:
            UserError: A score from outside the package failed.
        """
        there = {"boundary": self.surface, "mm": image.pixel_size_mm is not None}
        row = {
            score.name: score.function(image)
            for score in self.scores
            if score.function is not None and all(there[need] for need in score.needs)
        }
        return row | {name: value_of(score, image) for name, score in self.own.items()}


def own_score(path: str) -> Score:
    """A score from outside the package.

    Args:
        path: Where it is, such as ``mylab.boundary_share``: a `Score`, or a function of a
            `Segmentation`, which then is shown under its own name.

    Raises:
        UserError: There is none, or its name is taken.
    """
    at_fault = f"own_scores={plain(path)}"
    try:
        module, _, name = str(path).rpartition(".")
        found = getattr(importlib.import_module(module), name)
    except Exception as error:  # whatever a module of others raises
        raise UserError(
            f"{at_fault} cannot be loaded ({reason(error)}); give the folder of its package in "
            "PYTHONPATH, or install it: pip install -e FOLDER"
        ) from error
    score = found
    if not isinstance(found, Score) and callable(found) and hasattr(found, "__name__"):
        score = Score(found.__name__, found.__name__.replace("_", " "), found)
    if not isinstance(score, Score) or not callable(score.function):
        raise UserError(f"{at_fault} must be a Score with a function, or a function")
    if not NAME.fullmatch(score.name) or find(score.name) or score.name in TAKEN | TEXT.keys():
        raise UserError(
            f"{at_fault}: the name {plain(score.name)!r} is taken, ends like a column of tables "
            "(_sd, _low, …), or is not of small letters, digits and underscores; give another"
        )
    return score


def value_of(score: Score, image: Segmentation) -> float | None:
    """The value of a score from outside the package; UserError where it is none."""
    assert score.function is not None
    try:
        value = score.function(image)
        number = None if value is None else float(value)
    except Exception as error:  # it is not ours
        raise UserError(f"own score {score.name} failed ({reason(error)})") from error
    if number is not None and not math.isfinite(number):
        raise UserError(f"own score {score.name} is NaN or infinite; give None where there is none")
    return number


class Scored(NamedTuple):
    """A row of ``scores.csv`` and the sums of its calibration (3, bins)."""

    row: dict[str, Any]
    reliability: np.ndarray


def score_cases(
    data: "FoundData",
    names: Sequence[str],
    predictor_of: "Callable[[str], ImagePredictor]",
    scoring: Scoring,
    directory: Path,
    batch_size: int = 16,
    notice: Notice = lambda *_: True,
) -> list[Scored]:
    """Score cases in batches and write ``overlays/`` and ``thumbnails/``.

    Args:
        data: The data.
        names: The cases, in the order of the result.
        predictor_of: The name of a case -> the network, or networks, that it is shown to.
        scoring: What is scored.
        directory: Where the pictures go.
        batch_size: Images at once; without effect on the scores.
        notice: Told each name, image and mask as it is read; where it gives False, the cases
            that follow are read, and no more are scored.

    Raises:
        UserError: There is no case; or lists every case that cannot be read, or whose
            prediction is NaN or infinite.
    """
    if not names:
        raise UserError(f"data {data.name}: there is no case to score")
    for folder in ("overlays", "thumbnails"):
        (directory / folder).mkdir()
    results: list[Scored] = []
    without_number: list[str] = []

    def score(read: Read, probability: np.ndarray) -> Scored | None:
        case, image, mask = read
        if not np.isfinite(probability).all():
            without_number.append(case.name)
            return None
        prediction = mask_at(probability, (image.shape[0], image.shape[1]))
        draw(directory, case.name, image, mask > 0, prediction)
        return score_case(case, mask, probability, scoring)

    # a batch is scored while the next one is read and goes through the network
    with ThreadPoolExecutor(os.cpu_count()) as pool, Progress("scoring", len(names)) as show:
        running: list[Future[Scored | None]] = []
        for batch in readable_batches(data, names, batch_size, notice):
            probabilities = predicted(batch, predictor_of)
            results += [scored for future in running if (scored := future.result())]
            pairs = zip(batch, probabilities, strict=True)
            running = [pool.submit(score, read, probability) for read, probability in pairs]
            del pairs
            batch.clear()  # each original goes once it is scored
            show(len(results) + len(without_number))
        results += [scored for future in running if (scored := future.result())]
        show(len(names))
    if without_number:
        raise UserError(
            f"the network's output is NaN or infinite on {len(without_number)} of {len(names)} "
            f"cases: {some(sorted(without_number))}; {WHY_NO_NUMBER}"
        )
    return results


def predicted(
    batch: Sequence[Read], predictor_of: "Callable[[str], ImagePredictor]"
) -> list[np.ndarray]:
    """The probability (h, w) of each image; those of one predictor go through it together."""
    predictors = [predictor_of(case.name) for case, _, _ in batch]
    probabilities: dict[int, np.ndarray] = {}
    for predictor in dict.fromkeys(predictors):
        places = [place for place, other in enumerate(predictors) if other is predictor]
        found = predictor.predict([batch[place][1] for place in places]).probability
        probabilities |= dict(zip(places, found, strict=True))
    return [probabilities[place] for place in range(len(batch))]


def score_case(case: Case, mask: np.ndarray, probability: np.ndarray, scoring: Scoring) -> Scored:
    """Score one image.

    Args:
        case: The case.
        mask: (H, W) uint8 {0, 1} at the original size.
        probability: (h, w) float32 in [0, 1] at the network's size.
        scoring: What is scored.
    """
    original = scoring.at == "original"
    if original:
        truth = mask > 0
        probability = probability_at(probability, (mask.shape[0], mask.shape[1]))
    else:
        truth = resize_mask(mask, (probability.shape[0], probability.shape[1])) > 0
    pixel = case.pixel_size_mm if original else None  # no longer one size after resizing
    row = {
        "id": case.name,
        "class": case.label,
        "group": case.group,
        "birads": case.details.get("birads", ""),
        "device": case.details.get("device", ""),
        **scoring.row(Segmentation(probability, truth, pixel)),
    }
    return Scored(row, reliability(probability, truth))


def draw(
    directory: Path, name: str, image: np.ndarray, truth: np.ndarray, prediction: np.ndarray
) -> None:
    """Write the overlay and the thumbnails of a case."""
    overlay = encode_jpeg(error_overlay(image, truth, prediction), OVERLAY_JPEG)
    (directory / "overlays" / f"{name}.jpg").write_bytes(overlay)
    pictures: Mapping[str, bytes] = thumbnails(image, truth, prediction)
    for part, picture in pictures.items():
        (directory / "thumbnails" / f"{name}_{part}.jpg").write_bytes(picture)


def readable_batches(
    data: "FoundData", names: Sequence[str], size: int, notice: Notice
) -> Iterator[list[Read]]:
    """Batches of (case, image, mask); at the end a UserError if any case was unreadable."""
    problems: list[str] = []
    refused: list[str] = []

    def read(name: str) -> Read | None:
        try:
            image, mask = data.read(name)
        except CaseError as error:
            problems.append(str(error))
            return None
        if not notice(name, image, mask):
            refused.append(name)
        return data.cases[name], image, mask

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for start in range(0, len(names), size):
            cases = [item for item in pool.map(read, names[start : start + size]) if item]
            if cases and not problems and not refused:
                yield cases
    if problems:
        lines = "".join(f"\n  - {problem}" for problem in sorted(problems))
        raise UserError(f"data {data.name}: {len(problems)} cases cannot be scored:{lines}")
