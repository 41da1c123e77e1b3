"""Anyone's data: a folder with ``images/`` and ``labels/``, paired by file stem."""

import math
import os
import re
import unicodedata
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from anatosegnet.data.case import CLASSES, NORMAL, UNKNOWN, Case, CaseError, Problem, read_mask
from anatosegnet.data.duplicates import Pair, read_pairs
from anatosegnet.data.files import pair_by_stem, read_table, require_directory
from anatosegnet.data.source import Found, Source
from anatosegnet.errors import UserError

TABLE = "cases.csv"
PAIRS = "duplicates.csv"


class FolderSource(Source):
    """Images and masks of the same stem in ``root/images`` and ``root/labels``.

    The class of a case is the word its name begins with, if that is benign, malignant or
    normal; else it is unknown. A table ``root/cases.csv`` with a column ``id`` says it better: its
    columns ``class``, ``group`` (patient), ``fold`` and ``pixel_size_mm`` count, the others become
    a case's ``details``; it must then list every image. Near-duplicates listed in
    ``root/duplicates.csv`` (``id_a``, ``id_b``, ``similarity``) are taken from there: an export
    holds those of the original images.

    Args:
        root: The folder.
        include_normal: Keep images whose mask is empty, as cases without a lesion. Without it
            images named normal are left out, and any other empty mask is a problem to put right.
    """

    def __init__(self, root: str | None, include_normal: bool = False) -> None:
        if root is None:
            raise UserError(
                "data=folder needs data.root=FOLDER, which holds images/ and labels/ "
                "with files of the same stem"
            )
        self.root = Path(root)
        self.include_normal = include_normal

    def find_cases(self) -> Found:
        """Pair the files; see `Source.find_cases`."""
        way_out = (
            "give data.root=FOLDER, with images in images/ and masks of their stems in labels/"
        )
        for folder in (self.root, self.root / "images", self.root / "labels"):
            require_directory(folder, way_out)
        pairs, problems = pair_by_stem(self.root / "images", self.root / "labels")
        table = self.root / TABLE
        rows = _rows_by_id(table, problems) if os.path.lexists(table) else None
        cases = []
        for stem, image, mask in pairs:
            if rows is not None and stem not in rows:
                problems.append(Problem(f"{image}: is not in {table}", stem))
            row = rows.pop(stem, {}) if rows is not None else {}
            case = _case(stem, image, mask, row, table, problems)
            if not row.get("class") and self.include_normal and _is_empty(mask):
                case = replace(case, label=NORMAL)
            if self.include_normal or case.label != NORMAL:
                cases.append(case)
        problems += [
            Problem(f"{table}: {name} has no image in {self.root / 'images'}", name)
            for name in rows or ()
        ]
        if not cases and not problems:
            raise UserError(f"{self.root / 'images'} holds no image; {way_out}")
        return Found(cases, problems)

    def known_duplicates(self) -> list[Pair] | None:
        """Those of ``duplicates.csv``, where it is there."""
        path = self.root / PAIRS
        return read_pairs(path) if os.path.lexists(path) else None


def _rows_by_id(path: Path, problems: list[str]) -> dict[str, dict[str, str]]:
    rows: dict[str, dict[str, str]] = {}
    twice: set[str] = set()
    for row in read_table(path, ("id",)):
        name = unicodedata.normalize("NFC", row["id"])
        if name in rows and name not in twice:
            problems.append(Problem(f"{path}: lists {name} twice", name))
            twice.add(name)
        rows[name] = {**row, "id": name}
    return rows


def _case(
    stem: str, image: Path, mask: Path, row: dict[str, str], table: Path, problems: list[str]
) -> Case:
    """The case as the table tells it, or its name alone."""
    label = row.get("class") or class_in_name(stem)
    if label not in (*CLASSES, UNKNOWN):
        known = ", ".join((*CLASSES, UNKNOWN))
        problems.append(Problem(f"{table}: the class of {stem} is {label!r}, not {known}", stem))
    fold, size = row.get("fold", ""), row.get("pixel_size_mm", "")
    if fold and not fold.isdecimal():
        problems.append(Problem(f"{table}: the fold of {stem} is {fold!r}, not 0, 1, …", stem))
    pixel = None
    if size:
        with suppress(ValueError):
            pixel = float(size)
        if pixel is None or not 0 < pixel < math.inf:
            problems.append(
                Problem(f"{table}: the pixel_size_mm of {stem} is {size!r}, not a size", stem)
            )
    details = {
        key: value
        for key, value in row.items()
        if value and key not in ("id", "class", "group", "fold", "pixel_size_mm")
    }
    number = int(fold) if fold.isdecimal() else None
    return Case(stem, image, (mask,), label, pixel, row.get("group", ""), number, details)


def class_in_name(name: str) -> str:
    """The class that is the first word of a name, or ``unknown``."""
    word = re.match(r"[^\W\d_]*", name.lower())
    return word[0] if word and word[0] in CLASSES else UNKNOWN


def _is_empty(mask: Path) -> bool:
    try:
        return not read_mask(mask).any()
    except CaseError:
        return False  # reported when the case is read
