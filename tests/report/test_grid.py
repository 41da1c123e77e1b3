"""Pages of pictures: where cells, captions and names stand, and what is cut."""

import numpy as np
import pytest

from anatosegnet.report.grid import GAP, WHITE, Cell, flow, framed, grid, page, scaled, text

RED = (200, 30, 30)


def plain(height: int, width: int, colour: tuple[int, int, int] = RED) -> np.ndarray:
    """A picture of one colour."""
    return np.full((height, width, 3), colour, np.uint8)


def test_pictures_keep_their_shape_and_stand_in_line() -> None:
    """Breaks if a picture is distorted, or the columns of unlike pictures do not align."""
    block = grid([[Cell(plain(40, 80)), Cell(plain(80, 40))]] * 2, (100, 100))
    assert block.shape == (2 * 100 + GAP, 2 * 100 + GAP, 3)
    red = (block == RED).all(axis=2)
    assert red[:50, :100].all() and not red[50:100, :100].any()  # wide: half of the height
    assert red[:100, 100 + GAP : 150 + GAP].all()


def test_captions_are_cut_and_notes_are_not() -> None:
    """Breaks if a long name widens its cell or runs over the score."""
    short, long = (
        grid([[Cell(plain(100, 100), name, "IoU 0.123")]], (100, 100)) for name in ("a", "a" * 99)
    )
    assert short.shape == long.shape
    note = text("IoU 0.123")
    assert (long[: note.shape[0], -note.shape[1] :] == note).all()
    assert text("a" * 99, room=50).shape[1] <= 50


def test_names_stand_beside_their_rows() -> None:
    """Breaks if names of rows or columns move the pictures apart, or are lost."""
    rows = [[Cell(plain(60, 60))] * 3] * 2
    bare = grid(rows, (60, 60))
    named = grid(rows, (60, 60), row_names=("one", "two"), column_names=("a", "b", "c"))
    height, width = bare.shape[:2]
    assert (named[-height:, -width:] == bare).all()
    for margin in (named[:-height, -width:], named[-height:, :-width]):
        assert (margin.min(axis=2) < 100).any()


@pytest.mark.parametrize("box", [(30, 30), (300, 200)])
def test_masks_stay_masks(box: tuple[int, int]) -> None:
    """Breaks if a mask gets greys at its border."""
    mask = np.zeros((60, 90), bool)
    mask[20:40, 30:60] = True
    assert scaled(mask, box).dtype == bool
    assert set(np.unique(grid([[Cell(mask)]], box))) == {0, 255}


def test_blocks_flow_into_lines_and_a_title_has_its_room() -> None:
    """Breaks if a block is lost at a line's end, or a page of one small picture cuts its title."""
    blocks = [framed(plain(20, 90), RED, 2)] * 5
    drawn = flow(blocks, 330)
    assert (drawn == RED).all(axis=2).sum() == 5 * (blocks[0] == RED).all(axis=2).sum()
    assert drawn.shape[:2] == (2 * blocks[0].shape[0] + GAP, 3 * blocks[0].shape[1] + 2 * GAP)
    title = "a title of some length"
    whole = page(title, [plain(10, 10)], {"hit": WHITE, "missed": RED})
    assert whole.shape[1] > text(title, 18).shape[1]
