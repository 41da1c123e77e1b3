"""What is printed: foreign text as it is, no printing that can fail, and how far a work is."""

import io
import os
import pty
import subprocess
import sys
import time
from pathlib import Path

import pytest

from anatosegnet import console
from anatosegnet.console import (
    Progress,
    duration,
    plain,
    progress,
    say,
    say_table,
    some,
    without_password,
)

EVIL = "a[/x][bold]\x1b[31mred\N{RIGHT-TO-LEFT OVERRIDE}:smile: \nb"


def in_terminal(code: str, columns: int = 60) -> str:
    """What a program shows in a terminal of so many columns."""
    parent, child = pty.openpty()
    environment = {**os.environ, "COLUMNS": str(columns), "TERM": "xterm"}
    with subprocess.Popen([sys.executable, "-c", code], stdin=child, stdout=child, stderr=child,
                          env=environment):  # fmt: skip
        os.close(child)
        shown = b""
        while True:
            try:
                shown += (new := os.read(parent, 65536))
            except OSError:  # the program has ended
                break
            if not new:
                break
    os.close(parent)
    return shown.decode()


def test_no_text_is_markup_or_acts_on_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """Breaks if a name of data ends a program, vanishes, or colours the terminal."""
    say_table(["run [x]", "n"], [[EVIL, 1], ["b", 2]], title="t[/]")
    say(EVIL)
    output = capsys.readouterr().out
    assert output.count("a[/x][bold]\\x1b[31mred\\u202e:smile: ") == 2
    assert "run [x]" in output
    assert "t[/]" in output
    assert "\x1b" not in output
    assert "\\nb" in output  # a cell stays in its row


def test_passwords_are_not_shown(capsys: pytest.CaptureFixture[str]) -> None:
    """Breaks if the URL of a database is printed with its password, whatever letters it has."""
    shown = {
        "search.storage=postgresql://me:secret@host:5432/db trainer=cpu":
            "search.storage=postgresql://me:***@host:5432/db trainer=cpu",
        "'mysql+pymysql://me:s@:/cret@host/db'": "'mysql+pymysql://me:***@host/db'",
        "postgresql://host/db?user=me&password=secret&x=1":
            "postgresql://host/db?user=me&password=***&x=1",
        "redis://:secret@host": "redis://:***@host",
        "https://host:8080/path": "https://host:8080/path",
        "a plain: text@home": "a plain: text@home",
    }  # fmt: skip
    for text, expected in shown.items():
        assert without_password(text) == expected
        say(text)
        assert capsys.readouterr().out == expected + "\n"


def test_the_first_five_and_a_count() -> None:
    """Breaks if a message grows with the number of the things at fault."""
    assert some("abc") == "a, b, c"
    assert some("abcdefg") == "a, b, c, d, e and 2 more"
    assert some("abcdefg", 2, "\n  - ") == "a\n  - b\n  - and 5 more"


SHOW = """
from anatosegnet.console import say, say_table, settle_streams
settle_streams()
say_table(["setting", "IoU [95 % CI]"], [["/a/long/name/" * 9, "0.812 ± 0.1 [0.7, 0.9]"]], red=[0])
say("the end")
"""


def test_numbers_are_whole_in_narrow_terminals() -> None:
    """Breaks if a terminal of few columns cuts a score or an interval."""
    for columns in (20, 50, 80):
        shown = in_terminal(SHOW, columns)
        assert "0.812 ± 0.1 [0.7, 0.9]" in shown
        assert "/long/" in shown


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_letters_that_an_encoding_lacks(encoding: str) -> None:
    """Breaks if a table ends a program where the encoding is not UTF-8, or is drawn in ``?``."""
    environment = {**os.environ, "PYTHONIOENCODING": encoding}
    result = subprocess.run([sys.executable, "-c", SHOW], capture_output=True, env=environment)
    assert result.returncode == 0
    assert result.stderr == b""
    output = result.stdout.decode(encoding)
    assert output.endswith("the end\n")
    assert output.startswith("+--")
    assert ("?" in output) == (encoding == "ascii")


OTHERS = """
import sys
from anatosegnet.console import output_was_lost, settle_streams
settle_streams()
for _ in range(3):
    print("x" * 9000)
    print("é", file=sys.stderr)
    sys.stdout.flush()
open("result", "w").write(str(output_was_lost()))
"""


@pytest.mark.parametrize(
    ("redirection", "lost"),
    [("| head -c 1", False), ("> /dev/full", True), (">&-", False), (">&- 2>&- <&-", False)],
)
def test_nobodys_printing_fails(redirection: str, lost: bool, tmp_path: Path) -> None:
    """Breaks if a closed pipe, a full disk or a closed stream ends what a library prints in."""
    (tmp_path / "p.py").write_text(OTHERS)
    command = f"set -o pipefail; {sys.executable} p.py {redirection}"
    result = subprocess.run(["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "Traceback" not in result.stderr
    assert "BrokenPipe" not in result.stderr
    assert (tmp_path / "result").read_text() == str(lost)
    assert result.stderr.count("stdout cannot be written (No space left on device)") == lost


def test_short_work_shows_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    """Breaks if each small dataset costs a line."""
    assert list(progress([1, 2, 3], "reading")) == [1, 2, 3]
    assert capsys.readouterr() == ("", "")


def test_long_work_is_followed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Breaks if a work of minutes is silent in a log, or fills it."""
    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    for _ in progress(range(100), "reading"):
        now += 1.0
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "reading 10 of 100 (10 %), 1:30 left"
    assert lines[-1] == "reading 100: done in 1:40"
    assert len(lines) == 11
    monkeypatch.setenv("LOCAL_RANK", "1")
    for _ in progress(range(100), "reading"):
        now += 1.0
    assert capsys.readouterr().err == ""


def test_a_bar_gives_way_to_lines() -> None:
    """Breaks if a message in a terminal is written into the bar, or the bar stays behind."""
    code = """
import time
from anatosegnet import console
console.PATIENCE, console.BETWEEN_BARS = 0, 0
for number in console.progress(range(4), "reading \\x1b[31m"):
    time.sleep(0.01)
    if number == 2:
        console.say("a message")
"""
    shown = in_terminal(code)
    assert "reading \\x1b[31m 2 of 4 (50 %), 0:00 left [###" in shown
    assert "\r\x1b[Ka message\r\n" in shown
    assert shown.endswith("\r\x1b[K")


def test_progress_in_bytes_and_without_a_total() -> None:
    """Breaks if a download whose length is unknown stops, or counts bytes one by one."""
    show = Progress("busi.zip", unit="bytes")
    show(2_500_000)
    assert show.line() == "busi.zip 2.5 MB"
    show(2_500_000, 10_000_000)
    assert show.line(200).startswith("busi.zip 2.5 MB of 10.0 MB (25 %)")
    assert duration(3725) == "1:02:05"


def test_streams_of_a_librarys_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks if printing raises where the streams are somebody else's."""

    class Full(io.StringIO):
        def write(self, text: str) -> int:
            raise OSError(28, "No space left on device")

    closed = io.StringIO()
    closed.close()
    for stream in (None, closed, Full()):
        monkeypatch.setattr(sys, "stdout", stream)
        say("a")
        say_table(["a"], [["b"]])
    assert plain("a\tb") == "a\\tb"
    assert plain("torch.nn.ReLU\n") == "torch.nn.ReLU\\n"
    assert console.output_was_lost() is False
