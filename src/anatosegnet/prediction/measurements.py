"""What ``measurements.csv`` says of each lesion, and ``contours.json`` of its outline."""

from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np

from anatosegnet.data.dicom import region_of
from anatosegnet.metrics.measurement import Measurement, lesions, measure
from anatosegnet.metrics.uncertainty import image_uncertainty
from anatosegnet.prediction.inputs import Picture

SIZES = ("long_axis", "short_axis", "area", "perimeter", "depth")
COLUMNS = (
    "image", "frame", "lesions", "lesion", *(f"{name}_px" for name in SIZES),
    "long_axis_mm", "short_axis_mm", "area_mm2", "perimeter_mm", "depth_mm",
    "pixel_height_mm", "pixel_width_mm", "mean_probability", "uncertainty", "image_uncertainty",
)  # fmt: skip


def measurements(
    picture: Picture, mask: np.ndarray, probability: np.ndarray, entropy: np.ndarray
) -> tuple[list[list[Any]], list[Measurement]]:
    """A row for each lesion, the largest first; one of a picture without, that says 0 lesions.

    Args:
        picture: That was predicted.
        mask: (H, W) bool.
        probability: (H, W) in [0, 1].
        entropy: (H, W) in [0, 1], bits.

    Returns:
        Cells in order of `COLUMNS`, and the measurements in pixels.
    """
    found = list(lesions(mask))
    place = [picture.source.path.name, picture.frame, len(found)]
    last = _number(image_uncertainty(probability, mask))
    if not found:
        return [[*place, *[None] * (len(COLUMNS) - 4), last]], []
    rows, sizes = [], []
    for number, lesion in enumerate(found, start=1):
        corner = lesion.rows.start, lesion.columns.start
        region = region_of(lesion.mask, picture.regions, corner)
        top = region.rows.start if region else 0
        pixels = measure(lesion, top=top)
        in_mm: list[Any] = [None] * (len(SIZES) + 2)
        if region:
            in_mm = [*_sizes(measure(lesion, region.spacing, top)), *map(_number, region.spacing)]
        sure = [_number(lesion.within(values).mean()) for values in (probability, entropy)]
        sizes.append(pixels)
        rows.append([*place, number, *_sizes(pixels), *in_mm, *sure, last])
    return rows, sizes


def _sizes(found: Measurement) -> list[float]:
    return [_number(getattr(found, name)) for name in SIZES]


def contours(mask: np.ndarray) -> Iterator[dict[str, Any]]:
    """The outline of each lesion as an annotation of COCO, in the order of `measurements`.

    Polygons go through the middles of the outermost pixels (the first pixel's is at 0.5, 0.5), so
    that filling them gives the mask; holes are not in them, ``area`` is that of the mask.

    Args:
        mask: (H, W) bool.
    """
    for lesion in lesions(mask):
        rows, columns, window = lesion
        outline, _ = cv2.findContours(
            window.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE
        )
        points = outline[0][:, 0] + (columns.start, rows.start) + 0.5
        while len(points) < 3:  # COCO wants as many
            points = np.concatenate([points, points[-1:]])
        size = columns.stop - columns.start, rows.stop - rows.start
        yield {
            "category_id": 1,
            "segmentation": [points.ravel().tolist()],
            "area": int(window.sum()),
            "bbox": [int(columns.start), int(rows.start), int(size[0]), int(size[1])],
            "iscrowd": 0,
        }


def _number(value: float) -> float:
    return float(f"{value:.6g}")
