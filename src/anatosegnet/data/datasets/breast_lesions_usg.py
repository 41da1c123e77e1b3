"""BrEaST = TCIA "Breast-Lesions-USG" (DOI 10.7937/9WKK-Q141, CC BY 4.0): one image a patient."""

import io
import math
import zipfile
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from anatosegnet.data.case import CLASSES, NORMAL, Case, Problem, count_cases
from anatosegnet.data.download import Download
from anatosegnet.data.files import (
    file_named,
    files_by_stem,
    require_columns,
    require_directory,
)
from anatosegnet.data.source import Found, Source
from anatosegnet.errors import UserError, reason
from anatosegnet.files.opening import LARGEST_TEXT, read_bytes

IMAGES = "BrEaST-Lesions_USG-images_and_masks"
SPREADSHEET = "BrEaST-Lesions-USG-clinical-data*.xlsx"
HOW_TO_GET = (
    "download images and clinical data from https://doi.org/10.7937/9WKK-Q141, and set "
    f"ANATOSEGNET_DATA_DIR (or data.root) to the folder that holds {IMAGES} and the .xlsx"
)
COLUMNS = ("Image_filename", "Mask_tumor_filename", "Pixel_size", "Classification")
OTHER_MASKS = "Mask_other_filename"
TCIA = "https://www.cancerimagingarchive.net/wp-content/uploads/"


class BreastLesionsUSGSource(Source):
    """BrEaST; classes and pixel sizes come from its spreadsheet.

    Only tumour masks are used: the ``…_other1.png`` masks show other lesions. The other columns
    of the spreadsheet become a case's ``details``, under their names in lower case.

    Args:
        root: The folder that holds the images' folder and the spreadsheet.
        include_normal: Keep the four images without a lesion.
    """

    downloads = (
        Download(
            url=f"{TCIA}BrEaST-Lesions_USG-images_and_masks-Dec-15-2023.zip",
            provides=(IMAGES,),
            folder=IMAGES,
            licence="CC BY 4.0, DOI 10.7937/9WKK-Q141",
        ),
        Download(
            url=f"{TCIA}BrEaST-Lesions-USG-clinical-data-Dec-15-2023.xlsx",
            provides=(SPREADSHEET,),
            licence="CC BY 4.0, DOI 10.7937/9WKK-Q141",
        ),
    )
    how_to_get = HOW_TO_GET
    published = {  # noqa: RUF012
        "images": 256,
        "benign": 154,
        "malignant": 98,
        "normal": 4,
        "masks": 252,
        "masks of other lesions, not used": 14,
    }

    def __init__(self, root: str, include_normal: bool = False) -> None:
        self.root = Path(root)
        self.include_normal = include_normal

    def counts(self, cases: Iterable[Case]) -> dict[str, int]:
        """The common counts, and the masks that are left aside."""
        cases = list(cases)
        others = [_names(case.details.get(OTHER_MASKS.lower(), "")) for case in cases]
        return {**count_cases(cases), "masks of other lesions, not used": sum(map(len, others))}

    def find_cases(self) -> Found:
        """Read the spreadsheet and find its files; see `Source.find_cases`."""
        folder = require_directory(self.root / IMAGES, HOW_TO_GET)
        spreadsheets = sorted(self.root.glob(SPREADSHEET))
        if not spreadsheets:
            raise UserError(f"{self.root} holds no {SPREADSHEET}; {HOW_TO_GET}")
        cases: list[Case] = []
        problems: list[str] = []
        listed: set[str] = set()
        for row in _rows(spreadsheets[-1]):
            named = [row["Image_filename"], *_names(row["Mask_tumor_filename"])]
            files = {cell: file_named(folder, cell) for cell in named}
            outside = [cell for cell, path in files.items() if path is None]
            problems += [
                Problem(f"{spreadsheets[-1]}: names {cell!r}, which is no file of {folder}")
                for cell in outside
            ]
            if outside:
                continue
            image, *paths = (path for cell in named if (path := files[cell]))
            name, label = image.stem, row["Classification"].lower()
            listed |= {image.name, *(path.name for path in paths)}
            if label == NORMAL and not self.include_normal:
                continue
            missing = [path for path in (image, *paths) if not path.is_file()]
            faults = [f"{path}: is in the spreadsheet but not in the folder" for path in missing]
            if label not in CLASSES:
                known = ", ".join(CLASSES)
                faults.append(
                    f"{image}: the spreadsheet's Classification of it is {label!r}, not one of "
                    f"{known}"
                )
            elif not paths and label != NORMAL:
                faults.append(f"{image}: the spreadsheet names no tumour mask for it")
            size = _pixel_size_mm(row["Pixel_size"], image, faults)
            problems += [Problem(fault, name) for fault in faults]
            if not missing and label in CLASSES and (paths or label == NORMAL):
                details = {key.lower(): v for key, v in row.items() if key not in COLUMNS and v}
                cases.append(Case(name, image, tuple(paths), label, size, details=details))
        problems += [
            Problem(f"{path}: is in the folder but not in the spreadsheet", path.stem)
            for path in files_by_stem(folder, problems).values()
            if path.name not in listed and "_other" not in path.stem
        ]
        if not cases and not problems:
            raise UserError(f"{spreadsheets[-1]} lists no case; {HOW_TO_GET}")
        return Found(cases, problems)


def _rows(path: Path) -> list[dict[str, str]]:
    """The spreadsheet's rows as text; empty cells are ""."""
    import pandas  # half a second that only this dataset pays

    try:
        content = io.BytesIO(read_bytes(path))
        with zipfile.ZipFile(content) as parts:
            unpacked = sum(part.file_size for part in parts.infolist())
        if unpacked > LARGEST_TEXT:
            raise ValueError(f"it would unpack to {unpacked / 1e6:.0f} MB")
        table = pandas.read_excel(content, dtype=str).fillna("")
    except Exception as error:  # openpyxl and zipfile raise many kinds for a damaged file
        raise UserError(f"{path} cannot be read ({reason(error)}); {HOW_TO_GET}") from error
    require_columns(path, COLUMNS, [str(column) for column in table])
    return [
        {str(column).strip(): str(cell).strip() for column, cell in row.items()}
        for row in table.to_dict("records")
        if row["Image_filename"].strip()  # not the blank rows that spreadsheets collect
    ]


def _names(cell: str) -> list[str]:
    """File names of a cell, which joins several by ``&``."""
    return [name.strip() for name in cell.split("&") if name.strip()]


def _pixel_size_mm(text: str, image: Path, problems: list[str]) -> float | None:
    """The edge of a pixel in mm from the cell, which holds cm; None if it is empty."""
    if not text:
        return None
    with suppress(ValueError):
        if 0 < float(text) < math.inf:
            return float(text) * 10
    problems.append(f"{image}: the spreadsheet gives its Pixel_size as {text!r}, not a size in cm")
    return None
