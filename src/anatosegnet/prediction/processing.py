"""What comes before a network and after it, as a file that others open says it; needs no torch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np

from anatosegnet.console import plain
from anatosegnet.data.normalization import Normalization, image_to_array, mean_and_deviation
from anatosegnet.data.resizing import resize_image, two_sizes
from anatosegnet.errors import UserError
from anatosegnet.prediction.masks import THRESHOLD

RESIZING = "by area where an image shrinks, else cubic (OpenCV's INTER_AREA and INTER_CUBIC)"
AFTER = "resized linearly to the image, then lesion above the threshold"
CLASSES = ("background", "lesion")


@dataclass(frozen=True)
class Processing:
    """What an image goes through on its way into a network.

    Attributes:
        image_size: (height, width) that the network sees, in pixels.
        in_channels: 3 (RGB) or 1 (grey).
        normalization: As in training; see `mean_and_deviation`.
    """

    image_size: tuple[int, int]
    in_channels: int = 3
    normalization: Normalization = "imagenet"

    def __call__(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """RGB images (H, W, 3) uint8 of any sizes as (B, in_channels, h, w) float32."""
        return np.stack(
            [
                image_to_array(
                    resize_image(image, self.image_size), self.in_channels, self.normalization
                )
                for image in images
            ]
        )

    @property
    def described(self) -> dict[str, Any]:
        """All that another program needs to give the network its images and read its answer."""
        mean, deviation = mean_and_deviation(self.in_channels, self.normalization)
        return {
            "image_size": list(self.image_size),
            "in_channels": self.in_channels,
            "channels": "RGB" if self.in_channels == 3 else "grey",
            "resizing": RESIZING,
            "normalization": self.normalization,
            "mean": [float(value) for value in mean],
            "std": [float(value) for value in deviation],
            "output": f"probability of lesion; {AFTER}",
            "threshold": THRESHOLD,
            "classes": list(CLASSES),
        }


def read_processing(described: Mapping[str, Any]) -> Processing:
    """The processing that a stranger's file describes.

    Raises:
        UserError: Something is missing, of another kind, or out of range; the first of it, in the
            words of one line.
    """
    found: dict[str, Any] = {
        key: described.get(key) for key in ("image_size", "in_channels", "normalization")
    }
    size = found["image_size"]
    if not (isinstance(size, list) and len(size) == 2 and all(type(edge) is int for edge in size)):
        raise UserError(f"image_size={_short(size)} must be [height, width]")
    height, width = two_sizes(size)
    if type(found["in_channels"]) is not int or found["in_channels"] not in (1, 3):
        raise UserError(f"in_channels={_short(found['in_channels'])} must be 1 (grey) or 3 (RGB)")
    if found["normalization"] not in get_args(Normalization):
        known = ", ".join(get_args(Normalization))
        raise UserError(f"normalization={_short(found['normalization'])} must be one of {known}")
    normalization: Normalization = found["normalization"]
    processing = Processing((height, width), found["in_channels"], normalization)
    for key in ("resizing", "mean", "std", "output", "threshold", "classes"):
        mine, theirs = processing.described[key], described.get(key)
        if mine != theirs:
            raise UserError(f"{key}={_short(theirs)} is not what is done here: {mine}")
    return processing


def _short(value: object) -> str:
    return plain(str(value)[:60])
