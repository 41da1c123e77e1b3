"""The files of one cache folder: records of resized cases, written once, checked when read.

``cases.bin``: per case the mask (H, W), then the image (H, W, C), uint8; C is 1 where the three
channels are equal. ``thumbnails.bin``: what the search for near-duplicates needs. ``index.json``:
where each case lies. All have checksums: a case that is damaged is read anew from its own files,
and a file ``damaged`` then tells the next start to write the folder anew.
"""

import json
import os
import shutil
import uuid
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from anatosegnet.console import warn
from anatosegnet.data.duplicates import Digests
from anatosegnet.errors import reason
from anatosegnet.files.opening import read_bytes, read_json

try:
    import fcntl
except ImportError:  # Windows: no folder is locked, and an open file cannot be removed anyway
    fcntl = None  # type: ignore[assignment]

Resized = tuple[np.ndarray, np.ndarray]

DAMAGED = "damaged"  # a file that says so
WORKING = ".working-"  # prefix of folders that are being written or removed


class CacheError(Exception):
    """The cache cannot be used; the message is one line. Training goes on without it."""


@dataclass(frozen=True)
class CachedCase:
    """What is kept of a case.

    Attributes:
        name: Of the case.
        image: (H, W, C) uint8 at the network's size; C is 1 where the three channels are equal.
        mask: (H, W) uint8 in {0, 1}.
        thumbnail: (E, E) uint8 of the original image.
        digests: Of the original image's and mask's pixels.
        share: Of the original image that is lesion, 0 to 1.
    """

    name: str
    image: np.ndarray
    mask: np.ndarray
    thumbnail: np.ndarray
    digests: Digests
    share: float


class StoredCases(Mapping[str, Resized]):
    """The cases of one folder, by name: image (H, W, C) and mask (H, W), uint8, read-only.

    A record is read each time it is asked for, so that memory does not grow with the number of
    cases. The folder is not evicted while this object, or a copy in a worker, is alive.

    Args:
        folder: A finished folder.
        fallback: Gives the cases whose records are damaged.

    Raises:
        CacheError: There is none, or it is damaged.
    """

    def __init__(self, folder: Path, fallback: Mapping[str, Resized] | None = None) -> None:
        self.folder, self.fallback = folder, fallback
        self._known_damaged = False
        try:
            index = read_json(folder / "index.json")
            if index.pop("checksum") != _checksum(json.dumps(index).encode()):
                raise ValueError("its index is damaged")
            self.size: tuple[int, int] = (index["height"], index["width"])
            self.channels = np.array(index["channels"], np.int64)
            pixels = self.size[0] * self.size[1]
            self.ends = np.cumsum((self.channels + 1) * pixels)
            self.rows = {name: row for row, name in enumerate(index["names"])}
            self._edge = int(index["thumbnail"])
            self._index = index
            self._file = (folder / "cases.bin").open("rb")
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise CacheError(f"{folder} cannot be read ({reason(error)})") from error
        whole = (
            os.fstat(self._file.fileno()).st_size == self.ends[-1]
            and _size_of(folder / "thumbnails.bin") == len(self) * self._edge**2
        )
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
        # a copy in memory: what was checked is what is used, whatever becomes of the file
        content = _read_at(self._file, int(self.ends[row]) - length, length)
        if _checksum(content) != self._index["checksums"][row]:
            return self._read_anew(name)
        record = np.frombuffer(content, np.uint8)
        image = record[height * width :].reshape(height, width, channels)
        return image, record[: height * width].reshape(height, width)

    def _read_anew(self, name: str) -> Resized:
        """A case whose record is damaged; said once for all processes."""
        if not self._known_damaged:
            self._known_damaged = True
            try:
                (self.folder / DAMAGED).touch(exist_ok=False)
                first = True
            except OSError as error:  # another process was first, or the cache may not be written
                first = not isinstance(error, FileExistsError)
            if first:
                warn(
                    f"the cache {self.folder} is damaged ({name}); damaged cases are read from "
                    "their files, and the next start writes it anew"
                )
        if self.fallback is None:
            raise CacheError(f"{self.folder} is damaged ({name})")
        return self.fallback[name]

    def digests(self) -> dict[str, Digests]:
        """Hashes of the original image's and mask's pixels, by name."""
        return dict(zip(self.rows, map(Digests._make, self._index["digests"]), strict=True))

    def shares(self) -> dict[str, float]:
        """Share of the original image that is lesion, by name."""
        return dict(zip(self.rows, self._index["shares"], strict=True))

    def thumbnails(self) -> dict[str, np.ndarray]:
        """(E, E) uint8 of the original image, by name; raises CacheError if they are damaged."""
        with reading_errors(self.folder):
            content = read_bytes(self.folder / "thumbnails.bin", most=len(self) * self._edge**2)
        if _checksum(content) != self._index["thumbnails"]:
            raise CacheError(f"{self.folder} is damaged (its thumbnails)")
        rows = np.frombuffer(content, np.uint8).reshape(len(self), self._edge, self._edge)
        return dict(zip(self.rows, rows, strict=True))

    def __iter__(self) -> Iterator[str]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def __reduce__(self) -> tuple[type["StoredCases"], tuple[Any, ...]]:
        return StoredCases, (self.folder, self.fallback)  # a spawned worker opens the file anew


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
        self.digests: list[Digests] = []
        self.shares: list[float] = []
        self.checksums: list[int] = []
        self._edge = self._thumbnails_checksum = 0
        self._file = (temporary / "cases.bin").open("wb")
        self._thumbnails = (temporary / "thumbnails.bin").open("wb")
        _lock(self._file, exclusive=True)

    def add(self, record: CachedCase) -> None:
        """Append a case."""
        content = record.mask.tobytes() + record.image.tobytes()
        thumbnail = record.thumbnail.tobytes()
        with system_errors(self.folder.parent):
            self._file.write(content)
            self._thumbnails.write(thumbnail)
        self.checksums.append(_checksum(content))
        self._thumbnails_checksum = _checksum(thumbnail, self._thumbnails_checksum)
        self.shares.append(record.share)
        self.names.append(record.name)
        self.channels.append(record.image.shape[2])
        self.digests.append(record.digests)
        self._edge = record.thumbnail.shape[0]
        if self._file.tell() > self.limit_bytes:
            raise CacheError(too_large(self.folder.parent, self._file.tell(), self.limit_bytes))

    def finish(self) -> StoredCases:
        """Write the index, make sure that all is on the disk, and let others see it."""
        height, width = self.size
        index: dict[str, Any] = {
            "height": height,
            "width": width,
            "names": self.names,
            "channels": self.channels,
            "digests": self.digests,
            "shares": self.shares,
            "thumbnail": self._edge,
            "thumbnails": self._thumbnails_checksum,
            "checksums": self.checksums,
        }
        index["checksum"] = _checksum(json.dumps(index).encode())
        with system_errors(self.folder.parent):
            for file in (self._file, self._thumbnails):
                file.flush()
                os.fsync(file.fileno())
            (self.temporary / "index.json").write_text(json.dumps(index), encoding="utf-8")
            remove(self.folder)  # a damaged one
            self.temporary.rename(self.folder)
        self.close()
        return StoredCases(self.folder)

    def close(self) -> None:
        """Give the files back."""
        for file in (self._file, self._thumbnails):
            with suppress(OSError):  # what was buffered for a full disk
                file.close()


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


def _checksum(content: bytes, before: int = 0) -> int:
    return zlib.crc32(content, before)


def _read_at(file: IO[bytes], start: int, length: int) -> bytes:
    """Bytes at a place; fewer where the file ends or cannot be read."""
    try:
        if hasattr(os, "pread"):  # processes that were forked share the file's position
            return os.pread(file.fileno(), length, start)
        file.seek(start)
        return file.read(length)
    except OSError:
        return b""


@contextmanager
def reading_errors(directory: Path) -> Iterator[None]:
    """What cannot be read is a CacheError."""
    try:
        yield
    except (OSError, ValueError) as error:
        raise CacheError(f"{directory} cannot be read ({reason(error)})") from error


@contextmanager
def system_errors(directory: Path) -> Iterator[None]:
    """What the system refuses is a CacheError."""
    try:
        yield
    except OSError as error:
        raise CacheError(f"{directory} cannot be written ({reason(error)})") from error


def remove(folder: Path, only_if_unused: bool = False) -> bool:
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


def _size_of(path: Path) -> int:
    """Bytes; -1 if it is not there."""
    try:
        return path.stat().st_size
    except OSError:
        return -1
