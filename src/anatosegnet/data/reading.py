"""Reading all cases of a dataset before training: checked, resized, and kept where asked."""

import inspect
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from anatosegnet.console import Progress, progress, warn
from anatosegnet.data import case as case_module
from anatosegnet.data.cache import CaseCache, hash_of, hash_of_code
from anatosegnet.data.case import Case, CaseError
from anatosegnet.data.checksum import sha256
from anatosegnet.data.dataset import FreshCases, Reader
from anatosegnet.data.decoding import mask_values, orientation, tiff, whole
from anatosegnet.data.duplicates import Digests, pixel_digest, thumbnail
from anatosegnet.data.records import (
    CacheError,
    CaseWriter,
    Record,
    Resized,
    one_channel_if_grey,
)
from anatosegnet.data.transforms import resize_image, resize_mask

Cache = Literal["disk", "memory", "off"]

MOST_IN_MEMORY = 4e9  # bytes; larger datasets without a cache are read anew each epoch
READ_AT_ONCE = 256  # cases; bounds the memory that reading takes


@dataclass
class ReadCases:
    """What was read, by the names of the cases.

    Attributes:
        resized: Image (H, W, C) and mask (H, W), uint8; C is 1 where the channels are equal.
        digests: Of each image and mask at their original size.
        thumbnails: `thumbnail` of each image.
        shares: Of each original image that is lesion, 0 to 1.
    """

    resized: Mapping[str, Resized] = field(default_factory=dict)
    digests: dict[str, Digests] = field(default_factory=dict)
    thumbnails: dict[str, np.ndarray] = field(default_factory=dict)
    shares: dict[str, float] = field(default_factory=dict)


class CaseReader:
    """Reads and checks all cases, or takes them from the disk.

    A case that comes from the disk was checked when it was written: its key covers the content
    of its files and the code that reads them.

    Args:
        dataset: Its name.
        read: Reads a case: image (H, W, 3) uint8 RGB and mask (H, W) uint8 {0, 1}.
        content_of: Hash of all that decides what ``read`` returns or refuses, beside its code.
        size: (height, width) of the results.
        cache: ``disk``, ``memory`` or ``off``.
        store: The cache on the disk.
    """

    def __init__(
        self,
        dataset: str,
        read: Reader,
        content_of: Callable[[Case], str],
        size: tuple[int, int],
        cache: Cache,
        store: CaseCache,
    ) -> None:
        self.dataset, self.read, self.content_of = dataset, read, content_of
        self.size, self.cache, self.store = size, cache, store

    def read_all(self, cases: list[Case]) -> tuple[ReadCases, list[str]]:
        """The cases, and the problems met; all cases are read if one has a problem."""
        keep = self.cache
        if keep == "disk":
            keep = "memory"  # where a file cannot be read, to say so of all of them
            if contents := self._contents(cases):
                try:
                    return self._read_through_cache(cases, contents)
                except CacheError as error:
                    least = len(cases) * 2 * self.size[0] * self.size[1]
                    keep = "memory" if least <= MOST_IN_MEMORY else "off"
                    instead = "kept in memory" if keep == "memory" else "read anew each epoch"
                    warn_once(f"no cache: {error}; the cases are {instead}")
        problems: list[str] = []
        kept: dict[str, Resized] = {}
        result = ReadCases(kept)
        for record in self._records(cases, problems):
            result.digests[record.name] = record.digests
            result.thumbnails[record.name] = record.thumbnail
            result.shares[record.name] = record.share
            if keep == "memory":
                kept[record.name] = record.image, record.mask
        if keep == "off":
            result.resized = self._fresh(cases)
        return result, problems

    def _read_through_cache(
        self, cases: list[Case], contents: dict[str, str]
    ) -> tuple[ReadCases, list[str]]:
        problems: list[str] = []
        functions = (resize_image, resize_mask, pixel_digest, thumbnail)
        reader = inspect.getmodule(self.read) or sys.modules[self.read.__module__]
        key = hash_of(
            hash_of_code(case_module, mask_values, orientation, tiff, whole, reader, *functions),
            *self.size,
            *contents,
            *contents.values(),
        )

        def write(writer: CaseWriter) -> bool:
            by_name = {case.name: case for case in cases}
            for record in self._records(cases, problems):
                case = by_name[record.name]
                if self._contents([case]) != {case.name: contents[case.name]}:
                    problems.append(f"{case.image}: changed while it was read")
                if not problems:
                    writer.add(record)
            return not problems

        stored = self.store.open_or_write(self.dataset, key, self.size, len(cases), write)
        if stored is None:
            return ReadCases(), problems
        stored.fallback = self._fresh(cases)
        return ReadCases(stored, stored.digests(), stored.thumbnails(), stored.shares()), []

    def _fresh(self, cases: list[Case]) -> FreshCases:
        return FreshCases({case.name: case for case in cases}, self.read, self.size)

    def _contents(self, cases: list[Case]) -> dict[str, str]:
        """``content_of`` by name; empty if a file cannot be read."""
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            try:
                read = pool.map(self.content_of, cases)
                contents = list(progress(read, "checking files", len(cases)))
            except OSError:
                return {}
        return dict(zip((case.name for case in cases), contents, strict=True))

    def _records(self, cases: list[Case], problems: list[str]) -> Iterator[Record]:
        """All that is kept of each case; what is wrong with the others goes to ``problems``."""

        def read(case: Case) -> Record | str:
            try:
                image, mask = self.read(case)
            except CaseError as error:
                return str(error)
            return Record(
                case.name,
                one_channel_if_grey(resize_image(image, self.size)),
                resize_mask(mask, self.size),
                thumbnail(image),
                Digests(pixel_digest(image), pixel_digest(mask)),
                round(float(mask.mean()), 6),
            )

        with ThreadPoolExecutor(os.cpu_count()) as pool, Progress("reading", len(cases)) as show:
            for start in range(0, len(cases), READ_AT_ONCE):
                results = pool.map(read, cases[start : start + READ_AT_ONCE])
                for done, result in enumerate(results, start + 1):
                    show(done)
                    if isinstance(result, str):
                        problems.append(result)
                    else:
                        yield result


def content_of_files(case: Case) -> str:
    """Hash of the bytes of a case's files and of its class, which the checks look at.

    Raises:
        OSError: A file cannot be read.
    """
    files = [case.image, *case.masks] if case.image else list(case.masks)
    return hash_of(case.label, *(sha256(path) for path in files))


@rank_zero_only
def warn_once(line: str) -> None:
    """Warn in one line, once for all processes."""
    warn(line)
