"""Writing whole or not at all: names, full and closed disks, and what killed processes leave."""

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from anatosegnet.cli import errors_in_one_line, unexpected
from anatosegnet.errors import UserError, of_the_disk
from anatosegnet.files.writing import remove_leftovers, replacing, replacing_directory
from anatosegnet.run import Run

WRITER = """
import sys, time
from pathlib import Path
from anatosegnet.files.writing import replacing, replacing_directory
kind, path = sys.argv[1], Path(sys.argv[2])
with (replacing if kind == "file" else replacing_directory)(path) as temporary:
    (temporary if kind == "file" else temporary / "scores.csv").write_text("half")
    print("writing", flush=True)
    time.sleep(60)
"""


@pytest.fixture(params=["file", "directory"])
def writer(request: pytest.FixtureRequest, tmp_path: Path) -> subprocess.Popen[str]:
    """Another process in the middle of writing ``place/result``."""
    (tmp_path / "place").mkdir()
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, request.param, str(tmp_path / "place/result")],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "writing\n"
    yield process
    process.kill()
    process.wait()


def test_leftovers_of_the_dead_are_removed_and_of_the_living_kept(
    writer: subprocess.Popen[str], tmp_path: Path
) -> None:
    """Breaks if a killed evaluation leaves its files for good, or a running one loses them."""
    place = tmp_path / "place"
    foreign = place / ".somebody.123.tmp"
    foreign.write_text("not ours")
    (temporary,) = set(place.iterdir()) - {foreign}
    with replacing_directory(place / "other") as mine:
        (mine / "a").touch()
    assert temporary.exists()
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    with replacing_directory(place / "other", overwrite=True) as mine:
        (mine / "b").touch()
        remove_leftovers(place)
        assert mine.exists()
    assert {path.name for path in place.iterdir()} == {"other", foreign.name}
    assert [path.name for path in (place / "other").iterdir()] == ["b"]


def test_a_killed_evaluation_does_not_stop_resuming(tmp_path: Path) -> None:
    """Breaks if training stumbles over a directory that a killed evaluation left in the run."""
    run = Run(tmp_path / "run")
    script = [sys.executable, "-c", WRITER, "directory", str(run.directory / "evaluation/phantom")]
    with subprocess.Popen(script, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.kill()
    with run.locked():
        assert list((run.directory / "evaluation").iterdir()) == []


def test_the_longest_names_can_be_written(tmp_path: Path) -> None:
    """Breaks if a temporary name is longer than the name that it stands for."""
    path = tmp_path / ("L" * 251 + ".png")
    with replacing(path) as temporary:
        assert temporary.suffix == ".png"
        temporary.write_text("x")
    assert path.read_text() == "x"
    with replacing_directory(tmp_path / ("d" * 255)) as folder:
        (folder / "a").touch()
    assert (tmp_path / ("d" * 255) / "a").exists()


def test_what_cannot_be_written_is_named(tmp_path: Path) -> None:
    """Breaks if a message names the temporary file, or nothing."""
    (tmp_path / "file").touch()
    with pytest.raises(OSError) as error, replacing(tmp_path / "result.csv"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert of_the_disk(error.value) == (
        f"{tmp_path}/result.csv: No space left on device; make room, then give the same command "
        "again"
    )
    with pytest.raises(OSError) as error, replacing_directory(tmp_path / "file" / "results"):
        pass
    assert str(of_the_disk(error.value)).startswith(f"{tmp_path}/file/results: Not a directory")
    with pytest.raises(OSError) as error, replacing_directory(tmp_path / "results") as folder:
        (folder / "missing" / "a").write_text("x")
    assert str(of_the_disk(error.value)).startswith(f"{tmp_path}/results/missing/a: No such file")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert of_the_disk(OSError("a library's own")) is None


def test_what_was_there_stays_until_the_new_is_whole(tmp_path: Path) -> None:
    """Breaks if a failure costs the earlier results."""
    with replacing_directory(tmp_path / "results") as folder:
        (folder / "old").touch()
    with pytest.raises(UserError, match="overwrite=true"):
        replacing_directory(tmp_path / "results").__enter__()
    with pytest.raises(OSError), replacing_directory(tmp_path / "results", True) as folder:
        raise OSError(errno.EIO, "input/output error")
    assert [path.name for path in tmp_path.rglob("*")] == ["results", "old"]


@pytest.mark.parametrize("name", ["checkpoints", "evaluation", "evaluation/phantom", ".lock"])
def test_links_out_of_a_run_are_not_written_through(tmp_path: Path, name: str) -> None:
    """Breaks if a run that was handed over writes into a folder of its opener's."""
    run = Run(tmp_path / "run")
    elsewhere = tmp_path / "mine"
    elsewhere.mkdir()
    (run.directory / name).parent.mkdir(parents=True)
    (run.directory / name).symlink_to(elsewhere)
    with pytest.raises(UserError, match="is a link out of the run"), run.locked():
        pass
    elsewhere.rmdir()  # a link to what could be made there
    with pytest.raises(UserError, match="is a link out of the run"), run.locked():
        pass
    assert not elsewhere.exists()


def test_a_run_may_be_a_link_and_hold_links(tmp_path: Path) -> None:
    """Breaks if a run on another disk, or a logger's own link inside it, is refused."""
    (tmp_path / "there" / "logs" / "first").mkdir(parents=True)
    (tmp_path / "there" / "logs" / "latest").symlink_to("first")
    (tmp_path / "run").symlink_to("there")
    with Run(tmp_path / "run").locked():
        pass


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo])
def test_a_lock_that_is_no_file_is_one_line(tmp_path: Path, make: Callable[[Path], None]) -> None:
    """Breaks if a folder or a pipe in the place of the lock is a traceback, or is waited for."""
    make(tmp_path / ".lock")
    with pytest.raises(UserError, match="is not a file"), Run(tmp_path).locked():
        pass


def test_a_disk_that_refuses_is_one_line_in_every_verb(capsys: pytest.CaptureFixture[str]) -> None:
    """Breaks if a read-only or full disk is a traceback, or said as something unexpected."""
    for number in (errno.EROFS, errno.ENOSPC, errno.EACCES):
        with pytest.raises(SystemExit) as stopped, errors_in_one_line(), unexpected():
            raise OSError(number, os.strerror(number), "/a/place")
        assert stopped.value.code == 2
        line = capsys.readouterr().err
        assert line.startswith(f"error: /a/place: {os.strerror(number)}; ")
        assert "DEBUG" not in line


@pytest.mark.parametrize("make", [os.mkfifo, Path.touch, lambda path: path.symlink_to("other")])
def test_only_a_folder_is_overwritten(tmp_path: Path, make: Callable[[Path], object]) -> None:
    """Breaks if a pipe in the place of earlier results is waited for, or a link is left behind."""
    make(tmp_path / "results")
    with (
        pytest.raises(UserError, match="is not a folder"),
        replacing_directory(tmp_path / "results", overwrite=True),
    ):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["results"]
