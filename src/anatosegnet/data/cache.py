"""Resized cases on disk: decoded once, read through memory maps by every process.

A cache is a folder ``<dataset>-<key>`` that never changes: its key is a hash over the content of
all files, the settings and the code that shape a record, so other content has another folder.

``cases.bin``: per case the mask (H, W), then the image (H, W, C), uint8; C is 1 where the three
channels are equal. ``index.json``: where each case lies.
"""

import hashlib
import inspect
import json
import mmap
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import cv2
import filelock
import numpy as np

try:
    import fcntl
except ImportError:  # Windows: no folder is locked, and an open file cannot be removed anyway
    fcntl = None  # type: ignore[assignment]

Resized = tuple[np.ndarray, np.ndarray]

FORMAT = 1
MINUTE = 60.0
WORKING = ".working-"  # prefix of folders that are being written or removed


class CacheError(Exception):
    """The cache cannot be used; the message is one line. Training goes on without it."""


def default_cache_directory() -> Path:
    """``ANATOSEGNET_CACHE_DIR``, or ``anatosegnet`` in the user's cache folder (XDG)."""
    if chosen := os.environ.get("ANATOSEGNET_CACHE_DIR"):
        return Path(chosen).expanduser()
    user = os.environ.get("XDG_CACHE_HOME")
    return (Path(user) if user else Path("~/.cache").expanduser()) / "anatosegnet"


def hash_of(*parts: object) -> str:
    """Hash of the texts of the parts; where one ends and the next begins counts."""
    return hashlib.sha256(json.dumps([str(part) for part in parts]).encode()).hexdigest()


def hash_of_file(path: Path) -> str:
    """SHA-256 of the bytes: times and sizes may lie (copies, archives, network drives)."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hash_of_code(*parts: Any) -> str:
    """Hash of the source of modules and functions, and of the libraries they resize with."""
    try:
        sources = [inspect.getsource(part) for part in parts]
    except (OSError, TypeError):  # a build without sources
        from importlib.metadata import version

        sources = [version("anatosegnet")]
    return hash_of(FORMAT, cv2.__version__, np.__version__, *sources)


class StoredCases(Mapping[str, Resized]):
    """The cases of one folder, by name: image (H, W, C) and mask (H, W), uint8, read-only.

    A record is mapped while somebody holds it, so that memory does not grow with the number of
    cases. The folder is not evicted while this object, or a copy in a worker, is alive.

    Args:
        folder: A finished folder.

    Raises:
        CacheError: There is none, or it is damaged.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            index = json.loads((folder / "index.json").read_text(encoding="utf-8"))
            self.size: tuple[int, int] = (index["height"], index["width"])
            self.channels = np.array(index["channels"], np.int64)
            pixels = self.size[0] * self.size[1]
            self.ends = np.cumsum((self.channels + 1) * pixels)
            self.rows = {name: row for row, name in enumerate(index["names"])}
            self._file = (folder / "cases.bin").open("rb")
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise CacheError(f"{folder} cannot be read ({error})") from error
        whole = os.fstat(self._file.fileno()).st_size == self.ends[-1]
        if not whole or not _lock(self._file, exclusive=False) or not self._is_there():
            self._file.close()
            raise CacheError(f"{folder} is damaged or about to be removed")
        with suppress(OSError):  # somebody else's cache may be read-only
            os.utime(folder / "index.json")  # "used just now"

    def _is_there(self) -> bool:
        """Whether the open file is still the one in the folder."""
        try:
            return os.path.samestat(
                os.fstat(self._file.fileno()), os.stat(self.folder / "cases.bin")
            )
        except OSError:
            return False

    def __getitem__(self, name: str) -> Resized:
        row = self.rows[name]
        (height, width), channels = self.size, int(self.channels[row])
        length = height * width * (channels + 1)
        start = int(self.ends[row]) - length
        skip = start % mmap.ALLOCATIONGRANULARITY
        mapped = mmap.mmap(
            self._file.fileno(), skip + length, access=mmap.ACCESS_READ, offset=start - skip
        )
        record = np.frombuffer(mapped, np.uint8, length, skip)
        image = record[height * width :].reshape(height, width, channels)
        return image, record[: height * width].reshape(height, width)

    def __iter__(self) -> Iterator[str]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def __reduce__(self) -> tuple[type["StoredCases"], tuple[Path]]:
        return StoredCases, (self.folder,)  # a spawned worker opens the file anew


class CaseWriter:
    """Takes the records of a new folder, one after another; `finish` gives it its name.

    Args:
        folder: The name it will have.
        temporary: Where it is written.
        size: (height, width) of every record.
        limit_bytes: More than this are refused.
    """

    def __init__(
        self, folder: Path, temporary: Path, size: tuple[int, int], limit_bytes: int
    ) -> None:
        self.folder, self.temporary, self.size = folder, temporary, size
        self.limit_bytes = limit_bytes
        self.names: list[str] = []
        self.channels: list[int] = []
        self._file = (temporary / "cases.bin").open("wb")
        _lock(self._file, exclusive=True)

    def add(self, name: str, image: np.ndarray, mask: np.ndarray) -> None:
        """Append a case: image (H, W, C) and mask (H, W), uint8."""
        with _system_errors(self.folder.parent):
            self._file.write(np.ascontiguousarray(mask).data)
            self._file.write(np.ascontiguousarray(image).data)
        self.names.append(name)
        self.channels.append(image.shape[2])
        if self._file.tell() > self.limit_bytes:
            raise CacheError(too_large(self.folder.parent, self._file.tell(), self.limit_bytes))

    def finish(self) -> StoredCases:
        """Write the index, make sure that all is on the disk, and let others see it."""
        height, width = self.size
        index = {
            "height": height,
            "width": width,
            "names": self.names,
            "channels": self.channels,
        }
        with _system_errors(self.folder.parent):
            self._file.flush()
            os.fsync(self._file.fileno())
            (self.temporary / "index.json").write_text(json.dumps(index), encoding="utf-8")
            _remove(self.folder)  # a damaged one
            self.temporary.rename(self.folder)
        self.close()
        return StoredCases(self.folder)

    def close(self) -> None:
        """Give the file back."""
        with suppress(OSError):  # what was buffered for a full disk
            self._file.close()


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
        """The cases of this key, if they are there."""
        try:
            return StoredCases(self._folder(dataset, key))
        except CacheError:
            return None

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
                with _system_errors(self.directory):
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
                        _remove(folder, only_if_unused=True)
                    continue
                with suppress(OSError):  # not a cache, or gone by now
                    size = (folder / "cases.bin").stat().st_size
                    used.append(((folder / "index.json").stat().st_mtime, size, folder))
        total = sum(size for _, size, _ in used)
        for _, size, folder in sorted(used):
            if total <= self.limit_bytes:
                return
            if folder != keep and _remove(folder, only_if_unused=True):
                total -= size

    def _folder(self, dataset: str, key: str) -> Path:
        return self.directory / f"{dataset}-{key[:20]}"

    def _require_room(self, size: tuple[int, int], count: int) -> None:
        least = count * size[0] * size[1] * 2  # grey; colour takes twice as much
        if least > self.limit_bytes:
            raise CacheError(too_large(self.directory, least, self.limit_bytes))
        with _system_errors(self.directory):
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
            with _system_errors(self.directory):
                lock.acquire()
        except NotImplementedError:  # a file system without locks: the work is done twice, no harm
            pass
        try:
            yield
        finally:
            lock.release()

    @contextmanager
    def _working_folder(self) -> Iterator[Path]:
        with _system_errors(self.directory):
            temporary = self.directory / f"{WORKING}{uuid.uuid4().hex}"
            temporary.mkdir()
        try:
            yield temporary
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def one_channel_if_grey(image: np.ndarray) -> np.ndarray:
    """(H, W, 3) with three equal channels as (H, W, 1), which is cheaper to keep and augment."""
    first = image[..., :1]
    return np.ascontiguousarray(first) if (image == first).all() else image


def too_large(directory: Path, size: int, limit: int) -> str:
    """The complaint about the limit."""
    return (
        f"{directory} would grow to {size / 1e9:.2f} GB, more than "
        f"data.cache_limit_gb={limit / 1e9:g}"
    )


@contextmanager
def _system_errors(directory: Path) -> Iterator[None]:
    """What the system refuses is a CacheError."""
    try:
        yield
    except OSError as error:
        raise CacheError(f"{directory} cannot be written ({error.strerror or error})") from error


def _remove(folder: Path, only_if_unused: bool = False) -> bool:
    """Remove a folder at once for everybody else; False if it is in use, or cannot be removed."""
    if not folder.exists():
        return True
    try:
        with (folder / "cases.bin").open("r+b") as file:
            if only_if_unused and not _lock(file, exclusive=True):
                return False
            goner = folder.rename(folder.with_name(f"{WORKING}{uuid.uuid4().hex}"))
    except FileNotFoundError:  # died before it had a file, or another process removed it
        shutil.rmtree(folder, ignore_errors=True)
        return not folder.exists()
    except OSError:
        return False
    shutil.rmtree(goner, ignore_errors=True)
    return True


def _lock(file: IO[bytes], exclusive: bool) -> bool:
    """Lock an open file without waiting; False if another process holds it the other way."""
    if fcntl is None:
        return True
    try:
        fcntl.flock(file, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        return True
    return True
