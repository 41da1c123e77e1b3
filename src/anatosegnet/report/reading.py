"""An evaluation directory, read back for the report: any columns, any subset of the files."""

import base64
import math
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from anatosegnet.console import some
from anatosegnet.errors import UserError, reason
from anatosegnet.files import opening
from anatosegnet.files.epoch_table import read_epochs
from anatosegnet.files.rows import read_rows
from anatosegnet.files.split_table import PARTS, read_split
from anatosegnet.run import Run

PICTURES = ("image", "truth", "prediction", "error")
TEXT = frozenset({"id", "class", "group", "patient", "birads", "device", "fold"})
TOLERANCE = re.compile(r"^([\d.]+)(px|mm)$")  # nsd_2px
PIXELS = frozenset({  # their unit is not in their name
    "hd95", "assd", "lesion_area", "predicted_area", "area_error", "hits", "height", "width",
})  # fmt: skip
ABBREVIATIONS = {
    "iou": "IoU", "dice": "Dice", "f1": "F1", "brier": "Brier score", "ece": "ECE", "nsd": "NSD",
    "hd95": "HD95", "asd": "ASD", "masd": "MASD", "assd": "ASSD", "birads": "BI-RADS",
    "id": "case", "mm2": "(mm²)", "mm": "(mm)", "px": "(px)", "holm": "(Holm)",
}  # fmt: skip


@dataclass(frozen=True)
class Column:
    """A column of scores.csv.

    Attributes:
        name: As in the file.
        label: As people read it.
        numeric: Whether its values are numbers (None where a cell is empty or not finite).
    """

    name: str
    label: str
    numeric: bool


@dataclass(frozen=True)
class Evaluation:
    """What ``evaluation/<dataset>/`` holds.

    Attributes:
        directory: Where it was read from.
        summary: ``summary.json``.
        columns: Of ``cases``; the first is ``id``.
        cases: A dict per image, values by column name: float, None or str.
        tables: Rows of ``tables.csv`` as they stand in the file; empty if there is none.
    """

    directory: Path
    summary: dict[str, Any]
    columns: list[Column]
    cases: list[dict[str, float | str | None]]
    tables: list[dict[str, str]]

    @classmethod
    def read(cls, directory: Path) -> "Evaluation":
        """Read a directory; UserError if scores or summary are missing or damaged."""
        summary = read_summary(directory / "summary.json")
        rows = read_csv(directory / "scores.csv")
        if not rows or "id" not in rows[0]:
            raise UserError(f"{directory / 'scores.csv'} has no rows with an id; evaluate again")
        if len({row["id"] for row in rows}) < len(rows):
            raise UserError(f"{directory / 'scores.csv'} names cases twice; evaluate again")
        if odd := [row["id"] for row in rows if set(row["id"]) & set("/\\")]:
            raise UserError(
                f"{directory / 'scores.csv'} has names that lead elsewhere: {some(odd)}; evaluate "
                "again"
            )
        columns, cases = typed(rows)
        tables = directory / "tables.csv"
        return cls(directory, summary, columns, cases, read_csv(tables) if tables.exists() else [])

    def pictures(self, name: str, kinds: tuple[str, ...] = PICTURES) -> list[str]:
        """Thumbnails of a case as base64 of the JPEG file, "" where there is none."""
        paths = [self.directory / "thumbnails" / f"{name}_{kind}.jpg" for kind in kinds]
        return [
            base64.b64encode(opening.read_bytes(path)).decode() if path.is_file() else ""
            for path in paths
        ]

    def overlay(self, name: str) -> str:
        """The full-size overlay, relative to the directory; "" where there is none."""
        for suffix in (".jpg", ".png"):  # as earlier versions wrote them
            path = f"overlays/{name}{suffix}"
            if (self.directory / path).is_file():
                return path
        return ""


def typed(
    rows: list[dict[str, str]],
) -> tuple[list[Column], list[dict[str, float | str | None]]]:
    """Columns and cases of the rows of a csv file; numeric is what holds nothing but numbers."""
    columns = []
    cases: list[dict[str, float | str | None]] = [{} for _ in rows]
    for name in rows[0]:
        texts = [row[name] or "" for row in rows]
        numbers = [number(text) for text in texts]
        numeric = name not in TEXT and all(
            value is not None or not text for value, text in zip(numbers, texts, strict=True)
        )
        if not any(texts):
            continue
        columns.append(Column(name, label(name), numeric))
        for case, text, value in zip(cases, texts, numbers, strict=True):
            finite = value is not None and math.isfinite(value)
            case[name] = (value if finite else None) if numeric else text
    return columns, cases


def learning_curves(run: Run, least: int = 2) -> dict[str, list[tuple[float, float]]]:
    """(epoch from 1, value) pairs by name, such as ``val/iou``; empty where nothing was logged.

    Args:
        run: The run whose ``metrics.csv`` is read.
        least: Points that a curve must have.
    """
    curves: dict[str, list[tuple[float, float]]] = {}
    for epoch, scores in sorted(read_epochs(run.metrics_path).items()):
        for name, value in scores.items():
            if name.startswith(("train/", "val/")):
                curves.setdefault(name, []).append((float(epoch + 1), value))
    return {name: points for name, points in curves.items() if len(points) >= least}


def split_counts(run: Run) -> dict[str, int]:
    """Number of cases by part, from ``split.csv``; empty where there is none."""
    if not run.split_path.is_file():
        return {}
    counts = Counter(row.part for row in read_split(run.split_path))
    return {part: counts[part] for part in PARTS if counts[part]}


def label(name: str) -> str:
    """``lesion_area_mm2`` -> ``lesion area (mm²)``."""
    words = name.replace("/", " ").replace("_", " ").split()
    words += ["px"] if name in PIXELS else []
    return " ".join(ABBREVIATIONS.get(word) or TOLERANCE.sub(r"(\1 \2)", word) for word in words)


def number(text: str) -> float | None:
    """The number a text stands for, None if none."""
    try:
        return float(text)
    except ValueError:
        return None


def read_csv(path: Path) -> list[dict[str, str]]:
    """Rows of a csv file; UserError if it cannot be read or is ragged."""
    try:
        return read_rows(path, ragged=False)[1]
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({reason(error)}); evaluate again") from error


def read_summary(path: Path) -> dict[str, Any]:
    """The summary of an evaluation; UserError if it cannot be read, or is none of ours."""
    summary = read_json(path)
    wrong = [
        name
        for name, fits in SUMMARY.items()
        if (part := summary.get(name)) is not None
        and not (isinstance(part, dict) and all(map(fits, part.values())))
    ]
    if wrong:
        raise UserError(f"{path} is damaged ({some(wrong)}); evaluate again")
    return summary


def is_interval(ends: Any) -> bool:
    """Whether these are two finite numbers, or nothing."""
    return not ends or (
        isinstance(ends, list) and len(ends) == 2 and all(is_finite(end) for end in ends)
    )


def is_finite(value: Any) -> bool:
    """Whether this is a finite number."""
    return isinstance(value, int | float) and math.isfinite(value)


def are_bins(part: Any) -> bool:
    """Whether this is a number or a text, or the bins of a reliability curve."""
    if not isinstance(part, list):
        return part is None or isinstance(part, int | float | str)
    return all(isinstance(bin_, dict) for bin_ in part)


# what the parts of a summary hold, where they are there
SUMMARY: dict[str, Callable[[Any], bool]] = {
    "conditions": lambda text: isinstance(text, str),
    "intervals": is_interval,
    "detection": lambda count: count is None or isinstance(count, int | float),
    "calibration": are_bins,
    "extremes": lambda names: (
        isinstance(names, list) and all(isinstance(name, str) for name in names)
    ),
    "versions": lambda version: version is None or isinstance(version, str),
}


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object; UserError if it cannot be read."""
    try:
        return opening.read_json(path)
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({reason(error)}); evaluate again") from error
