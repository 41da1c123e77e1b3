"""DICOM files to be damaged: of each colour and storage, of one frame and of several."""

import io
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

VALUES: tuple[Any, ...] = (
    None, "", 0, 1, -1, 2, 7, 8, 16, 255, 2**15, 2**16 - 1, 2**31 - 1, 10**9, 1e308, float("nan"),
    float("inf"), -0.0, "x", "9" * 400, "\\", "1\\2\\3", "../../x", "\x1b[2J", "é\u202e",
    [1, 2, 3], [], b"", b"\xff" * 3, "RGB", "MONOCHROME1", "PALETTE COLOR", "YBR_FULL_422",
)  # fmt: skip


def scans() -> dict[str, bytes]:
    """Files by a name with their suffix, of 40 × 48 px."""
    from pydicom import uid

    smooth = np.random.default_rng(4).integers(0, 256, (6, 5, 3), dtype=np.uint8)
    rgb = cv2.resize(smooth, (48, 40), interpolation=cv2.INTER_CUBIC)
    grey, frames = [rgb[..., 0]], [np.roll(rgb, 5 * n, 1) for n in range(3)]
    greys = [frame[..., 1].copy() for frame in frames]
    deep = [grey[0].astype(np.uint16) * 16]
    table = np.arange(256, dtype=np.uint8)
    palette: dict[str, Any] = {}
    for colour, values in {"Red": table, "Green": 255 - table, "Blue": table // 2}.items():
        palette[f"{colour}PaletteColorLookupTableDescriptor"] = [256, 0, 8]
        palette[f"{colour}PaletteColorLookupTableData"] = values.tobytes()
    window = {"WindowCenter": 2048, "WindowWidth": 4096, "RescaleSlope": 1, "RescaleIntercept": 0}
    wide = [frame[:, ::2].copy() for frame in frames]
    return {
        "grey.dcm": scan(grey, "MONOCHROME2"),
        "implicit.dcm": scan(grey, "MONOCHROME1", uid.ImplicitVRLittleEndian),
        "big.dcm": scan(deep, "MONOCHROME2", uid.ExplicitVRBigEndian, BitsStored=12),
        "deep.dcm": scan(deep, "MONOCHROME2", BitsStored=12, **window),
        "palette.dcm": scan(grey, "PALETTE COLOR", **palette),
        "ybr.dcm": scan(frames, "YBR_FULL"),
        "deflated.dcm": scan(grey, "MONOCHROME2", uid.DeflatedExplicitVRLittleEndian),
        "rle.dcm": scan(frames, "RGB", uid.RLELossless),
        "jpeg.dcm": scan(frames, "YBR_FULL_422", uid.JPEGBaseline8Bit),
        "lossless.dcm": scan(greys, "MONOCHROME2", uid.JPEGLosslessSV1),
        "lossless_rgb.dcm": scan(frames, "RGB", uid.JPEGLossless),
        "jpegls.dcm": scan(greys, "MONOCHROME2", uid.JPEGLSLossless),
        "jpegls_rgb.dcm": scan(wide, "RGB", uid.JPEGLSNearLossless),
        "j2k.dcm": scan(greys, "MONOCHROME2", uid.JPEG2000Lossless),
        "j2k_rgb.dcm": scan(frames, "RGB", uid.JPEG2000Lossless),
    }


def scan(
    frames: list[np.ndarray], kind: str, syntax: str = "1.2.840.10008.1.2.1", **other: Any
) -> bytes:
    """A DICOM ultrasound image with a region that has a scale."""
    from pydicom import uid
    from pydicom.dataset import Dataset
    from pydicom.sequence import Sequence as Items

    first = frames[0]
    found = Dataset()
    found.SOPClassUID = uid.UltrasoundMultiFrameImageStorage
    for name in ("SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"):
        setattr(found, name, uid.generate_uid(entropy_srcs=[name, kind, syntax]))
    found.PatientName, found.Modality = "Nobody", "US"
    found.Rows, found.Columns = first.shape[:2]
    found.SamplesPerPixel = 1 if first.ndim == 2 else 3
    if first.ndim == 3:
        found.PlanarConfiguration = 0
    found.PhotometricInterpretation, found.NumberOfFrames = kind, len(frames)
    found.BitsAllocated = found.BitsStored = 8 * first.dtype.itemsize
    found.PixelRepresentation = 0
    region = Dataset()
    region.RegionSpatialFormat = region.RegionDataType = 1
    region.RegionLocationMinX0, region.RegionLocationMinY0 = 2, 3
    region.RegionLocationMaxX1, region.RegionLocationMaxY1 = first.shape[1] - 1, first.shape[0] - 1
    region.PhysicalUnitsXDirection = region.PhysicalUnitsYDirection = 3
    region.PhysicalDeltaX, region.PhysicalDeltaY = 0.01, 0.02
    found.SequenceOfUltrasoundRegions = Items([region])
    for name, value in other.items():
        setattr(found, name, value)
    store(found, frames, syntax, quality=90, subsampling=1)
    return content_of(found)


def store(found: Any, frames: Sequence[np.ndarray], syntax: str, **of_jpeg: int) -> None:
    """Put pictures into a DICOM dataset that has all else.

    Args:
        found: The dataset.
        frames: (H, W) or (H, W, 3), all alike.
        syntax: Transfer syntax.
        **of_jpeg: How Pillow writes them where the syntax is JPEG; subsampling=1 halves colours.
    """
    from pydicom import uid
    from pydicom.dataset import FileMetaDataset
    from pydicom.encaps import encapsulate

    found.HighBit = found.BitsStored - 1
    found.file_meta = FileMetaDataset()
    found.file_meta.MediaStorageSOPClassUID = found.SOPClassUID
    found.file_meta.MediaStorageSOPInstanceUID = found.SOPInstanceUID
    found.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    order = ">" if syntax == uid.ExplicitVRBigEndian else "<"
    data = b"".join(frame.astype(frame.dtype.newbyteorder(order)).tobytes() for frame in frames)
    found.PixelData = data + b"\0" * (len(data) % 2)
    if syntax == uid.JPEGBaseline8Bit:
        found.PixelData = encapsulate([jpeg(frame, **of_jpeg) for frame in frames])
        found["PixelData"].is_undefined_length = True
    elif syntax in (uid.JPEGLossless, uid.JPEGLosslessSV1):
        found.PixelData = encapsulate([lossless_jpeg(frame) for frame in frames])
        found["PixelData"].is_undefined_length = True
    elif uid.UID(syntax).is_encapsulated:
        found.compress(syntax, generate_instance_uid=False)
    found.file_meta.TransferSyntaxUID = uid.UID(syntax)


def jpeg(picture: np.ndarray, **options: int) -> bytes:
    """A JPEG file."""
    content = io.BytesIO()
    Image.fromarray(picture).save(content, "JPEG", **options)
    return content.getvalue()


def lossless_jpeg(picture: np.ndarray, extra: bytes = b"", names: bytes = b"\1\2\3") -> bytes:
    """A lossless JPEG file (ITU-T T.81, Annex H): each pixel less the one before it.

    Args:
        picture: (H, W) uint8 or uint16, or (H, W, 3) uint8.
        extra: Segments that come first.
        names: Of the components.
    """
    bits = 8 * picture.dtype.itemsize
    samples = picture.reshape(*picture.shape[:2], -1).astype(np.int64)
    before = np.roll(samples, 1, axis=1)
    before[1:, 0], before[0, 0] = samples[:-1, 0], 2 ** (bits - 1)
    coded = ""
    for value in (samples - before).ravel():  # how many bits, by codes of five; then these
        size = int(abs(value)).bit_length()
        value += (value < 0) * (2**size - 1)
        coded += f"{size:05b}" + f"{value:b}".zfill(size) * (size > 0)
    coded += "1" * (-len(coded) % 8)
    scan = int(coded, 2).to_bytes(len(coded) // 8, "big").replace(b"\xff", b"\xff\0")
    names = names[: samples.shape[2]]

    def segment(marker: int, content: bytes) -> bytes:
        return bytes([0xFF, marker]) + (len(content) + 2).to_bytes(2, "big") + content

    size = b"".join(edge.to_bytes(2, "big") for edge in picture.shape[:2])
    of_frame = b"".join(bytes([name, 0x11, 0]) for name in names)
    table = bytes([0, 0, 0, 0, 0, 17, *bytes(11), *range(17)])
    return b"".join([
        b"\xff\xd8", extra,
        segment(0xC4, table),
        segment(0xC3, bytes([bits]) + size + bytes([len(names)]) + of_frame),
        segment(0xDA, bytes([len(names)]) + b"".join(bytes([n, 0]) for n in names) + b"\1\0\0"),
        scan, b"\xff\xd9",
    ])  # fmt: skip


def content_of(found: Any) -> bytes:
    """The bytes of its file."""
    from pydicom import uid

    syntax, content = found.file_meta.TransferSyntaxUID, io.BytesIO()
    implicit, little = syntax == uid.ImplicitVRLittleEndian, syntax != uid.ExplicitVRBigEndian
    found.save_as(content, implicit_vr=implicit, little_endian=little, enforce_file_format=True)
    return content.getvalue()


def change_element(data: bytes, generator: random.Random) -> bytes:
    """An element of the header, or of a region, has another value, or is missing."""
    import warnings

    import pydicom

    for _ in range(20):
        found = pydicom.dcmread(io.BytesIO(data), force=True)
        place = found
        if generator.random() < 0.3 and found.get("SequenceOfUltrasoundRegions"):
            place = found.SequenceOfUltrasoundRegions[0]
        element = place[generator.choice(sorted(place.keys()))]
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                if generator.random() < 0.15:
                    del place[element.tag]
                else:
                    element.value = generator.choice(VALUES)
                return content_of(found)
        except Exception:  # a value that cannot be written there
            continue
    return data[: len(data) // 2]


def read_dicom(path: Path, _: Any) -> Any:
    """All frames, of the first size, and that the regions are of use."""
    from anatosegnet.data.case import CaseError
    from anatosegnet.data.dicom import Dicom, region_of

    found = Dicom(path)
    pictures = []
    for picture in found.pictures():
        if isinstance(picture, CaseError):
            raise picture
        assert picture.dtype == np.uint8 and picture.shape == (*found.size, 3)
        pictures.append(picture)
    region = region_of(np.ones(found.size, bool), found.regions)
    assert region is None or all(0 < mm < 100 for mm in region.spacing)
    return np.stack(pictures)
