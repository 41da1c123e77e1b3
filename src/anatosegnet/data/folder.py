"""Anyone's data: a folder with ``images/`` and ``labels/``, paired by file stem."""

import re
from pathlib import Path
from typing import Any

from anatosegnet.data.case import NORMAL, UNKNOWN, Case, CaseError, read_mask
from anatosegnet.data.datamodule import SegmentationDataModule, pair_by_stem, require_directory
from anatosegnet.errors import UserError

CLASSES = ("benign", "malignant", "normal")


class FolderDataModule(SegmentationDataModule):
    """Images and masks of the same stem in ``root/images`` and ``root/labels``.

    The class of a case is the word its name begins with, if that is benign, malignant or
    normal; else it is unknown.

    Args:
        root: The folder.
        include_normal: Keep images whose mask is empty, as cases without a lesion. Without it
            images named normal are left out, and any other empty mask is a problem to put right.
        **shared: See `SegmentationDataModule`.
    """

    def __init__(self, root: str | None, include_normal: bool = False, **shared: Any) -> None:
        super().__init__(**shared)
        if root is None:
            raise UserError(
                "data=folder needs data.root=FOLDER, which holds images/ and labels/ "
                "with files of the same stem"
            )
        self.root = Path(root)
        self.include_normal = include_normal

    def find_cases(self) -> tuple[list[Case], list[str]]:
        """Pair the files; see `SegmentationDataModule.find_cases`."""
        way_out = "put images into images/ and masks of the same stem into labels/"
        for folder in (self.root, self.root / "images", self.root / "labels"):
            require_directory(folder, self.name, way_out)
        pairs, problems = pair_by_stem(self.root / "images", self.root / "labels")
        cases = []
        for stem, image, mask in pairs:
            label = class_in_name(stem)
            if self.include_normal and _is_empty(mask):
                label = NORMAL
            if self.include_normal or label != NORMAL:
                cases.append(Case(stem, image, (mask,), label))
        if not cases and not problems:
            raise UserError(f"data {self.name}: {self.root / 'images'} holds no image; {way_out}")
        return cases, problems


def class_in_name(name: str) -> str:
    """The class that is the first word of a name, or ``unknown``."""
    word = re.match(r"[^\W\d_]*", name.lower())
    return word[0] if word and word[0] in CLASSES else UNKNOWN


def _is_empty(mask: Path) -> bool:
    try:
        return not read_mask(mask).any()
    except CaseError:
        return False  # reported when the case is read
