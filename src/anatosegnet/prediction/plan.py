"""What predict is to do, looked at before it begins: which files, by which names, and where to."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from anatosegnet.data.dicom import require_pydicom
from anatosegnet.errors import UserError
from anatosegnet.prediction.dicom_seg import require_highdicom
from anatosegnet.prediction.going_on import RECORD
from anatosegnet.prediction.inputs import stores_dicom
from anatosegnet.prediction.outputs import Outputs


def require_decoders(images: Sequence[Path], segmentations: bool) -> set[Path]:
    """Which images are DICOM.

    Raises:
        UserError: What reads or writes DICOM is missing; or there is none to write one of.
    """
    dicoms = {path for path in images if stores_dicom(path)}
    if dicoms:
        require_pydicom()
    if segmentations:
        if len(dicoms) < len(images):
            raise UserError(
                f"write=dicom_seg: {next(path for path in images if path not in dicoms)} is no "
                "DICOM file that a segmentation could refer to; leave dicom_seg out"
            )
        require_highdicom()
    return dicoms


def by_name(images: Sequence[Path], dicoms: set[Path]) -> dict[str, Path]:
    """The images by their stem, by which all that is written of them is named.

    Raises:
        UserError: What is written of two of them would have the same name.
    """
    found: dict[str, Path] = {}
    for image in images:
        if image.stem in found:
            raise UserError(
                f"{found[image.stem].name} and {image.name} have the same stem and would write the "
                "same mask; rename one"
            )
        found[image.stem] = image
    for name, image in found.items():
        stem, mark, number = name.rpartition("_frame")
        if mark and number.isdecimal() and found.get(stem) in dicoms:
            raise UserError(
                f"{image.name} and a frame of {found[stem].name} would write the same mask; "
                "rename one"
            )
    return found


def require_room(
    sources: Mapping[str, Path], dicoms: set[Path], outputs: Outputs, overwrite: bool
) -> None:
    """Whether masks can be written without replacing anything.

    Raises:
        UserError: They would replace the images, or masks that no interrupted work left.
    """
    existing = []
    for name, image in sources.items():
        for path in outputs.paths(name).values():
            if path.exists():
                if path.resolve() == image.resolve():
                    raise UserError(
                        f"output={outputs.folder} is the folder of the images; give another"
                    )
                existing.append(path)
    if existing and not overwrite and not (outputs.folder / RECORD).exists():
        raise UserError(
            f"{existing[0]} exists ({len(existing)} of {len(sources)} masks do); "
            "give another output=DIR, or overwrite=true"
        )
