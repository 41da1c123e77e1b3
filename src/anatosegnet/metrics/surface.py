"""Per-image scores of the lesion's boundary, from MONAI's edges and surface distances.

An edge pixel is a lesion pixel that touches background or the image's border by an edge. Both
directions count: from each predicted edge pixel to the nearest true one, and back. MONAI's own
``compute_…`` functions give the same numbers (the tests compare them) but crop the image anew for
each score and return NaN or infinity for empty masks. Here, where truth and prediction are both
empty, distances are 0 and the other scores 1; where one is, distances are the image's diagonal
and the other scores 0.
"""

import cv2
import numpy as np

from anatosegnet.metrics.lesions import bounding_box

ROUNDING = 1e-6  # 3 pixels of 0.2 mm are within 0.6 mm
BOUNDARY_WIDTH = 0.02  # of the image's diagonal, as in Cheng et al., Boundary IoU, CVPR 2021


def hd95(there: np.ndarray, back: np.ndarray) -> float:
    """The larger of the 95th percentiles of both directions' distances, in their unit."""
    return float(max(np.percentile(there, 95), np.percentile(back, 95)))


def assd(there: np.ndarray, back: np.ndarray) -> float:
    """Mean of the distances of the edge pixels of both masks, in their unit."""
    return float(np.concatenate([there, back]).mean())


def share_within(there: np.ndarray, back: np.ndarray, tolerance: float, size: float = 1) -> float:
    """Share of the edge pixels of both masks within a tolerance, in [0, 1]: NSD.

    Args:
        there: (N,) distances in pixels.
        back: (M,) distances in pixels.
        tolerance: In the unit of ``size``.
        size: Edge of a pixel.
    """
    return float((np.concatenate([there, back]) * size <= tolerance + ROUNDING).mean())


def surface_distances(prediction: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distances of the edge pixels of each mask to the nearest one of the other.

    Args:
        prediction: (H, W) bool.
        truth: (H, W) bool.

    Returns:
        From prediction to truth (N,) and from truth to prediction (M,), in pixels: a single 0
        each where both are empty, a single image diagonal each where one is.
    """
    from monai.metrics.utils import get_mask_edges, get_surface_distance

    if not prediction.any() or not truth.any():
        agreed = not prediction.any() and not truth.any()
        distance = np.array([0.0 if agreed else float(np.hypot(*truth.shape))])
        return distance, distance
    rows, columns = bounding_box(prediction | truth)
    edges = get_mask_edges(prediction[rows, columns], truth[rows, columns], crop=False)
    predicted, true = (np.asarray(edge) for edge in edges)
    return (
        np.asarray(get_surface_distance(predicted, true), np.float64),
        np.asarray(get_surface_distance(true, predicted), np.float64),
    )


def boundary_iou(prediction: np.ndarray, truth: np.ndarray, width: int | None = None) -> float:
    """IoU of the bands along the insides of two boundaries (Cheng et al., CVPR 2021).

    Args:
        prediction: (H, W) bool.
        truth: (H, W) bool.
        width: Of the band, in pixels; default 2 % of the image's diagonal.

    Returns:
        IoU in [0, 1]; 1 where both masks are empty.
    """
    if width is None:
        width = max(1, round(BOUNDARY_WIDTH * float(np.hypot(*truth.shape))))
    either = prediction | truth
    if not either.any():
        return 1.0
    rows, columns = bounding_box(either)
    bands = [_band(mask[rows, columns], width) for mask in (prediction, truth)]
    return float((bands[0] & bands[1]).sum() / (bands[0] | bands[1]).sum())


def _band(mask: np.ndarray, width: int) -> np.ndarray:
    """Pixels of a mask that lie within ``width`` (chessboard) of its outside or the border."""
    pixels = mask.astype(np.uint8)
    square = np.ones((3, 3), np.uint8)
    inside = cv2.erode(
        pixels, square, iterations=width, borderType=cv2.BORDER_CONSTANT, borderValue=0
    )
    return mask & (inside == 0)
