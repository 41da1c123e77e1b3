"""Resized cases on disk: decoded once, shared by all runs and processes.

A cache is a file ``<dataset>-<key>.cases`` that never changes: its key is a hash over the content
of all files, the settings and the code that shape a case, so other content has another file.
"""

import hashlib
import inspect
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import cv2
import filelock
import numpy as np
import PIL

from anatosegnet.data.records import CacheError, CaseWriter, StoredCases, too_large
from anatosegnet.errors import reason
from anatosegnet.files.locks import is_held
from anatosegnet.files.writing import remove_leftovers, replacing

FORMAT = 4
SUFFIX = ".cases"


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
    """The files of all datasets, below a limit.

    Args:
        directory: Where they lie; made when needed.
        limit_gb: Largest size of all together, in GB; least recently used ones go first.
    """

    def __init__(self, directory: Path, limit_gb: float) -> None:
        self.directory = directory
        self.limit_bytes = limit_gb * 1e9

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
            key: Hash of everything that shapes the cases.
            size: (height, width) of every case.
            count: Number of cases.
            write: Adds all cases; returns False to leave no file behind.

        Returns:
            The cases, or None where ``write`` returned False.

        Raises:
            CacheError: The file cannot be written, the disk is full, or the limit too small.
        """
        path = self.directory / f"{dataset}-{key[:20]}{SUFFIX}"
        with suppress(CacheError):
            return StoredCases(path)
        try:
            self._require_room(size, count)
            with self._alone(path):
                with suppress(CacheError):  # another process was first
                    return StoredCases(path)
                with replacing(path) as temporary, temporary.open("wb") as file:
                    writer = CaseWriter(file, size, self.limit_bytes)
                    if not write(writer):
                        raise _NotWanted
                    writer.finish()
        except _NotWanted:
            return None
        except OSError as error:
            raise CacheError(f"{self.directory} cannot be written ({reason(error)})") from error
        self.evict(keep=path)
        return StoredCases(path)

    def evict(self, keep: Path | None = None) -> None:
        """Remove what processes that died left behind, then files until the limit is kept."""
        remove_leftovers(self.directory)
        for old in self.directory.glob("*/cases.bin"):  # a folder, as caches were before
            shutil.rmtree(old.parent, ignore_errors=True)
        used: list[tuple[float, int, Path]] = []
        for path in self.directory.glob(f"*{SUFFIX}"):
            with suppress(OSError):  # gone by now
                status = path.stat()
                used.append((status.st_mtime, status.st_size, path))
        total = sum(size for _, size, _ in used)
        for _, size, path in sorted(used):
            with suppress(OSError):
                if total > self.limit_bytes and path != keep and not is_held(path):
                    path.unlink()
                    total -= size

    def _require_room(self, size: tuple[int, int], count: int) -> None:
        least = count * size[0] * size[1] * 2  # grey; colour takes twice as much
        if least > self.limit_bytes:
            raise CacheError(too_large(self.directory, least, self.limit_bytes))
        self.directory.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(self.directory).free
        if free < 2 * least:
            raise CacheError(
                f"{self.directory} has {free / 1e9:.1f} GB free, {2 * least / 1e9:.1f} are needed"
            )

    @contextmanager
    def _alone(self, path: Path) -> Iterator[None]:
        """No other process writes this file meanwhile; a lock dies with its process."""
        lock = filelock.FileLock(path.with_name(f".{path.stem}.lock"))
        with suppress(NotImplementedError):  # no locks here: the work is done twice, no harm
            lock.acquire()
        try:
            yield
        finally:
            lock.release()


class _NotWanted(Exception):
    """Leaves nothing behind."""
