"""Error overlays: what was hit, missed, and falsely raised, on the image itself."""

from collections.abc import Sequence

import cv2
import numpy as np

from anatosegnet.metrics.lesions import bounding_box

# The released evaluation's white, red and green; the green is bluish and the lighter of the two,
# so that those who do not tell red from green tell these apart.
HIT, MISS, FALSE_ALARM = (255, 255, 255), (230, 40, 40), (0, 205, 160)  # RGB
AXES = (255, 210, 60)  # RGB: a yellow, as calipers are drawn
LEGEND = {
    "hit, and outline of the truth": HIT,
    "missed": MISS,
    "false alarm, and outline of the prediction": FALSE_ALARM,
}
OPACITY = {HIT: 0.3, MISS: 0.5, FALSE_ALARM: 0.5}  # the tissue must show through
LEVELS = np.arange(256)[:, None]
BLEND = {  # (256, 1, 3): what becomes of each grey level
    colour: ((1 - opacity) * LEVELS + opacity * np.array(colour)).astype(np.uint8)[:, None]
    for colour, opacity in OPACITY.items()
}
GAP = 4  # px between the halves of an overlay
THUMBNAIL_EDGE = 256  # px
# four pictures take about 17 kB, 650 cases 16 MB in a report
THUMBNAIL_JPEG = (cv2.IMWRITE_JPEG_QUALITY, 62, cv2.IMWRITE_JPEG_OPTIMIZE, 1)
# off by 0.35 of 255 levels in the mean; half of a PNG's size in a quarter of its time
OVERLAY_JPEG = (
    cv2.IMWRITE_JPEG_QUALITY,
    95,
    cv2.IMWRITE_JPEG_SAMPLING_FACTOR,
    cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444,
)


def tint_errors(
    image: np.ndarray, truth: np.ndarray, prediction: np.ndarray, thickness: int
) -> np.ndarray:
    """The image with its errors: areas tinted, so that the tissue shows through, and outlined.

    White = hit, red = missed, green = false alarm; the truth is outlined white, the prediction
    green.

    Args:
        image: (H, W, 3) uint8 RGB.
        truth: (H, W) bool.
        prediction: (H, W) bool.
        thickness: Of the outlines, px.

    Returns:
        (H, W, 3) uint8 RGB.
    """
    tinted = image.copy()
    either = truth | prediction
    if not either.any():
        return tinted
    rows, columns = bounding_box(either)
    there, predicted = (mask[rows, columns].astype(np.uint8) for mask in (truth, prediction))
    pixels, window = image[rows, columns], tinted[rows, columns]
    # uint8 throughout, in calls that let the other threads run
    for area, colour in (
        (there & predicted, HIT),
        (there & (1 - predicted), MISS),
        (predicted & (1 - there), FALSE_ALARM),
    ):
        cv2.copyTo(cv2.LUT(pixels, BLEND[colour]), area, window)
    corner = (int(columns.start), int(rows.start))
    for mask, colour in ((predicted, FALSE_ALARM), (there, HIT)):
        contours, _ = cv2.findContours(
            mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE, offset=corner
        )
        cv2.drawContours(tinted, contours, -1, colour, thickness)
    return tinted


def error_overlay(image: np.ndarray, truth: np.ndarray, prediction: np.ndarray) -> np.ndarray:
    """The image on the left and the image with its errors (`tint_errors`) on the right.

    Args:
        image: (H, W, 3) uint8 RGB.
        truth: (H, W) bool.
        prediction: (H, W) bool.

    Returns:
        (H, 2·W + gap, 3) uint8 RGB.
    """
    thickness = max(1, round(max(image.shape[:2]) / 400))
    tinted = tint_errors(image, truth, prediction, thickness)
    gap = np.full((image.shape[0], GAP, 3), 255, np.uint8)
    return np.concatenate([image, gap, tinted], axis=1)


def lesion_overlay(
    image: np.ndarray, mask: np.ndarray, axes: Sequence[np.ndarray] = ()
) -> np.ndarray:
    """The image on the left and the image with lesions (`lesions_on`) on the right.

    Returns:
        (H, 2·W + gap, 3) uint8 RGB.
    """
    gap = np.full((image.shape[0], GAP, 3), 255, np.uint8)
    return np.concatenate([image, gap, lesions_on(image, mask, axes)], axis=1)


def lesions_on(image: np.ndarray, mask: np.ndarray, axes: Sequence[np.ndarray] = ()) -> np.ndarray:
    """The image with what was predicted, and measured, on it.

    Args:
        image: (H, W, 3) uint8 RGB.
        mask: (H, W) bool.
        axes: Of each lesion the ends (4, 2) of two lines, as `Measurement.ends`.

    Returns:
        (H, W, 3) uint8 RGB.
    """
    thickness = max(1, round(max(image.shape[:2]) / 400))
    tinted = tint_errors(image, np.zeros_like(mask), mask, thickness)
    for ends in axes:
        # in 16ths of a pixel, whose middles are whole numbers
        points = np.rint((ends - 0.5) * 16).astype(int).tolist()
        for start, end in (points[:2], points[2:]):
            cv2.line(tinted, start, end, AXES, thickness, cv2.LINE_AA, shift=4)
    return tinted


def thumbnails(image: np.ndarray, truth: np.ndarray, prediction: np.ndarray) -> dict[str, bytes]:
    """Small pictures of a case for the report; larger images are shrunk, none is enlarged.

    Args:
        image: (H, W, 3) uint8 RGB.
        truth: (H, W) bool.
        prediction: (H, W) bool.

    Returns:
        JPEG files by name: ``image``, ``truth``, ``prediction`` and ``error``, all of one size,
        at most `THUMBNAIL_EDGE` px long.
    """
    height, width = image.shape[:2]
    scale = min(1.0, THUMBNAIL_EDGE / max(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    thickness = max(1, round(1.4 / scale))  # drawn before shrinking: 1.4 px are left of it
    pictures = {
        "image": image,
        "truth": truth.astype(np.uint8) * 255,
        "prediction": prediction.astype(np.uint8) * 255,
        "error": tint_errors(image, truth, prediction, thickness),
    }
    shrunk = {
        name: cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
        for name, picture in pictures.items()
    }
    return {name: encode_jpeg(one_if_grey(small)) for name, small in shrunk.items()}


def one_if_grey(pixels: np.ndarray) -> np.ndarray:
    """One channel (H, W) of an RGB image (H, W, 3) without colour, else the image."""
    if pixels.ndim == 3 and (pixels == pixels[..., :1]).all():
        return pixels[..., 0]
    return pixels


def encode_png(pixels: np.ndarray) -> bytes:
    """RGB (H, W, 3) or grey (H, W) uint8 as PNG."""
    if pixels.ndim == 3:
        pixels = cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR)
    # faster than OpenCV's run lengths, and files of half the size
    options = [cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_DEFAULT]
    return cv2.imencode(".png", pixels, options)[1].tobytes()


def encode_jpeg(pixels: np.ndarray, options: Sequence[int] = THUMBNAIL_JPEG) -> bytes:
    """RGB (H, W, 3) or grey (H, W) uint8 as JPEG; the options are OpenCV's."""
    if pixels.ndim == 3:
        pixels = cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR)
    return cv2.imencode(".jpg", pixels, options)[1].tobytes()
