"""DICOM files of ultrasound: their frames as RGB, and the spacing of their pixels.

Only the elements of `WANTED` are read at all: no name, number or date of a patient is ever held.
What pydicom says of an element may quote its value, so that none of its words are passed on.
"""

import io
import logging
import math
import warnings
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from anatosegnet.data.case import LARGEST, CaseError, read_bytes, too_large
from anatosegnet.data.decoding.whole import Damaged
from anatosegnet.errors import UserError
from anatosegnet.files import opening

MAGIC = b"DICM"
MAGIC_AT = 128  # bytes of the file before it
WANTED = (
    "SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "NumberOfFrames",
    "Rows", "Columns", "SamplesPerPixel", "PhotometricInterpretation", "PlanarConfiguration",
    "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "RescaleSlope",
    "RescaleIntercept", "WindowCenter", "WindowWidth", "VOILUTFunction",
    "SequenceOfUltrasoundRegions", "RedPaletteColorLookupTableDescriptor",
    "RedPaletteColorLookupTableData", "GreenPaletteColorLookupTableData",
    "BluePaletteColorLookupTableData", "ExtendedOffsetTable", "ExtendedOffsetTableLengths",
    "PixelData",
)  # fmt: skip
MOST_FRAMES = 2**14  # minutes of ultrasound; more are a damaged header
MOST_INFLATED = opening.LARGEST  # bytes
# of Sequence of Ultrasound Regions, PS3.3 C.8.5.5
TWO_DIMENSIONS, TISSUE, CENTIMETRE = 1, 1, 3
MM_PER_CM = 10.0
PIXEL_MM = (0.001, 10.0)  # what a pixel may be long; else the file says nonsense
INSIDE = 0.9  # share of a lesion's pixels in a region from which on it lies in there


class Region(NamedTuple):
    """A part of a picture that shows tissue, and how large its pixels are.

    Attributes:
        rows: Of the picture.
        columns: Of the picture.
        spacing: Height and width of a pixel, mm.
    """

    rows: slice
    columns: slice
    spacing: tuple[float, float]


def is_dicom(path: Path) -> bool:
    """Whether a file says in its first bytes that it is DICOM, whatever its name."""
    try:
        with opening.open_file(path) as file:
            return file.read(MAGIC_AT + len(MAGIC))[MAGIC_AT:] == MAGIC
    except OSError:
        return False


def require_pydicom() -> None:
    """Make pydicom ready to be used.

    Raises:
        UserError: It is missing; names the extra that brings it.
    """
    try:
        import pydicom.config
    except ImportError as error:
        raise UserError("DICOM needs pydicom: pip install 'anatosegnet[dicom]'") from error
    pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
    # they quote what they complain of
    for name in ("pydicom", "pylibjpeg", "highdicom"):
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
        warnings.filterwarnings("ignore", module=rf"{name}\b")
    warnings.filterwarnings("ignore", module=r"anatosegnet\.data\.(decoding\.)?dicom")


class Dicom:
    """A DICOM file that holds pictures.

    Args:
        path: The file.

    Attributes:
        frames: How many pictures.
        size: Their (height, width).
        regions: Parts of them that show tissue in two dimensions and whose scale is known.
        header: A pydicom dataset of the `WANTED` elements that are there.

    Raises:
        CaseError: It cannot be read, is no DICOM, holds no picture, or claims too large ones.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        data = read_bytes(path)
        try:
            self.header: Any = _parse(data)
            self.syntax = str(self.header.file_meta.TransferSyntaxUID)
            self.frames = _whole(self.header, "NumberOfFrames", 1) or 1
            self.size = _whole(self.header, "Rows"), _whole(self.header, "Columns")
            self.regions = list(_regions(self.header, self.size))
        except Damaged as error:
            raise CaseError(f"{path}: cannot be read; {error}") from None
        except Exception:  # pydicom raises many kinds for damaged files
            raise CaseError(f"{path}: cannot be read; it is a damaged DICOM file") from None
        height, width = self.size
        if not 0 < height * width <= LARGEST:
            raise CaseError(f"{path}: {too_large(f'{width}×{height}')}")
        if not 0 < self.frames <= MOST_FRAMES:
            raise CaseError(
                f"{path}: claims to hold {self.frames} pictures; up to {MOST_FRAMES} are read"
            )

    def pictures(self, first: int = 1) -> Iterator[np.ndarray | CaseError]:
        """Each frame as (H, W, 3) uint8 RGB, or what is wrong with it; one at a time.

        Args:
            first: The frame to begin with, from 1.
        """
        from anatosegnet.data.decoding.dicom import frames_of

        number = first - 1
        try:
            frames = frames_of(self.header, self.frames, start=number)
            for number, frame in enumerate(frames, start=first):
                if isinstance(frame, Damaged):
                    yield CaseError(f"{self._where(number)}: cannot be decoded; {frame}")
                else:
                    yield frame
        except Damaged as error:
            yield CaseError(f"{self._where(number + 1)}: cannot be decoded; {error}")
        except Exception:  # pydicom raises many kinds for damaged files
            yield CaseError(f"{self._where(number + 1)}: cannot be decoded; it is damaged")

    def _where(self, number: int) -> str:
        return f"{self.path}" + (f", frame {number}" if self.frames > 1 else "")


def region_of(
    mask: np.ndarray, regions: Sequence[Region], at: tuple[int, int] = (0, 0)
) -> Region | None:
    """The region that a lesion lies in; the smallest where they overlap.

    Args:
        mask: (h, w) bool, a part of the picture that holds all of the lesion.
        regions: Of the picture.
        at: Row and column where that part begins.
    """
    pixels = np.count_nonzero(mask)
    found = []
    for region in regions:
        rows, columns = (
            slice(max(0, part.start - start), max(0, part.stop - start))
            for part, start in zip(region[:2], at, strict=True)
        )
        if np.count_nonzero(mask[rows, columns]) >= INSIDE * pixels:
            found.append(region)
    return min(found, key=_area, default=None)


def _area(region: Region) -> int:
    return (region.rows.stop - region.rows.start) * (region.columns.stop - region.columns.start)


def _parse(data: bytes) -> Any:
    """The `WANTED` elements of a file, as a pydicom dataset with its ``file_meta``."""
    require_pydicom()
    from pydicom import uid
    from pydicom.datadict import tag_for_keyword
    from pydicom.dataset import FileMetaDataset
    from pydicom.filereader import read_dataset
    from pydicom.tag import Tag

    if data[MAGIC_AT : MAGIC_AT + len(MAGIC)] != MAGIC:
        raise Damaged("it is no DICOM file")
    file = io.BytesIO(data)
    file.seek(MAGIC_AT + len(MAGIC))
    wanted: list[Any] = [Tag("TransferSyntaxUID")]
    meta = read_dataset(
        file, False, True, stop_when=lambda tag, *_: tag >> 16 != 2, specific_tags=wanted
    )
    syntax = meta.get("TransferSyntaxUID")
    if syntax is None:
        raise Damaged("it does not say how it is stored (no transfer syntax)")
    if syntax == uid.DeflatedExplicitVRLittleEndian:
        file = io.BytesIO(_inflated(data[file.tell() :]))
    names: list[Any] = [Tag(tag_for_keyword(name) or 0) for name in WANTED]
    header: Any = read_dataset(
        file,
        syntax == uid.ImplicitVRLittleEndian,
        syntax != uid.ExplicitVRBigEndian,
        specific_tags=names,
    )
    header.file_meta = FileMetaDataset()
    header.file_meta.TransferSyntaxUID = syntax
    if "PixelData" not in header:
        raise Damaged("it holds no picture, or its end is missing")
    return header


def _inflated(data: bytes) -> bytes:
    """What deflated data holds; refused before it takes all memory."""
    stream = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        content = stream.decompress(data, MOST_INFLATED)
    except zlib.error:
        raise Damaged("its compressed data is wrong") from None
    if not stream.eof:
        raise Damaged("the end of its compressed data is missing, or it unfolds beyond measure")
    return content


def _whole(header: Any, name: str, default: int = 0) -> int:
    value = header.get(name)
    return default if value is None else int(value)


def _regions(header: Any, size: tuple[int, int]) -> Iterator[Region]:
    """The regions of two-dimensional tissue whose pixels have a size in mm."""
    for item in header.get("SequenceOfUltrasoundRegions") or ():
        try:
            kind = item.RegionSpatialFormat, item.RegionDataType
            units = item.PhysicalUnitsXDirection, item.PhysicalUnitsYDirection
            left, top = item.RegionLocationMinX0, item.RegionLocationMinY0
            right, bottom = item.RegionLocationMaxX1, item.RegionLocationMaxY1
            spacing = tuple(
                abs(float(delta)) * MM_PER_CM
                for delta in (item.PhysicalDeltaY, item.PhysicalDeltaX)
            )
        except (AttributeError, TypeError, ValueError):  # it does not say
            continue
        if kind != (TWO_DIMENSIONS, TISSUE) or units != (CENTIMETRE, CENTIMETRE):
            continue
        if not all(math.isfinite(mm) and PIXEL_MM[0] <= mm <= PIXEL_MM[1] for mm in spacing):
            continue
        if not (0 <= top <= bottom and 0 <= left <= right and top < size[0] and left < size[1]):
            continue
        rows = slice(int(top), min(int(bottom) + 1, size[0]))
        columns = slice(int(left), min(int(right) + 1, size[1]))
        yield Region(rows, columns, (spacing[0], spacing[1]))
