"""csv files: the one reader and the one writer of rows.

A cell that a spreadsheet would take for a formula (it begins with = + - @, a tab or a carriage
return, and is no number) is written behind an apostrophe, which is taken off again in reading.
"""

import csv
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

from anatosegnet.opening import read_text

FORMULA = re.compile(r"'*[=+\-@\t\r]")


def read_rows(path: str | Path, delimiter: str = ",") -> tuple[list[str], list[dict[str, str]]]:
    """The columns of a csv file with a header, and its rows as text.

    Missing cells are empty, superfluous ones are left out, and so are blank rows.

    Raises:
        OSError: The file is missing, may not be read, or is no file.
        ValueError: It is no such table.
    """
    try:
        reader = csv.DictReader(io.StringIO(read_text(path), newline=""), delimiter=delimiter,
                                restval="")  # fmt: skip
        columns = [str(name).strip() for name in reader.fieldnames or ()]
        reader.fieldnames = columns
        rows = [
            {key: unguarded(value) for key, value in row.items() if isinstance(value, str)}
            for row in reader
        ]
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
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow([guarded(name) for name in columns])
    for row in rows:
        cells = [row.get(name) for name in columns] if isinstance(row, Mapping) else row
        writer.writerow([guarded(cell) for cell in cells])


def guarded(cell: Any) -> Any:
    """A cell as it is written: behind an apostrophe where a spreadsheet would compute it."""
    if not isinstance(cell, str) or not FORMULA.match(cell) or _is_number(cell):
        return cell
    return f"'{cell}"


def unguarded(cell: str) -> str:
    """The opposite of `guarded`."""
    return cell[1:] if cell.startswith("'") and FORMULA.match(cell) else cell


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
