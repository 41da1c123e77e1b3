"""What all datasets share: checks, split, resizing, loaders."""

import os
from abc import abstractmethod
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal, get_args

import albumentations as A
import lightning
import numpy as np
from torch.utils.data import DataLoader

from anatosegnet.config.places import path_part
from anatosegnet.console import progress, some
from anatosegnet.data.augmentation import check_augmentation
from anatosegnet.data.cache import CaseCache, default_cache_directory, hash_of
from anatosegnet.data.case import Case, Problem, count_cases, read_case
from anatosegnet.data.dataset import (
    EpochSampler,
    SegmentationDataset,
    loader,
    unpack,
)
from anatosegnet.data.download import Source
from anatosegnet.data.duplicates import (
    Digests,
    Pair,
    duplicate_groups,
    find_duplicates,
    natural_key,
)
from anatosegnet.data.exclude import leave_out
from anatosegnet.data.files import LONGEST_NAME
from anatosegnet.data.groups import Handling, Leakage, leakage, with_groups, without_copies
from anatosegnet.data.reading import Cache, CaseReader, content_of_files, warn_once
from anatosegnet.data.recorded_split import RecordedSplit
from anatosegnet.data.records import Resized
from anatosegnet.data.remarks import incomplete, looks_inverted
from anatosegnet.data.split import HoldoutSplit, Split, Splitter
from anatosegnet.data.transforms import Normalization, two_sizes
from anatosegnet.errors import UserError

Part = Literal["train", "val", "test"]
LOOKED_AT = 64  # cases that an augmentation may be tried on


class SegmentationDataModule(lightning.LightningDataModule):
    """Base of the data modules; a dataset adds `find_cases` and says how to get its files.

    Attributes:
        sources: The files of the dataset on the network, for `anatosegnet.prepare`.
        how_to_get: How a person gets them.
        published: Counts of the published dataset, in the words of `counts`.

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
        exclude: Cases to leave out, by name or pattern (``HESN_*``), with all that is wrong
            with them.
        duplicates: ``group``: near-duplicates never lie on two sides of a split; ``drop``: one of
            each group stays; ``keep``: they go where chance puts them, which leaks.
    """

    sources: tuple[Source, ...] = ()
    how_to_get: str = ""
    published: Mapping[str, int] = {}
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
        exclude: str | Sequence[str] = (),
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
        if num_workers < 0:
            raise UserError(f"data.num_workers={num_workers} must not be negative")
        if isinstance(cache, bool):  # as YAML reads on and off, and as runs recorded it
            cache = "disk" if cache else "off"
        if cache not in get_args(Cache):
            raise UserError(f"data.cache={cache} must be {', '.join(get_args(Cache))}")
        self.name = path_part(name, "data.name")
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
        self.exclude = [str(p) for p in ([exclude] if isinstance(exclude, str) else exclude)]
        self.duplicates: Handling = duplicates
        self.cases: dict[str, Case] = {}
        self.passed_over: list[str] = []  # folders beside those that were looked for
        self.excluded: dict[str, Case | None] = {}  # None: too broken to become a case
        self.split: Split | None = None
        self.resized: Mapping[str, Resized] = {}  # by name, once setup has read the cases
        self.pairs: list[Pair] = []
        self.twins: dict[str, str] = {}  # group of each case that has a near-duplicate
        self.leakage: Leakage | None = None
        self.digests: dict[str, Digests] = {}
        self.shares: dict[str, float] = {}  # of each case's image that is lesion
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

    def counts(self, cases: Iterable[Case]) -> dict[str, int]:
        """What can be compared with the published dataset."""
        return count_cases(cases)

    def prepare_cases(self) -> dict[str, Case]:
        """Find the cases once, in natural order of their names.

        Raises:
            UserError: As `find_cases` does, or it lists every problem of the data.
        """
        if not self.cases:
            cases, problems = self.look()
            if problems:
                # look into the files too, so that one message names everything
                self._report(problems + self._read_all(cases))
            self.cases = {case.name: case for case in cases}
        return self.cases

    def look(self) -> tuple[list[Case], list[str]]:
        """The cases in natural order, less the excluded ones, and what is wrong with the rest."""
        try:
            cases, problems = self.find_cases()
        except OSError as error:  # a folder that may not be listed
            place = error.filename or "the data"
            raise UserError(
                f"data {self.name}: {place} cannot be read ({error.strerror or error}); "
                "put its permissions right, or give another data.root"
            ) from error
        problems = [*problems, *_unfit(cases), *_repeated(cases)]
        if self.exclude:
            cases, problems, self.excluded = leave_out(cases, problems, self.exclude, self.name)
        return sorted(cases, key=natural_order), problems

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
            self.pairs = self.find_pairs()
            self.twins = duplicate_groups(self.pairs)
            self._thumbnails.clear()
        related = with_groups(cases, self.twins)
        grouped = with_groups(cases, {}) if self.duplicates == "keep" else related
        split = self.splitter(grouped)
        if self.duplicates == "drop" and not isinstance(self.splitter, RecordedSplit):
            split = without_copies(split, self.twins)
        empty = [part for part in ("train", "val", "test") if not getattr(split, part)]
        if empty:
            raise UserError(
                f"{self.name}: the split ({split.description}) of {len(cases)} cases leaves "
                f"{' and '.join(empty)} empty; give more cases or another split"
            )
        if self.augmentation is not None:
            some_cases = (self.resized[name] for name in split.train[:LOOKED_AT])
            check_augmentation(self.augmentation, some_cases)
        for line in self.remarks:
            warn_once(f"data {self.name}: {line}")
        self.leakage = leakage(split, related, any(case.group for case in cases))
        self.cases = {case.name: case for case in grouped}
        self.split = split

    def find_pairs(self) -> list[Pair]:
        """The near-duplicates among the cases that were read."""
        return find_duplicates(self._thumbnails.items())

    def content_of(self, case: Case) -> str:
        """Hash of all that decides what `read` returns or refuses, beside its code.

        Raises:
            OSError: A file cannot be read.
        """
        return content_of_files(case)

    @property
    def remarks(self) -> list[str]:
        """What a reader of the scores must know of the data beside its name; mostly nothing."""
        known = [case for case in self.excluded.values() if case is not None]
        normal_too = getattr(self, "include_normal", True)
        missing = incomplete([*self.cases.values(), *known], self.published, normal_too)
        if missing and self.passed_over:
            missing += f"; not read: {some(self.passed_over)}"
        return [line for line in (missing, looks_inverted(self.shares.values())) if line]

    @property
    def title(self) -> str:
        """The name, with what a reader of the scores must know of the data."""
        return self.name + (f" ({'; '.join(self.remarks)})" if self.remarks else "")

    @property
    def fingerprint(self) -> str:
        """12 hex digits of the names and the whole content of the cases."""
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            hashes = pool.map(self.content_of, self.cases.values())
            contents = progress(hashes, "checking files", len(self.cases))
            return hash_of(*(f"{n},{c}" for n, c in zip(self.cases, contents, strict=True)))[:12]

    def _read_all(self, cases: list[Case]) -> list[str]:
        """Make the cases ready, with what is known of their pixels; return the problems met."""
        reader = CaseReader(
            self.name, self.read, self.content_of, self.image_size, self.cache, self.case_cache
        )
        result, problems = reader.read_all(cases)
        self.resized, self.digests = result.resized, result.digests
        self.shares, self._thumbnails = result.shares, result.thumbnails
        return problems

    def _report(self, problems: list[str]) -> None:
        if problems:
            count = f"{len(problems)} problem" + ("s" if len(problems) > 1 else "")
            # names in tables may hold line breaks
            lines = "".join(f"\n  - {' '.join(problem.split())}" for problem in problems)
            raise UserError(
                f"data {self.name}: {count} to put right first, or to leave out "
                f"(data.exclude=[NAME,…]):{lines}"
            )

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
        train, rank, world_size, epoch = part == "train", 0, 1, 0
        if self.trainer is not None:
            rank, world_size = self.trainer.global_rank, self.trainer.world_size
            current = self.trainer.fit_loop.epoch_progress.current
            epoch = current.processed  # type: ignore[attr-defined]  # > 0 on resume
        dataset = self.dataset(part)
        sampler = EpochSampler(len(dataset), self.seed, train, rank, world_size, epoch)
        return loader(
            dataset,
            sampler,
            self.batch_size,
            self.num_workers,
            self.seed,
            outlive_sigterm=self.trainer is not None,
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


def natural_order(case: Case) -> list[tuple[int, str]]:
    """Sort key by name in which "benign (2)" stands before "benign (10)"."""
    return natural_key(case.name)


def _unfit(cases: Iterable[Case]) -> list[Problem]:
    """A line for each name that could not be the stem of what is written for its case."""
    problems = []
    for case in cases:
        try:
            path_part(case.name, "name", LONGEST_NAME)
        except UserError as error:
            problems.append(Problem(f"{case.image or 'a case'}: {error}", case.name))
    return problems


def _repeated(cases: Iterable[Case]) -> list[Problem]:
    counts = Counter(case.name for case in cases)
    return [
        Problem(f"{name}: {count} cases have this name", name)
        for name, count in counts.items()
        if count > 1
    ]
