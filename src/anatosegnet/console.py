"""What is printed: any text is shown as it is, and no printing undoes finished work.

Names of data, of runs and of settings come from files that others made. They are never taken for
markup, their control characters are shown as escapes, and a stream that is closed, full, or has
no letter for a sign loses text, not results. Passwords in addresses are not shown.
"""

import contextlib
import io
import math
import os
import re
import sys
import threading
import time
import unicodedata
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence, Sized
from typing import Any, TextIO, TypeVar

T = TypeVar("T")

URL_PASSWORD = re.compile(r"(://[^\s/:@]*):\S*@")  # up to the last @: it may hold some
SECRET_IN_QUERY = re.compile(r"(?i)([?&]\w*(?:password|passwd|pwd|secret|token)\w*=)[^\s&'\"]+")

ABSENT = "\N{EN DASH}"  # where there is no number
SHORTEST_NAME = 12  # letters, to which a name in a table may be folded
PATIENCE = 2.0  # seconds that work may take without showing how far it is
BETWEEN_LINES = 10.0  # seconds between two lines of it where there is no terminal
BETWEEN_BARS = 0.1  # seconds between two pictures of the bar in a terminal


def without_password(text: str) -> str:
    """A text in which no address gives its password away."""
    if "://" not in text:
        return text
    return SECRET_IN_QUERY.sub(r"\1***", URL_PASSWORD.sub(r"\1:***@", text))


def plain(text: object) -> str:
    """A name or value without effect on a terminal, on one line: what is no letter as escapes."""
    return plain_lines(text).replace("\n", "\\n")


def plain_lines(text: object) -> str:
    """A text without effect on a terminal: control and formatting characters as escapes."""
    text = without_password(str(text))
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
    _write(" ".join(plain_lines(text) for text in texts) + "\n", error)


def warn(text: object) -> None:
    """Print ``warning: …`` to stderr."""
    say(f"warning: {text}", error=True)


def say_conditions(conditions: Mapping[str, object]) -> None:
    """Print a line for each thing that must be known of the numbers above."""
    for name, text in conditions.items():
        say(f"{name:12s} {text}")


def some(names: Sequence[object], most: int = 5, between: str = ", ") -> str:
    """``a, b, c, d, e and 7 more``: the first names, and how many more there are."""
    shown = between.join(str(name) for name in names[:most])
    if len(names) <= most:
        return shown
    gap = between if "\n" in between else " "  # lines go on as lines
    return f"{shown}{gap}and {len(names) - most} more"


def rounded(value: float | None, digits: int = 3, sign: str = "") -> str:
    """A number as people read it; `ABSENT` where there is none.

    Args:
        value: The number.
        digits: Behind the point; at most one from 10 on, none from 1000 on.
        sign: ``+`` shows a plus.
    """
    if value is None or not math.isfinite(value):
        return ABSENT
    most = 0 if abs(value) >= 1000 else 1 if abs(value) >= 10 else digits
    return format(value, f"{sign},.{min(digits, most)}f")


def between(ends: Sequence[float | None] | None, digits: int = 3) -> str:
    """``[low, high]``, or nothing where there is no interval."""
    if ends is None or any(end is None or math.isnan(end) for end in ends):
        return ""
    return f"[{', '.join(rounded(end, digits) for end in ends)}]"


def p_value(value: float | None) -> str:
    """A p-value: ``< 0.001`` where it is smaller."""
    return "< 0.001" if value is not None and value < 0.001 else rounded(value)


def say_table(
    columns: Sequence[str],
    rows: Iterable[Sequence[object]],
    title: str | None = None,
    left: int = 1,
    red: Collection[int] = (),
    bare: bool = False,
) -> None:
    """Print a table. Numbers are never cut or folded; outside a terminal nothing is.

    Args:
        columns: Heads.
        rows: Cells in order of the columns.
        title: Above the table.
        left: So many of the first columns hold names: they are aligned to the left, and folded
            where a terminal is too narrow; the others are aligned to the right.
        red: Numbers of the rows, from 0, that must be seen.
        bare: Outside a terminal without frames: one line a row, for other programs.
    """
    from rich import box
    from rich.table import Table
    from rich.text import Text

    def text(cell: object) -> Text:
        return Text(plain(cell))

    lines = [[text(cell) for cell in row] for row in rows]
    framed = _is_terminal(sys.stdout) or not bare
    table = Table(
        title=text(title) if title else None,
        title_justify="left",
        box=box.HEAVY_HEAD if framed else None,
        pad_edge=framed,
    )
    for place, name in enumerate(columns):
        head = text(name)
        if place < left:
            table.add_column(head, overflow="fold")
        else:
            widest = max(cell.cell_len for cell in (head, *(line[place] for line in lines)))
            table.add_column(head, justify="right", no_wrap=True, min_width=widest)
    for number, line in enumerate(lines):
        table.add_row(*line, style="red" if number in red else "")
    frame = 3 * len(columns) + 1
    numbers = sum(column.min_width or 0 for column in table.columns)
    say_rich(table, frame + numbers + SHORTEST_NAME * left)


def say_rich(content: Any, least: int = 0) -> None:
    """Print anything that rich draws; texts in it must be made by `plain`, not as markup.

    Args:
        content: For rich.
        least: Letters in a line that it needs; a terminal that has fewer folds the lines itself.
    """
    from rich.console import Console

    stream = sys.stdout
    encoding = getattr(stream, "encoding", None) or "utf-8"
    # rich asks the stream which letters it may draw lines with
    buffer = io.TextIOWrapper(io.BytesIO(), encoding, errors="replace", newline="")
    terminal = _is_terminal(stream)
    console = Console(
        file=buffer,
        force_terminal=terminal,
        width=None if terminal else 1000,
        highlight=False,
        markup=False,
        soft_wrap=True,
        emoji=False,
    )
    if console.width < least:
        console.width = 1000
    console.print(content)
    buffer.flush()
    _write(buffer.buffer.getvalue().decode(encoding, "replace"))


class Progress:
    """How far a work is, and how long it will take, on stderr; silent if that is short.

    In a terminal a bar, elsewhere a line every ten seconds and one at the end. Of the processes
    that train together only the first one shows any.

    Args:
        what: Is being done, such as ``reading``.
        total: How much there is to do, if that is known.
        unit: ``bytes``, or nothing for counts.
    """

    def __init__(self, what: str, total: int | None = None, unit: str = "") -> None:
        self.what, self.total, self.unit = what, total, unit
        self.done = 0
        self._began = self._shown = time.monotonic()
        self._lines = 0
        self._silent = not is_first_process()
        self._bar = _is_terminal(sys.stderr)

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *error: object) -> None:
        global _bar
        with _lock:
            if _bar is self:
                _erase_bar()
                _bar = None
        whole = self.total is None or self.done >= self.total
        if not self._bar and not self._silent and whole and self.seconds >= PATIENCE:
            say(
                f"{self.what} {self._amount(self.done)}: done in {duration(self.seconds)}",
                error=True,
            )

    def __call__(self, done: int, total: int | None = None) -> None:
        """So much is done; the total may be told here if it was not known."""
        self.done, self.total = done, self.total if total is None else total
        now = time.monotonic()
        pause = BETWEEN_BARS if self._bar else BETWEEN_LINES
        if self._silent or now - self._began < PATIENCE or now - self._shown < pause:
            return
        self._shown = now
        if self._bar:
            _draw_bar(self)
        else:
            say(self.line(), error=True)

    @property
    def seconds(self) -> float:
        """Since it began."""
        return time.monotonic() - self._began

    def line(self, width: int = 0) -> str:
        """``reading 1200 of 5000 (24 %), 0:32 left``; with a bar where there is width for it."""
        if not self.total:
            return f"{self.what} {self._amount(self.done)}"
        share = min(1.0, self.done / self.total)
        text = f"{self.what} {self._amount(self.done)} of {self._amount(self.total)}"
        text += f" ({100 * share:.0f} %)"
        if 0 < share < 1:
            text += f", {duration(self.seconds * (1 - share) / share)} left"
        cells = min(30, width - len(text) - 4)
        if cells >= 10:
            full = round(cells * share)
            text += f" [{'#' * full}{'.' * (cells - full)}]"
        return text[: width - 1] if width else text

    def _amount(self, number: int) -> str:
        return f"{number / 1e6:.1f} MB" if self.unit == "bytes" else str(number)


def is_first_process() -> bool:
    """Whether this is the process that writes and speaks, of those that train together."""
    return all(os.environ.get(name, "0") == "0" for name in ("LOCAL_RANK", "SLURM_PROCID"))


def progress(items: Iterable[T], what: str, total: int | None = None) -> Iterator[T]:
    """The items, with a `Progress` of what is done with each of them.

    Args:
        items: Of any kind.
        what: Is being done, such as ``reading``.
        total: How many there are, where the items cannot tell.
    """
    if total is None and isinstance(items, Sized):
        total = len(items)
    with Progress(what, total) as show:
        for done, item in enumerate(items, start=1):
            yield item
            show(done)


def duration(seconds: float) -> str:
    """``0:32`` minutes, or ``1:05:00`` hours."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def settle_streams() -> None:
    """Make stdout and stderr such that nobody's printing can fail, whoever prints.

    What their encoding lacks becomes ``?``; what a closed pipe or a full disk does not take is
    lost. A stream that was closed before the program began leads nowhere, so that no file that is
    opened later gets its number.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        stream = getattr(sys, name)
        if stream is None:
            if not _is_open(number):
                _close_for_good(number)
            if number:
                setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
        elif number and type(stream) is io.TextIOWrapper and stream is getattr(sys, f"__{name}__"):
            with contextlib.suppress(ValueError, OSError):
                stream.flush()
                lossy = io.BufferedWriter(_Lossy(stream.fileno(), "w", closefd=False))
                interactive = stream.isatty() or number == 2
                settled = io.TextIOWrapper(
                    lossy,
                    stream.encoding,
                    "replace",
                    line_buffering=interactive,
                    write_through=stream.write_through,
                )
                setattr(sys, name, settled)


def output_was_lost() -> bool:
    """Whether stdout did not take what was printed, for another reason than a reader who left."""
    return _Lossy.failed


class _Lossy(io.FileIO):
    """A stream whose writing never fails: what it cannot take is lost, and so is the rest."""

    failed = False  # of stdout

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except OSError as reason:
            _close_for_good(self.fileno())
            if self.fileno() == 1 and not isinstance(reason, BrokenPipeError):
                _Lossy.failed = True
                warn(f"stdout cannot be written ({reason.strerror}); the rest is not shown")
            return memoryview(data).nbytes


def _close_for_good(number: int) -> None:
    """Let a file descriptor lead nowhere."""
    with contextlib.suppress(OSError):
        nowhere = os.open(os.devnull, os.O_RDWR)
        if nowhere != number:
            os.dup2(nowhere, number)
            os.close(nowhere)


def _is_open(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return False
    return True


def _is_terminal(stream: Any) -> bool:
    with contextlib.suppress(AttributeError, ValueError):  # closed
        return bool(stream.isatty())
    return False


_lock = threading.RLock()
_bar: Progress | None = None  # what the last line of the terminal shows


def _draw_bar(progress: Progress) -> None:
    global _bar
    with _lock:
        width = 80
        with contextlib.suppress(OSError, ValueError):
            width = os.get_terminal_size(sys.stderr.fileno()).columns or width
        _put(sys.stderr, "\r" + plain(progress.line(width)) + "\x1b[K")
        _bar = progress


def _erase_bar() -> None:
    if _bar is not None:
        _put(sys.stderr, "\r\x1b[K")


def _write(text: str, error: bool = False) -> None:
    with _lock:
        _erase_bar()  # it comes again at the next step
        _put(sys.stderr if error else sys.stdout, text)


def _put(stream: TextIO | None, text: str) -> None:
    if stream is None:  # closed before the program began
        return
    # of a program the streams are settled; here is what a library's caller may have
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
        with contextlib.suppress(OSError, ValueError):
            _close_for_good(stream.fileno())
        if stream is sys.stdout and not isinstance(reason, BrokenPipeError):
            warn(f"stdout cannot be written ({reason.strerror}); the rest is not shown")
