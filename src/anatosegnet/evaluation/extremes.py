"""``extremes.png``: the worst, median and best cases on one sheet."""

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from anatosegnet.console import rounded
from anatosegnet.data.case import read_image
from anatosegnet.metrics import scores
from anatosegnet.report.overlay import GAP

DPI = 110
CELL, SPACE, TITLE = 210, 8, 34  # px: edge of a cell, beside and above it
MARGIN, FOOT = 30, 26  # px: left of the rows for their names, and below them for the legend
LEGEND_WIDTH = 520  # px
LEGEND = "truth outlined white, prediction green; hits tinted white, misses red, false alarms green"


def write_extremes(
    path: Path, overlays: Path, rows: Mapping[str, Sequence[str]], values: Mapping[str, float]
) -> None:
    """Draw a sheet with a row each of worst, median and best cases.

    Args:
        path: The PNG to write.
        overlays: The folder of the cases' overlays; of each the half with the errors is shown.
        rows: Names of the cases by kind.
        values: The main score of each case.
    """
    from matplotlib.figure import Figure

    columns = max(len(names) for names in rows.values())
    width = max(MARGIN + columns * (CELL + SPACE), LEGEND_WIDTH)
    height = len(rows) * (TITLE + CELL + SPACE) + FOOT
    sheet = np.full((height, width, 3), 255, np.uint8)
    figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI)

    def write(text: str, x: float, y: float, size: float, **options: Any) -> None:
        figure.text(x / width, 1 - y / height, text, fontsize=size, parse_math=False, **options)

    for line, (kind, names) in enumerate(rows.items()):
        top = line * (TITLE + CELL + SPACE) + TITLE
        write(kind, MARGIN / 2, top + CELL / 2, 10, rotation=90, ha="center", va="center")
        for column, name in enumerate(names):
            left = MARGIN + column * (CELL + SPACE)
            picture = fitted(error_half(overlays / f"{name}.jpg"))
            y, x = top + (CELL - len(picture)) // 2, left + (CELL - picture.shape[1]) // 2
            sheet[y : y + len(picture), x : x + picture.shape[1]] = picture
            title = f"{name}\n{scores.title(scores.MAIN)} {rounded(values[name])}"
            write(title, left + CELL / 2, y - 3, 7, ha="center", va="bottom")
    write(LEGEND, width / 2, height - 8, 7, ha="center")
    figure.figimage(sheet)  # one picture: an axis for each would take longer than all else
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a letter that no font has is drawn as a box
        figure.savefig(path, dpi=DPI)


def fitted(picture: np.ndarray, edge: int = CELL) -> np.ndarray:
    """An RGB picture (H, W, 3) shrunk or enlarged to have ``edge`` as its longer side."""
    height, width = picture.shape[:2]
    scale = edge / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    kind = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    return cv2.resize(picture, size, interpolation=kind)


def error_half(path: Path) -> np.ndarray:
    """The right half of an overlay, (H, W, 3) uint8 RGB."""
    overlay = read_image(path)
    return overlay[:, overlay.shape[1] // 2 + GAP // 2 :]
