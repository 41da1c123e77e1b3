"""Whether a picture is whole: what decoders fill in silence where its data is missing.

libjpeg paints grey what it finds no data for, and OpenCV passes over what libtiff complains of; so
the bytes themselves are looked at, before they are decoded.
"""

import io
import math
import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from anatosegnet.data.decoding.tiff import Tiff

PNG_END = b"IEND\xaeB`\x82"

MARKER = re.compile(rb"\xff([^\x00\xff])")  # in a scan, FF 00 stands for the byte FF
END, SCAN, RESTART_INTERVAL, RESTARTS = 0xD9, 0xDA, 0xDD, range(0xD0, 0xD8)
SEQUENTIAL, PROGRESSIVE = (0xC0, 0xC1, 0xC9), (0xC2, 0xCA)  # frames of 8 × 8 blocks
# what a scan that has all its blocks never looks at, and one that lacks some takes for them
# (the decoder takes zeros for what is missing, so the first one begins with ones)
FILLERS = tuple(
    first + np.random.default_rng(1).bytes(96).replace(b"\xff", b"\0")
    for first in (b"\xfe", b"\x2d")
)

CHUNK = 2**20  # bytes unpacked at once
LONGEST_REST = 2**26  # bytes that deflated data may hold beyond its strip
LZW_CLEAR, LZW_END, LZW_FIRST = 256, 257, 258


class Damaged(ValueError):
    """A picture is not whole; the message says in a few words what is wrong."""


def check_whole(data: bytes, image: Image.Image | None, tiff: Tiff | None) -> None:
    """Look whether all of a picture is there.

    Args:
        data: The content of the file.
        image: The same as Pillow opened it; None for what Pillow does not know.
        tiff: The directory of a TIFF file.

    Raises:
        Damaged: A part is missing, or is no data of its kind. (What is merely wrong may not be
            seen: only PNG, and deflate in TIFF, have checksums.)
    """
    if tiff is not None:
        check_tiff(data, tiff)
    elif image is None:
        return
    elif image.format in ("JPEG", "MPO"):
        check_jpeg(data)
    elif image.format == "PNG":
        if getattr(image, "n_frames", 1) == 1:
            image.verify()  # older OpenCV gives the part before a damage as the whole
        if PNG_END not in data:
            raise Damaged("the end of the file is missing")
    else:
        image.load()


def check_jpeg(data: bytes) -> None:
    """Whether every scan of a JPEG file has its data, and all of them are there.

    A scan with all its blocks is decoded the same whatever stands behind the last one. So
    something is put there, and the two pictures compared: it shows where a scan ends too early.

    Raises:
        Damaged: A part is missing.
    """
    ends: list[int] = []
    jpeg = _Jpeg()
    for marker, content, end in segments(data):
        if marker is None:
            ends.append(end)
            jpeg.pieces += 1
        else:
            jpeg.take(marker, content)
    jpeg.finish()
    whole = _decoded(data)
    for filler in FILLERS[: 2 if jpeg.progressive else 1]:
        parts, at = [], 0
        for end in ends:
            parts += [data[at:end], filler]
            at = end
        if _decoded(b"".join([*parts, data[at:]])) != whole:
            raise Damaged("a part of the picture is missing")


def _decoded(data: bytes) -> bytes:
    with Image.open(io.BytesIO(data)) as image:
        return image.tobytes()


def segments(data: bytes) -> Iterator[tuple[int | None, bytes, int]]:
    """The segments of a JPEG file: marker, content, end; None marks a piece of a scan's data."""
    at = 2
    while True:
        marker, _, at = _next_marker(data, at)
        if marker == END:
            return
        if marker in RESTARTS or marker == 0x01:  # these stand alone
            continue
        if at + 2 > len(data):
            raise Damaged("the end of the file is missing")
        end = at + struct.unpack_from(">H", data, at)[0]
        yield marker, data[at + 2 : end], end
        at = end
        while marker == SCAN:
            following, start, after = _next_marker(data, at)
            yield None, b"", start
            if following not in RESTARTS:
                break
            at = after


def _next_marker(data: bytes, at: int) -> tuple[int, int, int]:
    """The next marker from a place on, where it begins (with bytes FF before it), where it ends."""
    found = MARKER.search(data, at)
    if found is None:
        raise Damaged("the end of the file is missing")
    start = found.start()
    while start > at and data[start - 1] == 0xFF:
        start -= 1
    return found[1][0], start, found.end()


@dataclass
class _Jpeg:
    """What the headers of a JPEG file promise, and whether its scans keep it.

    Attributes:
        frame: Marker of the frame; 0 before it.
        size: (height, width), pixels.
        sampling: Horizontal and vertical sampling of each component.
        missing: Of each component, how many low bits of its 64 coefficients are not there yet.
        interval: Blocks between two restarts; 0 for none.
        pieces: Pieces of data of the present scan.
        needed: So many pieces it must have.
    """

    frame: int = 0
    size: tuple[int, int] = (0, 0)
    sampling: dict[int, tuple[int, int]] = field(default_factory=dict)
    missing: dict[int, np.ndarray] = field(default_factory=dict)
    interval: int = 0
    pieces: int = 0
    needed: int = 0

    @property
    def progressive(self) -> bool:
        return self.frame in PROGRESSIVE

    def take(self, marker: int, content: bytes) -> None:
        """Look at a segment."""
        try:
            if marker in (*SEQUENTIAL, *PROGRESSIVE):
                self.frame, self.size = marker, struct.unpack_from(">HH", content, 1)
                for number in range(content[5]):
                    name, factors = content[6 + 3 * number : 8 + 3 * number]
                    self.sampling[name] = factors >> 4, factors & 15
                    self.missing[name] = np.full(64, 16)
            elif marker == RESTART_INTERVAL:
                (self.interval,) = struct.unpack_from(">H", content)
            elif marker == SCAN and self.frame:
                self._scan(content)
        except (IndexError, KeyError, ValueError, ZeroDivisionError, struct.error) as error:
            raise Damaged("its headers are wrong") from error

    def _scan(self, content: bytes) -> None:
        self._end_scan()
        names = content[1 : 1 + 2 * content[0] : 2]
        first, last, bits = content[1 + 2 * content[0] :][:3]
        for name in names:
            if self.progressive:
                self.missing[name][first : last + 1] = bits & 15
            else:
                self.missing[name][:] = 0
        self.pieces, self.needed = 0, 1
        if self.interval:
            across, down = (max(factors) for factors in zip(*self.sampling.values(), strict=True))
            height, width = self.size
            if len(names) == 1:  # blocks of one component, not of all together
                own = self.sampling[names[0]]
                width, height = -(-width * own[0] // across), -(-height * own[1] // down)
                across = down = 1
            blocks = -(-width // (8 * across)) * -(-height // (8 * down))
            self.needed = -(-blocks // self.interval)

    def _end_scan(self) -> None:
        if self.pieces < self.needed:
            raise Damaged("a part of the picture is missing")

    def finish(self) -> None:
        """The end of the file."""
        self._end_scan()
        if any(bits.any() for bits in self.missing.values()):
            raise Damaged("its last scans are missing")


def check_tiff(data: bytes, tiff: Tiff) -> None:
    """Whether every strip or tile of a TIFF file has its data.

    Without compression, and for LZW, deflate, PackBits and JPEG; other kinds (faxes) are left to
    the decoder.

    Raises:
        Damaged: A part is missing.
    """
    for start, length, expected in tiff.pieces():
        piece = data[start : start + length]
        if len(piece) < length:
            raise Damaged("the end of the file is missing")
        if tiff.compression in ("lzw", "packbits") and length > 2 * expected + 1024:
            raise Damaged("its compressed data is longer than it can be")
        if tiff.compression == "jpeg":
            check_jpeg(tiff.jpeg_tables[:-2] + piece[2:] if tiff.jpeg_tables else piece)
            continue
        there = {"none": len, "lzw": _lzw_length, "packbits": packbits_length}
        if tiff.compression == "deflate":
            found = _deflate_length(piece, expected)
        elif tiff.compression in there:
            found = there[tiff.compression](piece)
        else:
            return
        if found < expected:
            raise Damaged("a part of the picture is missing")


def _deflate_length(data: bytes, most: int) -> int:
    """Bytes that deflated data holds; Damaged where its checksum is wrong, or it has no end."""
    stream, length = zlib.decompressobj(), 0
    try:
        while data and not stream.eof and length <= most + LONGEST_REST:
            length += len(stream.decompress(data, CHUNK))
            data = stream.unconsumed_tail
    except zlib.error as error:
        raise Damaged("its compressed data is wrong") from error
    if not stream.eof:
        raise Damaged("the end of its compressed data is missing")
    return length


def packbits_length(data: bytes, most: float = math.inf) -> int:
    """Bytes that PackBits data holds; no further than one beyond ``most``."""
    length = at = 0
    while at < len(data) and length <= most:
        head = data[at]
        if head < 128:
            length += head + 1 - max(0, at + head + 2 - len(data))
            at += head + 2
        else:
            length += 257 - head if head > 128 and at + 1 < len(data) else 0
            at += 2 if head > 128 else 1
    return length


def _lzw_length(data: bytes) -> int:
    """Bytes that LZW data holds; Damaged where a code is none, or the last one is not the end."""
    if data[:1] == b"\0" and len(data) > 1 and data[1] & 1:
        raise Damaged("it is of a kind of LZW that is no longer used")
    total = previous = buffer = bits = 0
    lengths = [1] * LZW_FIRST  # of the bytes that each code stands for
    width = 9
    for byte in data:
        buffer, bits = buffer << 8 | byte, bits + 8
        if bits < width:
            continue
        bits -= width
        code, buffer = buffer >> bits, buffer & ((1 << bits) - 1)
        if code == LZW_END:
            return total
        if code == LZW_CLEAR:
            del lengths[LZW_FIRST:]
            width, previous = 9, 0
            continue
        if previous:
            lengths.append(previous + 1)
        if code >= len(lengths):
            raise Damaged("its compressed data is wrong")
        previous = lengths[code]
        total += previous
        if len(lengths) + 1 >> width and width < 12:  # one early, as TIFF has it
            width += 1
    raise Damaged("the end of its compressed data is missing")
