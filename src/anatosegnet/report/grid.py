"""Pictures in rows and columns, with captions, names, a title and a legend.

Everything here is a block, (height, width, 3) uint8 RGB on white, and blocks are put below and
beside each other.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

if TYPE_CHECKING:
    from PIL import ImageFont

Colour = tuple[int, int, int]  # RGB
WHITE, INK, FAINT = (255, 255, 255), (25, 25, 25), (105, 105, 105)
SMALL, PLAIN, LARGE = 12, 14, 18  # letters, px
GAP, MARGIN = 8, 18  # px between cells, and around a page
NARROWEST = 480  # px: a title needs some room


@dataclass(frozen=True)
class Cell:
    """A picture and the line above it.

    Attributes:
        picture: (H, W, 3) RGB or (H, W) grey uint8; or (H, W) bool, white where true.
        caption: Cut where it is longer than the room it has.
        note: At the right end of the line, whole.
        colour: Of the caption.
    """

    picture: np.ndarray
    caption: str = ""
    note: str = ""
    colour: Colour = INK


def grid(
    rows: Sequence[Sequence[Cell]],
    box: tuple[int, int],
    *,
    row_names: Sequence[str] = (),
    column_names: Sequence[str] = (),
) -> np.ndarray:
    """Cells in rows and columns, with names beside and above them.

    Args:
        rows: The cells; a row may be shorter than the others.
        box: Height and width that each picture is scaled into, px.
        row_names: Written upwards, left of the rows.
        column_names: Above the first row.

    Returns:
        The block.
    """
    pictures = [[as_rgb(scaled(cell.picture, box)) for cell in row] for row in rows]
    width = max(picture.shape[1] for row in pictures for picture in row)
    lines = []
    for cells, drawn in zip(rows, pictures, strict=True):
        blocks = [padded(picture, width=width) for picture in drawn]
        if any(cell.caption or cell.note for cell in cells):
            heads = [caption(cell, width) for cell in cells]
            blocks = [below(pair, 2) for pair in zip(heads, blocks, strict=True)]
        lines.append(beside(blocks))
    if row_names:
        lines = [
            beside([np.rot90(centred(name, line.shape[0])), line])
            for name, line in zip(row_names, lines, strict=True)
        ]
    if column_names:
        names = beside([centred(name, width) for name in column_names])
        left = lines[0].shape[1] - names.shape[1]
        lines.insert(0, padded(names, left=left))
    return below(lines)


def page(
    title: str, blocks: Sequence[np.ndarray], legend: Mapping[str, Colour] | None = None
) -> np.ndarray:
    """The title, the blocks below each other, and what the colours mean, with white around.

    The title is cut where it is wider than everything else.
    """
    parts = [*blocks, key(legend)] if legend else list(blocks)
    room = max(NARROWEST, *(part.shape[1] for part in parts))
    whole = below([text(title, LARGE, room=room), *parts], MARGIN - GAP)
    return cv2.copyMakeBorder(whole, *4 * (MARGIN,), cv2.BORDER_CONSTANT, value=WHITE)


def key(legend: Mapping[str, Colour]) -> np.ndarray:
    """In one line, a square of each colour and its meaning."""
    parts = []
    for meaning, colour in legend.items():
        square = np.full((SMALL, SMALL, 3), FAINT, np.uint8)  # its edge: white is seen on white
        square[1:-1, 1:-1] = colour
        parts.append(beside([padded(square, top=2), text(meaning, colour=FAINT)], 5))
    return beside(parts, 2 * GAP)


def caption(cell: Cell, width: int) -> np.ndarray:
    """The line above a cell."""
    note = text(cell.note)
    room = width - note.shape[1] - (GAP if cell.note else 0)
    words = text(cell.caption, colour=cell.colour, room=room)
    return np.concatenate([padded(words, width=width - note.shape[1]), note], axis=1)


def centred(words: str, width: int) -> np.ndarray:
    """Words in the middle of so many pixels, cut where they are longer."""
    block = text(words, room=width)
    return padded(block, left=(width - block.shape[1]) // 2, width=width)


def flow(blocks: Sequence[np.ndarray], width: int) -> np.ndarray:
    """Blocks side by side, in as many lines as they need."""
    lines: list[list[np.ndarray]] = [[]]
    for block in blocks:
        if lines[-1] and sum(b.shape[1] + GAP for b in lines[-1]) + block.shape[1] > width:
            lines.append([])
        lines[-1].append(block)
    return below([beside(line) for line in lines])


def framed(block: np.ndarray, colour: Colour, thickness: int) -> np.ndarray:
    """The block with white and a frame around."""
    inner = cv2.copyMakeBorder(block, *4 * (4,), cv2.BORDER_CONSTANT, value=WHITE)
    return cv2.copyMakeBorder(inner, *4 * (thickness,), cv2.BORDER_CONSTANT, value=colour)


def below(blocks: Sequence[np.ndarray], gap: int = GAP) -> np.ndarray:
    """Blocks in a column, flush left."""
    width = max(block.shape[1] for block in blocks)
    tops = [0] + (len(blocks) - 1) * [gap]
    return np.concatenate(
        [padded(block, top=top, width=width) for top, block in zip(tops, blocks, strict=True)]
    )


def beside(blocks: Sequence[np.ndarray], gap: int = GAP) -> np.ndarray:
    """Blocks in a row, flush at the top."""
    height = max(block.shape[0] for block in blocks)
    lefts = [0] + (len(blocks) - 1) * [gap]
    return np.concatenate(
        [padded(b, left=left, height=height) for left, b in zip(lefts, blocks, strict=True)],
        axis=1,
    )


def padded(
    block: np.ndarray, *, top: int = 0, left: int = 0, height: int = 0, width: int = 0
) -> np.ndarray:
    """The block with white before it, and after it up to a height and a width."""
    bottom = max(0, height - top - block.shape[0])
    right = max(0, width - left - block.shape[1])
    return cv2.copyMakeBorder(block, top, bottom, left, right, cv2.BORDER_CONSTANT, value=WHITE)


def text(
    words: str, size: int = SMALL, colour: Colour = INK, room: float = float("inf")
) -> np.ndarray:
    """A line of text; what has no room is cut, and ends in "…"."""
    from PIL import Image, ImageDraw

    words, font = words.replace("\n", " "), _font(size)
    if font.getlength(words) > room:
        while words and font.getlength(words + "…") > room:
            words = words[:-1]
        words += "…"
    ascent, descent = font.getmetrics()
    size_of_line = (max(1, round(font.getlength(words))), ascent + descent)
    line = Image.new("RGB", size_of_line, WHITE)
    ImageDraw.Draw(line).text((0, 0), words, colour, font)
    return np.asarray(line)


@cache
def _font(size: int) -> "ImageFont.FreeTypeFont":
    """Matplotlib's own font: it is always there, and knows more letters than Pillow's."""
    import matplotlib
    from PIL import ImageFont

    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts/ttf/DejaVuSans.ttf", size)


def scaled(picture: np.ndarray, box: tuple[int, int]) -> np.ndarray:
    """The picture shrunk or enlarged, in its own shape, to just fit into height and width."""
    height, width = picture.shape[:2]
    scale = min(box[0] / height, box[1] / width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    if picture.dtype == bool:
        return cv2.resize(picture.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST) > 0
    kind = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    return cv2.resize(picture, size, interpolation=kind)


def as_rgb(picture: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8 of grey, of true and false, or of RGB."""
    if picture.dtype == bool:
        picture = picture.astype(np.uint8) * 255
    return picture if picture.ndim == 3 else np.repeat(picture[..., None], 3, axis=2)
