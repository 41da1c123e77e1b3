"""BUSI (Al-Dhabyani et al., Data in Brief 2020): 437 benign, 210 malignant, 133 normal images."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from anatosegnet.data.case import CLASSES, NORMAL, Case, Problem, count_cases
from anatosegnet.data.datasets.folder import class_in_name
from anatosegnet.data.download import Download
from anatosegnet.data.files import files_by_stem, pair_by_stem, require_directory, without_partner
from anatosegnet.data.source import Found, Source
from anatosegnet.errors import UserError

HOW_TO_GET = (
    "download Dataset_BUSI.zip from https://scholar.cu.edu.eg/Dataset_BUSI.zip (or Kaggle, "
    "aryashah2k/breast-ultrasound-images-dataset), unpack it, and set ANATOSEGNET_DATA_DIR "
    "(or data.root) to the folder that holds Dataset_BUSI_with_GT"
)
MASK = re.compile(r"(?P<image>.+)_mask(_\d+)?")


class BUSISource(Source):
    """BUSI in any of three layouts, found by itself.

    - release: ``benign/benign (1).png`` with ``benign (1)_mask.png``, ``…_mask_1.png``; all
      masks of an image are merged;
    - the authors': ``images/benign (1).png`` + ``labels/benign (1).png``;
    - the segmentation benchmark's: ``images/…`` + ``masks/0/…``.

    Args:
        root: The folder of the layout, or one that holds it as ``Dataset_BUSI_with_GT`` or
            ``busi``.
        include_normal: Keep the images without a lesion.
    """

    downloads = (
        Download(
            url="https://scholar.cu.edu.eg/Dataset_BUSI.zip",
            provides=("Dataset_BUSI_with_GT", "busi", "benign", "images"),
            folder="Dataset_BUSI_with_GT",
            checksum="sha256:b2ce09f6063a31a73f628b6a6ee1245187cbaec225e93e563735691d68654de7",
            licence="published with a CC BY article (Al-Dhabyani et al., Data in Brief 2020)",
        ),
    )
    how_to_get = HOW_TO_GET
    published = {  # noqa: RUF012
        "images": 780,
        "benign": 437,
        "malignant": 210,
        "normal": 133,
        "masks": 798,
        "images with several masks": 17,
    }

    def __init__(self, root: str, include_normal: bool = False) -> None:
        self.root = Path(root)
        self.include_normal = include_normal

    def counts(self, cases: Iterable[Case]) -> dict[str, int]:
        """What every layout keeps; only the release has its masks apart."""
        cases = list(cases)
        counts = count_cases(cases)
        if any(case.image and case.image.parent.name == "images" for case in cases):
            del counts["masks"], counts["images with several masks"]
        return counts

    def find_cases(self) -> Found:
        """Recognise the layout and pair the files; see `Source.find_cases`."""
        require_directory(self.root, HOW_TO_GET)
        for folder in (self.root, self.root / "Dataset_BUSI_with_GT", self.root / "busi"):
            masks = [folder / "labels", folder / "masks" / "0"]
            folders, others = _class_folders(folder)
            passed_over: list[str] = []
            if "benign" in folders or "malignant" in folders:
                cases, problems = _release_layout(folders)
                passed_over = [path.name for path in others]
            elif (folder / "images").is_dir() and any(path.is_dir() for path in masks):
                pairs, problems = pair_by_stem(
                    folder / "images", next(path for path in masks if path.is_dir())
                )
                cases = [Case(n, image, (mask,), class_in_name(n)) for n, image, mask in pairs]
            else:
                continue
            if not self.include_normal:
                cases = [case for case in cases if case.label != NORMAL]
            if not cases and not problems:
                raise UserError(f"{folder} holds no image; {HOW_TO_GET}")
            return Found(cases, problems, passed_over)
        raise UserError(f"{self.root} holds no BUSI layout; {HOW_TO_GET}")


def _class_folders(folder: Path) -> tuple[dict[str, list[Path]], list[Path]]:
    """The folders of each class, whatever the case of their names' letters; and the others."""
    inside = sorted(folder.iterdir()) if folder.is_dir() else []
    found: dict[str, list[Path]] = {}
    others = []
    for path in inside:
        if not path.is_dir() or path.name.startswith("."):
            continue
        if path.name.lower() in CLASSES:
            found.setdefault(path.name.lower(), []).append(path)
        else:
            others.append(path)
    return found, others


def _release_layout(folders: Mapping[str, list[Path]]) -> tuple[list[Case], list[str]]:
    cases: list[Case] = []
    problems: list[str] = []
    for label, (folder, *others) in folders.items():
        problems += [Problem(f"{other}: {folder.name} is of the same class") for other in others]
        files = files_by_stem(folder, problems)
        masks: dict[str, list[Path]] = {}
        mask_files: dict[str, Path] = {}
        for stem, path in files.items():
            if match := MASK.fullmatch(stem):
                masks.setdefault(match["image"], []).append(path)
                mask_files.setdefault(match["image"], path)
        images = {stem: path for stem, path in files.items() if not MASK.fullmatch(stem)}
        if label != NORMAL:
            problems += without_partner(images, masks, "has no mask beside it")
        problems += without_partner(mask_files, images, "is a mask without its image")
        cases += [
            Case(stem, path, tuple(masks.get(stem, ())), label)
            for stem, path in images.items()
            if stem in masks or label == NORMAL
        ]
    return cases, problems
