"""csv files: the one reader and the one writer of rows.

A cell that a spreadsheet would take for a formula (it begins with = + - @, a tab or a carriage
return, and is no number) is written behind an apostrophe, which is taken off again in reading.
"""

import csv
import io
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO, TypeGuard

from anatosegnet.console import plain
from anatosegnet.files.opening import read_text

if TYPE_CHECKING:
    from pandas import DataFrame

FORMULA = re.compile(r"'*[=+\-@\t\r]")


def read_rows(
    path: str | Path, delimiter: str = ",", ragged: bool = True
) -> tuple[list[str], list[dict[str, str]]]:
    """The columns of a csv file with a header, and its rows as text.

    Missing cells are empty, superfluous ones are left out, and so are blank rows.

    Args:
        path: The file.
        delimiter: Between cells.
        ragged: Rows may have too few or too many cells; of files written here none has.

    Raises:
        OSError: The file is missing, may not be read, or is no file.
        ValueError: It is no such table.
    """
    try:
        reader = csv.DictReader(
            io.StringIO(read_text(path), newline=""), delimiter=delimiter, restval=""
        )
        columns = [str(name).strip() for name in reader.fieldnames or ()]
        reader.fieldnames = columns = [unguarded(name) for name in columns]
        # spreadsheets leave several columns without a name
        for name, count in Counter(columns).items():
            if count > 1 and (name or not ragged):
                raise ValueError(f"it has the column {plain(name[:60])!r} {count} times")
        if not ragged:
            reader.restval = None
        rows = []
        for row in reader:
            if not ragged and (None in row or None in row.values()):
                raise ValueError(f"row {reader.line_num} has too few or too many cells")
            rows.append({k: unguarded(cell) for k, cell in row.items() if isinstance(cell, str)})
    except csv.Error as error:
        raise ValueError(str(error)) from error
    return columns, [row for row in rows if any(row.values())]


def write_rows(
    file: TextIO, columns: Sequence[str], rows: Iterable[Mapping[str, Any] | Sequence[Any]]
) -> None:
    """Write a csv table with its header.

    Args:
        file: Opened with ``newline=""``.
        columns: The header.
        rows: A mapping by column (what is missing stays empty), or the cells in order.
    """
    # csv's own writer leaves a lone carriage return bare, and other readers begin a row there
    file.write(row_text(columns))
    for row in rows:
        file.write(
            row_text([row.get(name) for name in columns] if isinstance(row, Mapping) else row)
        )


def write_frame(path: Path, frame: "DataFrame", digits: str = "%.6f") -> None:
    """Write a data frame as a csv table; empty where a value is unknown.

    Args:
        path: The file.
        frame: Its index is left out.
        digits: Format of floats.
    """

    def text(cell: Any) -> Any:
        if isinstance(cell, float):
            return "" if cell != cell else digits % cell  # NaN alone is not itself
        return cell

    with path.open("w", newline="", encoding="utf-8") as file:
        columns = (frame[name].tolist() for name in frame.columns)
        rows = zip(*columns, strict=True)
        write_rows(file, list(frame.columns), ([text(cell) for cell in row] for row in rows))


def row_text(cells: Iterable[Any]) -> str:
    """A row of a csv table, with the end of its line."""
    texts = ("" if cell is None else str(guarded(cell)) for cell in cells)
    return (
        ",".join(
            '"' + text.replace('"', '""') + '"' if re.search('[,"\r\n]', text) else text
            for text in texts
        )
        + "\n"
    )


def guarded(cell: Any) -> Any:
    """A cell as it is written: behind an apostrophe where a spreadsheet would compute it."""
    if not isinstance(cell, str) or not FORMULA.match(cell) or number(cell) is not None:
        return cell
    return f"'{cell}"


def unguarded(cell: str) -> str:
    """The opposite of `guarded`."""
    return cell[1:] if cell.startswith("'") and FORMULA.match(cell) else cell


def number(text: str) -> float | None:
    """The number a cell stands for, None if none."""
    try:
        return float(text)
    except ValueError:
        return None


def is_finite(value: Any) -> TypeGuard[float]:
    """Whether this is a finite number."""
    return isinstance(value, int | float) and math.isfinite(value)
