"""What is printed: any text is shown as it is, and no printing undoes finished work.

Names of data, of runs and of settings come from files that others made. They are never taken for
markup, their control characters are shown as escapes, and a stream that is closed, full, or has
no letter for a sign loses text, not results.
"""

import contextlib
import io
import os
import sys
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Any, TextIO


def plain(text: object) -> str:
    """A text without effect on a terminal: control and formatting characters as escapes."""
    text = str(text)
    if text.isprintable():
        return text
    return "".join(
        letter
        if letter.isprintable() or letter == "\n" or unicodedata.category(letter) == "Zs"
        else ascii(letter)[1:-1]
        for letter in text
    )


def say(*texts: object, error: bool = False) -> None:
    """Print texts in one line, as `plain` shows them.

    Args:
        *texts: With a space between them.
        error: To stderr.
    """
    _write(" ".join(plain(text) for text in texts) + "\n", error)


def warn(text: object) -> None:
    """Print ``warning: …`` to stderr."""
    say(f"warning: {text}", error=True)


def some(names: Sequence[object], most: int = 5, between: str = ", ") -> str:
    """``a, b, c, d, e and 7 more``: the first names, and how many more there are."""
    shown = between.join(str(name) for name in names[:most])
    return shown + (f" and {len(names) - most} more" if len(names) > most else "")


def say_table(
    columns: Sequence[str],
    rows: Iterable[Sequence[object]],
    title: str | None = None,
    left: int = 1,
) -> None:
    """Print a table; outside a terminal nothing is cut or folded.

    Args:
        columns: Heads.
        rows: Cells in order of the columns.
        title: Above the table.
        left: So many of the first columns are aligned to the left, the others to the right.
    """
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(plain(title)) if title else None, title_justify="left")
    for place, name in enumerate(columns):
        table.add_column(Text(plain(name)), justify="left" if place < left else "right")
    for row in rows:
        table.add_row(*(Text(plain(cell)) for cell in row))
    say_rich(table)


def say_rich(content: Any) -> None:
    """Print anything that rich draws; texts in it must be made by `plain`, not as markup."""
    from rich.console import Console

    stream = sys.stdout
    terminal = stream is not None and stream.isatty()
    buffer = io.StringIO()
    width = None if terminal else 1000  # no reason to cut at 80 columns
    console = Console(
        file=buffer, force_terminal=terminal, width=width, highlight=False, markup=False,
        soft_wrap=True, emoji=False,
    )  # fmt: skip
    console.print(content)
    _write(buffer.getvalue())


def settle_streams() -> None:
    """Let stdout and stderr show ``?`` for what their encoding lacks, in what others print too."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, ValueError, OSError):
            stream.reconfigure(errors="replace")  # type: ignore[union-attr]


def _write(text: str, error: bool = False) -> None:
    stream: TextIO | None = sys.stderr if error else sys.stdout
    if stream is None:  # closed before the program began
        return
    try:
        try:
            stream.write(text)
        except UnicodeEncodeError:
            encoding = stream.encoding or "ascii"
            stream.write(text.encode(encoding, "replace").decode(encoding))
        stream.flush()
    except ValueError:  # closed by now
        pass
    except OSError as reason:
        _silence(stream)
        if not error and not isinstance(reason, BrokenPipeError):
            warn(f"stdout cannot be written ({reason.strerror}); the rest is not shown")


def _silence(stream: TextIO) -> None:
    """Nobody reads the stream, or its disk is full: what comes from now on goes nowhere."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
