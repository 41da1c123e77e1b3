"""Reading all cases of a dataset before training: checked, resized, and kept where asked."""

import inspect
import os
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from anatosegnet.console import Progress, progress, warn
from anatosegnet.data import case as case_module
from anatosegnet.data.cache import CaseCache, hash_of, hash_of_code
from anatosegnet.data.case import Case, CaseError
from anatosegnet.data.dataset import FreshCases
from anatosegnet.data.decoding import mask_values, orientation, tiff, whole
from anatosegnet.data.duplicates import Digests, digest_image, pixel_digest, thumbnail
from anatosegnet.data.records import (
    CachedCase,
    CacheError,
    CaseWriter,
    Resized,
    one_channel_if_grey,
)
from anatosegnet.data.resizing import resize_image, resize_mask
from anatosegnet.data.source import Source

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
        contents: `Source.content_of` of each case.
    """

    resized: Mapping[str, Resized] = field(default_factory=dict)
    digests: dict[str, Digests] = field(default_factory=dict)
    thumbnails: dict[str, np.ndarray] = field(default_factory=dict)
    shares: dict[str, float] = field(default_factory=dict)
    contents: dict[str, str] = field(default_factory=dict)


class CaseReader:
    """Reads and checks all cases, or takes them from the disk.

    A case that comes from the disk was checked when it was written: its key covers the content
    of its files and the code that reads them.

    Args:
        dataset: Its name.
        source: Reads a case.
        size: (height, width) of the results.
        store: The cache on the disk; None keeps nothing there.
        in_memory: Keep the cases in memory where they are not on the disk; else they are read
            anew each time.
    """

    def __init__(
        self,
        dataset: str,
        source: Source,
        size: tuple[int, int],
        store: CaseCache | None = None,
        in_memory: bool = False,
    ) -> None:
        self.dataset, self.source, self.size = dataset, source, size
        self.store, self.in_memory = store, in_memory

    def read_all(self, cases: list[Case]) -> tuple[ReadCases, list[str]]:
        """The cases, and the problems met; all cases are read if one has a problem."""
        contents = self._contents(cases)
        in_memory = self.in_memory
        if self.store is not None:
            in_memory = True  # where a file cannot be read, to say so of all of them
            if contents:
                try:
                    return self._read_through_cache(cases, contents, self.store)
                except CacheError as error:
                    in_memory = len(cases) * 2 * self.size[0] * self.size[1] <= MOST_IN_MEMORY
                    instead = "kept in memory" if in_memory else "read anew each epoch"
                    warn_once(f"no cache: {error}; the cases are {instead}")
        problems: list[str] = []
        kept: dict[str, Resized] = {}
        result = ReadCases(kept if in_memory else self._fresh(cases), contents=contents)
        for case in self._read(cases, problems):
            result.digests[case.name] = case.digests
            result.thumbnails[case.name] = case.thumbnail
            result.shares[case.name] = case.share
            if in_memory:
                kept[case.name] = case.image, case.mask
        if not contents and not problems:
            problems.append("a file could not be read when the cases were checked; start again")
        return result, problems

    def _read_through_cache(
        self, cases: list[Case], contents: dict[str, str], store: CaseCache
    ) -> tuple[ReadCases, list[str]]:
        problems: list[str] = []
        functions = (resize_image, resize_mask, pixel_digest, thumbnail)
        read = self.source.read
        reader = inspect.getmodule(read) or sys.modules[read.__module__]
        key = hash_of(
            hash_of_code(case_module, mask_values, orientation, tiff, whole, reader, *functions),
            *self.size,
            *contents,
            *contents.values(),
        )

        def write(writer: CaseWriter) -> bool:
            by_name = {case.name: case for case in cases}
            for cached in self._read(cases, problems):
                case = by_name[cached.name]
                if self._contents([case]) != {case.name: contents[case.name]}:
                    problems.append(f"{case.image}: changed while it was read")
                if not problems:
                    writer.add(cached)
            return not problems

        stored = store.open_or_write(self.dataset, key, self.size, len(cases), write)
        if stored is None:
            return ReadCases(), problems
        stored.fallback = self._fresh(cases)
        return ReadCases(stored, stored.digests, stored.thumbnails(), stored.shares, contents), []

    def _fresh(self, cases: list[Case]) -> FreshCases:
        return FreshCases({case.name: case for case in cases}, self.source.read, self.size)

    def _contents(self, cases: list[Case]) -> dict[str, str]:
        """``content_of`` by name; empty if a file cannot be read."""
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            try:
                read = pool.map(self.source.content_of, cases)
                contents = list(progress(read, "checking files", len(cases)))
            except OSError:
                return {}
        return dict(zip((case.name for case in cases), contents, strict=True))

    def _read(self, cases: list[Case], problems: list[str]) -> Iterator[CachedCase]:
        """All that is kept of each case; what is wrong with the others goes to ``problems``."""

        def read(case: Case) -> CachedCase | str:
            try:
                image, mask = self.source.read(case)
            except CaseError as error:
                return str(error)
            digest = digest_image(image, mask)
            return CachedCase(
                case.name,
                one_channel_if_grey(resize_image(image, self.size)),
                resize_mask(mask, self.size),
                digest.thumbnail,
                digest.digests,
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


@rank_zero_only
def warn_once(line: str) -> None:
    """Warn in one line, once for all processes."""
    warn(line)
