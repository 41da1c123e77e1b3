"""The contact sheet of an audit: cases with their masks outlined, near-duplicates side by side."""

import io
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import cv2
import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from anatosegnet.data.preparation.audit import SAMPLE, Audit

TILE = (SAMPLE[0] // 2, SAMPLE[1] // 2)  # width, height of a picture, pixels: outlines stay fine
CAPTION = 17  # height of the line under it
GAP = 8
COLUMNS = 10
MARGIN = 24
BACKGROUND, INK, FAINT, FRAME = (255, 255, 255), (30, 30, 30), (120, 120, 120), (210, 210, 210)
COLOURS = {"benign": (0, 158, 115), "malignant": (213, 94, 0), "normal": (120, 120, 120)}
OTHER = (0, 114, 178)  # safe for colour-blind eyes, like the rest (Okabe and Ito)


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
        )
        draw.text((MARGIN, middle + 38), text, FAINT, _font(14))
    for (names, different), (left, down) in zip(groups, boxes, strict=True):
        for position, name in enumerate(names):
            place = (left + position * (TILE[0] + 2), middle + 70 + down)
            _tile(sheet, draw, place, name, labels[name], audit.samples[name])
        right = left + len(names) * (TILE[0] + 2) - 2
        bottom = middle + 70 + down + TILE[1] + CAPTION
        draw.rectangle(
            (left - 3, middle + 67 + down, right + 2, bottom + 1),
            outline=COLOURS["malignant"] if different else FRAME,
            width=2 if different else 1,
        )
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def _flow(sizes: Sequence[int], width: int) -> tuple[list[tuple[int, int]], int]:
    """Left and top of boxes of so many tiles, set in lines; and the height of all lines."""
    boxes: list[tuple[int, int]] = []
    left, down = MARGIN, 0
    step = TILE[1] + CAPTION + 2 * GAP
    for size in sizes:
        box = size * (TILE[0] + 2) + 2 * GAP
        if left > MARGIN and left + box > width - MARGIN + 2 * GAP:
            left, down = MARGIN, down + step
        boxes.append((left, down))
        left += box
    return boxes, down + step if sizes else 0


def _tile(
    sheet: Image.Image,
    draw: ImageDraw.ImageDraw,
    place: tuple[int, int],
    name: str,
    label: str,
    sample: tuple[np.ndarray, np.ndarray],
) -> None:
    """A picture in its frame, its mask outlined in the colour of the class, its name below."""
    image, mask = sample[0].copy(), sample[1]
    colour = COLOURS.get(label, OTHER)
    outlines, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(image, outlines, -1, colour, 3, cv2.LINE_AA)
    picture = Image.fromarray(image)
    picture.thumbnail(TILE, Image.Resampling.BOX)
    x, y = place
    draw.rectangle((x, y, x + TILE[0] - 1, y + TILE[1] - 1), fill=(12, 12, 12))
    sheet.paste(picture, (x + (TILE[0] - picture.width) // 2, y + (TILE[1] - picture.height) // 2))
    caption = name
    while len(caption) > 1 and draw.textlength(caption, _font(12)) > TILE[0] - 2:
        caption = f"{caption.removesuffix('…')[:-1]}…"
    draw.text((x + 1, y + TILE[1] + 1), caption, colour, _font(12))


@cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    """Matplotlib's own font: it is always there, and knows more letters than Pillow's."""
    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts/ttf/DejaVuSans.ttf", size)
