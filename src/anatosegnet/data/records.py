"""The file of one cache: resized cases, written once, checked when read.

Per case the mask (H, W), then the image (H, W, C), uint8; C is 1 where the three channels are
equal. Then the thumbnails, which the search for near-duplicates needs, the index (JSON) that says
what lies where, and its `TRAILER`. All have checksums: a case that is damaged is read anew
from its own files, and the cache is removed, so that the next start writes it anew.
"""

import json
import os
import struct
import zlib
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from anatosegnet.console import warn
from anatosegnet.data.duplicates import Digests
from anatosegnet.errors import reason
from anatosegnet.files.locks import lock

Resized = tuple[np.ndarray, np.ndarray]

TRAILER = struct.Struct("<QI")  # bytes of the index, and its checksum


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
    """The cases of one file, by name: image (H, W, C) and mask (H, W), uint8, read-only.

    A case is read each time it is asked for, so that memory does not grow with the number of
    cases; the file is not mapped, for a mapped file that is cut ends the process. It is not
    evicted while this object, or a copy in a worker, is alive.

    Args:
        path: A finished file.
        fallback: Gives the cases that are damaged.

    Attributes:
        digests: Hashes of the original image's and mask's pixels, by name.
        shares: Share of the original image that is lesion, by name.

    Raises:
        CacheError: There is none, or its index or thumbnails are damaged.
    """

    def __init__(self, path: Path, fallback: Mapping[str, Resized] | None = None) -> None:
        self.path, self.fallback = path, fallback
        self._known_damaged = False
        try:
            self._file = path.open("rb")
        except OSError as error:
            raise CacheError(f"{path} cannot be read ({reason(error)})") from error
        try:
            end = os.fstat(self._file.fileno()).st_size - TRAILER.size
            length, checksum = TRAILER.unpack(self._read(end, TRAILER.size))
            if length > end:
                raise ValueError("its end is damaged")
            index = json.loads(_checked(self._read(end - length, length), checksum))
            self.size: tuple[int, int] = (index["height"], index["width"])
            self.channels = np.array(index["channels"], np.int64)
            self.ends = np.cumsum((self.channels + 1) * self.size[0] * self.size[1])
            self.checksums: list[int] = index["checksums"]
            self.rows = {name: row for row, name in enumerate(index["names"])}
            self.digests = dict(zip(self.rows, map(Digests._make, index["digests"]), strict=True))
            self.shares: dict[str, float] = dict(zip(self.rows, index["shares"], strict=True))
            self._thumbnails = index["edge"], index["thumbnails"]
            self.thumbnails()  # looks at their checksum
        except (OSError, ValueError, LookupError, TypeError, struct.error, OverflowError) as error:
            self._file.close()
            raise CacheError(f"{path} is damaged") from error
        lock(self._file.fileno(), shared=True)
        with suppress(OSError):  # somebody else's cache may be read-only
            os.utime(path)  # "used just now"

    def __getitem__(self, name: str) -> Resized:
        row = self.rows[name]
        (height, width), channels = self.size, int(self.channels[row])
        length = height * width * (channels + 1)
        try:
            # a copy in memory: what was checked is what is used, whatever becomes of the file
            content = _checked(
                self._read(int(self.ends[row]) - length, length), self.checksums[row]
            )
        except (OSError, ValueError):
            return self._read_anew(name)
        record = np.frombuffer(content, np.uint8)
        image = record[height * width :].reshape(height, width, channels)
        return image, record[: height * width].reshape(height, width)

    def thumbnails(self) -> dict[str, np.ndarray]:
        """(E, E) uint8 of the original image, by name; read each time they are asked for.

        Raises:
            OSError, ValueError: They cannot be read, or are damaged.
        """
        edge, checksum = self._thumbnails
        content = _checked(self._read(int(self.ends[-1]), len(self) * edge**2), checksum)
        rows = np.frombuffer(content, np.uint8).reshape(len(self), edge, edge)
        return dict(zip(self.rows, rows, strict=True))

    def _read(self, start: int, length: int) -> bytes:
        """Bytes at a place; fewer where the file ends."""
        if hasattr(os, "pread"):  # processes that were forked share the file's position
            return os.pread(self._file.fileno(), length, start)
        self._file.seek(start)
        return self._file.read(length)

    def _read_anew(self, name: str) -> Resized:
        """A case that is damaged; said once for all processes."""
        if not self._known_damaged:
            self._known_damaged = True
            try:
                first = os.path.samestat(os.fstat(self._file.fileno()), self.path.stat())
                if first:  # else another process wrote it anew
                    self.path.unlink()
            except OSError as error:  # another was first, or the cache may not be written
                first = not isinstance(error, FileNotFoundError)
            if first:
                warn(
                    f"the cache {self.path} is damaged ({name}); damaged cases are read from "
                    "their files, and the next start writes it anew"
                )
        if self.fallback is None:
            raise CacheError(f"{self.path} is damaged ({name})")
        return self.fallback[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def __reduce__(self) -> tuple[Any, ...]:
        return _open_anew, (self.path, self.fallback)


def _open_anew(path: Path, fallback: Mapping[str, Resized] | None) -> Mapping[str, Resized]:
    """What a spawned worker reads: a file of its own, or the cases' files if it is gone."""
    try:
        return StoredCases(path, fallback)
    except CacheError:
        if fallback is None:
            raise
        return fallback


class CaseWriter:
    """Takes the cases of a new file, one after another; `finish` writes what leads to them.

    Args:
        file: Open for writing.
        size: (height, width) of every case.
        limit_bytes: More than this are refused.
    """

    def __init__(self, file: IO[bytes], size: tuple[int, int], limit_bytes: float) -> None:
        self.file, self.limit_bytes = file, limit_bytes
        self._thumbnails: list[bytes] = []
        self._index: dict[str, Any] = {"height": size[0], "width": size[1], "edge": 0}
        for column in ("names", "channels", "digests", "shares", "checksums"):
            self._index[column] = []

    def add(self, case: CachedCase) -> None:
        """Append a case.

        Raises:
            OSError: The file cannot be written.
            CacheError: It would grow beyond the limit.
        """
        content = case.mask.tobytes() + case.image.tobytes()
        self.file.write(content)
        if self.file.tell() > self.limit_bytes:
            directory = Path(self.file.name).parent
            raise CacheError(too_large(directory, self.file.tell(), self.limit_bytes))
        self._thumbnails.append(case.thumbnail.tobytes())
        self._index["edge"] = case.thumbnail.shape[0]
        self._index["names"].append(case.name)
        self._index["channels"].append(case.image.shape[2])
        self._index["digests"].append(case.digests)
        self._index["shares"].append(case.share)
        self._index["checksums"].append(zlib.crc32(content))

    def finish(self) -> None:
        """Write thumbnails and index, and make sure that all is on the disk."""
        thumbnails = b"".join(self._thumbnails)
        index = json.dumps(self._index | {"thumbnails": zlib.crc32(thumbnails)}).encode()
        self.file.write(thumbnails + index + TRAILER.pack(len(index), zlib.crc32(index)))
        self.file.flush()
        os.fsync(self.file.fileno())


def one_channel_if_grey(image: np.ndarray) -> np.ndarray:
    """(H, W, 3) with three equal channels as (H, W, 1), which is cheaper to keep and augment."""
    first = image[..., :1]
    return np.ascontiguousarray(first) if (image == first).all() else image


def too_large(directory: Path, size: int, limit: float) -> str:
    """The complaint about the limit."""
    return (
        f"{directory} would grow to {size / 1e9:.2f} GB, more than "
        f"data.cache_limit_gb={limit / 1e9:g}"
    )


def _checked(content: bytes, checksum: int) -> bytes:
    if zlib.crc32(content) != checksum:
        raise ValueError("its checksum is wrong")
    return content
