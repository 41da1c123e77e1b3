"""``extremes.png``: the worst, median and best cases on one sheet."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from anatosegnet.data.case import read_image

CELL = 1.9  # inches
LEGEND = "truth outlined white, prediction green; hits tinted white, misses red, false alarms green"


def write_extremes(
    path: Path, overlays: Path, rows: Mapping[str, Sequence[str]], iou: Mapping[str, float]
) -> None:
    """Draw a sheet with a row each of worst, median and best cases.

    Args:
        path: The PNG to write.
        overlays: The folder of the cases' overlays; of each the half with the errors is shown.
        rows: Names of the cases by kind.
        iou: IoU of each case.
    """
    from matplotlib.figure import Figure

    columns = max(len(names) for names in rows.values())
    figure = Figure(figsize=(CELL * columns + 0.3, (CELL + 0.15) * len(rows) + 0.25), dpi=110)
    axes = figure.subplots(len(rows), columns, squeeze=False)
    for line, (kind, names) in zip(axes, rows.items(), strict=True):
        for axis in line:
            axis.set(xticks=[], yticks=[])
            axis.set_frame_on(False)
        line[0].set_ylabel(kind, fontsize=10)
        for axis, name in zip(line, names, strict=False):
            axis.imshow(error_half(overlays / f"{name}.png"))
            axis.set_title(f"{name}\nIoU {iou[name]:.3f}", fontsize=7, parse_math=False)
    figure.tight_layout(pad=0.4, rect=(0, 0.03, 1, 1))
    figure.text(0.5, 0.008, LEGEND, fontsize=7, ha="center")
    figure.savefig(path)


def error_half(path: Path) -> np.ndarray:
    """The right half of an overlay, (H, W, 3) uint8 RGB."""
    overlay = read_image(path)
    return overlay[:, overlay.shape[1] // 2 + 2 :]  # behind the gap of 4 pixels
