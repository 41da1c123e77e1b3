"""Masks as a DICOM segmentation that refers to the file it was made of.

It holds the source's identifiers (study, series, instance), without which it could not refer to
it, and nothing else of it: names, numbers and dates of the patient stay empty.
"""

import io
from collections.abc import Iterator
from typing import Any

import numpy as np

import anatosegnet
from anatosegnet.data.dicom import Dicom
from anatosegnet.errors import UserError

EMPTY = (
    "PatientID", "PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID",
    "StudyDate", "StudyTime", "ReferringPhysicianName",
)  # fmt: skip


def require_highdicom() -> None:
    """Raises UserError where highdicom is missing; names the extra that brings it."""
    try:
        import highdicom  # noqa: F401
    except ImportError as error:
        raise UserError(
            "write=dicom_seg needs highdicom: pip install 'anatosegnet[dicom]'"
        ) from error


def segmentation(source: Dicom, mask: np.ndarray, frame: int | None) -> bytes:
    """The file of a segmentation of one frame: ultrasound has no common frame of reference.

    Args:
        source: What was segmented.
        mask: (H, W) bool.
        frame: Its number, from 1; None where there is only one.

    Raises:
        UserError: highdicom cannot make it, as where identifiers are missing.
    """
    require_highdicom()
    from highdicom import AlgorithmIdentificationSequence
    from highdicom.seg import Segmentation, SegmentDescription
    from highdicom.sr import CodedConcept
    from pydicom.uid import generate_uid

    algorithm = AlgorithmIdentificationSequence(
        "AnatoSegNet",
        CodedConcept("113076", "DCM", "Segmentation"),
        anatosegnet.__version__,
    )
    description = SegmentDescription(
        1,
        "lesion",
        CodedConcept("49755003", "SCT", "Morphologically Abnormal Structure"),
        CodedConcept("52988006", "SCT", "Lesion"),
        "AUTOMATIC",
        algorithm,
    )
    try:
        found = Segmentation(
            [stripped(source)],
            mask.astype(np.uint8)[None],
            "BINARY",
            [description],
            series_instance_uid=generate_uid(
                entropy_srcs=[str(source.header.SOPInstanceUID), "lesions"]
            ),
            series_number=1,
            sop_instance_uid=generate_uid(),
            instance_number=frame or 1,
            manufacturer="AnatoSegNet",
            manufacturer_model_name="AnatoSegNet",
            software_versions=anatosegnet.__version__,
            device_serial_number="0",
            omit_empty_frames=False,
        )
        for image in references(found):
            image.ReferencedSOPClassUID = source.header.SOPClassUID
            if frame is not None:
                image.ReferencedFrameNumber = frame
        content = io.BytesIO()
        found.save_as(content, enforce_file_format=True)
    except Exception:  # it raises many kinds, and may quote the source
        raise UserError(f"{source.path}: no DICOM segmentation can be made of it") from None
    return content.getvalue()


def references(found: Any) -> Iterator[Any]:
    """Where a segmentation names the picture that it is of."""
    for series in found.ReferencedSeriesSequence:
        yield from series.ReferencedInstanceSequence
    for group in found.PerFrameFunctionalGroupsSequence:
        for derivation in group.DerivationImageSequence:
            yield from derivation.SourceImageSequence


def stripped(source: Dicom) -> Any:
    """A dataset with nothing of the source but its identifiers and its size.

    As of a single picture: highdicom knows several only where they have a place in space.
    """
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import UltrasoundImageStorage

    found = Dataset()
    found.SOPClassUID = UltrasoundImageStorage
    for name in ("SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"):
        setattr(found, name, source.header[name].value)
    for name in EMPTY:
        setattr(found, name, "")
    found.Modality = "US"
    found.Rows, found.Columns = source.size
    found.file_meta = FileMetaDataset()
    found.file_meta.TransferSyntaxUID = source.header.file_meta.TransferSyntaxUID
    return found
