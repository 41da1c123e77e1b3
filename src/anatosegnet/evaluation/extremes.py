"""``extremes.png``: the worst, median and best cases on one page."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from anatosegnet.console import rounded
from anatosegnet.data.case import read_image
from anatosegnet.metrics import scores
from anatosegnet.report.grid import Cell, grid, page
from anatosegnet.report.overlay import GAP, LEGEND, encode_png

BOX = (288, 288)  # px


def write_extremes(
    path: Path, overlays: Path, rows: Mapping[str, Sequence[str]], values: Mapping[str, float]
) -> None:
    """Draw a row each of worst, median and best cases.

    Args:
        path: The PNG to write.
        overlays: The folder of the cases' overlays; of each the half with the errors is shown.
        rows: Names of the cases by kind.
        values: The main score of each case.
    """
    score = scores.title(scores.MAIN)
    cells = [
        [
            Cell(error_half(overlays / f"{name}.jpg"), name, f"{score} {rounded(values[name])}")
            for name in names
        ]
        for names in rows.values()
    ]
    drawn = page(f"Cases by {score}", [grid(cells, BOX, row_names=list(rows))], LEGEND)
    path.write_bytes(encode_png(drawn))


def error_half(path: Path) -> np.ndarray:
    """The right half of an overlay, (H, W, 3) uint8 RGB."""
    overlay = read_image(path)
    return overlay[:, overlay.shape[1] // 2 + GAP // 2 :]
