"""The contact sheet of an audit: cases with their masks outlined, near-duplicates side by side."""

from collections.abc import Sequence
<<<<<<< HEAD
from functools import cache
from pathlib import Path
=======
from typing import TYPE_CHECKING
>>>>>>> bfed2d9 (One drawer of picture grids: report/grid.py; seeded results stored per recipe, compared by scripts/same_numbers.py; make test-lowest)

import cv2
import numpy as np

<<<<<<< HEAD
from anatosegnet.data.preparation.audit import SAMPLE, Audit

TILE = (SAMPLE[0] // 2, SAMPLE[1] // 2)  # width, height of a picture, pixels: outlines stay fine
CAPTION = 17  # height of the line under it
GAP = 8
COLUMNS = 10
MARGIN = 24
BACKGROUND, INK, FAINT, FRAME = (255, 255, 255), (30, 30, 30), (120, 120, 120), (210, 210, 210)
=======
from anatosegnet.data.case import Case
from anatosegnet.report.grid import FAINT, GAP, Cell, beside, flow, framed, grid, key, page, text
from anatosegnet.report.overlay import encode_png

if TYPE_CHECKING:
    from anatosegnet.data.preparation.audit import Audit

TILE = (120, 160)  # height, width of a picture, px
COLUMNS = 10
MOST_GROUPS, MOST_IN_GROUP = 30, 5
>>>>>>> bfed2d9 (One drawer of picture grids: report/grid.py; seeded results stored per recipe, compared by scripts/same_numbers.py; make test-lowest)
COLOURS = {"benign": (0, 158, 115), "malignant": (213, 94, 0), "normal": (120, 120, 120)}
OTHER = (0, 114, 178)  # safe for colour-blind eyes, like the rest (Okabe and Ito)
FRAME, ALARM = ((210, 210, 210), 1), ((213, 94, 0), 2)  # colour and px


<<<<<<< HEAD
def contact_sheet(audit: Audit) -> bytes:
    """The sheet as PNG."""
    labels = {record.case.name: record.case.label for record in audit.records}
    shown_cases = [name for name in audit.selection if name in labels]
    groups = audit.shown_groups
    width = 2 * MARGIN + COLUMNS * TILE[0] + (COLUMNS - 1) * GAP
    rows = -(-len(shown_cases) // COLUMNS)
    boxes, groups_height = _flow([len(names) for names, _ in groups], width)
    top = MARGIN + 64
    middle = top + rows * (TILE[1] + CAPTION + GAP)
    height = middle + (76 + groups_height if groups else 0) + MARGIN
    sheet = Image.new("RGB", (width, height), BACKGROUND)
    draw = ImageDraw.Draw(sheet)
    draw.text((MARGIN, MARGIN - 6), audit.dataset, INK, _font(26))
    legend = f"{len(shown_cases)} of {len(audit.records)} cases, evenly chosen. Outlines:"
    draw.text((MARGIN, MARGIN + 30), legend, FAINT, _font(14))
    x = MARGIN + draw.textlength(legend, _font(14)) + 10
    for label in sorted(set(labels.values())):
        draw.text((x, MARGIN + 30), label, COLOURS.get(label, OTHER), _font(14))
        x += draw.textlength(label, _font(14)) + 10
    for index, name in enumerate(shown_cases):
        row, column = divmod(index, COLUMNS)
        place = (MARGIN + column * (TILE[0] + GAP), top + row * (TILE[1] + CAPTION + GAP))
        _tile(sheet, draw, place, name, labels[name], audit.samples[name])
    if groups:
        draw.text((MARGIN, middle + 10), "Near-duplicates", INK, _font(20))
        text = (
            f"{len(groups)} of {len(audit.duplicates)} groups, those whose classes differ first "
            "(framed), then the largest"
=======
def choose(cases: Sequence[Case], count: int) -> list[str]:
    """Names of ``count`` cases, evenly over the list, which is in natural order."""
    count = min(count, len(cases))
    return [cases[index * len(cases) // count].name for index in range(count)] if count else []


def shrink(image: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Image and mask at the size of a tile, whole, in their own shape.

    Args:
        image: (H, W, 3) uint8 RGB.
        mask: (H, W) uint8 {0, 1}.

    Returns:
        The two at double the tile's size, so that outlines stay fine.
    """
    scale = min(2 * TILE[0] / mask.shape[0], 2 * TILE[1] / mask.shape[1])
    size = tuple(max(1, round(edge * scale)) for edge in mask.shape[::-1])
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    return small, cv2.resize(mask, size, interpolation=cv2.INTER_NEAREST)


def shown_groups(audit: "Audit") -> list[tuple[list[str], bool]]:
    """The groups of near-duplicates to show, each with whether its classes differ.

    Those whose classes differ come first, then the largest; long ones are cut.
    """
    different = audit.disagreeing
    order = sorted(
        audit.duplicates.items(), key=lambda item: (item[0] not in different, -len(item[1]))
    )
    return [(names[:MOST_IN_GROUP], group in different) for group, names in order[:MOST_GROUPS]]


def contact_sheet(audit: "Audit") -> bytes:
    """The sheet as PNG."""
    labels = {record.case.name: record.case.label for record in audit.records}

    def cell(name: str) -> Cell:
        image, mask = audit.samples[name]
        colour = COLOURS.get(labels[name], OTHER)
        outlines, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        outlined = cv2.drawContours(image.copy(), outlines, -1, colour, 3, cv2.LINE_AA)
        return Cell(outlined, name, colour=colour)

    shown = [cell(name) for name in audit.chosen if name in labels]
    rows = [shown[first : first + COLUMNS] for first in range(0, len(shown), COLUMNS)]
    legend = {label: COLOURS.get(label, OTHER) for label in sorted(set(labels.values()))}
    chosen = f"{len(shown)} of {len(audit.records)} cases, evenly chosen; masks outlined:"
    blocks = [beside([text(chosen, colour=FAINT), key(legend)], 2 * GAP)]
    if rows:
        blocks.append(grid(rows, TILE))
    if groups := shown_groups(audit):
        of = f"{len(groups)} of {len(audit.duplicates)} groups of near-duplicates, those whose "
        blocks.append(
            text(f"{of}classes differ first (thick frame), then the largest", colour=FAINT)
>>>>>>> bfed2d9 (One drawer of picture grids: report/grid.py; seeded results stored per recipe, compared by scripts/same_numbers.py; make test-lowest)
        )
        boxes = [
            framed(grid([[cell(name) for name in names]], TILE), *(ALARM if different else FRAME))
            for names, different in groups
        ]
        blocks.append(flow(boxes, COLUMNS * (TILE[1] + GAP)))
    return encode_png(page(audit.dataset, blocks))
