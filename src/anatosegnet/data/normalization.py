"""From grey levels to the range that a network expects; needs no torch."""

from typing import Literal

import cv2
import numpy as np

Normalization = Literal["imagenet", "symmetric", "benchmark"]

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def mean_and_deviation(
    in_channels: int, normalization: Normalization
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and deviation of each channel, in float32, of grey levels from 0 to 1.

    Args:
        in_channels: 3 or 1.
        normalization: ``imagenet`` = ImageNet's mean and deviation; ``symmetric`` = x/127.5 - 1;
            ``benchmark`` = ``imagenet`` divided by 255 once more, about ±0.01, as the code of the
            public 2-D segmentation benchmark does.

    Returns:
        Two (in_channels,) float32.
    """
    if normalization == "symmetric":
        return np.full(in_channels, 0.5, np.float32), np.full(in_channels, 0.5, np.float32)
    mean, deviation = np.array(IMAGENET_MEAN, np.float32), np.array(IMAGENET_STD, np.float32)
    if in_channels == 1:
        mean, deviation = mean.mean(keepdims=True), deviation.mean(keepdims=True)
    if normalization == "benchmark":
        deviation = deviation * np.float32(255)
    return mean, deviation


def image_to_array(
    image: np.ndarray, in_channels: int = 3, normalization: Normalization = "imagenet"
) -> np.ndarray:
    """Normalise an RGB image for the network.

    Args:
        image: (H, W, 3) uint8 RGB.
        in_channels: 3, or 1 for grey (the mean of the channels weighted by luminance).
        normalization: See `mean_and_deviation`.

    Returns:
        (in_channels, H, W) float32.
    """
    if in_channels == 1:
        image = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[..., None]
    return normalized(image.transpose(2, 0, 1), in_channels, normalization)


def normalized(pixels: np.ndarray, in_channels: int, normalization: Normalization) -> np.ndarray:
    """Bring grey levels to the range that the network expects.

    Args:
        pixels: (..., C, H, W) uint8; C is in_channels, or 1 (three equal channels).
        in_channels: 3 or 1.
        normalization: See `mean_and_deviation`.

    Returns:
        (..., in_channels, H, W) float32.
    """
    mean, deviation = mean_and_deviation(in_channels, normalization)
    # the same arithmetic, once for each of 256 grey levels
    table = (np.arange(256, dtype=np.float32)[:, None] / np.float32(255) - mean) / deviation
    *batch, channels, height, width = pixels.shape
    result = np.empty((*batch, in_channels, height, width), np.float32)
    source = np.ascontiguousarray(pixels).reshape(-1, channels, height, width)
    target = result.reshape(-1, in_channels, height, width)
    columns = np.ascontiguousarray(table.T)
    for image, values in zip(source, target, strict=True):
        for channel, column in enumerate(columns):
            cv2.LUT(image[channel % channels], column, dst=values[channel])
    return result
