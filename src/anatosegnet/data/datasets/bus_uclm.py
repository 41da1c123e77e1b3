"""BUS-UCLM (Vallez et al., Scientific Data 2025): 683 images of 38 patients, 419 normal."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from anatosegnet.data.case import NORMAL, UNKNOWN, Case, CaseError, Problem, read_image
from anatosegnet.data.files import find_folder, pair_by_stem, read_table, require_directory
from anatosegnet.data.source import Found, Source
from anatosegnet.errors import UserError

NEEDED = ("images", "masks")
OTHER_COLOURS = "other colours"
PLACES = (
    "",
    "BUS-UCLM",
    "bus_uclm",
    "BUS-UCLM Breast ultrasound lesion segmentation dataset/BUS-UCLM",
)
HOW_TO_GET = (
    "download it by hand from https://data.mendeley.com/datasets/7fvgj4jsp7 (non-commercial "
    "licence), and set ANATOSEGNET_DATA_DIR (or data.root) to the folder that holds BUS-UCLM "
    "with images/ and masks/"
)


class BUSUCLMSource(Source):
    """BUS-UCLM: the colour of a mask is its class, the first four letters are the patient.

    Green is benign, red malignant, black normal. ``INFO.csv``, where it lies beside, adds
    ``details``. A mask that does not fit its image is a problem, never resized.

    Args:
        root: The folder with ``images`` and ``masks``, or one that holds it as ``BUS-UCLM``.
        include_normal: Keep the images without a lesion.
    """

    how_to_get = HOW_TO_GET
    published = {  # noqa: RUF012
        "images": 683,
        "benign": 174,
        "malignant": 90,
        "normal": 419,
        "patients": 38,
    }

    def __init__(self, root: str, include_normal: bool = False) -> None:
        self.root = Path(root)
        self.include_normal = include_normal

    def find_cases(self) -> Found:
        """Pair the files, and read the masks for their classes; see `Source.find_cases`."""
        require_directory(self.root, HOW_TO_GET)
        folder = find_folder([self.root / place for place in PLACES], NEEDED)
        if folder is None:
            raise UserError(f"{self.root} holds no BUS-UCLM with images/ and masks/; {HOW_TO_GET}")
        pairs, problems = pair_by_stem(folder / "images", folder / "masks")
        details = _details(folder / "INFO.csv")
        with ThreadPoolExecutor() as pool:
            labels = pool.map(_class_of, [mask for _, _, mask in pairs])
            cases = [
                Case(stem, image, (mask,), label, None, stem[:4], details=details.get(stem, {}))
                for (stem, image, mask), label in zip(pairs, labels, strict=True)
                if self.include_normal or label != NORMAL
            ]
        wrong = "its colours are neither green (benign) nor red (malignant)"
        problems += [
            Problem(f"{case.masks[0]}: {wrong}", case.name)
            for case in cases
            if case.label == OTHER_COLOURS
        ]
        if not cases and not problems:
            raise UserError(f"{folder / 'images'} holds no case; {HOW_TO_GET}")
        return Found(cases, problems)


def _details(path: Path) -> dict[str, dict[str, str]]:
    """Columns of ``INFO.csv`` by case, in lower case; nothing without the file."""
    if not os.path.lexists(path):
        return {}
    details = {}
    for row in read_table(path, ("Image",), ";"):
        name = row.pop("Image").removesuffix(".png")
        details[name] = {key.lower(): value for key, value in row.items() if key and value}
    return details


def _class_of(mask: Path) -> str:
    """The class a mask's colour stands for; malignant if it shows both."""
    try:
        pixels = read_image(mask)
    except CaseError:
        return UNKNOWN  # reported when the case is read
    red, green = pixels[..., 0] > 127, pixels[..., 1] > 127
    if not (pixels > 127).any():
        return NORMAL
    if (red & green).any() or not (red | green).any():
        return OTHER_COLOURS
    return "malignant" if red.any() else "benign"
