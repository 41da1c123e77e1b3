"""Text for markdown: shown as it is, in one line, whatever it holds."""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from anatosegnet.console import plain
from anatosegnet.files.writing import replacing

COMPUTED = ("<!-- table -->", "<!-- end of table -->")  # around what a script writes into a page

MARKS = re.compile(
    r"[\\`*|~$]"
    r"|<(?=[A-Za-z/!?])|&(?=#?\w+;)"  # a tag, an entity
    r"|(?<=\])\("  # the address of a link
    r"|(?<!\w)_|_(?!\w)"  # within a word it is no mark
)


def inline(text: object) -> str:
    """Foreign text within a line: nothing in it is a mark, and it is one line."""
    return MARKS.sub(r"\\\g<0>", plain(" ".join(str(text).split())))


def table_lines(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    """A table, a line for each of its rows."""
    head, *body = (
        "| " + " | ".join(inline(cell) for cell in cells) + " |" for cells in (columns, *rows)
    )
    return [head, "|---" * len(columns) + "|", *body]


def computed(page: Path) -> str:
    """What stands between the marks `COMPUTED` of a page."""
    return page.read_text(encoding="utf-8").partition(COMPUTED[0])[2].partition(COMPUTED[1])[0]


def write_computed(page: Path, lines: Iterable[str]) -> None:
    """Put lines in the place of what stands between the marks `COMPUTED` of a page."""
    before, _, rest = page.read_text(encoding="utf-8").partition(COMPUTED[0])
    text = "\n".join([COMPUTED[0], *lines, COMPUTED[1]])
    with replacing(page) as path:
        path.write_text(before + text + rest.partition(COMPUTED[1])[2], encoding="utf-8")
