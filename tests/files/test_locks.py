"""Who holds a place: one process at a time, on one machine or on several that share a disk."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from anatosegnet.files import locks
from anatosegnet.files.locks import Claim, holder, is_abandoned

HOLDER = """
import sys, time
from pathlib import Path
from anatosegnet.files.locks import Claim
print(Claim(Path(sys.argv[1])).take(), flush=True)
time.sleep(60)
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The file of a claim, in a folder that is not there yet."""
    return tmp_path / "job" / ".lock"


@pytest.fixture
def other(path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the claim."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "True\n"
    yield process
    process.kill()
    process.wait()


def of_elsewhere(path: Path, silent: float = 0) -> None:
    """A claim of another machine that the system's locks do not reach."""
    path.parent.mkdir(exist_ok=True)
    path.write_text("machine 12 elsewhere\n")
    then = time.time() - silent
    os.utime(path, (then, then))


def test_a_claim_is_of_one_process_until_it_is_killed(
    other: subprocess.Popen[str], path: Path
) -> None:
    """Breaks if two processes work in one place, or a killed one blocks it."""
    claim = Claim(path)
    assert not claim.take() and not claim.is_taken
    assert (found := holder(path)) is not None
    assert found.certain and str(found).startswith(f"process {other.pid} on ")
    assert not is_abandoned(path)
    other.send_signal(signal.SIGKILL)
    other.wait()
    assert holder(path) is None and is_abandoned(path)
    assert claim.take() and holder(path) is not None
    claim.release()
    assert not list(path.parent.iterdir())
    claim.release()  # a second time does nothing
    assert claim.take()  # again
    claim.release()


def test_a_claim_of_another_machine_lives_by_its_signs(path: Path) -> None:
    """Breaks if two machines train one job where flock does not reach, or a dead one blocks it."""
    of_elsewhere(path)
    assert not Claim(path).take()
    found = holder(path)
    assert found is not None and not found.certain and str(found) == "process 12 on elsewhere"
    of_elsewhere(path, silent=locks.SILENCE + 5)
    assert holder(path) is None
    claim = Claim(path)
    assert claim.take()
    assert path.read_text().split()[0] == locks.this_machine()
    claim.release()


def test_whether_a_silent_holder_is_dead_is_waited_for(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Breaks if a job is left because its worker died a moment ago, or taken from a live one."""
    monkeypatch.setattr(locks, "SILENCE", 1.0)
    of_elsewhere(path)
    assert is_abandoned(path)
    of_elsewhere(path)
    monkeypatch.setattr(time, "sleep", lambda _: of_elsewhere(path, silent=0.5))  # a sign of life
    assert not is_abandoned(path)


def test_signs_of_life(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks if a holder gives no signs of life, or goes on with them in another's claim."""
    monkeypatch.setattr(locks, "BEAT", 0.01)
    claim = Claim(path)
    assert claim.take()
    os.utime(path, (0, 0))
    deadline = time.monotonic() + 30
    while path.stat().st_mtime == 0 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert path.stat().st_mtime > 0
    path.unlink()
    of_elsewhere(path, silent=50)  # we were silent for too long
    claim.release()
    assert path.read_text() == "machine 12 elsewhere\n"
    assert time.time() - path.stat().st_mtime > 40


@pytest.mark.parametrize("content", ["", "half a"])
def test_a_claim_that_is_being_written(path: Path, content: str) -> None:
    """Breaks if a claim is taken from one who just made it, or an old empty one blocks a run."""
    of_elsewhere(path)
    path.write_text(content)
    assert not Claim(path).take()
    os.utime(path, (0, 0))
    claim = Claim(path)
    assert claim.take()
    claim.release()


def test_without_locks_of_the_system_signs_decide(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Breaks if a disk without flock lets two processes in, or nobody after a kill."""
    monkeypatch.setattr(locks, "lock", lambda *_, **__: None)
    first, second = Claim(path), Claim(path)
    assert first.take() and not second.take()
    os.utime(path, (0, 0))  # killed long ago
    assert second.take()
    second.release()
    first.release()


def test_many_at_once(path: Path) -> None:
    """Breaks if a dead claim, or a new one, can be taken by two processes that come together."""
    path.parent.mkdir()
    for _ in range(20):
        path.write_text(f"{locks.this_machine()} 1 here\n")
        children = []
        ready, go = os.pipe()
        for _ in range(4):
            if (child := os.fork()) == 0:
                os.close(go)
                os.read(ready, 1)  # ends when all have begun
                taken = Claim(path).take()
                if taken:
                    time.sleep(0.2)
                os._exit(int(taken))
            children.append(child)
        os.close(ready)
        os.close(go)
        statuses = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
        assert sum(statuses) == 1
        path.unlink(missing_ok=True)
