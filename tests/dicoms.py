"""DICOM ultrasound made with pydicom: of any colours, storage and number of frames."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydicom import uid
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as DicomSequence
from scripts.fuzzing.dicoms import content_of, store

from anatosegnet.data.simulator import simulate

# what must be found nowhere but in the file itself
PATIENT = {
    "PatientName": "Sekret^Erika", "PatientID": "PID-77123456", "PatientBirthDate": "19610213",
    "StudyDate": "20240229", "AccessionNumber": "ACC-99815533", "InstitutionName": "Klinik Geheim",
    "ReferringPhysicianName": "Dr^Verborgen", "StudyDescription": "Mamma-Sono Sekret",
}  # fmt: skip
SECRETS = ("Sekret", "77123456", "19610213", "20240229", "99815533", "Geheim", "Verborgen")


def region(
    left: int,
    top: int,
    right: int,
    bottom: int,
    cm: tuple[float, float] = (0.01, 0.01),
    **other: Any,
) -> Dataset:
    """An item of Sequence of Ultrasound Regions: 2-D tissue with so many cm a pixel (y, x)."""
    item = Dataset()
    item.RegionSpatialFormat, item.RegionDataType, item.RegionFlags = 1, 1, 0
    item.RegionLocationMinX0, item.RegionLocationMinY0 = left, top
    item.RegionLocationMaxX1, item.RegionLocationMaxY1 = right, bottom
    item.PhysicalUnitsXDirection = item.PhysicalUnitsYDirection = 3
    item.PhysicalDeltaY, item.PhysicalDeltaX = cm
    for name, value in other.items():
        setattr(item, name, value)
    return item


def grey_picture(seed: int = 0, size: tuple[int, int] = (48, 60)) -> np.ndarray:
    """(H, W) uint8, smooth."""
    y, x = np.mgrid[: size[0], : size[1]]
    return (100 + 60 * np.sin(x / 9 + seed) + 60 * np.cos(y / 7)).astype(np.uint8)


def colour_picture(seed: int = 0, size: tuple[int, int] = (48, 60)) -> np.ndarray:
    """(H, W, 3) uint8, smooth."""
    return np.stack([grey_picture(seed + part, size) for part in range(3)], -1)


def dicom(
    frames: Sequence[np.ndarray],
    kind: str = "MONOCHROME2",
    syntax: str = uid.ExplicitVRLittleEndian,
    regions: Sequence[Dataset] = (),
    **other: Any,
) -> Dataset:
    """A DICOM ultrasound image, with the data of a patient in it.

    Args:
        frames: What is stored: (H, W) or (H, W, 3) uint8, or (H, W) uint16 or int16, all alike.
        kind: Photometric interpretation.
        syntax: Transfer syntax.
        regions: Of Sequence of Ultrasound Regions.
        **other: Further elements by their keyword.
    """
    first = frames[0]
    several = len(frames) > 1
    found = Dataset()
    found.SOPClassUID = (
        uid.UltrasoundMultiFrameImageStorage if several else uid.UltrasoundImageStorage
    )
    for name in ("SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"):
        setattr(found, name, uid.generate_uid(entropy_srcs=[name, str(other)]))
    for name, value in PATIENT.items():
        setattr(found, name, value)
    found.Modality, found.Rows, found.Columns = "US", *first.shape[:2]
    found.PhotometricInterpretation = kind
    found.SamplesPerPixel = 1 if first.ndim == 2 else 3
    if first.ndim == 3:
        found.PlanarConfiguration = 0
    if several:
        found.NumberOfFrames = len(frames)
    found.BitsAllocated = found.BitsStored = 8 * first.dtype.itemsize
    found.PixelRepresentation = int(first.dtype.kind == "i")
    if regions:
        found.SequenceOfUltrasoundRegions = DicomSequence(regions)
    for name, value in other.items():
        setattr(found, name, value)
    store(found, frames, syntax, **of_jpeg(kind))
    return found


def of_jpeg(kind: str) -> dict[str, int]:
    """How JPEGs are written; YBR_FULL_422 halves the colours' width."""
    return {"quality": 95, "subsampling": int(kind.endswith("422"))}


def write_dicom(path: Path, *arguments: Any, **settings: Any) -> Path:
    """Write what `dicom` makes of these."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content_of(dicom(*arguments, **settings)))
    return path


def phantom_still(path: str | Path, seed: int = 5, index: int = 0) -> np.ndarray:
    """A simulated still as a scanner stores it: a header above the tissue, and its scale.

    Returns:
        (H, W) bool, the true lesion.
    """
    phantom = simulate(seed, index)
    header = 40  # rows
    image = np.pad(phantom.image, ((header, 0), (0, 0)))
    image[10:30, 10:150:7] = 200
    height, width = image.shape
    cm = phantom.pixel_size_mm / 10
    regions = [region(0, header, width - 1, height - 1, (cm, cm))]
    write_dicom(Path(path), [image], regions=regions)
    return np.pad(phantom.mask > 0, ((header, 0), (0, 0)))
