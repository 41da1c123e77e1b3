"""Images and masks at the size that a network sees."""

from collections.abc import Sequence

import cv2
import numpy as np

from anatosegnet.errors import UserError

LARGEST = 8192  # pixels of an edge of what a network sees


def two_sizes(size: int | Sequence[int]) -> tuple[int, int]:
    """An edge, or (height, width), as (height, width)."""
    try:
        height, width = (size, size) if isinstance(size, int) else tuple(size)
    except (TypeError, ValueError) as error:
        raise UserError(f"data.image_size={size} must be an edge or [height, width]") from error
    if not (isinstance(height, int) and isinstance(width, int)):
        raise UserError(f"data.image_size={size} must be whole numbers of pixels")
    if max(height, width) > LARGEST:
        raise UserError(f"data.image_size={height}×{width} is too large; at most {LARGEST} px")
    if min(height, width) < 32:
        raise UserError(f"data.image_size={height}×{width} is too small; at least 32×32")
    return height, width


def resize_image(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize an image (H, W[, C]) to (height, width): by area if it shrinks, else cubic."""
    height, width = size
    if image.shape[:2] == (height, width):
        return image
    shrinks = height * width < image.shape[0] * image.shape[1]
    interpolation = cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
    return cv2.resize(image, (width, height), interpolation=interpolation)


def resize_mask(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize a mask (H, W) to (height, width) by nearest neighbour; no new value arises."""
    height, width = size
    if mask.shape == (height, width):
        return mask
    # INTER_NEAREST of OpenCV is off by half a pixel
    return cv2.resize(mask, (width, height), interpolation=cv2.INTER_NEAREST_EXACT)
