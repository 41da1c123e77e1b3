"""The frames of a DICOM file, each decoded by itself and checked before it is.

A compressed frame says once more how large it is, and a decoder believes it: what it says must be
what the file's header said, before it is given to one.
"""

import re
import struct
from collections.abc import Iterator
from itertools import islice
from typing import Any

import cv2
import numpy as np

from anatosegnet.data.decoding import lossless_jpeg
from anatosegnet.data.decoding.whole import Damaged, check_jpeg, packbits_length

GREY, PALETTE = ("MONOCHROME1", "MONOCHROME2"), "PALETTE COLOR"
YBR = ("YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")
COLOURS = ("RGB", *YBR)
RLE_HEADER = 64  # bytes: the number of segments, and where each begins
SIZE = re.compile(rb"\xff[\xc0-\xcf\xf7]")  # frames of JPEG and JPEG-LS; not C4, C8, CC
J2K_START, J2K_SIZE, J2K_PART, J2K_END = b"\xff\x4f", b"\xff\x51", b"\xff\x90", b"\xff\xd9"
LEAST_J2K_TILE = 2**10  # pixels; each tile costs a decoder memory
MOST_TILES = 2**12


def frames_of(header: Any, count: int, start: int = 0) -> Iterator[np.ndarray | Damaged]:
    """Each frame as (H, W, 3) uint8 RGB, or what is wrong with it.

    Args:
        header: Dataset of pydicom with its ``file_meta``; its size is known to be sane.
        count: Of frames.
        start: Frames to pass over, which are not decoded.

    Raises:
        Damaged: None of them, or none of those that would follow, can be decoded.
    """
    from pydicom.pixels import get_decoder
    from pydicom.pixels.utils import as_pixel_options
    from pydicom.uid import JPEG2000TransferSyntaxes, RLELossless

    kind = str(header.get("PhotometricInterpretation"))
    samples, bits = header.get("SamplesPerPixel"), header.get("BitsAllocated")
    if kind not in (*GREY, PALETTE, *COLOURS) or samples != (3 if kind in COLOURS else 1):
        raise Damaged("its colours are of a kind that is not read")
    if bits not in (8, 16):
        raise Damaged("its pixels are of neither 8 nor 16 bits")
    syntax = header.file_meta.TransferSyntaxUID
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError:
        raise Damaged("it is stored in a way that is not read (its transfer syntax)") from None
    lossless_jpeg.register(decoder)
    if not decoder.is_available:
        raise Damaged(
            f"it is stored as {syntax.name}, for which no decoder is installed "
            "(pip install 'anatosegnet[dicom]' brings those of JPEG, JPEG-LS, JPEG 2000 and RLE)"
        )
    plugin = "pylibjpeg" if syntax in JPEG2000TransferSyntaxes else ""
    options = as_pixel_options(
        header, number_of_frames=1, pixel_keyword="PixelData", pixel_vr=header["PixelData"].VR
    )
    options.pop("extended_offsets", None)
    for frame in islice(_stored(header, count), start, None):
        try:
            if syntax in lossless_jpeg.SYNTAXES:
                frame = lossless_jpeg.as_stored(frame)
            if syntax.is_encapsulated:
                _check(frame, header, is_rle=syntax == RLELossless)
                frame = _encapsulated(frame)
            pixels, found = decoder.as_array(frame, index=0, decoding_plugin=plugin, **options)
            yield _rgb(pixels, header, str(found["photometric_interpretation"]))
        except Damaged as error:
            yield error
        except Exception:  # decoders raise many kinds for damaged data, and quote headers
            yield Damaged("it is damaged")


def _stored(header: Any, count: int) -> Iterator[bytes]:
    """The bytes of each frame; Damaged where there are fewer than the header says."""
    from pydicom.encaps import generate_frames

    data = header.PixelData
    if header.file_meta.TransferSyntaxUID.is_encapsulated:
        offsets = header.get("ExtendedOffsetTable"), header.get("ExtendedOffsetTableLengths")
        there = 0
        for frame in generate_frames(
            data, number_of_frames=count, extended_offsets=offsets if all(offsets) else None
        ):
            if there == count:
                return
            there += 1
            yield frame
        if there < count:
            raise Damaged(f"its header says {count} pictures, but it holds {there}")
        return
    pixels = header.Rows * header.Columns * header.SamplesPerPixel
    length = pixels * header.BitsAllocated // 8
    if header.PhotometricInterpretation == "YBR_FULL_422":
        length = length * 2 // 3
    for number in range(count):
        frame = data[number * length : (number + 1) * length]
        if len(frame) < length:
            raise Damaged("a part of the picture is missing")
        yield frame + b"\0" * (length % 2)


def _encapsulated(frame: bytes) -> bytes:
    from pydicom.encaps import encapsulate

    return encapsulate([frame + b"\0" * (len(frame) % 2)], has_bot=False)


def _check(frame: bytes, header: Any, is_rle: bool) -> None:
    """Refuse a compressed frame that says another size than its file, or is not all there."""
    size, samples = (header.Rows, header.Columns), header.SamplesPerPixel
    if is_rle:
        _check_rle(frame, size[0] * size[1], samples * header.BitsAllocated // 8)
    elif frame.startswith(J2K_START) or J2K_START + J2K_SIZE in frame[:256]:
        _check_j2k(frame[frame.find(J2K_START + J2K_SIZE) :], size, samples)
    elif frame.startswith(b"\xff\xd8"):
        end = frame.rstrip(b"\0")
        if not end.endswith(b"\xff\xd9"):
            raise Damaged("the end of the picture is missing")
        if _jpeg_frame(frame, size, samples) != 0xF7:  # JPEG-LS has a decoder that tells
            check_jpeg(end)
    else:
        raise Damaged("its compressed data is of another kind than it says")


def _jpeg_frame(data: bytes, size: tuple[int, int], samples: int) -> int:
    """The marker of the frame of a JPEG or JPEG-LS picture, whose size must be this one."""
    at, found = 2, 0
    while at + 4 <= len(data) and data[at] == 0xFF and data[at + 1] != 0xDA:
        marker, length = data[at + 1], struct.unpack_from(">H", data, at + 2)[0]
        if SIZE.match(data, at) and marker not in (0xC4, 0xC8, 0xCC):
            if at + 10 > len(data):
                break
            said = (*struct.unpack_from(">HH", data, at + 5), data[at + 9])
            if said != (*size, samples):
                raise Damaged("its compressed data is of another size than its header says")
            found = marker
        at += 2 + length
    if not found:
        raise Damaged("its compressed data does not say its size")
    return found


def _check_j2k(data: bytes, size: tuple[int, int], samples: int) -> None:
    """Size, tiles and lengths of the parts of a JPEG 2000 codestream (ISO 15444-1, A.4, A.5)."""
    try:
        right, bottom, left, top, across, down, tile_left, tile_top, components = (
            struct.unpack_from(">8IH", data, 8)
        )
        if (bottom - top, right - left, components) != (*size, samples) or left or top:
            raise Damaged("its compressed data is of another size than its header says")
        tiles = -(-right // max(across, 1)) * -(-bottom // max(down, 1))
        small = across * down < min(LEAST_J2K_TILE, size[0] * size[1])
        if tile_left or tile_top or tiles > MOST_TILES or small:
            raise Damaged("its compressed data has more tiles than are read")
        at = 2
        while data[at : at + 2] != J2K_PART:
            if data[at] != 0xFF:
                raise Damaged("its compressed data is wrong")
            at += 2 + struct.unpack_from(">H", data, at + 2)[0]
        while data[at : at + 2] == J2K_PART:
            length = struct.unpack_from(">I", data, at + 6)[0]
            if length == 0:  # up to the end
                at = len(data.rstrip(b"\0")) - 2
                break
            at += max(length, 12)
    except (struct.error, IndexError):
        raise Damaged("a part of the picture is missing") from None
    if data[at : at + 2] != J2K_END:
        raise Damaged("a part of the picture is missing")


def _check_rle(data: bytes, pixels: int, planes: int) -> None:
    """The lengths of the segments, one for each byte of a pixel (PS3.5, Annex G)."""
    if len(data) < RLE_HEADER:
        raise Damaged("a part of the picture is missing")
    count, *starts = struct.unpack_from("<16I", data)
    starts = starts[:planes]
    if count != planes or starts != sorted(starts) or starts[0] < RLE_HEADER:
        raise Damaged("its compressed data is wrong")
    for start, end in zip(starts, [*starts[1:], len(data)], strict=True):
        length = packbits_length(data[start:end], 2 * pixels + 1024)
        if length < pixels:
            raise Damaged("a part of the picture is missing")
        if length > 2 * pixels + 1024:
            raise Damaged("its compressed data is longer than it can be")


def _rgb(pixels: np.ndarray, header: Any, kind: str) -> np.ndarray:
    """A decoded frame as (H, W, 3) uint8 RGB, as a viewer shows it first."""
    if kind in COLOURS:
        if kind != "RGB":
            raise Damaged("its colours are of a kind that is not read")
        return pixels if pixels.dtype == np.uint8 else _scaled(pixels, 0, _largest(header))
    if kind == PALETTE:
        return _coloured(pixels, header)
    return cv2.cvtColor(_windowed(pixels, header), cv2.COLOR_GRAY2RGB)


def _windowed(pixels: np.ndarray, header: Any) -> np.ndarray:
    """Stored values (H, W) as grey levels: rescaled, then through the file's first window.

    Without a window (and the linear one alone is known here) the range of the stored bits is
    shown, or of as many of them as are in use.
    """
    slope, intercept = (
        _number(header, name, default)
        for name, default in (("RescaleSlope", 1.0), ("RescaleIntercept", 0.0))
    )
    centre, width = (_number(header, name) for name in ("WindowCenter", "WindowWidth"))
    linear = str(header.get("VOILUTFunction") or "LINEAR") == "LINEAR"
    if linear and centre is not None and width is not None and width > 1 and slope is not None:
        values = pixels * np.float64(slope) + (intercept or 0.0)
        grey = _scaled(values, centre - 0.5 - (width - 1) / 2, centre - 0.5 + (width - 1) / 2)
    elif np.issubdtype(pixels.dtype, np.signedinteger):
        top = _largest(header) // 2
        grey = _scaled(pixels, -top - 1, top)
    elif pixels.dtype == np.uint8 and _largest(header) == 255:
        grey = pixels
    else:
        most = int(pixels.max())
        used = next((top for top in (255, 1023, 4095) if most <= top), 65535)
        grey = _scaled(pixels, 0, min(used, max(_largest(header), most)))
    inverted = header.PhotometricInterpretation == "MONOCHROME1"
    return 255 - grey if inverted else grey


def _coloured(pixels: np.ndarray, header: Any) -> np.ndarray:
    """Numbers of colours (H, W) as the colours (PS3.3, C.7.6.3.1.5)."""
    entries, first, bits = (int(value) for value in header.RedPaletteColorLookupTableDescriptor)
    entries = entries or 2**16
    tables = []
    for colour in ("Red", "Green", "Blue"):
        data = bytes(header[f"{colour}PaletteColorLookupTableData"].value)
        # 8 bits may be stored in words, one each
        dtype = np.dtype(np.uint8 if len(data) < 2 * entries else np.uint16)
        if header.file_meta.TransferSyntaxUID == "1.2.840.10008.1.2.2":
            dtype = dtype.newbyteorder(">")
        table = np.frombuffer(data[: entries * dtype.itemsize], dtype)
        if len(table) != entries or bits not in (8, 16):
            raise Damaged("its palette is wrong")
        tables.append(_scaled(table, 0, 2 ** min(bits, 8 * dtype.itemsize) - 1))
    numbers = np.clip(pixels.astype(np.int64) - first, 0, entries - 1)
    return np.stack([table[numbers] for table in tables], axis=-1)


def _scaled(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Values between two ends as uint8; beyond them black and white."""
    return np.rint(np.clip((values - float(low)) * (255.0 / (high - low)), 0, 255)).astype(np.uint8)


def _largest(header: Any) -> int:
    """The largest value that the stored bits can hold."""
    allocated = int(header.BitsAllocated)
    stored = int(header.get("BitsStored") or allocated)
    return 2 ** (stored if 0 < stored <= allocated else allocated) - 1


def _number(header: Any, name: str, default: float | None = None) -> float | None:
    """The first value of an element, where it is a finite number."""
    value = header.get(name)
    if value is not None and not isinstance(value, str | float | int):
        value = next(iter(value), None)
    try:
        number = default if value in (None, "") else float(value)
    except (TypeError, ValueError):
        return default
    return number if number is not None and np.isfinite(number) else default
