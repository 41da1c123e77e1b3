"""The split of a run, read back from what `Split.write` wrote."""

import csv
from collections.abc import Sequence
from pathlib import Path

from anatosegnet.data.case import Case
from anatosegnet.data.split import PARTS, Split, some
from anatosegnet.errors import UserError


class RecordedSplit:
    """The split that a run wrote into its ``split.csv``."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def __call__(self, cases: Sequence[Case]) -> Split:
        """Read the split; raises UserError if its cases are not all there."""
        split = self.read()
        known = {case.name for case in cases}
        missing = sorted({*split.train, *split.val, *split.test} - known)
        if missing:
            raise UserError(
                f"{len(missing)} cases of {self.path} are not in the data: {some(missing)}; "
                "point paths.data_dir to the data of the run"
            )
        return split

    def read(self) -> Split:
        """The split as recorded, whatever cases there are."""
        parts: dict[str, list[str]] = {part: [] for part in PARTS}
        for row in self.rows():
            parts[row["part"]].append(row["id"])
        train, val, test = (tuple(parts[part]) for part in PARTS)
        return Split(train, val, test, f"recorded in {self.path}")

    def rows(self) -> list[dict[str, str]]:
        """The rows of ``split.csv``; older runs have no ``group`` and no ``pixels``."""
        try:
            with self.path.open(newline="", encoding="utf-8-sig") as file:
                rows = list(csv.DictReader(file))
            if wrong := [row for row in rows if row["part"] not in PARTS or not row["id"]]:
                raise ValueError(f"part {wrong[0]['part']!r}")
        except (OSError, KeyError, TypeError, ValueError, csv.Error) as error:
            raise UserError(f"{self.path} cannot be read as a split ({error!r})") from error
        return rows
