"""Which way up a picture is shown: the orientation tag of EXIF, of PNG and of TIFF."""

import numpy as np
from PIL import Image

from anatosegnet.data.decoding.tiff import Tiff

ORIENTATION = 0x0112
PNG_TEXTS = (b"eXIf", b"Raw profile type exif", b"XML:com.adobe.xmp")


def orientation_of(data: bytes, image: Image.Image | None, tiff: Tiff | None) -> int:
    """The orientation by which viewers turn a picture, 1 (as it is) to 8.

    Args:
        data: The content of the file.
        image: The same as Pillow opened it, if it did.
        tiff: The directory of a TIFF file.
    """
    if tiff is not None:
        value = tiff.orientation
    elif image is None or (image.format == "PNG" and not any(text in data for text in PNG_TEXTS)):
        return 1  # Pillow would decode a PNG file to its end in search of it
    else:
        try:
            value = image.getexif().get(ORIENTATION, 1)
        except Exception:  # tags that cannot be read turn nothing, as in viewers
            return 1
    return value if value in range(1, 9) else 1


def upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Turn and mirror an image (H, W[, C]) as its orientation, 1 to 8, says."""
    if orientation == 1:
        return pixels
    if orientation >= 5:  # its rows are shown as columns
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)
