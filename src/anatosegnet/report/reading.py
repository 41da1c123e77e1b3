"""An evaluation directory, read back for the report: any columns, any subset of the files."""

import base64
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from anatosegnet.console import plain, some
from anatosegnet.errors import UserError, reason
from anatosegnet.files import opening
from anatosegnet.files.epoch_table import read_epochs
from anatosegnet.files.rows import is_finite, number, read_rows
from anatosegnet.files.split_table import PARTS, SplitRow, read_split
from anatosegnet.metrics.scores import TEXT, Score, find, read_about, title
from anatosegnet.run import Run

SCORES = "scores.csv"  # of an evaluation: a row for each case
PICTURES = ("image", "truth", "prediction", "error")
Cell = float | str | None


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
        own: Scores from outside the package, by name.
    """

    directory: Path
    summary: dict[str, Any]
    columns: list[Column]
    cases: list[dict[str, Cell]]
    tables: list[dict[str, str]]
    own: dict[str, Score]

    @classmethod
    def read(cls, directory: Path) -> "Evaluation":
        """Read a directory; UserError if scores or summary are missing or damaged."""
        summary = read_summary(directory / "summary.json")
        own = read_about(summary.get("own_scores", {}))
        path = opening.kept(directory / SCORES)
        cases = read_scores(path)
        if len({case["id"] for case in cases}) < len(cases):
            raise UserError(f"{path} names cases twice; evaluate again")
        if odd := [case["id"] for case in cases if set(str(case["id"])) & set("/\\")]:
            raise UserError(f"{path} has names that lead elsewhere: {some(odd)}; evaluate again")
        filled = [name for name in cases[0] if any(case[name] not in ("", None) for case in cases)]
        columns = [
            Column(name, title(name, own), not any(isinstance(c[name], str) for c in cases))
            for name in filled
        ]
        cases = [{name: case[name] for name in filled} for case in cases]
        tables = opening.kept(directory / "tables.csv")
        rows = read_csv(tables) if tables.exists() else []
        return cls(directory, summary, columns, cases, rows, own)

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


def read_scores(path: Path) -> list[dict[str, Cell]]:
    """The rows of a ``scores.csv`` by column, in order; there is at least one.

    A cell is a finite number or None; in the columns of text, and in unknown ones that hold
    anything else than numbers, it is text.

    Raises:
        UserError: It cannot be read, or is no such table.
    """
    rows = read_csv(path)
    if not rows or "id" not in rows[0]:
        raise UserError(f"{path} has no rows with an id; evaluate again")
    cases: list[dict[str, Cell]] = [{} for _ in rows]
    for name in rows[0]:
        texts = [row[name] for row in rows]
        numbers = [number(text) for text in texts]
        odd = [text for text, value in zip(texts, numbers, strict=True) if text and value is None]
        if odd and find(name):
            raise UserError(f"{path} has {plain(odd[0])!r} as {name}; evaluate again")
        for case, text, value in zip(cases, texts, numbers, strict=True):
            finite = value if is_finite(value) else None
            case[name] = text if odd or name in TEXT else finite
    return cases


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


def split_counts(run: Run, rows: Sequence[SplitRow] | None = None) -> dict[str, int]:
    """Number of cases by part, from ``split.csv``; empty where there is none."""
    if rows is None:
        rows = read_split(run.split_path) if run.split_path.is_file() else []
    counts = Counter(row.part for row in rows)
    return {part: counts[part] for part in PARTS if counts[part]}


def read_csv(path: Path) -> list[dict[str, str]]:
    """Rows of a csv file; UserError if it cannot be read or is ragged."""
    try:
        return read_rows(path, ragged=False)[1]
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({reason(error)}); evaluate again") from error


def read_summary(path: Path) -> dict[str, Any]:
    """The summary of an evaluation; UserError if it cannot be read, or is none of ours."""
    try:
        summary = opening.read_json(path)
        read_about(summary.get("own_scores", {}))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({reason(error)}); evaluate again") from error
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


def is_predictor(part: Any) -> bool:
    """Whether this is a text, or a list of texts or of the members' texts by name."""
    return isinstance(part, str) or (
        isinstance(part, list)
        and all(
            isinstance(each, str)
            or (isinstance(each, dict) and all(isinstance(text, str) for text in each.values()))
            for each in part
        )
    )


def is_risk(part: Any) -> bool:
    """Whether this is a number, or the curve of pairs of numbers."""
    if not isinstance(part, list):
        return part is None or is_finite(part)
    return all(
        isinstance(point, list) and len(point) == 2 and all(map(is_finite, point)) for point in part
    )


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
    "predictor": is_predictor,
    "risk": is_risk,
    "versions": lambda version: version is None or isinstance(version, str),
}
