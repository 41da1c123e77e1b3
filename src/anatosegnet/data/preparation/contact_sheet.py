"""The contact sheet of an audit: cases with their masks outlined, near-duplicates side by side."""

import io
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from anatosegnet.data.case import Case

if TYPE_CHECKING:
    from anatosegnet.data.preparation.audit import Audit

TILE = (160, 120)  # width, height of a picture, pixels
CAPTION = 17  # height of the line under it
GAP = 8
COLUMNS = 10
MARGIN = 24
MOST_GROUPS, MOST_IN_GROUP = 30, 5
BACKGROUND, INK, FAINT, FRAME = (255, 255, 255), (30, 30, 30), (120, 120, 120), (210, 210, 210)
COLOURS = {"benign": (0, 158, 115), "malignant": (213, 94, 0), "normal": (120, 120, 120)}
OTHER = (0, 114, 178)  # safe for colour-blind eyes, like the rest (Okabe and Ito)


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
    scale = min(2 * TILE[0] / mask.shape[1], 2 * TILE[1] / mask.shape[0])
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
    shown_cases = [name for name in audit.chosen if name in labels]
    groups = shown_groups(audit)
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
