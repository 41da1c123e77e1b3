"""The first directory of a TIFF file: where its pixels lie, and which way up they are shown."""

import io
import struct
from collections.abc import Iterator

from PIL import TiffImagePlugin

WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC = 256, 257, 258, 259, 262
FILL_ORDER, STRIPS, ORIENTATION, SAMPLES, ROWS, STRIP_SIZES, PLANES = (
    266,
    273,
    274,
    277,
    278,
    279,
    284,
)
TILE_WIDTH, TILE_HEIGHT, TILES, TILE_SIZES = 322, 323, 324, 325
JPEG_TABLES, SUBSAMPLING = 347, 530
PALETTE = 320
NEEDED = {
    *range(WIDTH, PHOTOMETRIC + 1),
    STRIPS,
    SAMPLES,
    ROWS,
    STRIP_SIZES,
    PLANES,
    PALETTE,
    *range(TILE_WIDTH, TILE_SIZES + 1),
    JPEG_TABLES,
    SUBSAMPLING,
}
YCBCR, SEPARATE = 6, 2
MOST_SAMPLES = 16  # of a pixel
COMPRESSIONS = {1: "none", 5: "lzw", 7: "jpeg", 8: "deflate", 32946: "deflate", 32773: "packbits"}
TIFF_SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


class Tiff:
    """The first directory of a TIFF file (BigTIFF too).

    Args:
        data: The content of the file.

    Attributes:
        size: (height, width), pixels.
        is_alone: Whether no other directory (picture) follows.
        orientation: 1 to 8, as in EXIF.
        compression: One of `COMPRESSIONS`, or ``other``.
        jpeg_tables: What the JPEG streams of all its pieces share; may be empty.

    Raises:
        ValueError: It has no directory that can be read.
    """

    def __init__(self, data: bytes) -> None:
        try:
            header = data[: 16 if _is_big(data) else 8]
            self._tags = TiffImagePlugin.ImageFileDirectory_v2(header)
            file = io.BytesIO(data)
            file.seek(self._tags.next)
            self._tags.load(file)
            if lost := NEEDED & {tag for tag, _ in _entries(data)} - set(self._tags):
                raise ValueError(lost)  # their values lie beyond the end
            self.is_alone = not self._tags.next
            self.compression = COMPRESSIONS.get(self._one(COMPRESSION, 1), "other")
            if self._one(FILL_ORDER, 1) != 1:  # bits from the right
                self.compression = "other"
            self.jpeg_tables = bytes(self._tags.get(JPEG_TABLES, b""))
            self.orientation = self._one(ORIENTATION, 1)
            self.size = self._one(HEIGHT), self._one(WIDTH)
        except Exception as error:  # Pillow raises many kinds for damaged files
            raise ValueError("its directory cannot be read") from error

    def _all(self, tag: int, default: int | None = None) -> tuple[int, ...]:
        value = self._tags[tag] if default is None else self._tags.get(tag, default)
        return tuple(map(int, value)) if isinstance(value, tuple) else (int(value),)

    def _one(self, tag: int, default: int | None = None) -> int:
        return self._all(tag, default)[0]

    def pieces(self) -> Iterator[tuple[int, int, int]]:
        """Strips or tiles: where each begins in the file, its bytes there, and when unpacked.

        Raises:
            ValueError: The directory does not say so, or lacks some.
        """
        try:
            yield from self._pieces()
        except (IndexError, KeyError, TypeError, ZeroDivisionError) as error:
            raise ValueError("its directory is incomplete") from error

    def _pieces(self) -> Iterator[tuple[int, int, int]]:
        height, width = self.size
        samples = self._one(SAMPLES, 1)
        if not 0 < samples <= MOST_SAMPLES:
            raise IndexError(samples)
        bits = self._all(BITS, 1)
        bits = bits * samples if len(bits) < samples else bits
        planes = [[one] for one in bits] if self._one(PLANES, 1) == SEPARATE else [list(bits)]
        tiled = TILES in self._tags
        across, down = (
            (self._one(TILE_WIDTH), self._one(TILE_HEIGHT))
            if tiled
            else (width, min(self._one(ROWS, height), height))
        )
        starts = self._all(TILES if tiled else STRIPS)
        tag = TILE_SIZES if tiled else STRIP_SIZES
        lengths = self._all(tag) if tag in self._tags else ()
        number = 0
        for plane in planes:
            for top in range(0, height, down):
                rows = down if tiled else min(down, height - top)
                for _ in range(0, width, across):
                    expected = -(-across * sum(plane) // 8) * rows
                    if self._subsampled():
                        wide, high = (*self._all(SUBSAMPLING, 2), 2)[:2]
                        expected = -(-across // wide) * -(-rows // high) * (wide * high + 2)
                    length = expected if self.compression == "none" else lengths[number]
                    yield starts[number], length, expected
                    number += 1

    def _subsampled(self) -> bool:
        return self._one(PHOTOMETRIC, 1) == YCBCR and self._one(PLANES, 1) != SEPARATE


def without_orientation(data: bytes) -> bytes:
    """A TIFF file that claims to need no turning: decoders differ in what they make of the tag."""
    changed = bytearray(data)
    for tag, at in _entries(data):
        if tag == ORIENTATION:
            struct.pack_into(_order(data) + "H", changed, at, 1)
    return bytes(changed)


def _entries(data: bytes) -> Iterator[tuple[int, int]]:
    """The tags of the first directory, each with the place of its value (or of where that is)."""
    order, big = _order(data), _is_big(data)
    (at,) = struct.unpack_from(order + ("Q" if big else "I"), data, 8 if big else 4)
    (count,) = struct.unpack_from(order + ("Q" if big else "H"), data, at)
    for number in range(count):
        entry = at + (8 + 20 * number if big else 2 + 12 * number)
        (tag,) = struct.unpack_from(order + "H", data, entry)
        yield tag, entry + (12 if big else 8)


def _order(data: bytes) -> str:
    return "<" if data[:2] == b"II" else ">"


def _is_big(data: bytes) -> bool:
    return data[2:4] in (b"+\0", b"\0+")
