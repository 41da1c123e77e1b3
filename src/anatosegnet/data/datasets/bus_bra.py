"""BUS-BRA (Gómez-Flores et al., Medical Physics 2024): 1875 images of 1064 patients."""

import os
from pathlib import Path

from anatosegnet.data.case import Case, Problem
from anatosegnet.data.download import Download
from anatosegnet.data.files import files_by_stem, find_folder, read_table, require_directory
from anatosegnet.data.source import Found, Source
from anatosegnet.errors import UserError

NEEDED = ("Images", "Masks", "bus_data.csv")
HOW_TO_GET = (
    "download BUSBRA.zip from https://zenodo.org/records/8231412, unpack it, and set "
    "ANATOSEGNET_DATA_DIR (or data.root) to the folder that holds BUSBRA"
)
CLASSES = ("benign", "malignant")


class BUSBRASource(Source):
    """BUS-BRA: patients are groups, and it comes with folds that keep them together.

    ``bus_data.csv`` gives class, patient, BI-RADS, device, histology and side. Some of the sizes
    it gives are wrong: those of the files count.

    Args:
        root: The folder ``BUSBRA``, or one that holds it.
        official_folds: 5 or 10: which of its cross-validations gives the folds of
            ``split=official``.
    """

    downloads = (
        Download(
            url="https://zenodo.org/records/8231412/files/BUSBRA.zip",
            provides=("BUSBRA", "Images"),
            folder="BUSBRA",
            checksum="md5:1f8b2be6476d58fc97bfb5e5a1ea9bab",
            size=133_917_740,
            licence="CC BY 4.0, DOI 10.5281/zenodo.8231412",
        ),
    )
    how_to_get = HOW_TO_GET
    published = {"images": 1875, "benign": 1268, "malignant": 607, "patients": 1064}  # noqa: RUF012

    def __init__(self, root: str, official_folds: int = 5) -> None:
        self.root = Path(root)
        if official_folds not in (5, 10):
            raise UserError(f"data.official_folds={official_folds} must be 5 or 10")
        self.official_folds = official_folds

    def find_cases(self) -> Found:
        """Read the tables and find their files; see `Source.find_cases`."""
        require_directory(self.root, HOW_TO_GET)
        folder = find_folder((self.root, self.root / "BUSBRA"), NEEDED)
        if folder is None:
            raise UserError(f"{self.root} holds no BUSBRA with {', '.join(NEEDED)}; {HOW_TO_GET}")
        table = folder / "bus_data.csv"
        rows = read_table(table, ("ID", "Case", "Pathology"))
        folds, problems = self._folds(folder / f"{self.official_folds}-fold-cv.csv")
        images = files_by_stem(folder / "Images", problems)
        masks = files_by_stem(folder / "Masks", problems)
        cases: list[Case] = []
        for row in rows:
            name = row["ID"].removesuffix(".png")
            mask_stem = f"mask_{name.removeprefix('bus_')}"
            image, mask = images.pop(name, None), masks.pop(mask_stem, None)
            label = row["Pathology"].lower()
            faults = []
            if image is None:
                faults.append(f"{table}: {name} has no image in {folder / 'Images'}")
            if mask is None:
                faults.append(f"{table}: {name} has no mask {mask_stem} in {folder / 'Masks'}")
            if label not in CLASSES:
                faults.append(
                    f"{table}: the Pathology of {name} is {label!r}, not benign or malignant"
                )
            if folds and name not in folds:
                faults.append(f"{table}: {name} is in no fold of {self.official_folds}-fold-cv.csv")
            problems += [Problem(fault, name) for fault in faults]
            if image and mask and label in CLASSES:
                group = f"patient {row['Case']}" if row["Case"] else ""
                fold = folds.get(name)
                cases.append(Case(name, image, (mask,), label, None, group, fold, _details(row)))
        problems += [
            Problem(f"{path}: is not in {table.name}", stem) for stem, path in images.items()
        ]
        problems += [
            Problem(f"{path}: is a mask without an image", f"bus_{stem.removeprefix('mask_')}")
            for stem, path in masks.items()
            if f"bus_{stem.removeprefix('mask_')}" not in images
        ]
        if not cases and not problems:
            raise UserError(f"{table} lists no case; {HOW_TO_GET}")
        return Found(cases, problems)

    def _folds(self, path: Path) -> tuple[dict[str, int], list[str]]:
        """Fold of each case, counted from 0 (the file counts from 1); none without the file."""
        if not os.path.lexists(path):
            return {}, []
        folds: dict[str, int] = {}
        problems: list[str] = []
        for row in read_table(path, ("ID", "kFold")):
            name = row["ID"].removesuffix(".png")
            if row["kFold"].isdecimal() and 1 <= int(row["kFold"]) <= self.official_folds:
                folds[name] = int(row["kFold"]) - 1
            else:
                line = f"the kFold of {name} is {row['kFold']!r}, not 1 to {self.official_folds}"
                problems.append(Problem(f"{path}: {line}", name))
        return folds, problems


def _details(row: dict[str, str]) -> dict[str, str]:
    details = {k.lower(): row.get(k, "") for k in ("BIRADS", "Device", "Histology", "Side")}
    if row.get("Height") and row.get("Width"):
        details["listed_size"] = f"{row['Width']}×{row['Height']}"
    return {key: value for key, value in details.items() if value}
