"""A sweep whose workers are killed comes to the very numbers of one that nobody disturbed.

The workers are forked: the parent has everything imported, and each is a whole ``train -m``.
"""

import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning
import pytest

from anatosegnet.files import locks
from anatosegnet.run import Run
from anatosegnet.sweep import Sweep
from anatosegnet.train import train
from anatosegnet.training import begin, sweeper
from tests.commands import PHANTOMS, QUICK, Shell
from tests.running import compose_tiny

pytestmark = pytest.mark.slow

GRID = (*QUICK, *PHANTOMS, "trainer.max_epochs=2", "test=true", "seed=0,1", "run_dir=sweep",
        "resume=auto")  # fmt: skip
KILLS = 8


def start(shell: Shell, name: str, prepare: Callable[[], object] = bool) -> int:
    """A worker on the sweep of a folder."""
    log = shell.folder / f"{name}.log"
    arguments = ("--config-dir", str(shell.configs), "-m", *GRID)
    return shell.start("train", *arguments, streams=(log, log), prepare=prepare)


def finish(shell: Shell) -> None:
    """Let a worker do what is left; it must do all of it."""
    pid = start(shell, "last")
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert status == 0, (shell.folder / "last.log").read_text()
    sweep = Sweep(shell.folder / "sweep")
    assert [sweep.run(job).state for job in sweep.jobs] == ["finished", "finished"]
    assert not list(sweep.directory.rglob(".*")), "what a killed worker left"


def results(shell: Shell) -> dict[str, Any]:
    """All that a sweep came to."""
    found: dict[str, Any] = {}
    for path in sorted((shell.folder / "sweep").glob("*/metrics.csv")):
        summary = Run(path.parent).summary
        found[path.parent.name] = path.read_bytes(), summary["test/iou"], summary["best_epoch"]
    return found


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, one_thread: None) -> tuple[Shell, float]:
    """A sweep that nobody disturbed, compared, and the seconds that its training took."""
    shell = Shell(tmp_path_factory.mktemp("whole"))
    first = shell.folder / "first"
    train(compose_tiny(first, "test=true"), Run(first))  # imports and caches, once for all
    begun = time.monotonic()
    finish(shell)
    seconds = time.monotonic() - begun
    shell("compare", "runs=sweep")
    return shell, seconds


@pytest.mark.parametrize("workers", [1, 2])
def test_killed_at_random_moments(workers: int, whole: tuple[Shell, float], shell: Shell) -> None:
    """Breaks if kills cost a job, train one twice, or change one byte of the table."""
    undisturbed, seconds = whole
    draw, pids, phases = random.Random(workers), dict.fromkeys(range(workers), 0), set()
    for kill in range(KILLS):
        for worker, pid in pids.items():
            if not pid:
                pids[worker] = start(shell, f"{worker}-{kill}")
        time.sleep(seconds * draw.uniform(0.05, 0.6))
        worker = draw.choice(list(pids))
        os.kill(pids[worker], signal.SIGKILL)  # a zombie, if it was done
        os.waitpid(pids[worker], 0)
        pids[worker] = 0
        runs = [Run(shell.folder / "sweep" / str(number)) for number in (0, 1)]
        phases.add(tuple((run.state, run.last_path.is_file()) for run in runs))
        if all(run.state == "finished" for run in runs):
            break
    for pid in filter(None, pids.values()):
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    finish(shell)
    assert results(shell) == results(undisturbed)
    assert len(phases) > 1, "all kills fell into the same phase"
    shell("compare", "runs=sweep")
    for end in ("csv", "md", "tex"):
        table = Path("sweep", "comparison", f"comparison.{end}")
        assert (shell.folder / table).read_bytes() == (undisturbed.folder / table).read_bytes()


def dying(function: Callable[..., Any], before: bool, count: int) -> Callable[..., Any]:
    """A function whose process is killed before or after it is called for the n-th time."""
    calls = 0

    def call(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == count and before:
            os.kill(os.getpid(), signal.SIGKILL)
        result = function(*args, **kwargs)
        if calls == count:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    return call


# what dies, before or after which call of it
MOMENTS = {
    "recorded": (Sweep, "begin", False, 1),
    "claiming": (locks, "is_at", True, 1),
    "claimed": (locks.Claim, "take", False, 1),
    "beginning": (begin, "write_split", False, 1),
    "testing": (lightning.Trainer, "test", True, 1),
    "tested": (lightning.Trainer, "test", False, 2),
    "finished": (locks.Claim, "release", True, 1),
    "between": (locks.Claim, "release", False, 1),
    "last": (sweeper, "unfinished", True, 1),
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_killed_at_the_worst_moments(moment: str, whole: tuple[Shell, float], shell: Shell) -> None:
    """Breaks if a worker that dies with a claim, or in a test, leaves a job that cannot be done."""
    owner, name, before, count = MOMENTS[moment]

    def prepare() -> None:
        setattr(owner, name, dying(getattr(owner, name), before, count))

    pid = start(shell, "killed", prepare)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert status == -signal.SIGKILL, (shell.folder / "killed.log").read_text()
    finish(shell)
    assert results(shell) == results(whole[0])
