"""What all datasets share: checks, split, resizing, loaders."""

import unicodedata
from abc import abstractmethod
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import albumentations as A
import cv2
import lightning
import numpy as np
import torch
from torch.utils.data import DataLoader

from anatosegnet.data.cache import CaseCache, default_cache_directory
from anatosegnet.data.case import IMAGE_SUFFIXES, Case, read_case
from anatosegnet.data.dataset import EpochSampler, SegmentationDataset, collate, unpack
from anatosegnet.data.duplicates import Pair, duplicate_groups, find_duplicates, natural_key
from anatosegnet.data.groups import Handling, Leakage, leakage, with_groups, without_copies
from anatosegnet.data.reading import Cache, CaseReader, content_of_files
from anatosegnet.data.records import Resized
from anatosegnet.data.split import HoldoutSplit, Split, Splitter
from anatosegnet.data.transforms import Normalization
from anatosegnet.errors import UserError

Part = Literal["train", "val", "test"]


class SegmentationDataModule(lightning.LightningDataModule):
    """Base of the data modules; a dataset adds `find_cases` and says how to get its files.

    Args:
        name: Name of the dataset, as in ``evaluation/<name>``.
        split: Assigns cases to train, val and test.
        augmentation: An albumentations pipeline for training, or None.
        image_size: Edge, or (height, width), of what the network sees, in pixels.
        in_channels: 3 (RGB) or 1 (grey).
        normalization: ``imagenet`` or ``symmetric``; see `image_to_tensor`.
        batch_size: Images per step and process.
        num_workers: Processes that prepare batches; 0 prepares them in the training process.
        cache: ``disk`` keeps the resized cases in files that all runs share; ``memory`` in this
            process; ``off`` reads the files anew each epoch.
        cache_dir: Where ``disk`` keeps them; None is `default_cache_directory`.
        cache_limit_gb: Largest size of all caches there, in GB.
        seed: Of the order of the cases and of the augmentation.
        duplicates: ``group``: near-duplicates never lie on two sides of a split; ``drop``: one of
            each group stays; ``keep``: they go where chance puts them, which leaks.
    """

    name: str  # Lightning's own attribute is Optional
    simulated = False  # simulated cases are independent: no duplicates to look for

    def __init__(
        self,
        name: str,
        split: Splitter | None = None,
        augmentation: A.Compose | None = None,
        image_size: int | Sequence[int] = 256,
        in_channels: int = 3,
        normalization: Normalization = "imagenet",
        batch_size: int = 16,
        num_workers: int = 0,
        cache: Cache | bool = "memory",
        cache_dir: str | None = None,
        cache_limit_gb: float = 20.0,
        seed: int = 0,
        duplicates: Handling = "group",
    ) -> None:
        super().__init__()
        if in_channels not in (1, 3):
            raise UserError(f"data.in_channels={in_channels} must be 1 (grey) or 3 (RGB)")
        if normalization not in get_args(Normalization):
            known = " or ".join(get_args(Normalization))
            raise UserError(f"data.normalization={normalization} must be {known}")
        if duplicates not in get_args(Handling):
            known = ", ".join(get_args(Handling))
            raise UserError(f"data.duplicates={duplicates} is none of {known}")
        if batch_size < 1:
            raise UserError(f"data.batch_size={batch_size} must be at least 1")
        if isinstance(cache, bool):  # as YAML reads on and off, and as runs recorded it
            cache = "disk" if cache else "off"
        if cache not in get_args(Cache):
            raise UserError(f"data.cache={cache} must be {', '.join(get_args(Cache))}")
        self.name = name
        self.splitter: Splitter = split or HoldoutSplit()
        self.augmentation = augmentation
        self.image_size = two_sizes(image_size)
        self.in_channels = in_channels
        self.normalization: Normalization = normalization
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.cache: Cache = cache
        directory = Path(cache_dir).expanduser() if cache_dir else default_cache_directory()
        self.case_cache = CaseCache(directory, cache_limit_gb)
        self.seed = seed
        self.duplicates: Handling = duplicates
        self.cases: dict[str, Case] = {}
        self.split: Split | None = None
        self.resized: Mapping[str, Resized] = {}  # by name, once setup has read the cases
        self.pairs: list[Pair] = []
        self.twins: dict[str, str] = {}  # group of each case that has a near-duplicate
        self.leakage: Leakage | None = None
        self.digests: dict[str, str] = {}  # of the cases' pixels
        self._thumbnails: dict[str, np.ndarray] = {}

    @abstractmethod
    def find_cases(self) -> tuple[list[Case], list[str]]:
        """Find the cases without reading their pixels.

        Returns:
            The cases in any order, and one line for each file that has no partner.

        Raises:
            UserError: The root is missing or holds no case.
        """

    def read(self, case: Case) -> tuple[np.ndarray, np.ndarray]:
        """Image (H, W, 3) uint8 RGB and mask (H, W) uint8 {0, 1} at the original size."""
        return read_case(case)

    def prepare_cases(self) -> dict[str, Case]:
        """Find the cases once, in natural order of their names; raises UserError as they do."""
        if not self.cases:
            cases, problems = self.find_cases()
            problems += _repeated(cases)
            if problems:
                # look into the files too, so that one message names everything
                self._report(problems + self._read_all(cases))
            self.cases = {case.name: case for case in sorted(cases, key=natural_order)}
        return self.cases

    def setup(self, stage: str | None = None) -> None:
        """Find, check, group and split the cases. Reads every file once, before training starts.

        Raises:
            UserError: Lists every problem of the data.
        """
        if self.split is not None:
            return
        cases = list(self.prepare_cases().values())
        self._report(self._read_all(cases))
        if not self.simulated:
            self.pairs = find_duplicates(self._thumbnails.items())
            self.twins = duplicate_groups(self.pairs)
            self._thumbnails.clear()
        related = with_groups(cases, self.twins)
        grouped = with_groups(cases, {}) if self.duplicates == "keep" else related
        split = self.splitter(grouped)
        if self.duplicates == "drop":
            split = without_copies(split, self.twins)
        empty = [part for part in ("train", "val", "test") if not getattr(split, part)]
        if empty:
            raise UserError(
                f"{self.name}: the split ({split.description}) of {len(cases)} cases leaves "
                f"{' and '.join(empty)} empty; give more cases or another split"
            )
        self.leakage = leakage(split, related, any(case.group for case in cases))
        self.cases = {case.name: case for case in grouped}
        self.split = split

    def content_of(self, case: Case) -> str:
        """Hash of all that decides what `read` returns or refuses, beside its code.

        Raises:
            OSError: A file cannot be read.
        """
        return content_of_files(case)

    def _read_all(self, cases: list[Case]) -> list[str]:
        """Make the cases ready, with what is known of their pixels; return the problems met."""
        reader = CaseReader(
            self.name, self.read, self.content_of, self.image_size, self.cache, self.case_cache
        )
        result, problems = reader.read_all(cases)
        self.resized, self.digests = result.resized, result.digests
        self._thumbnails = result.thumbnails
        return problems

    def _report(self, problems: list[str]) -> None:
        if problems:
            count = f"{len(problems)} problem" + ("s" if len(problems) > 1 else "")
            lines = "".join(f"\n  - {problem}" for problem in problems)
            raise UserError(f"data {self.name}: {count} to put right first:{lines}")

    def dataset(self, part: Part) -> SegmentationDataset:
        """The dataset of a part; only training is augmented."""
        assert self.split is not None, "call setup() first"
        return SegmentationDataset(
            getattr(self.split, part),
            self.resized,
            self.in_channels,
            augmentation=self.augmentation if part == "train" else None,
            seed=self.seed,
        )

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int = 0) -> Any:
        """Normalise a batch where the network is; see `unpack`."""
        return unpack(batch, self.in_channels, self.normalization)

    def __getstate__(self) -> dict[str, Any]:
        """What a spawned worker needs to read cases: not the trainer, nor cases kept here."""
        return {**self.__dict__, "trainer": None, "resized": {}}

    def _loader(self, part: Part) -> DataLoader[dict[str, Any]]:
        dataset, train = self.dataset(part), part == "train"
        rank, world_size = 0, 1
        if self.trainer is not None:
            rank, world_size = self.trainer.global_rank, self.trainer.world_size
        return DataLoader(
            dataset,
            batch_size=self.batch_size,
            sampler=EpochSampler(len(dataset), self.seed, train, rank, world_size),
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            pin_memory=torch.cuda.is_available(),
            collate_fn=collate,
            worker_init_fn=_start_worker,
            # its own, or the number of workers would shift the network's random numbers
            generator=torch.Generator().manual_seed(self.seed),
        )

    def train_dataloader(self) -> DataLoader[dict[str, Any]]:
        """Shuffled and augmented training batches."""
        return self._loader("train")

    def val_dataloader(self) -> DataLoader[dict[str, Any]]:
        """Validation batches in fixed order."""
        return self._loader("val")

    def test_dataloader(self) -> DataLoader[dict[str, Any]]:
        """Test batches in fixed order."""
        return self._loader("test")


def two_sizes(size: int | Sequence[int]) -> tuple[int, int]:
    """An edge, or (height, width), as (height, width)."""
    try:
        height, width = (size, size) if isinstance(size, int) else tuple(size)
    except (TypeError, ValueError) as error:
        raise UserError(f"data.image_size={size} must be an edge or [height, width]") from error
    if not (isinstance(height, int) and isinstance(width, int)):
        raise UserError(f"data.image_size={size} must be whole numbers of pixels")
    if min(height, width) < 32:
        raise UserError(f"data.image_size={height}×{width} is too small; at least 32×32")
    return height, width


def natural_order(case: Case) -> list[tuple[int, str]]:
    """Sort key by name in which "benign (2)" stands before "benign (10)"."""
    return natural_key(case.name)


def require_directory(path: Path, dataset: str, way_out: str) -> Path:
    """The path if it is a directory; else a UserError that says how to get the data."""
    if not path.is_dir():
        raise UserError(f"data {dataset}: there is no folder {path}; {way_out}")
    return path


def files_by_stem(folder: Path, problems: list[str]) -> dict[str, Path]:
    """The image files of a folder by stem; two files of one stem are a problem."""
    files: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or path.suffix.lower() not in IMAGE_SUFFIXES:
            continue
        stem = unicodedata.normalize("NFC", path.stem)  # macOS may take accents apart
        if stem in files:
            problems.append(f"{path}: {files[stem].name} has the same stem")
        files[stem] = path
    return files


def pair_by_stem(images: Path, masks: Path) -> tuple[list[tuple[str, Path, Path]], list[str]]:
    """Pair images with masks of the same stem.

    Returns:
        (stem, image, mask) of each pair, and one line for each file without a partner.
    """
    problems: list[str] = []
    image_files, mask_files = files_by_stem(images, problems), files_by_stem(masks, problems)
    problems += without_partner(image_files, mask_files, f"has no mask in {masks}")
    problems += without_partner(mask_files, image_files, f"is a mask without an image in {images}")
    stems = [stem for stem in image_files if stem in mask_files]
    return [(stem, image_files[stem], mask_files[stem]) for stem in stems], problems


def without_partner(files: dict[str, Path], partners: Iterable[str], complaint: str) -> list[str]:
    """One line for each file whose stem is not among the partners."""
    known = set(partners)
    return [f"{path}: {complaint}" for stem, path in files.items() if stem not in known]


def _repeated(cases: Iterable[Case]) -> list[str]:
    counts = Counter(case.name for case in cases)
    return [f"{name}: {count} cases have this name" for name, count in counts.items() if count > 1]


def _start_worker(worker: int) -> None:
    cv2.setNumThreads(0)  # the workers are the parallelism
