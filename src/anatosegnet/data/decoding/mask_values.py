"""Which values a mask may hold: two, with the slopes of smoothing between them, or small labels."""

import cv2
import numpy as np

from anatosegnet.console import some

LABELS = 32  # integers below it are labels
NEAR = 1 / 8  # of the brightest value: so near to dark or bright, a value counts as such
# shares of the lesion's area that an even patch of a third value may have. Slopes have none, but
# for smoothed masks enlarged without smoothing; labels have few values in all
FEW, MOST_OF_FEW, MOST_OF_ONE, MOST_OF_ALL = 4, 0.02, 0.1, 0.5
MOST_BETWEEN = 0.3  # share of the image that slopes may take; a photograph takes more


def odd_values(pixels: np.ndarray) -> str | None:
    """What is wrong with the values of a mask that is to be cut at half its brightest one.

    Args:
        pixels: (H, W), not negative, of any type.

    Returns:
        A few words that name the values; None if there are two, with slopes between them.
    """
    values = np.unique(pixels)
    top = values[-1]
    if values[0] >= top / 2 and top - values[0] > NEAR * top:
        return f"its values are {listed(values)}, none of them dark; {WAY_OUT}"
    if len(values) <= 2:
        return None
    dark, bright = pixels <= NEAR * top, pixels >= (1 - NEAR) * top
    between = ~(dark | bright)
    if between.mean() > MOST_BETWEEN:
        return (
            f"{between.mean():.0%} of its pixels are neither dark nor bright "
            f"({len(values)} values, {listed(values)}), as in a photograph; {WAY_OUT}"
        )
    exact = pixels if pixels.dtype in (np.uint8, np.uint16, np.float32) else pixels.astype(float)
    square = np.ones((3, 3), np.uint8)
    even = cv2.erode(exact, square) == cv2.dilate(exact, square)
    lesion = max(1, int(np.count_nonzero(pixels >= top / 2)))
    patches, sizes = np.unique(pixels[even & between], return_counts=True)
    most = MOST_OF_FEW if len(values) <= FEW else MOST_OF_ONE
    third = sizes.max(initial=0) > most * lesion or sizes.sum() > MOST_OF_ALL * lesion
    if not between.any() and np.count_nonzero(values > NEAR * top) == 1:  # no slopes at all
        faint = even & dark & (pixels > 0)
        third = third or np.count_nonzero(faint) > MOST_OF_FEW * lesion
        patches = np.concatenate([patches, np.unique(pixels[faint])])
    if not third:
        return None
    named = values if len(values) <= FEW else np.unique([values[0], *patches, top])
    return f"its values are {listed(named)}; {WAY_OUT}"


WAY_OUT = f"a mask has two values, or labels below {LABELS} of which all above 0 are the lesion"


def listed(values: np.ndarray) -> str:
    """``"0, 1, 255"``, as short as can be."""
    return some([f"{value:g}" for value in values.tolist()], 6)


def describe(pixels: np.ndarray) -> str:
    """The values of a mask as stored, in a few words: ``"0, 255"``, ``"0 to 255"``, or colours.

    Args:
        pixels: (H, W) or (H, W, 3 or 4) BGR, of any type.
    """
    if pixels.ndim == 3:
        colours = pixels[..., :3]
        if (colours == colours[..., :1]).all():
            return describe(colours[..., 0])
        if colours.dtype == np.uint8:
            numbers = colours.astype(np.uint32) @ np.array([1, 256, 65536], np.uint32)
            found = np.unique(numbers)
            if len(found) <= FEW:
                return ", ".join(f"#{number:06x}" for number in found.tolist())
        return "many colours"
    values = np.unique(pixels)
    return listed(values) if len(values) <= FEW else f"{values[0]:g} to {values[-1]:g}"
