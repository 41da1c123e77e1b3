"""What predict writes of a picture: its mask, and on request more; each whole or not at all."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from anatosegnet.errors import UserError
from anatosegnet.files.writing import replacing
from anatosegnet.metrics.measurement import Measurement
from anatosegnet.prediction.dicom_seg import segmentation
from anatosegnet.prediction.inputs import Picture
from anatosegnet.report.overlay import OVERLAY_JPEG, encode_jpeg, encode_png, lesion_overlay

MAPS = ("probabilities", "entropy", "mutual_information")
KINDS = ("masks", *MAPS, "contours", "overlays", "dicom_seg")
# where each picture has a file of its own: folder and suffix
OF_PICTURES = {
    "masks": ("", ".png"),
    **{kind: (kind, ".png") for kind in MAPS},
    "overlays": ("overlays", ".jpg"),
    "dicom_seg": ("dicom_seg", ".dcm"),
}
WORDS = {
    "masks": "mask",
    "probabilities": "probability",
    "entropy": "entropy",
    "mutual_information": "mutual information",
    "overlays": "overlay",
    "dicom_seg": "segmentation",
}


def kinds_of(given: Any) -> tuple[str, ...]:
    """What ``write=`` asks for, in one order; UserError for what there is not."""
    named = [given] if isinstance(given, str) else [*given] if isinstance(given, Sequence) else None
    odd = [given] if named is None else [one for one in named if one not in KINDS]
    if odd or named is None:
        raise UserError(f"write={odd[0]} must be one of {', '.join(KINDS)}, or a list of them")
    return tuple(kind for kind in KINDS if kind in named)


class Outputs:
    """The files of each picture.

    Args:
        folder: That they are written in.
        kinds: Of `KINDS`.
    """

    def __init__(self, folder: Path, kinds: Sequence[str]) -> None:
        self.folder = folder
        self.kinds = [kind for kind in OF_PICTURES if kind in kinds]

    def paths(self, name: str) -> dict[str, Path]:
        """Where each kind is written of a picture of this name."""
        return {
            kind: self.folder / OF_PICTURES[kind][0] / f"{name}{OF_PICTURES[kind][1]}"
            for kind in self.kinds
        }

    def write(
        self,
        picture: Picture,
        mask: np.ndarray,
        maps: Mapping[str, np.ndarray],
        sizes: Sequence[Measurement],
    ) -> None:
        """Write what was asked for of a picture.

        Args:
            picture: That was predicted.
            mask: (H, W) bool.
            maps: (H, W) in [0, 1], by their kind.
            sizes: Of its lesions, in pixels.

        Raises:
            OSError: One cannot be written; ``kind`` of it says which in a word.
            UserError: No segmentation can be made of its file.
        """
        for kind, path in self.paths(picture.name).items():
            if kind == "masks":
                content = encode_png(mask.view(np.uint8) * np.uint8(255))
            elif kind in MAPS:
                deep = np.rint(np.clip(maps[kind], 0, 1) * 65535).astype(np.uint16)
                content = cv2.imencode(".png", deep)[1].tobytes()
            elif kind == "overlays":
                assert picture.image is not None
                ends = [size.ends for size in sizes]
                content = encode_jpeg(lesion_overlay(picture.image, mask, ends), OVERLAY_JPEG)
            else:
                assert picture.source.dicom is not None
                content = segmentation(picture.source.dicom, mask, picture.frame)
            try:
                with replacing(path) as temporary:
                    temporary.write_bytes(content)
            except OSError as error:
                error.kind = WORDS[kind]  # type: ignore[attr-defined]
                raise
