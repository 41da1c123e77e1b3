"""Tables of numbers for the report: intervals folded into the score they belong to."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

from anatosegnet.console import ABSENT, p_value, rounded
from anatosegnet.files.rows import number
from anatosegnet.metrics.scores import NO_SCORES, Score, title


@dataclass(frozen=True)
class Cell:
    """What stands in a table.

    Attributes:
        text: As people read it.
        numeric: Aligned right.
        interval: Both ends as text, "" without.
        bar: Low end, mean and high end in percent of the column's range.
    """

    text: str
    numeric: bool = False
    interval: str = ""
    bar: tuple[float, float, float] | None = None


@dataclass(frozen=True)
class Heading:
    """Head of a column."""

    label: str
    numeric: bool


@dataclass(frozen=True)
class Table:
    """A table as the templates show it; the first column names its rows."""

    title: str
    columns: list[Heading]
    rows: list[list[Cell]]


def tables(rows: Sequence[Mapping[str, Any]], own: Mapping[str, Score] = NO_SCORES) -> list[Table]:
    """One table for each value of the column ``by``, which becomes its title.

    Args:
        rows: Of ``tables.csv``, values as text or numbers.
        own: Scores from outside the package, by name.
    """
    if not rows or not {"by", "value"} <= set(rows[0]):
        return [table(rows, own=own)] if rows else []
    grouped: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        by = str(row["by"])
        scores = {name: cell for name, cell in row.items() if name not in ("by", "value")}
        grouped.setdefault(by, []).append({by: row["value"], **scores})
    whole = grouped.pop("all", [])
    return [
        table([*part, *({by: "all", **_without(row, "all")} for row in whole)], f"By {by}", own=own)
        for by, part in grouped.items()
    ]


def table(
    rows: Sequence[Mapping[str, Any]],
    about: str = "",
    deviations: bool = False,
    own: Mapping[str, Score] = NO_SCORES,
) -> Table:
    """A table of any rows; ``<score>_low`` and ``<score>_high`` go into the cell of the score.

    ``<score>_sd`` goes there too, where the score has no interval; with ``deviations`` always.
    Ends of the first score with intervals are drawn as bars.
    """
    names = list(rows[0])
    scores = [name for name in names if f"{name}_low" in names and f"{name}_high" in names]
    ends = {f"{name}_{end}" for name in scores for end in ("low", "high")}
    kept = [
        name
        for name in names
        if name not in ends and not (name.endswith("_sd") and name.removesuffix("_sd") in names)
    ]
    numeric = {name: name != kept[0] and _is_numeric(rows, name) for name in kept}
    barred = next((name for name in scores if numeric[name]), None)
    bounds = [value for row in rows for value in _ends(row, barred) or ()]
    limits = min(bounds, default=0.0), max(bounds, default=0.0)
    headings = [Heading(title(name, own), numeric[name]) for name in kept]
    lines = [[Cell(_text(row[kept[0]])) for _ in kept[:1]] for row in rows]
    for name in kept[1:]:
        whole = all(_is_whole(row[name]) for row in rows)
        for row, line in zip(rows, lines, strict=True):
            if numeric[name]:
                cell = _cell(row, name, whole, limits if name == barred else None, deviations)
                line.append(cell)
            else:
                line.append(Cell(_text(row[name])))
    return Table(about, headings, lines)


def _cell(
    row: Mapping[str, Any],
    name: str,
    whole: bool,
    limits: tuple[float, float] | None,
    deviations: bool,
) -> Cell:
    """The cell of a number; with a bar where the limits of the column's bars are given."""
    mean, ends, deviation = _value(row[name]), _ends(row, name), _value(row.get(f"{name}_sd"))
    text = p_value(mean) if _is_p(name) else rounded(mean, 0 if whole else 3)
    if deviation is not None and (deviations or ends is None):
        text += f" ± {rounded(deviation)}"
    if mean is None or ends is None:
        return Cell(text, True)
    bar = None
    if limits is not None and limits[0] < limits[1]:
        low, middle, high = (
            round(100 * (value - limits[0]) / (limits[1] - limits[0]), 1)
            for value in (ends[0], mean, ends[1])
        )
        bar = low, middle, high
    return Cell(text, True, f"{rounded(ends[0])}, {rounded(ends[1])}", bar)


def _is_p(name: str) -> bool:
    return "p" in name.split("_")


def _is_numeric(rows: Sequence[Mapping[str, Any]], name: str) -> bool:
    """Whether a column holds numbers and empty cells only, and at least one number."""
    known = [row[name] for row in rows if not _is_empty(row[name])]
    return bool(known) and all(_value(cell) is not None for cell in known)


def _is_whole(cell: Any) -> bool:
    if isinstance(cell, str):
        return cell == "" or cell.removeprefix("-").isdigit()
    return isinstance(cell, Integral) or _is_empty(cell)


def _is_empty(cell: Any) -> bool:
    return cell is None or cell == "" or (isinstance(cell, float) and math.isnan(cell))


def _text(cell: Any) -> str:
    return ABSENT if _is_empty(cell) else str(cell)


def _ends(row: Mapping[str, Any], name: str | None) -> tuple[float, float] | None:
    low, high = _value(row.get(f"{name}_low")), _value(row.get(f"{name}_high"))
    return (low, high) if low is not None and high is not None else None


def _value(cell: Any) -> float | None:
    """The finite number in a cell, of a csv file or of a data frame."""
    if isinstance(cell, str):
        value = number(cell)
    else:
        value = float(cell) if isinstance(cell, Real) and not isinstance(cell, bool) else None
    return value if value is not None and math.isfinite(value) else None


def _without(row: Mapping[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in row.items() if key != name}
