"""The split that a run trained with: recorded in its ``split.csv``, and read from there."""

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path

from anatosegnet.console import some
from anatosegnet.data.case import Case
from anatosegnet.data.duplicates import Digests
from anatosegnet.data.split import Split
from anatosegnet.errors import UserError
from anatosegnet.files import split_table
from anatosegnet.files.split_table import PARTS, UNUSED, SplitRow, read_split


def write_split(
    path: Path,
    split: Split,
    cases: Iterable[Case],
    digests: Mapping[str, Digests] | None = None,
    duplicates: Mapping[str, str] | None = None,
) -> None:
    """Write ``split.csv``.

    Args:
        path: The file.
        split: The split.
        cases: All cases, with their groups.
        digests: Of the cases, by name; empty where they are not known.
        duplicates: Group of near-duplicates of each case that has one.
    """
    known = {case.name: case for case in cases}
    used = {*split.train, *split.val, *split.test}
    parts = {part: getattr(split, part) for part in PARTS}
    parts[UNUSED] = [name for name in known if name not in used]
    rows = []
    for part, names in parts.items():
        for name in names:
            case, (pixels, mask) = known[name], (digests or {}).get(name, ("", ""))
            group = (duplicates or {}).get(name, "")
            rows.append(
                SplitRow(name, case.label, part, case.group, case.patient, group, pixels, mask)
            )
    split_table.write_split(path, rows)


class RecordedSplit:
    """The split that a run wrote into its ``split.csv``, which is read once.

    Args:
        path: The file.
        description: Of the split, as the run recorded it elsewhere; older runs did not.
        needed: Parts of which some case must be there; by default all cases must.
    """

    def __init__(
        self, path: str | Path, description: str | None = None, needed: Sequence[str] = ()
    ) -> None:
        self.path = Path(path)
        self.description = description or f"recorded in {self.path}"
        self.needed = tuple(needed)

    def __call__(self, cases: Sequence[Case]) -> Split:
        """Read the split of the cases that are there; raises UserError where they are missing."""
        split, known = self.read(), {case.name for case in cases}
        missing = sorted({*split.train, *split.val, *split.test} - known)
        there = split.among(known)
        enough = self.needed and all(getattr(there, part) for part in self.needed)
        if missing and not enough:
            raise UserError(
                f"{len(missing)} cases of {self.path} are not in the data: {some(missing)}; "
                "point paths.data_dir to the data of the run"
            )
        return there

    def read(self) -> Split:
        """The split as recorded, whatever cases there are."""
        train, val, test = (
            tuple(row.id for row in self.rows if row.part == part) for part in PARTS
        )
        return Split(train, val, test, self.description)

    @cached_property
    def digests(self) -> dict[str, Digests]:
        """Of the image and the mask of each case; empty where the run recorded none."""
        return {row.id: Digests(row.pixels, row.mask) for row in self.rows}

    @cached_property
    def rows(self) -> list[SplitRow]:
        """All rows; raises UserError as `read_split`."""
        return read_split(self.path)
