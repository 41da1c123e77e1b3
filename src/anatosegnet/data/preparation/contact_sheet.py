"""The contact sheet of an audit: cases with their masks outlined, near-duplicates side by side."""

import cv2

from anatosegnet.data.preparation.audit import SAMPLE, Audit
from anatosegnet.report.grid import FAINT, GAP, Cell, beside, flow, framed, grid, key, page, text
from anatosegnet.report.overlay import encode_png

TILE = (SAMPLE[1] // 2, SAMPLE[0] // 2)  # height, width of a picture, px: outlines stay fine
COLUMNS = 10
COLOURS = {"benign": (0, 158, 115), "malignant": (213, 94, 0), "normal": (120, 120, 120)}
OTHER = (0, 114, 178)  # safe for colour-blind eyes, like the rest (Okabe and Ito)
FRAME, ALARM = ((210, 210, 210), 1), ((213, 94, 0), 2)  # colour and px


def contact_sheet(audit: Audit) -> bytes:
    """The sheet as PNG."""
    labels = {record.case.name: record.case.label for record in audit.records}

    def cell(name: str) -> Cell:
        image, mask = audit.samples[name]
        colour = COLOURS.get(labels[name], OTHER)
        outlines, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        outlined = cv2.drawContours(image.copy(), outlines, -1, colour, 3, cv2.LINE_AA)
        return Cell(outlined, name, colour=colour)

    shown = [cell(name) for name in audit.selection if name in labels]
    rows = [shown[first : first + COLUMNS] for first in range(0, len(shown), COLUMNS)]
    legend = {label: COLOURS.get(label, OTHER) for label in sorted(set(labels.values()))}
    chosen = f"{len(shown)} of {len(audit.records)} cases, evenly chosen; masks outlined:"
    blocks = [text(chosen, colour=FAINT)]
    if legend:
        blocks = [beside([*blocks, key(legend)], 2 * GAP)]
    if rows:
        blocks.append(grid(rows, TILE))
    if groups := audit.shown_groups:
        of = f"{len(groups)} of {len(audit.duplicates)} groups of near-duplicates, those whose "
        blocks.append(
            text(f"{of}classes differ first (thick frame), then the largest", colour=FAINT)
        )
        boxes = [
            framed(grid([[cell(name) for name in names]], TILE), *(ALARM if different else FRAME))
            for names, different in groups
        ]
        blocks.append(flow(boxes, COLUMNS * (TILE[1] + GAP)))
    return encode_png(page(audit.dataset, blocks))
