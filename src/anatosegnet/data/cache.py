"""Resized cases on disk: decoded once, shared by all runs and processes.

A cache is a folder ``<dataset>-<key>`` that never changes: its key is a hash over the content of
all files, the settings and the code that shape a record, so other content has another folder.
"""

import hashlib
import inspect
import json
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import cv2
import filelock
import numpy as np
import PIL

from anatosegnet.data.records import (
    DAMAGED,
    WORKING,
    CacheError,
    CaseWriter,
    StoredCases,
    remove,
    system_errors,
    too_large,
)

FORMAT = 3
MINUTE = 60.0


def default_cache_directory() -> Path:
    """``ANATOSEGNET_CACHE_DIR``, or ``anatosegnet`` in the user's cache folder (XDG)."""
    if chosen := os.environ.get("ANATOSEGNET_CACHE_DIR"):
        return Path(chosen).expanduser()
    user = os.environ.get("XDG_CACHE_HOME")
    return (Path(user) if user else Path("~/.cache").expanduser()) / "anatosegnet"


def hash_of(*parts: object) -> str:
    """Hash of the texts of the parts; where one ends and the next begins counts."""
    return hashlib.sha256(json.dumps([str(part) for part in parts]).encode()).hexdigest()


def hash_of_code(*parts: Any) -> str:
    """Hash of the source of modules and functions, and of the libraries they read with."""
    try:
        sources = [inspect.getsource(part) for part in parts]
    except (OSError, TypeError):  # a build without sources
        from importlib.metadata import version

        sources = [version("anatosegnet")]
    libraries = (cv2.__version__, np.__version__, PIL.__version__)
    return hash_of(FORMAT, *libraries, *sources)


class CaseCache:
    """The folders of all datasets, below a limit.

    Args:
        directory: Where they lie; made when needed.
        limit_gb: Largest size of all together, in GB; least recently used folders go first.
    """

    def __init__(self, directory: Path, limit_gb: float) -> None:
        self.directory = directory
        self.limit_bytes = int(limit_gb * 1e9)

    def open(self, dataset: str, key: str) -> StoredCases | None:
        """The cases of this key, if they are there and not known to be damaged."""
        folder = self._folder(dataset, key)
        try:
            stored = StoredCases(folder)
            stored.thumbnails()  # looks at their checksum
        except CacheError:
            return None
        return None if (folder / DAMAGED).exists() else stored

    def open_or_write(
        self,
        dataset: str,
        key: str,
        size: tuple[int, int],
        count: int,
        write: Callable[[CaseWriter], bool],
    ) -> StoredCases | None:
        """The cases of this key, written by one process while the others wait.

        Args:
            dataset: Its name, for people who look into the cache.
            key: Hash of everything that shapes the records.
            size: (height, width) of every record.
            count: Number of cases.
            write: Adds all records; returns False to leave no folder behind.

        Returns:
            The cases, or None where ``write`` returned False.

        Raises:
            CacheError: The folder cannot be written, the disk is full, or the limit too small.
        """
        if stored := self.open(dataset, key):
            return stored
        self._require_room(size, count)
        folder = self._folder(dataset, key)
        with self._alone(folder):
            if stored := self.open(dataset, key):  # another process was first
                return stored
            with self._working_folder() as temporary:
                with system_errors(self.directory):
                    writer = CaseWriter(folder, temporary, size, self.limit_bytes)
                try:
                    stored = writer.finish() if write(writer) else None
                finally:
                    writer.close()
        self.evict(keep=folder)
        return stored

    def evict(self, keep: Path | None = None) -> None:
        """Remove what processes that died left behind, then folders until the limit is kept."""
        used: list[tuple[float, int, Path]] = []
        with suppress(OSError):
            for folder in self.directory.iterdir():
                if folder.name.startswith(WORKING):
                    if time.time() - folder.stat().st_mtime > MINUTE:  # not just being made
                        remove(folder, only_if_unused=True)
                    continue
                with suppress(OSError):  # not a cache, or gone by now
                    size = sum(path.stat().st_size for path in folder.iterdir())
                    used.append(((folder / "index.json").stat().st_mtime, size, folder))
        total = sum(size for _, size, _ in used)
        for _, size, folder in sorted(used):
            if total <= self.limit_bytes:
                return
            if folder != keep and remove(folder, only_if_unused=True):
                total -= size

    def _folder(self, dataset: str, key: str) -> Path:
        return self.directory / f"{dataset}-{key[:20]}"

    def _require_room(self, size: tuple[int, int], count: int) -> None:
        least = count * size[0] * size[1] * 2  # grey; colour takes twice as much
        if least > self.limit_bytes:
            raise CacheError(too_large(self.directory, least, self.limit_bytes))
        with system_errors(self.directory):
            self.directory.mkdir(parents=True, exist_ok=True)
            free = shutil.disk_usage(self.directory).free
        if free < 2 * least:
            raise CacheError(
                f"{self.directory} has {free / 1e9:.1f} GB free, {2 * least / 1e9:.1f} are needed"
            )

    @contextmanager
    def _alone(self, folder: Path) -> Iterator[None]:
        """No other process writes this folder meanwhile; a lock dies with its process."""
        lock = filelock.FileLock(folder.with_name(f".{folder.name}.lock"))
        try:
            with system_errors(self.directory):
                lock.acquire()
        except NotImplementedError:  # a file system without locks: the work is done twice, no harm
            pass
        try:
            yield
        finally:
            lock.release()

    @contextmanager
    def _working_folder(self) -> Iterator[Path]:
        with system_errors(self.directory):
            temporary = self.directory / f"{WORKING}{uuid.uuid4().hex}"
            temporary.mkdir()
        try:
            yield temporary
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
