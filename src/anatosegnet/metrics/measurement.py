"""How large a lesion is: its axes, area and perimeter, and how deep it lies.

Everything is measured in millimetres from the start where a pixel's height and width are known,
never in pixels and scaled afterwards: the longest axis in pixels need not be the longest in mm.
A lesion reaches from edge to edge of its pixels, so that a row of 5 pixels is 5 long and 1 wide.
"""

from collections.abc import Iterator
from typing import NamedTuple

import cv2
import numpy as np

from anatosegnet.metrics.lesions import CONNECTIVITY, bounding_box

# steps (rows, columns) between the two pixels of a pair; perimeters are counted along them
STEPS = ((0, 1), (1, 2), (1, 1), (2, 1), (1, 0), (2, -1), (1, -1), (1, -2))


class Measurement(NamedTuple):
    """Sizes of one lesion, in pixels or mm as the spacing was.

    Attributes:
        long_axis: Largest distance between two points of it.
        short_axis: Its largest extent across, along a line perpendicular to the long axis.
        area: Of its pixels.
        perimeter: Length of its outline, holes included.
        depth: Of its top edge, below the line that it is measured from.
        ends: (4, 2) float64: (x, y) of the two ends of the long axis, then of the short one, in
            pixels of the image; the first pixel reaches from 0 to 1.
    """

    long_axis: float
    short_axis: float
    area: float
    perimeter: float
    depth: float
    ends: np.ndarray


class Lesion(NamedTuple):
    """The pixels of one lesion, within the smallest rectangle that holds them.

    Attributes:
        rows: Of the image.
        columns: Of the image.
        mask: (h, w) bool, of that part of it.
    """

    rows: slice
    columns: slice
    mask: np.ndarray

    @classmethod
    def of(cls, mask: np.ndarray) -> "Lesion":
        """All of a mask (H, W) that is not empty."""
        rows, columns = bounding_box(mask)
        return cls(rows, columns, mask[rows, columns])

    def within(self, values: np.ndarray) -> np.ndarray:
        """(N,) what a map (H, W) holds at its pixels."""
        return values[self.rows, self.columns][self.mask]


def lesions(mask: np.ndarray) -> Iterator[Lesion]:
    """The lesions of a mask (H, W) bool, as those that `detect` counts, the largest first."""
    _, labels, stats, _ = cv2.connectedComponentsWithStats(
        mask.astype(np.uint8), connectivity=CONNECTIVITY
    )
    for label in np.argsort(-stats[1:, cv2.CC_STAT_AREA], kind="stable") + 1:
        left, top, width, height, _ = stats[label].tolist()
        rows, columns = slice(top, top + height), slice(left, left + width)
        yield Lesion(rows, columns, labels[rows, columns] == label)


def measure(
    lesion: Lesion, spacing: tuple[float, float] = (1.0, 1.0), top: float = 0.0
) -> Measurement:
    """Measure one lesion.

    The axes are those of its convex hull, as calipers take them. The hull is that of the middles
    of its pixels' edges: with their corners, a slanting lesion would be longer than a lying one.

    Args:
        lesion: Not empty.
        spacing: Height and width of a pixel, such as mm.
        top: The row that depth is measured from, pixels.
    """
    height, width = spacing
    hull = _hull(lesion.mask) + np.array([lesion.columns.start, lesion.rows.start])
    points = hull * np.array([width, height])
    # all pairs: a hull has few corners, even that of a large lesion
    between = np.linalg.norm(points[:, None] - points[None], axis=2)
    first, second = np.unravel_index(between.argmax(), between.shape)
    long_axis = float(between[first, second])
    along = (points[second] - points[first]) / long_axis
    short_axis, ends = _across(points, points[first], along)
    return Measurement(
        long_axis,
        short_axis,
        float(lesion.mask.sum()) * height * width,
        _perimeter(lesion.mask, spacing),
        max(0.0, lesion.rows.start - top) * height,
        np.concatenate([hull[[first, second]], ends / np.array([width, height])]),
    )


def _hull(mask: np.ndarray) -> np.ndarray:
    """Corners (N, 2), x and y, of the convex hull of the middles of the pixels' edges."""
    y = np.flatnonzero(mask.any(axis=1))
    first = mask[y].argmax(axis=1)
    last = mask.shape[1] - 1 - mask[y, ::-1].argmax(axis=1)
    x, y = np.concatenate([first, last]), np.concatenate([y, y])
    middles = np.stack([2 * x + 1, 2 * y + 1], 1)  # halves of pixels: whole numbers are exact
    points = np.concatenate([middles + step for step in ((1, 0), (-1, 0), (0, 1), (0, -1))])
    return cv2.convexHull(points.astype(np.int32))[:, 0].astype(np.float64) / 2


def _across(points: np.ndarray, start: np.ndarray, along: np.ndarray) -> tuple[float, np.ndarray]:
    """The longest line across a convex polygon, perpendicular to its longest one.

    Args:
        points: (N, 2) corners.
        start: (2,) where the longest line begins.
        along: (2,) its direction, of length 1.

    Returns:
        Its length and its ends (2, 2).
    """
    normal = np.array([-along[1], along[0]])
    u, v = (points - start) @ along, (points - start) @ normal
    order = np.argsort(u, kind="stable")
    u, v = u[order], v[order]
    ends = (u == u[0]) | (u == u[-1])
    # both sides run from one end to the other; between corners they are straight
    sides = [np.interp(u, u[part], v[part]) for part in ((v >= 0) | ends, (v <= 0) | ends)]
    at = int(np.argmax(sides[0] - sides[1]))
    line = np.stack([start + u[at] * along + side[at] * normal for side in sides])
    return float(sides[0][at] - sides[1][at]), line


def _perimeter(mask: np.ndarray, spacing: tuple[float, float]) -> float:
    """Length of the outline by the formula of Cauchy and Crofton.

    Lines in eight directions are laid over the mask, and their crossings of the outline counted;
    each direction stands for the angles nearest to it (as in Legland et al., MorphoLibJ,
    Bioinformatics 2016, who have four).
    """
    padded = np.pad(mask, 2)
    steps = np.array(STEPS) * spacing
    angles = np.unwrap(2 * np.arctan2(steps[:, 0], steps[:, 1])) / 2
    around = np.concatenate([angles[-1:] - np.pi, angles, angles[:1] + np.pi])
    shares = (around[2:] - around[:-2]) / 2
    length = 0.0
    for (down, right), step, share in zip(STEPS, steps, shares, strict=True):
        shifted = np.roll(padded, (down, right), (0, 1))
        crossings = np.count_nonzero(padded != shifted)
        length += crossings * share * spacing[0] * spacing[1] / np.hypot(*step)
    return float(length / 2)
