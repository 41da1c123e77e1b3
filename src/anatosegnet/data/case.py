"""A case: one image with its masks and what is known of it; and how its files are read."""

import io
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from anatosegnet.data.decoding.mask_values import LABELS, describe, odd_values
from anatosegnet.data.decoding.orientation import orientation_of, upright
from anatosegnet.data.decoding.tiff import TIFF_SIGNATURES, Tiff, without_orientation
from anatosegnet.data.decoding.whole import Damaged, check_whole
from anatosegnet.files import opening

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp"})
LARGEST = 2**26  # pixels; a larger image is a decompression bomb or a damaged header
COLOURS_NOT_READ = frozenset({"CMYK", "LAB", "HSV"})  # of TIFF: OpenCV takes them for RGB
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
NORMAL = "normal"
CLASSES = ("benign", "malignant", NORMAL)
UNKNOWN = "unknown"

# what is wrong with a file is said in one line here; OpenCV and Pillow would add their own
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
warnings.filterwarnings("ignore", module=r"PIL\.")


class CaseError(ValueError):
    """A file of a case cannot be used; the message is one line and names the file."""


class Problem(str):
    """One line on what is wrong with the data, and the case it is about.

    Attributes:
        case: Name of the case, so that leaving it out silences the problem; may be empty.
    """

    case: str

    def __new__(cls, line: str, case: str = "") -> "Problem":  # noqa: D102
        problem = super().__new__(cls, line)
        problem.case = case
        return problem


@dataclass(frozen=True)
class Case:
    """One image and the masks that belong to it.

    Attributes:
        name: Unique in its dataset; also the stem of everything written for the case.
        image: The image file (None for simulated cases).
        masks: Mask files, merged by OR; none stands for "no lesion".
        label: ``benign``, ``malignant``, ``normal`` (no lesion) or ``unknown``.
        pixel_size_mm: Edge of a pixel in mm, where the dataset tells.
        group: Patient, or group of near-duplicate images; cases of one group never lie on two
            sides of a split. Empty: the case stands alone.
        fold: The dataset's own fold, counted from 0, where it has such.
        details: What else the dataset tells, by name, such as ``birads`` and ``device``.
        patient: The ``group`` that the dataset itself told, once near-duplicates joined it.
    """

    name: str
    image: Path | None = None
    masks: tuple[Path, ...] = ()
    label: str = UNKNOWN
    pixel_size_mm: float | None = None
    group: str = ""
    fold: int | None = None
    details: Mapping[str, str] = field(default_factory=dict, hash=False)
    patient: str = ""


def count_labels(cases: Iterable[Case]) -> str:
    """``"647 cases (437 benign, 210 malignant)"``."""
    counts = Counter(case.label for case in cases)
    parts = ", ".join(f"{count} {label}" for label, count in sorted(counts.items()))
    return f"{counts.total()} cases ({parts})"


def count_cases(cases: Iterable[Case]) -> dict[str, int]:
    """Images, images of each class, masks, images with several masks, and patients if known."""
    cases = list(cases)
    counts = {"images": len(cases), **Counter(case.label for case in cases)}
    counts["masks"] = sum(len(case.masks) for case in cases)
    counts["images with several masks"] = sum(len(case.masks) > 1 for case in cases)
    if patients := {case.group for case in cases if case.group}:
        counts["patients"] = len(patients)
    return counts


def read_case(case: Case) -> tuple[np.ndarray, np.ndarray]:
    """Read the image and the merged mask of a case and check that they fit.

    Returns:
        image (H, W, 3) uint8 RGB and mask (H, W) uint8 in {0, 1}.

    Raises:
        CaseError: A file is unreadable, sizes differ, or the mask is empty though a lesion is
            claimed, or the reverse.
    """
    if case.image is None:
        raise CaseError(f"{case.name}: has no image file")
    image = read_image(case.image)
    mask = np.zeros(image.shape[:2], np.uint8)
    for path in case.masks:
        part = read_mask(path)
        if part.shape != mask.shape:
            raise CaseError(
                f"{path}: the mask is {_size(part)}, but its image {case.image.name} "
                f"is {_size(image)}"
            )
        mask |= part
    if case.label != NORMAL and not mask.any():
        files = ", ".join(str(path) for path in case.masks) or case.name
        raise CaseError(f"{files}: the mask is empty, though the case is {_claim(case.label)}")
    if case.label == NORMAL and mask.any():
        files = ", ".join(str(path) for path in case.masks)
        raise CaseError(f"{files}: the mask shows a lesion, though the case is normal")
    return image, mask


def read_image(path: Path) -> np.ndarray:
    """Read any supported image as RGB.

    1-bit, grey, palette, RGB and RGBA become 8-bit RGB (transparency is dropped). 16-bit files
    are divided by the largest value of the depth they use (8, 10, 12 or 16 bits).

    Returns:
        (H, W, 3) uint8.

    Raises:
        CaseError: The file is missing, empty, damaged, or of an unknown kind.
    """
    pixels = _to_8_bit(_decode(path), path)
    if pixels.ndim == 2:
        return cv2.cvtColor(pixels, cv2.COLOR_GRAY2RGB)
    if pixels.shape[2] == 4:
        return cv2.cvtColor(pixels, cv2.COLOR_BGRA2RGB)
    return cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)


def read_mask(path: Path) -> np.ndarray:
    """Read any supported mask as {0, 1}.

    Colours count by their brightest channel; pixels less than half opaque are background. Files
    whose values stay under 32 are label maps: everything above 0 is lesion. Others must have two
    values, and are cut at half the brighter one, which puts the border of an anti-aliased mask
    where it was drawn.

    Returns:
        (H, W) uint8 in {0, 1}.

    Raises:
        CaseError: The file is missing, empty, damaged, of an unknown kind, or has other values.
    """
    pixels = _decode(path)
    if pixels.ndim == 3:
        colours, opacity = pixels[..., :3].max(axis=2), pixels[..., 3:]
        if opacity.any() and (fault := odd_values(opacity[..., 0])):
            raise CaseError(f"{path}: in its transparency, {fault}")
        opaque = opacity[..., 0] >= max(opacity.max() / 2, 1) if opacity.size else True
        pixels = np.where(opaque, colours, 0)
    brightest = pixels.max()
    if brightest < LABELS and not np.issubdtype(pixels.dtype, np.floating):
        return (pixels > 0).astype(np.uint8)
    if fault := odd_values(pixels):
        raise CaseError(f"{path}: {fault}")
    return (pixels >= max(brightest / 2, np.finfo(np.float32).tiny)).astype(np.uint8)


def mask_values(path: Path) -> str:
    """The values of a mask file, as `describe` says them; raises CaseError as `read_mask`."""
    return describe(_decode(path))


def file_mode(path: Path) -> str:
    """How a file stores its pixels, as ``"PNG RGB"``, from its header; ``"unknown"`` if it fails.

    The modes are Pillow's: 1 (1-bit), L (grey), P (palette), RGB, RGBA, I;16, …
    """
    try:
        with opening.open_file(path) as file, Image.open(file) as image:
            return f"{image.format} {image.mode}"
    except Exception:  # Pillow raises many kinds for damaged files
        return "unknown"


def read_bytes(path: Path) -> bytes:
    """The content of a regular file; raises CaseError if there is none to be had."""
    try:
        data = opening.read_bytes(path)
    except OSError as error:
        raise CaseError(f"{path}: cannot be read ({error.strerror or error})") from error
    if not data:
        raise CaseError(f"{path}: the file has zero bytes")
    return data


def _decode(path: Path) -> np.ndarray:
    """The pixels of a file as every viewer shows them, (H, W[, C]); refuses what is not whole.

    Bytes first, so that any file name the system allows can be read.
    """
    data = read_bytes(path)
    orientation = _checked(data, path)
    if orientation != 1 and data.startswith(TIFF_SIGNATURES):
        data = without_orientation(data)
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error as error:
        raise CaseError(f"{path}: cannot be decoded ({error.err})") from error
    if pixels is None:
        raise CaseError(f"{path}: cannot be decoded; it is damaged or not an image")
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[..., 0]
    if pixels.ndim == 3 and pixels.shape[2] == 2:  # grey with transparency
        pixels = cv2.merge([pixels[..., 0]] * 3 + [pixels[..., 1]])
    if np.issubdtype(pixels.dtype, np.floating) and not np.isfinite(pixels).all():
        raise CaseError(f"{path}: holds values that are not numbers")
    return upright(pixels, orientation)


def _checked(data: bytes, path: Path) -> int:
    """Refuse what OpenCV would read wrongly, in part, or at the cost of all memory.

    What Pillow does not know is left to OpenCV, which knows more kinds of TIFF.

    Returns:
        The orientation of the picture, 1 to 8.
    """
    image, tiff = None, None
    try:
        if data.startswith(TIFF_SIGNATURES):
            tiff = Tiff(data)
        image = Image.open(io.BytesIO(data))
    except Image.DecompressionBombError as error:
        raise CaseError(f"{path}: {too_large()}") from error
    except Exception as error:  # Pillow raises many kinds for damaged files
        if data.startswith(PNG_SIGNATURE):
            raise CaseError(f"{path}: cannot be decoded; it is a damaged PNG file") from error
        if tiff is None and data.startswith(TIFF_SIGNATURES):
            raise CaseError(f"{path}: cannot be decoded; {error}") from error
    height, width = (image.height, image.width) if image else tiff.size if tiff else (0, 0)
    if height * width > LARGEST:
        raise CaseError(f"{path}: {too_large(f'{width}×{height}')}")
    try:
        frames = getattr(image, "n_frames", 1 if tiff is None or tiff.is_alone else 2)
        if frames == 1 or (image and image.format == "MPO"):  # a photograph with its preview
            orientation = orientation_of(data, image, tiff)
            check_whole(data, image, tiff)
            frames = 1
    except Exception as error:  # Pillow raises many kinds for damaged files
        raise CaseError(f"{path}: cannot be decoded; {_reason(error)}") from error
    if frames > 1:
        raise CaseError(
            f"{path}: holds {frames} pictures (animated, or of several pages); save one alone"
        )
    if tiff and image and image.mode in COLOURS_NOT_READ:
        raise CaseError(f"{path}: its colours are {image.mode}; save it as RGB or grey")
    return orientation


def _reason(error: Exception) -> str:
    return str(error) if isinstance(error, Damaged) else f"it is damaged ({error})"


def too_large(size: str = "") -> str:
    """What is wrong with a file that claims pixels beyond `LARGEST`, where known how many."""
    millions = f"{LARGEST / 1e6:.0f} million pixels"
    if size:
        return f"claims to be {size} pixels; more than {millions} are not read"
    return f"claims to have far more than {millions}; such are not read"


def _to_8_bit(pixels: np.ndarray, path: Path) -> np.ndarray:
    if pixels.dtype == np.uint8:
        return pixels
    if pixels.dtype == np.uint16:
        colours = pixels[..., :3]  # opaque is 65535 whatever the colours' depth
        colours = colours if pixels.ndim == 3 else pixels
        largest = next(top for top in (255, 1023, 4095, 65535) if colours.max() <= top)
    elif np.issubdtype(pixels.dtype, np.floating) and pixels.min() >= 0 and pixels.max() <= 1:
        largest = 1
    else:
        raise CaseError(f"{path}: pixels of type {pixels.dtype} in an unknown range")
    return np.rint(np.minimum(pixels * (255.0 / largest), 255)).astype(np.uint8)


def _size(pixels: np.ndarray) -> str:
    return f"{pixels.shape[1]}×{pixels.shape[0]}"


def _claim(label: str) -> str:
    return "said to show a lesion" if label == UNKNOWN else label
