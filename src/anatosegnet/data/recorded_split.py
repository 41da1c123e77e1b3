"""``split.csv``: the split that a run trained with, and what its cases were; written and read here.

One row per case and part, so a case that validates and tests has two:

========== =====================================================================
id, class  the case
part       train, val or test; `UNUSED` where it was in the data but in no part
group      of patient and near-duplicates united, as it was split
patient    the dataset's own patient, if it tells
duplicates group of near-duplicates, if there are any
pixels     `pixel_digest` of the image
mask       the same of the merged mask at its original size
========== =====================================================================
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from anatosegnet.console import some
from anatosegnet.data.case import Case
from anatosegnet.data.duplicates import Digests
from anatosegnet.data.split import PARTS, Split
from anatosegnet.errors import UserError, reason
from anatosegnet.files.rows import read_rows, write_rows

COLUMNS = ("id", "class", "part", "group", "patient", "duplicates", "pixels", "mask")
UNUSED = "none"


def write_split(
    path: Path,
    split: Split,
    cases: Iterable[Case],
    digests: Mapping[str, Digests] | None = None,
    twins: Mapping[str, str] | None = None,
) -> None:
    """Write ``split.csv``.

    Args:
        path: The file.
        split: The split.
        cases: All cases, with their groups.
        digests: Of the cases, by name; empty where they are not known.
        twins: Group of near-duplicates of each case that has one.
    """
    known = {case.name: case for case in cases}
    used = {*split.train, *split.val, *split.test}
    parts = {part: getattr(split, part) for part in PARTS}
    parts[UNUSED] = [name for name in known if name not in used]
    rows = []
    for part, names in parts.items():
        for name in names:
            case, (pixels, mask) = known[name], (digests or {}).get(name, ("", ""))
            twin = (twins or {}).get(name, "")
            rows.append([name, case.label, part, case.group, case.patient, twin, pixels, mask])
    with path.open("w", newline="", encoding="utf-8") as file:
        write_rows(file, COLUMNS, rows)


class RecordedSplit:
    """The split that a run wrote into its ``split.csv``.

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
        parts: dict[str, list[str]] = {part: [] for part in (*PARTS, UNUSED)}
        for row in self.rows():
            parts[row["part"]].append(row["id"])
        train, val, test = (tuple(parts[part]) for part in PARTS)
        return Split(train, val, test, self.description)

    def rows(self) -> list[dict[str, str]]:
        """All `COLUMNS` of each row; those that an older run did not write are empty.

        Raises:
            UserError: It cannot be read, or is no split.
        """
        try:
            _, rows = read_rows(self.path)
            for row in rows:
                if not row.get("id") or row.get("part") not in (*PARTS, UNUSED):
                    raise ValueError(f"a row has id {row.get('id')!r}, part {row.get('part')!r}")
        except (OSError, ValueError) as error:
            raise UserError(
                f"{self.path} cannot be read as a split ({reason(error)}); put the file back"
            ) from error
        return [{column: row.get(column, "") for column in COLUMNS} for row in rows]
