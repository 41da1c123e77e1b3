"""Error overlays: what was hit, missed, and falsely raised, on the image itself."""

import cv2
import numpy as np

HIT, MISS, FALSE_ALARM = (255, 255, 255), (230, 40, 40), (40, 200, 70)  # RGB
OPACITY = {HIT: 0.3, MISS: 0.5, FALSE_ALARM: 0.5}  # the tissue must show through


def error_overlay(image: np.ndarray, truth: np.ndarray, prediction: np.ndarray) -> np.ndarray:
    """The image on the left and the image with its errors on the right.

    White = hit, red = missed, green = false alarm (the colours of the released evaluation). The
    areas are tinted, so that the tissue shows through, and outlined.

    Args:
        image: (H, W, 3) uint8 RGB.
        truth: (H, W) bool.
        prediction: (H, W) bool.

    Returns:
        (H, 2·W + gap, 3) uint8 RGB.
    """
    tinted = image.copy()
    areas = (
        (truth & prediction, HIT),
        (truth & ~prediction, MISS),
        (~truth & prediction, FALSE_ALARM),
    )
    for area, colour in areas:
        opacity = OPACITY[colour]
        blend = (1 - opacity) * image[area] + opacity * np.array(colour)
        tinted[area] = blend.astype(np.uint8)
    thickness = max(1, round(max(image.shape[:2]) / 400))
    for mask, colour in ((prediction, FALSE_ALARM), (truth, HIT)):
        contours, _ = cv2.findContours(
            mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE
        )
        cv2.drawContours(tinted, contours, -1, colour, thickness)
    gap = np.full((image.shape[0], 4, 3), 255, np.uint8)
    return np.concatenate([image, gap, tinted], axis=1)


def encode_png(pixels: np.ndarray) -> bytes:
    """RGB (H, W, 3) or grey (H, W) uint8 as PNG."""
    if pixels.ndim == 3:
        pixels = cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR)
    return cv2.imencode(".png", pixels)[1].tobytes()
