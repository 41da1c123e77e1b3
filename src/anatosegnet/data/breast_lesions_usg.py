"""BrEaST = TCIA "Breast-Lesions-USG" (DOI 10.7937/9WKK-Q141, CC BY 4.0): one image a patient."""

from pathlib import Path
from typing import Any

from anatosegnet.data.case import NORMAL, UNKNOWN, Case
from anatosegnet.data.datamodule import (
    SegmentationDataModule,
    files_by_stem,
    require_directory,
)
from anatosegnet.errors import UserError

IMAGES = "BrEaST-Lesions_USG-images_and_masks"
SPREADSHEET = "BrEaST-Lesions-USG-clinical-data*.xlsx"
HOW_TO_GET = (
    "download images and clinical data from https://doi.org/10.7937/9WKK-Q141, and set "
    f"ANATOSEGNET_DATA_DIR (or data.root) to the folder that holds {IMAGES} and the .xlsx"
)
COLUMNS = ("Image_filename", "Mask_tumor_filename", "Pixel_size", "Classification")


class BreastLesionsUSGDataModule(SegmentationDataModule):
    """BrEaST; classes and pixel sizes come from its spreadsheet.

    Only tumour masks are used: the ``…_other1.png`` masks show other lesions.

    Args:
        root: The folder that holds the images' folder and the spreadsheet.
        include_normal: Keep the four images without a lesion.
        **shared: See `SegmentationDataModule`.
    """

    def __init__(self, root: str, include_normal: bool = False, **shared: Any) -> None:
        super().__init__(**shared)
        self.root = Path(root)
        self.include_normal = include_normal

    def find_cases(self) -> tuple[list[Case], list[str]]:
        """Read the spreadsheet and find its files; see `SegmentationDataModule.find_cases`."""
        folder = require_directory(self.root / IMAGES, self.name, HOW_TO_GET)
        spreadsheets = sorted(self.root.glob(SPREADSHEET))
        if not spreadsheets:
            raise UserError(f"data {self.name}: {self.root} holds no {SPREADSHEET}; {HOW_TO_GET}")
        cases: list[Case] = []
        problems: list[str] = []
        listed: set[str] = set()
        for row in _rows(spreadsheets[-1], self.name):
            # several file names are joined by "&"
            masks = [part.strip() for part in row["Mask_tumor_filename"].split("&")]
            paths = [folder / name for name in masks if name]
            image = folder / row["Image_filename"]
            listed |= {image.name, *(path.name for path in paths)}
            if row["Classification"] == NORMAL and not self.include_normal:
                continue
            missing = [path for path in (image, *paths) if not path.is_file()]
            problems += [f"{path}: is in the spreadsheet but not in the folder" for path in missing]
            if not paths and row["Classification"] != NORMAL:
                problems.append(f"{image}: the spreadsheet names no tumour mask for it")
            elif not missing:
                size = _pixel_size_mm(row["Pixel_size"], image, problems)
                label = row["Classification"] or UNKNOWN
                cases.append(Case(image.stem, image, tuple(paths), label, size))
        problems += [
            f"{path}: is in the folder but not in the spreadsheet"
            for path in files_by_stem(folder, []).values()
            if path.name not in listed and "_other" not in path.stem
        ]
        if not cases and not problems:
            raise UserError(f"data {self.name}: {spreadsheets[-1]} lists no case; {HOW_TO_GET}")
        return cases, problems


def _rows(path: Path, dataset: str) -> list[dict[str, str]]:
    """The spreadsheet's rows as text; empty cells are ""."""
    import pandas  # half a second that only this dataset pays

    try:
        table = pandas.read_excel(path, dtype=str).fillna("")
    except Exception as error:  # openpyxl and zipfile raise many kinds for a damaged file
        raise UserError(f"data {dataset}: {path} cannot be read ({error}); {HOW_TO_GET}") from error
    missing = [column for column in COLUMNS if column not in table]
    if missing:
        raise UserError(f"data {dataset}: {path} has no column {', '.join(missing)}")
    return [
        {column: str(row[column]).strip() for column in COLUMNS}
        for row in table.to_dict("records")
        if row["Image_filename"].strip()  # not the blank rows that spreadsheets collect
    ]


def _pixel_size_mm(text: str, image: Path, problems: list[str]) -> float | None:
    """The edge of a pixel in mm from the cell, which holds cm; None if it is empty."""
    if not text:
        return None
    try:
        return float(text) * 10
    except ValueError:
        problems.append(f"{image}: the spreadsheet gives its Pixel_size as {text!r}, not a number")
        return None
