"""``split.csv`` of a run: the part that each case was in; its one reader and writer."""

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from anatosegnet.errors import UserError, reason
from anatosegnet.files.rows import read_rows, write_rows

PARTS = ("train", "val", "test")
UNUSED = "none"  # the part of cases that were in the data but in no part


class SplitRow(NamedTuple):
    """A case in a part; one that validates and tests has two rows. "" where nothing is known.

    Attributes:
        id: Its name.
        label: Its class; the column ``class``.
        part: One of `PARTS`, or `UNUSED`.
        group: Of patient and near-duplicates united, as it was split.
        patient: The dataset's own patient, if it tells.
        duplicates: Group of near-duplicates, if there are any.
        pixels: `pixel_digest` of the image.
        mask: The same of the merged mask at its original size.
    """

    id: str
    label: str
    part: str
    group: str
    patient: str
    duplicates: str
    pixels: str
    mask: str


COLUMNS = tuple("class" if field == "label" else field for field in SplitRow._fields)


def read_split(path: Path) -> list[SplitRow]:
    """The rows of a ``split.csv``; cells that an older run did not write are empty.

    Raises:
        UserError: It cannot be read, or is no split.
    """
    try:
        cells = read_rows(path)[1]
        rows = [SplitRow(*(row.get(column, "") for column in COLUMNS)) for row in cells]
        for row in rows:
            if not row.id or row.part not in (*PARTS, UNUSED):
                raise ValueError(f"a row has id {row.id!r}, part {row.part!r}")
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path} cannot be read as a split ({reason(error)}); put the file back"
        ) from error
    return rows


def write_split(path: Path, rows: Iterable[SplitRow]) -> None:
    """Write a ``split.csv``."""
    with path.open("w", newline="", encoding="utf-8") as file:
        write_rows(file, COLUMNS, rows)
