"""From a source to data that can be trained on: found, read, grouped, split.

``find_data`` lists the cases and checks their names; nothing of their pixels is read.
``prepare_data`` goes on from there. Both give frozen results: whoever holds one holds all of it.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from anatosegnet.config.places import path_part
from anatosegnet.console import some
from anatosegnet.data.cache import CaseCache, default_cache_directory, hash_of
from anatosegnet.data.case import CLASSES, UNKNOWN, Case, Problem
from anatosegnet.data.duplicates import (
    Digests,
    Pair,
    duplicate_groups,
    find_duplicates,
    natural_key,
)
from anatosegnet.data.exclude import Excluded, leave_out
from anatosegnet.data.files import LONGEST_NAME
from anatosegnet.data.groups import Leakage, leakage, with_groups, without_duplicates
from anatosegnet.data.normalization import Normalization
from anatosegnet.data.reading import CaseReader, warn_once
from anatosegnet.data.recorded_split import RecordedSplit
from anatosegnet.data.records import Resized
from anatosegnet.data.remarks import incomplete, looks_inverted
from anatosegnet.data.resizing import two_sizes
from anatosegnet.data.source import Found, Source
from anatosegnet.data.split import HoldoutSplit, Split, Splitter, require_parts
from anatosegnet.errors import UserError

Handling = Literal["group", "drop", "keep"]
Cache = Literal["disk", "memory", "off"]
Splitting = Splitter | RecordedSplit


@dataclass(frozen=True)
class DataSettings:
    """The settings of ``data`` that all datasets share.

    Attributes:
        name: Name of the dataset, as in ``evaluation/<name>``.
        image_size: Edge, or (height, width), of what the network sees, in pixels.
        in_channels: 3 (RGB) or 1 (grey).
        normalization: ``imagenet``, ``symmetric`` or ``benchmark``; see `normalize`.
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

    Raises:
        UserError: A value is none of those.
    """

    name: str
    image_size: int | Sequence[int] = 256
    in_channels: int = 3
    normalization: Normalization = "imagenet"
    batch_size: int = 16
    num_workers: int = 0
    cache: Cache | bool = "memory"
    cache_dir: str | None = None
    cache_limit_gb: float = 20.0
    seed: int = 0
    exclude: str | Sequence[str] = ()
    duplicates: Handling = "group"

    def __post_init__(self) -> None:
        if self.in_channels not in (1, 3):
            raise UserError(f"data.in_channels={self.in_channels} must be 1 (grey) or 3 (RGB)")
        if self.batch_size < 1:
            raise UserError(f"data.batch_size={self.batch_size} must be at least 1")
        if self.num_workers < 0:
            raise UserError(f"data.num_workers={self.num_workers} must not be negative")
        if isinstance(self.cache, bool):  # as YAML reads on and off, and as runs recorded it
            object.__setattr__(self, "cache", "disk" if self.cache else "off")
        for key, kind in (
            ("normalization", Normalization),
            ("duplicates", Handling),
            ("cache", Cache),
        ):
            if (value := getattr(self, key)) not in get_args(kind):
                raise UserError(f"data.{key}={value} must be one of {', '.join(get_args(kind))}")
        two_sizes(self.image_size)

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of what the network sees, in pixels."""
        return two_sizes(self.image_size)

    @property
    def cache_folder(self) -> Path:
        """Where ``cache=disk`` keeps the resized cases."""
        return Path(self.cache_dir).expanduser() if self.cache_dir else default_cache_directory()


@dataclass(frozen=True)
class FoundData:
    """The cases of a dataset, none of them read.

    Attributes:
        name: Of the dataset.
        source: Finds and reads the cases.
        cases: By name, in natural order.
        excluded: Cases that ``data.exclude`` left out; None: too broken to become a case.
        passed_over: Names of what lies beside the cases and was not read.
    """

    name: str
    source: Source
    cases: Mapping[str, Case]
    excluded: Excluded
    passed_over: Sequence[str]

    def read(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Image (H, W, 3) uint8 RGB and mask (H, W) uint8 {0, 1} of a case, at original size.

        Raises:
            CaseError: Either cannot be used.
        """
        return self.source.read(self.cases[name])

    @property
    def everything(self) -> list[Case]:
        """All cases, the excluded ones too."""
        return [*self.cases.values(), *(case for case in self.excluded.values() if case)]

    @property
    def remarks(self) -> list[str]:
        """What a reader of the scores must know of the data beside its name; mostly nothing."""
        line = incomplete(self.everything, self.source.published, self.source.include_normal)
        if line and self.passed_over:
            line += f"; not read: {some(self.passed_over)}"
        return [line] if line else []

    @property
    def title(self) -> str:
        """The name, with what a reader of the scores must know of the data."""
        return self.name + (f" ({'; '.join(self.remarks)})" if self.remarks else "")


@dataclass(frozen=True)
class PreparedData(FoundData):
    """Data that were read, grouped and split; ``group`` of each case is as it was split.

    Attributes:
        settings: How they were prepared.
        resized: Image (H, W, C) and mask (H, W) by name, uint8 at the network's size.
        digests: Of each image and mask at their original size, by name.
        shares: Of each original image that is lesion, by name, 0 to 1.
        pairs: The near-duplicates.
        duplicates: Group of near-duplicates of each case that has one.
        split: Names of the cases of each part.
        leakage: What crosses the parts.
        fingerprint: 12 hex digits of the names and the whole content of the cases.
    """

    settings: DataSettings
    resized: Mapping[str, Resized]
    digests: Mapping[str, Digests]
    shares: Mapping[str, float]
    pairs: Sequence[Pair]
    duplicates: Mapping[str, str]
    split: Split
    leakage: Leakage
    fingerprint: str

    @property
    def remarks(self) -> list[str]:
        """Those on the cases, and one on masks that look inverted."""
        return [*super().remarks, *filter(None, [looks_inverted(self.shares.values())])]


def look_for_data(
    source: Source, name: str, exclude: str | Sequence[str] = ()
) -> tuple[FoundData, list[str]]:
    """The cases of a source, less the excluded ones, and what is wrong with the rest.

    Args:
        source: The source.
        name: Of the dataset; also the name of folders.
        exclude: Names and patterns of cases to leave out.

    Raises:
        UserError: There are no cases, or the name or a pattern is at fault.
    """
    name = path_part(name, "data.name")
    with _naming(name):
        found = source.find_cases()
    where = f"data {name}: {type(source).__name__}.find_cases"
    if not isinstance(found, Found):
        raise UserError(f"{where} gives a {type(found).__name__}; wanted is a Found")
    if not found.cases and not found.problems:
        raise UserError(f"{where} found no case")
    told = {problem.case for problem in found.problems if isinstance(problem, Problem)}
    labels = {case.label for case in found.cases if case.name not in told}
    if odd := sorted(labels - {*CLASSES, UNKNOWN}):
        known = ", ".join((*CLASSES, UNKNOWN))
        raise UserError(f"{where}: the label {some(odd)} must be one of {known}")
    cases = list(found.cases)
    excluded: Excluded = {}
    problems = [*found.problems, *_unfit(cases), *_repeated(cases)]
    if patterns := [exclude] if isinstance(exclude, str) else [str(one) for one in exclude]:
        cases, problems, excluded = leave_out(cases, problems, patterns, name)
    by_name: dict[str, Case] = {}
    for case in sorted(cases, key=lambda case: natural_key(case.name)):
        by_name.setdefault(case.name, case)
    return FoundData(name, source, by_name, excluded, found.passed_over), problems


def find_data(source: Source, name: str, exclude: str | Sequence[str] = ()) -> FoundData:
    """The cases of a source; arguments as of `look_for_data`.

    Raises:
        UserError: As `look_for_data` does, or it lists every problem of the data.
    """
    found, problems = look_for_data(source, name, exclude)
    if problems:
        # look into the files too, so that one message names everything
        reader = CaseReader(name, source, size=(32, 32))
        _report(name, problems + reader.read_all(list(found.cases.values()))[1])
    return found


def prepare_data(
    source: Source,
    settings: DataSettings,
    splitter: Splitting | None = None,
) -> PreparedData:
    """Find, read, group and split the cases of a source. Every file is read once.

    Args:
        source: The source.
        settings: How.
        splitter: Assigns cases to train, val and test; None is `HoldoutSplit`.

    Raises:
        UserError: Lists every problem of the data; or the split leaves a part empty.
    """
    splitter = splitter or HoldoutSplit()
    found = find_data(source, settings.name, settings.exclude)
    cases = list(found.cases.values())

    store = CaseCache(settings.cache_folder, settings.cache_limit_gb)
    reader = CaseReader(
        found.name,
        source,
        settings.size,
        store if settings.cache == "disk" else None,
        in_memory=settings.cache == "memory",
    )
    read, problems = reader.read_all(cases)
    _report(found.name, problems)

    pairs = [] if source.simulated else _pairs(source, read.thumbnails)
    duplicates = duplicate_groups(pairs)
    united = with_groups(cases, duplicates)
    grouped = with_groups(cases, {}) if settings.duplicates == "keep" else united
    split = splitter(grouped)
    if settings.duplicates == "drop" and not isinstance(splitter, RecordedSplit):
        split = without_duplicates(split, duplicates)
    with _naming(found.name):
        require_parts(split, grouped, getattr(splitter, "seed", 0))

    prepared = PreparedData(
        found.name,
        source,
        {case.name: case for case in grouped},
        found.excluded,
        found.passed_over,
        settings,
        read.resized,
        read.digests,
        read.shares,
        pairs,
        duplicates,
        split,
        leakage(split, united, any(case.group for case in cases)),
        hash_of(*(f"{case.name},{read.contents[case.name]}" for case in cases))[:12],
    )
    for line in prepared.remarks:
        warn_once(f"data {found.name}: {line}")
    return prepared


def _pairs(source: Source, thumbnails: Mapping[str, np.ndarray]) -> list[Pair]:
    """The near-duplicates that the source lists, else those that are found."""
    known = source.known_duplicates()
    if known is None:
        return find_duplicates(thumbnails.items())
    return [pair for pair in known if {pair.id_a, pair.id_b} <= set(thumbnails)]


@contextmanager
def _naming(name: str) -> Iterator[None]:
    """Say in every error whose data it is about."""
    try:
        yield
    except UserError as error:
        raise UserError(f"data {name}: {error}") from error
    except OSError as error:  # a folder that may not be listed
        place = error.filename or "the data"
        raise UserError(
            f"data {name}: {place} cannot be read ({error.strerror or error}); "
            "put its permissions right, or give another data.root"
        ) from error


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


def _report(name: str, problems: Sequence[str]) -> None:
    """UserError that lists the problems, if there are any."""
    if problems:
        count = f"{len(problems)} problem" + ("s" if len(problems) > 1 else "")
        # names in tables may hold line breaks
        lines = "".join(f"\n  - {' '.join(problem.split())}" for problem in problems)
        raise UserError(
            f"data {name}: {count} to put right first, or to leave out "
            f"(data.exclude=[NAME,…]):{lines}"
        )
