"""The registry of scores: what each is called, how it is taken of an image, and where it is shown.

Every column of ``scores.csv`` stands here once. A new score is an entry of `SCORES` and its
function; tables, summary, terminal, report and compare take all else from the entry. One from
outside the package is a `Score` too; what must be known of it to read its results again is written
beside them.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, get_args

import numpy as np

from anatosegnet.metrics.calibration import brier_score
from anatosegnet.metrics.lesions import Detection, detect
from anatosegnet.metrics.overlap import overlap_scores, relative_area_error, specificity
from anatosegnet.metrics.risk import DIGITS
from anatosegnet.metrics.surface import assd, boundary_iou, hd95, share_within, surface_distances
from anatosegnet.metrics.uncertainty import image_uncertainty

Shown = Literal["fact", "cases", "tables", "first"]
MAIN = "iou"  # what cases are put in order by
NSD = re.compile(r"nsd_([\d.]+)(px|mm)")
UNITS = {"mm2": "(mm²)", "mm": "(mm)", "px": "(px)", "holm": "(Holm)"}  # words of a column's name
# columns that hold text, as people read them
TEXT = {
    "id": "case",
    "class": "class",
    "group": "group",
    "birads": "BI-RADS",
    "device": "device",
    "patient": "patient",
    "fold": "fold",
}


@dataclass(frozen=True, eq=False)
class Segmentation:
    """One image as it is scored: what the network said, and what is there.

    Attributes:
        probability: (H, W) float32 in [0, 1], of lesion, at the scored size.
        truth: (H, W) bool.
        pixel_size_mm: Edge of a pixel in mm, where that is known.
    """

    probability: np.ndarray
    truth: np.ndarray
    pixel_size_mm: float | None = None

    @cached_property
    def prediction(self) -> np.ndarray:
        """(H, W) bool: where the probability is above one half."""
        return self.probability > 0.5

    @cached_property
    def hits(self) -> int:
        """Pixels that are lesion in both."""
        return int(np.count_nonzero(self.truth & self.prediction))

    @cached_property
    def area(self) -> int:
        """Pixels of the lesion."""
        return int(np.count_nonzero(self.truth))

    @cached_property
    def predicted_area(self) -> int:
        """Pixels of the predicted lesion."""
        return int(np.count_nonzero(self.prediction))

    @cached_property
    def counts(self) -> np.ndarray:
        """(1, 3) int64: true positives, false positives, false negatives."""
        return np.array([[self.hits, self.predicted_area - self.hits, self.area - self.hits]])

    @cached_property
    def overlaps(self) -> dict[str, float]:
        """The `overlap_scores` of the image, by name."""
        return {name: float(values[0]) for name, values in overlap_scores(self.counts).items()}

    @cached_property
    def lesions(self) -> Detection:
        """Lesions found, missed and made up."""
        return detect(self.prediction, self.truth)

    @cached_property
    def distances(self) -> tuple[np.ndarray, np.ndarray]:
        """In pixels, of the edges of the prediction to those of the truth, and back."""
        return surface_distances(self.prediction, self.truth)

    def in_mm2(self, pixels: int) -> float | None:
        """An area in mm²; None where the pixel size is not known."""
        return None if self.pixel_size_mm is None else pixels * self.pixel_size_mm**2


@dataclass(frozen=True)
class Score:
    """A column of ``scores.csv`` that holds a number of each image.

    Attributes:
        name: Of the column: small letters, digits and underscores.
        label: As people read it, without its unit.
        function: The value of an image; None where it has none. None of a score read back.
        unit: Such as ``mm``; nothing for shares and counts.
        less_is_better: Whether a smaller value is a better one.
        shown: ``cases``: in ``scores.csv``, ``summary.json``, and the tables of all scores;
            ``tables``: by class, lesion size, … too; ``first``: also among the first scores of the
            report, in the terminal's tables, and by default in compare; ``fact``: in ``scores.csv``
            alone, about the image.
        needs: What is left out of the row where it is not there: ``boundary`` (surface=true),
            ``mm`` (a pixel size).
    """

    name: str
    label: str
    function: Callable[[Segmentation], float | None] | None = None
    unit: str = ""
    less_is_better: bool = False
    shown: Shown = "cases"
    needs: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """``HD95 (px)``."""
        return f"{self.label} ({self.unit})" if self.unit else self.label

    @property
    def about(self) -> dict[str, Any]:
        """What must be known of it to read its values; see `read_about`."""
        return {key: getattr(self, key) for key in ABOUT}


ABOUT: dict[str, type] = {"label": str, "unit": str, "less_is_better": bool, "shown": str}
NO_SCORES: Mapping[str, Score] = {}


def overlap(name: str) -> Callable[[Segmentation], float]:
    """One of `overlap_scores`."""
    return lambda image: image.overlaps[name]


def in_mm(function: Callable[[np.ndarray, np.ndarray], float]) -> Callable[[Segmentation], float]:
    """A distance in mm, of one in pixels."""
    return lambda image: function(*image.distances) * (image.pixel_size_mm or 0)


def nsd(tolerance: float, unit: str) -> Score:
    """The normalised surface distance within a tolerance in px or mm."""

    def within(image: Segmentation) -> float:
        # one empty: even a tolerance above the diagonal must not forgive a missed lesion
        comparable = bool(image.prediction.any()) == bool(image.truth.any())
        size = (image.pixel_size_mm or 0) if unit == "mm" else 1
        return share_within(*image.distances, tolerance, size) * comparable

    needs = ("boundary", "mm") if unit == "mm" else ("boundary",)
    label = f"NSD ({tolerance:g} {unit})"
    return Score(f"nsd_{tolerance:g}{unit}", label, within, needs=needs)


SCORES: tuple[Score, ...] = (
    Score("pixel_size_mm", "pixel size", lambda s: s.pixel_size_mm, "mm", shown="fact"),
    Score("height", "height", lambda s: s.truth.shape[0], "px", shown="fact"),
    Score("width", "width", lambda s: s.truth.shape[1], "px", shown="fact"),
    Score("iou", "IoU", overlap("iou"), shown="first"),
    Score("dice", "Dice", overlap("dice"), shown="first"),
    Score("precision", "precision", overlap("precision"), shown="tables"),
    Score("recall", "recall", overlap("recall"), shown="tables"),
    Score(
        "specificity",
        "specificity",
        lambda s: float(specificity(s.counts, np.array([s.truth.size]))[0]),
    ),
    Score(
        "boundary_iou",
        "boundary IoU",
        lambda s: boundary_iou(s.prediction, s.truth),
        shown="tables",
        needs=("boundary",),
    ),
    Score("hd95", "HD95", lambda s: hd95(*s.distances), "px", True, "first", ("boundary",)),
    Score("assd", "ASSD", lambda s: assd(*s.distances), "px", True, needs=("boundary",)),
    nsd(2, "px"),
    nsd(5, "px"),
    Score("hd95_mm", "HD95", in_mm(hd95), "mm", True, needs=("boundary", "mm")),
    Score("assd_mm", "ASSD", in_mm(assd), "mm", True, needs=("boundary", "mm")),
    nsd(1, "mm"),
    Score("brier", "Brier score", lambda s: brier_score(s.probability, s.truth), "", True),
    Score(
        "uncertainty",
        "uncertainty",
        lambda s: round(image_uncertainty(s.probability, s.prediction), DIGITS),
        less_is_better=True,
    ),
    Score("lesions", "lesions", lambda s: s.lesions.lesions, shown="fact"),
    Score("lesions_hit", "lesions hit", lambda s: s.lesions.hit, shown="fact"),
    Score("lesions_missed", "lesions missed", lambda s: s.lesions.missed, shown="fact"),
    Score("lesions_false", "lesions false", lambda s: s.lesions.false, shown="fact"),
    Score("hits", "hits", lambda s: s.hits, "px", shown="fact"),
    Score("lesion_area", "lesion area", lambda s: s.area, "px", shown="fact"),
    Score("predicted_area", "predicted area", lambda s: s.predicted_area, "px", shown="fact"),
    Score("area_error", "area error", lambda s: s.predicted_area - s.area, "px"),
    Score(
        "relative_area_error",
        "relative area error",
        lambda s: float(relative_area_error(s.counts)[0]),
    ),
    Score("lesion_area_mm2", "lesion area", lambda s: s.in_mm2(s.area), "mm²", shown="fact"),
    Score("area_error_mm2", "area error", lambda s: s.in_mm2(s.predicted_area - s.area), "mm²"),
)
OF_ALL = (  # images together, see `metrics.risk`
    Score("aurc", "AURC", less_is_better=True),
    Score("excess_aurc", "excess AURC", less_is_better=True),
    Score("failure_auroc", "AUROC of failure"),
)
KNOWN = {score.name: score for score in (*SCORES, *OF_ALL)}


def with_tolerances(pixels: Sequence[float], millimetres: Sequence[float]) -> list[Score]:
    """All scores, the normalised surface distance at these tolerances in px and in mm."""
    scores: dict[str, Score] = {}
    for score in SCORES:
        given = {"px": pixels, "mm": millimetres}
        match = NSD.fullmatch(score.name)
        found = [nsd(tolerance, match[2]) for tolerance in given[match[2]]] if match else [score]
        scores |= {each.name: each for each in found}
    return list(scores.values())


def find(name: str, own: Mapping[str, Score] = NO_SCORES) -> Score | None:
    """The score of a column; None where nothing is known of it, as of an earlier version's.

    Args:
        name: Of the column.
        own: Scores from outside the package, by name.
    """
    if match := NSD.fullmatch(name):
        return nsd(float(match[1]), match[2])
    return own.get(name) or KNOWN.get(name)


def is_fact(name: str) -> bool:
    """Whether a column of numbers is about the image, and scores nothing."""
    return name in KNOWN and KNOWN[name].shown == "fact"


def shown_in(
    places: Iterable[Shown], columns: Iterable[str], own: Mapping[str, Score] = NO_SCORES
) -> list[str]:
    """The columns whose scores are shown in one of the places, in order."""
    wanted = set(places)
    return [name for name in columns if (score := find(name, own)) and score.shown in wanted]


def title(name: str, own: Mapping[str, Score] = NO_SCORES) -> str:
    """A column as people read it: ``hd95_mm`` -> ``HD95 (mm)``, ``hd95_p`` -> ``HD95 p``.

    Args:
        name: Of a score, of one and what is known of it, or any other.
        own: Scores from outside the package, by name.
    """
    if name in TEXT:
        return TEXT[name]
    if score := find(name, own):
        return score.title
    words = name.replace("/", "_").split("_")
    for count in range(len(words) - 1, 0, -1):
        score = find("_".join(words[:count]), own)
        if score and score.shown != "fact":
            start = score.label if score.unit == "px" else score.title
            return " ".join([start, *(UNITS.get(word, word) for word in words[count:])])
    return " ".join(
        KNOWN[word].label if word in KNOWN else UNITS.get(word, word) for word in words if word
    )


def read_about(about: Any) -> dict[str, Score]:
    """The scores from outside the package that a summary tells of, without their functions.

    Raises:
        ValueError: It does not tell what `Score.about` does.
    """
    if not isinstance(about, dict):
        raise ValueError("own_scores is no mapping")
    for name, known in about.items():
        if not isinstance(known, dict) or {key: type(v) for key, v in known.items()} != ABOUT:
            raise ValueError(f"own_scores.{name} does not say {', '.join(ABOUT)}")
        if known["shown"] not in get_args(Shown):
            raise ValueError(f"own_scores.{name}.shown must be one of {', '.join(get_args(Shown))}")
    return {name: Score(name, **known) for name, known in about.items()}
