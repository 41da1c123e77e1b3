"""Augmentation that a scanner could have caused: albumentations transforms for B-mode images.

Images are (H, W, C) uint8 with depth downwards; channels stay equal where they were. A grey level
is taken as the logarithm of the echo (Szabo, Diagnostic Ultrasound Imaging, 2nd ed. 2014, ch. 10):
255 grey levels show `DYNAMIC_RANGE_DB` decibels, so a factor on the echo is an offset in grey.
Black stays black: echoes below the display's floor, margins and frames have no level to change.
Ranges were chosen by eye beside BUSI and BrEaST images, not measured.
"""

from collections.abc import Sequence
from typing import Any

import albumentations as A
import cv2
import numpy as np

DYNAMIC_RANGE_DB = 60.0  # scanners show 50 to 70 dB
GREY_PER_DB = np.float32(255.0 / DYNAMIC_RANGE_DB)
FADE = 32.0  # grey level from which an offset has its full effect; none at 0
WEIGHT = np.minimum(np.arange(256) / FADE, 1.0).astype(np.float32)

CUBIC = cv2.INTER_CUBIC
BYTE_MEAN, BYTE_DEVIATION = 127.5, np.sqrt((256**2 - 1) / 12)


def add_decibels(image: np.ndarray, level: np.ndarray) -> np.ndarray:
    """Raise the echoes of an image.

    Args:
        image: (H, W, C) uint8.
        level: dB, float32, of a shape that broadcasts to (H, W, 1).

    Returns:
        (H, W, C) uint8; what was 0 stays 0.
    """
    height, width, channels = image.shape
    pixels = image.reshape(height, width * channels)
    offset = np.broadcast_to(level * GREY_PER_DB, image.shape).reshape(height, width * channels)
    # OpenCV's sum rounds and saturates in one pass
    raised = cv2.add(pixels, cv2.LUT(pixels, WEIGHT) * offset, dtype=cv2.CV_8U)
    return raised.reshape(image.shape)


class DepthGain(A.ImageOnlyTransform):
    """Attenuation and time-gain compensation that do not match: gain changes with depth.

    A straight line (sound that fades more, or less, than compensated) plus a smooth curve
    through independent sliders from top to bottom, as on a scanner's console.

    Args:
        bottom_db: Range of the line's gain at the lower edge; it is 0 at the upper edge. dB.
        slider_db: Each slider lies in ± this. dB.
        sliders: Their number, at least 2.
        p: Probability.
    """

    def __init__(
        self,
        bottom_db: Sequence[float] = (-10.0, 6.0),
        slider_db: float = 2.5,
        sliders: int = 6,
        p: float = 0.5,
    ) -> None:
        super().__init__(p=p)
        self.bottom_db = _range("bottom_db", bottom_db)
        self.slider_db, self.sliders = slider_db, sliders
        if slider_db < 0 or sliders < 2:
            raise ValueError(f"slider_db={slider_db} must be ≥ 0, sliders={sliders} at least 2")

    def get_params_dependent_on_data(
        self, params: dict[str, Any], data: dict[str, Any]
    ) -> dict[str, Any]:
        """Draw the gain in dB of each row, (H, 1, 1)."""
        height = params["shape"][0]
        bottom = self.py_random.uniform(*self.bottom_db)
        sliders = [
            self.py_random.uniform(-self.slider_db, self.slider_db) for _ in range(self.sliders)
        ]
        column = np.array(sliders, np.float32)[:, None]
        curve = cv2.resize(column, (1, height), interpolation=CUBIC)
        line = np.linspace(0.0, bottom, height, dtype=np.float32)[:, None]
        return {"level": (curve.reshape(height, 1) + line)[:, :, None]}

    def apply(self, img: np.ndarray, *args: Any, level: np.ndarray, **params: Any) -> np.ndarray:
        """Image (H, W, C) uint8 -> the same."""
        return add_decibels(img, level)


class Gain(A.ImageOnlyTransform):
    """Overall gain, dynamic range and grey map: the knobs that change all depths alike.

    With x the grey level in 0…1, the result is (stretch·(x - ½) + ½ + gain)^gamma.

    Args:
        gain_db: Range of the gain, dB.
        stretch: Range of the factor on the contrast; above 1 the dynamic range is smaller.
        gamma: Range of the grey map's exponent; above 1 is darker.
        p: Probability.
    """

    def __init__(
        self,
        gain_db: Sequence[float] = (-5.0, 5.0),
        stretch: Sequence[float] = (0.8, 1.25),
        gamma: Sequence[float] = (0.8, 1.25),
        p: float = 0.5,
    ) -> None:
        super().__init__(p=p)
        self.gain_db = _range("gain_db", gain_db)
        self.stretch, self.gamma = _range("stretch", stretch), _range("gamma", gamma)
        if min(*self.stretch, *self.gamma) <= 0:
            raise ValueError(f"stretch={stretch} and gamma={gamma} must be above 0")

    def get_params(self) -> dict[str, Any]:
        """Draw the table of 256 grey levels."""
        gain, stretch, gamma = (
            self.py_random.uniform(*limits) for limits in (self.gain_db, self.stretch, self.gamma)
        )
        grey = np.linspace(0.0, 1.0, 256)
        shown = stretch * (grey - 0.5) + 0.5 + gain / DYNAMIC_RANGE_DB
        target = np.clip(shown, 0.0, 1.0) ** gamma
        table = grey + WEIGHT * (target - grey)  # black stays black
        table = np.maximum.accumulate(table)  # and darker stays darker
        return {"table": np.rint(255.0 * table).astype(np.uint8)}

    def apply(self, img: np.ndarray, *args: Any, table: np.ndarray, **params: Any) -> np.ndarray:
        """Image (H, W, C) uint8 -> the same."""
        return cv2.LUT(img, table).reshape(img.shape)


class Speckle(A.ImageOnlyTransform):
    """Another interference pattern: a factor on the echo, correlated along and across the beam.

    Fully developed speckle scatters by 5.6 dB (the logarithm of a Rayleigh amplitude: Wagner et
    al. 1983, IEEE Trans. Sonics Ultrason. 30:156), and the image has its own; less is added. The
    grain is wider than high, since a pulse is shorter than the beam is wide.

    Args:
        spread_db: Range of the standard deviation, dB.
        lateral: Range of the grain's standard deviation across the beam, as a share of the
            width; along the beam it is half as large.
        p: Probability.
    """

    def __init__(
        self,
        spread_db: Sequence[float] = (0.5, 2.5),
        lateral: Sequence[float] = (0.004, 0.01),
        p: float = 0.5,
    ) -> None:
        super().__init__(p=p)
        self.spread_db, self.lateral = _range("spread_db", spread_db), _range("lateral", lateral)
        if min(*self.spread_db, *self.lateral) < 0:
            raise ValueError(f"spread_db={spread_db} and lateral={lateral} must be ≥ 0")

    def get_params_dependent_on_data(
        self, params: dict[str, Any], data: dict[str, Any]
    ) -> dict[str, Any]:
        """Draw the speckle in dB, (H, W, 1)."""
        height, width = params["shape"][:2]
        spread = self.py_random.uniform(*self.spread_db)
        grain = self.py_random.uniform(*self.lateral) * width
        # A blur sums many bytes, which makes them Gaussian; normal numbers take ten times longer.
        white = np.frombuffer(self.random_generator.bytes(height * width), np.uint8)
        across, along = _bell(grain), _bell(grain / 2)
        norm = np.sqrt((across**2).sum() * (along**2).sum()) * BYTE_DEVIATION
        level = cv2.sepFilter2D(
            white.reshape(height, width),
            cv2.CV_32F,
            across,
            along * (spread / norm),
            delta=-BYTE_MEAN * spread / norm,
        )
        return {"level": level[..., None]}

    def apply(self, img: np.ndarray, *args: Any, level: np.ndarray, **params: Any) -> np.ndarray:
        """Image (H, W, C) uint8 -> the same."""
        return add_decibels(img, level)


class AcousticShadow(A.ImageOnlyTransform):
    """A shadow below something that lets no sound through, straight down (a linear array).

    Its sides are soft, and it deepens over a tenth of the image. The mask stays: a lesion that
    lies in shadow is still there.

    Args:
        strength_db: Range of the loss in the shadow's middle, dB.
        width: Range of its half width, as a share of the image's.
        start: Range of the depth it begins at, as a share of the image's height.
        p: Probability.
    """

    def __init__(
        self,
        strength_db: Sequence[float] = (4.0, 14.0),
        width: Sequence[float] = (0.03, 0.1),
        start: Sequence[float] = (0.0, 0.6),
        p: float = 0.5,
    ) -> None:
        super().__init__(p=p)
        self.strength_db, self.width = _range("strength_db", strength_db), _range("width", width)
        self.start = _range("start", start)
        if min(self.strength_db) < 0 or min(self.width) <= 0:
            raise ValueError(f"strength_db={strength_db} must be ≥ 0, width={width} above 0")

    def get_params_dependent_on_data(
        self, params: dict[str, Any], data: dict[str, Any]
    ) -> dict[str, Any]:
        """Draw the loss in dB, (H, W, 1), ≤ 0."""
        height, width = params["shape"][:2]
        strength, half, start = (
            self.py_random.uniform(*limits) for limits in (self.strength_db, self.width, self.start)
        )
        middle = self.py_random.random()
        across = ((np.arange(width) + 0.5) / width - middle) / half
        down = ((np.arange(height) + 0.5) / height - start) / 0.1
        profile = np.exp(-0.5 * across**4)  # flat in the middle, soft at the sides
        ramp = np.clip(down, 0.0, 1.0)
        level = -strength * (ramp * ramp * (3.0 - 2.0 * ramp))[:, None] * profile
        return {"level": level.astype(np.float32)[..., None]}

    def apply(self, img: np.ndarray, *args: Any, level: np.ndarray, **params: Any) -> np.ndarray:
        """Image (H, W, C) uint8 -> the same."""
        return add_decibels(img, level)


class TissueDeformation(A.DualTransform):
    """Tissue pressed and shifted below the probe: a smooth displacement of image and mask alike.

    A displacement is drawn for every node of a coarse grid and interpolated between them. Tissue
    slides along the image's edges but does not leave them: the probe's face stays flat.

    Args:
        amount: Range of a displacement's largest size, as a share of the image's edge.
        nodes: Nodes along an edge, at least 4. Up to amount · nodes = 0.25 nothing folds over.
        p: Probability.
    """

    _targets = (A.core.type_definitions.Targets.IMAGE, A.core.type_definitions.Targets.MASK)

    def __init__(
        self, amount: Sequence[float] = (0.01, 0.035), nodes: int = 6, p: float = 0.5
    ) -> None:
        super().__init__(p=p)
        self.amount, self.nodes = _range("amount", amount), nodes
        if self.amount[0] < 0 or nodes < 4 or self.amount[1] * nodes > 0.25:
            raise ValueError(f"amount={amount} · nodes={nodes} must lie in 0…0.25, nodes from 4")

    def get_params_dependent_on_data(
        self, params: dict[str, Any], data: dict[str, Any]
    ) -> dict[str, Any]:
        """Draw where each pixel comes from: columns and rows, each (H, W) float32."""
        height, width = params["shape"][:2]
        amount = self.py_random.uniform(*self.amount)
        across, down = self.random_generator.uniform(-amount, amount, (2, self.nodes, self.nodes))
        across[:, [0, -1]] = 0.0
        down[[0, -1]] = 0.0
        columns, rows = (
            cv2.resize((size * grid).astype(np.float32), (width, height), interpolation=CUBIC)
            for size, grid in ((width, across), (height, down))
        )
        columns += np.arange(width, dtype=np.float32)
        rows += np.arange(height, dtype=np.float32)[:, None]
        return {"columns": columns, "rows": rows}

    def apply(
        self, img: np.ndarray, *args: Any, columns: np.ndarray, rows: np.ndarray, **params: Any
    ) -> np.ndarray:
        """Image (H, W, C) uint8 -> the same, interpolated linearly."""
        moved = cv2.remap(img, columns, rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        return moved.reshape(img.shape)

    def apply_to_mask(
        self, mask: np.ndarray, *args: Any, columns: np.ndarray, rows: np.ndarray, **params: Any
    ) -> np.ndarray:
        """Mask (H, W) uint8 -> the same; no new value arises."""
        moved = cv2.remap(mask, columns, rows, cv2.INTER_NEAREST, borderMode=cv2.BORDER_REPLICATE)
        return moved.reshape(mask.shape)


def _bell(sigma: float) -> np.ndarray:
    """Gaussian kernel of sum 1, (K, 1) float64."""
    return cv2.getGaussianKernel(2 * max(1, round(3 * sigma)) + 1, max(sigma, 0.1))


def _range(name: str, limits: Sequence[float]) -> tuple[float, float]:
    """Two numbers in order."""
    if len(limits) != 2 or limits[0] > limits[1]:
        raise ValueError(f"{name}={list(limits)} must be [lowest, highest]")
    return float(limits[0]), float(limits[1])
