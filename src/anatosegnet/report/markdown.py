"""Text for markdown: shown as it is, in one line, whatever it holds."""

import re
from collections.abc import Iterable, Sequence

from anatosegnet.console import plain

MARKS = re.compile(
    r"[\\`*|~$]"
    r"|<(?=[A-Za-z/!?])|&(?=#?\w+;)"  # a tag, an entity
    r"|(?<=\])\("  # the address of a link
    r"|(?<!\w)_|_(?!\w)"  # within a word it is no mark
)


def inline(text: object) -> str:
    """Foreign text within a line: nothing in it is a mark, and it is one line."""
    return MARKS.sub(r"\\\g<0>", " ".join(plain(text).split()))


def table_lines(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    """A table, a line for each of its rows."""
    head, *body = (
        "| " + " | ".join(inline(cell) for cell in cells) + " |" for cells in (columns, *rows)
    )
    return [head, "|---" * len(columns) + "|", *body]
