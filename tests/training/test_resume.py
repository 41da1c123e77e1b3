"""A run that is killed goes on to the very same weights.

The trainings run in forked processes of a tiny network, so that many kills cost seconds: the
parent has everything imported, and each child is a whole `train` of its own.
"""

import json
import os
import random
import resource
import shutil
import signal
import sys
import time
import traceback
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import DictConfig
from torch import Tensor

import anatosegnet.run
import anatosegnet.training.callbacks
import anatosegnet.training.checkpoints
import anatosegnet.training.module
from anatosegnet.errors import UserError
from anatosegnet.files.checkpoint import read_checkpoint
from anatosegnet.run import Run
from anatosegnet.train import train
from anatosegnet.training import begin
from anatosegnet.training.build import build_module
from anatosegnet.training.checkpoints import usable_checkpoint
from tests.running import compose_tiny, wait_for

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]
EPOCHS = 4  # of compose_tiny


def resumed(run: Run) -> DictConfig:
    """The config that ``resume=DIR`` would train with."""
    config = Run(run.directory, trust=["tests"]).config  # of compose_tiny's network
    config.resume = str(run.directory)
    return config


class Child:
    """A forked process that runs a function; its output goes to a file."""

    def __init__(self, function: Callable[[], Any], log: Path) -> None:
        self.log = log
        self.pid = os.fork()
        if self.pid == 0:
            status = 70
            try:
                with log.open("w", buffering=1) as file:
                    sys.stdout = sys.stderr = file
                    try:
                        function()
                        status = 0
                    except UserError as error:
                        print(f"error: {error}", flush=True)
                        status = 2
                    except SystemExit as stop:
                        status = int(stop.code or 0)
                    except BaseException:
                        traceback.print_exc()
            finally:
                os._exit(status)

    def kill(self, signum: int = signal.SIGKILL) -> None:
        """Send a signal, if it still runs."""
        os.kill(self.pid, signum)

    def wait(self) -> int:
        """Its exit status; minus the signal that killed it."""
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, float]:
    """A run that nothing interrupted, and how long it took."""
    directory = tmp_path_factory.mktemp("whole")
    run = Run(directory / "run")
    train(
        compose_tiny(directory / "first"), Run(directory / "first")
    )  # imports and caches, once for all
    start = time.monotonic()
    child = Child(lambda: train(compose_tiny(run.directory), run), directory / "log")
    assert child.wait() == 0, child.log.read_text()
    return run, time.monotonic() - start


def assert_same_end(run: Run, whole: Run) -> None:
    """Weights, optimiser and metrics of two runs are equal to the bit."""
    assert json.loads(run.summary_path.read_text())["state"] == "finished"
    assert run.metrics_path.read_text() == whole.metrics_path.read_text()
    for path, other in ((run.last_path, whole.last_path), (run.best_path, whole.best_path)):
        ours, theirs = (torch.load(p, weights_only=True) for p in (path, other))
        for part in ("state_dict", "optimizer_states", "lr_schedulers"):
            assert_equal(ours.get(part), theirs.get(part), part)


def assert_equal(ours: Any, theirs: Any, where: str) -> None:
    """Nested containers of tensors and numbers are equal."""
    if isinstance(theirs, dict):
        assert list(ours) == list(theirs), where
        for key in theirs:
            assert_equal(ours[key], theirs[key], f"{where}.{key}")
    elif isinstance(theirs, list | tuple):
        assert len(ours) == len(theirs), where
        for index, item in enumerate(theirs):
            assert_equal(ours[index], item, f"{where}[{index}]")
    elif isinstance(theirs, Tensor):
        assert torch.equal(ours, theirs), where
    else:
        assert ours == theirs, where


def go_on(run: Run, tmp_path: Path) -> Child:
    """Resume as the command line would: or begin anew, where nothing had been written."""
    config = resumed(run) if run.exists else compose_tiny(run.directory)
    child = Child(lambda: train(config, run), tmp_path / "resumed")
    assert child.wait() == 0, child.log.read_text()
    return child


def test_killed_at_random_moments(whole: tuple[Run, float], tmp_path: Path) -> None:
    """Breaks if a SIGKILL at any moment costs more than the epoch it fell into, or one bit."""
    uninterrupted, seconds = whole
    draw = random.Random(0)
    states = set()
    for trial in range(20):
        folder = tmp_path / str(trial)
        folder.mkdir()
        run = Run(folder / "run")
        child = Child(lambda run=run: train(compose_tiny(run.directory), run), folder / "log")
        time.sleep(seconds * draw.uniform(0.05, 0.95))
        child.kill()
        status = child.wait()
        assert status in (-signal.SIGKILL, 0)
        if status == 0:  # too late: the machine was busier when the time was taken
            seconds /= 2
        states.add((run.exists, run.last_path.is_file(), run.previous_path.is_file()))
        go_on(run, folder)
        assert_same_end(run, uninterrupted)
        assert not list(run.directory.rglob(".*")), "what the killed process was writing"
        shutil.rmtree(run.directory)
    assert len(states) > 1, "all kills fell into the same phase"


MOMENTS = [
    "split", "config", "before", "half", "unlinked", "renamed", "metrics", "summary", "validation",
    "batch",
]  # fmt: skip


@pytest.mark.parametrize("moment", MOMENTS)
def test_killed_at_the_worst_moments(
    moment: str, whole: tuple[Run, float], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Breaks if dying inside a write, a validation or a batch leaves what cannot be resumed."""
    run = Run(tmp_path / "run")

    def die(*_: Any, **__: Any) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def train_and_die() -> None:
        calls = {"count": 0}

        def at(count: int, function: Callable[..., Any], before: bool = True) -> Callable[..., Any]:
            def wrapped(*args: Any, **kwargs: Any) -> Any:
                calls["count"] += 1
                if before and calls["count"] == count:
                    die()
                result = function(*args, **kwargs)
                if calls["count"] == count:
                    die()
                return result

            return wrapped

        def half(checkpoint: Any, file: Any) -> None:
            calls["count"] += 1
            if calls["count"] == 4:
                file.write(b"PK half a checkpoint")
                file.flush()
                die()
            save(checkpoint, file)

        save = torch.save
        module = anatosegnet.training.module.SegmentationModule
        if moment == "split":
            monkeypatch.setattr(begin, "write_split", at(1, begin.write_split, False))
        elif moment == "config":
            monkeypatch.setattr(Run, "write_config", at(1, Run.write_config, False))
        elif moment == "before":
            monkeypatch.setattr(torch, "save", at(4, save))
        elif moment == "half":
            monkeypatch.setattr(torch, "save", half)
        elif moment == "unlinked":
            monkeypatch.setattr(anatosegnet.training.checkpoints, "keep_as",
                                at(1, anatosegnet.training.checkpoints.keep_as, False))  # fmt: skip
        elif moment == "renamed":
            monkeypatch.setattr(os, "replace", at(12, os.replace, False))
        elif moment == "metrics":
            monkeypatch.setattr(anatosegnet.training.callbacks, "write_rows",
                                at(3, anatosegnet.training.callbacks.write_rows))  # fmt: skip
        elif moment == "summary":
            monkeypatch.setattr(Run, "update_summary", at(2, Run.update_summary))
        elif moment == "validation":
            monkeypatch.setattr(module, "validation_step", at(3, module.validation_step))
        else:
            monkeypatch.setattr(module, "training_step", at(11, module.training_step, False))
        train(compose_tiny(run.directory), run)

    child = Child(train_and_die, tmp_path / "log")
    assert child.wait() == -signal.SIGKILL, child.log.read_text()
    go_on(run, tmp_path)
    assert_same_end(run, whole[0])


def test_killed_again_and_again(whole: tuple[Run, float], tmp_path: Path) -> None:
    """Breaks if a resumed run cannot be killed and resumed in its turn."""
    run, kills = Run(tmp_path / "run"), 0
    child = Child(lambda: train(compose_tiny(run.directory), run), tmp_path / "log")
    for _ in range(EPOCHS):
        previous = run.last_path.stat().st_ino if run.last_path.is_file() else None
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:  # one more epoch
            now = run.last_path.stat().st_ino if run.last_path.is_file() else None
            if now != previous or (ended := os.waitpid(child.pid, os.WNOHANG))[0]:
                break
            time.sleep(0.001)
        else:
            pytest.fail("no epoch ended within a minute")
        if now == previous:
            assert os.waitstatus_to_exitcode(ended[1]) == 0
            break
        child.kill()
        if child.wait() == 0:
            break
        kills += 1
        child = Child(lambda: train(resumed(run), run), tmp_path / "log")
    else:
        child.wait()
    assert kills >= 2
    go_on(run, tmp_path)
    assert_same_end(run, whole[0])


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "gone"])
def test_damaged_last_checkpoint(damage: str, whole: tuple[Run, float], tmp_path: Path) -> None:
    """Breaks if a damaged last.ckpt stops a resume, is loaded, or is passed over in silence."""
    run = Run(tmp_path / "run")
    shutil.copytree(whole[0].directory, run.directory)
    content = bytearray(run.last_path.read_bytes())
    if damage == "cut":
        run.last_path.write_bytes(content[: len(content) // 2])
    elif damage == "flipped":
        with zipfile.ZipFile(run.last_path) as archive:
            entry = max(archive.infolist(), key=lambda info: info.file_size)
        content[entry.header_offset + 200] ^= 1  # amid the stored numbers
        run.last_path.write_bytes(content)
    elif damage == "empty":
        run.last_path.write_bytes(b"")
    else:
        run.last_path.unlink()
    found, remarks = usable_checkpoint(run, build_module(resumed(run)))
    assert found == run.previous_path
    assert len(remarks) == (damage != "gone")
    config = resumed(run)
    for callback in ("best", "last"):
        config.callbacks[callback].dirpath = str(run.directory / "checkpoints")
    config.callbacks.history.path = str(run.metrics_path)
    config.run_dir = str(run.directory)
    child = Child(lambda: train(config, run), tmp_path / "log")
    assert child.wait() == 0, child.log.read_text()
    assert ("cannot be used" in child.log.read_text()) == (damage != "gone")
    assert "resume from" in child.log.read_text()
    assert_same_end(run, whole[0])


def test_full_disk_keeps_the_checkpoints_before(whole: tuple[Run, float], tmp_path: Path) -> None:
    """Breaks if a failed write harms an earlier checkpoint, leaves a stump, or says nothing."""
    run = Run(tmp_path / "run")

    def train_on_a_full_disk() -> None:
        save, calls = torch.save, {"count": 0}

        def limited(checkpoint: Any, file: Any) -> None:
            calls["count"] += 1
            if calls["count"] == 4:
                signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
                resource.setrlimit(resource.RLIMIT_FSIZE, (8000, resource.RLIM_INFINITY))
            save(checkpoint, file)

        torch.save = limited
        train(compose_tiny(run.directory), run)

    child = Child(train_on_a_full_disk, tmp_path / "log")
    assert child.wait() == 2, child.log.read_text()
    error = child.log.read_text().splitlines()[-1]
    assert error.startswith("error: ") and "last.ckpt cannot be written (File too large)" in error
    assert f"resume={run.directory}" in error
    files = {"best.ckpt", "last.ckpt", "previous.ckpt"}
    assert {path.name for path in run.last_path.parent.iterdir()} <= files
    read_checkpoint(run.last_path)
    assert json.loads(run.summary_path.read_text())["state"] == "failed"
    go_on(run, tmp_path)
    assert_same_end(run, whole[0])


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_amid_a_checkpoint(
    signum: signal.Signals, whole: tuple[Run, float], tmp_path: Path
) -> None:
    """Breaks if torch's writer makes a full disk of Ctrl-C, or the checkpoint before is lost."""
    run = Run(tmp_path / "run")

    def train_and_be_told() -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        save, calls = torch.save, {"count": 0}

        class Told:
            """A file whose third write is when the signal comes."""

            def __init__(self, file: Any) -> None:
                self.file, self.writes = file, 0

            def write(self, data: Any) -> Any:
                self.writes += 1
                if self.writes == 3:
                    os.kill(os.getpid(), signum)
                return self.file.write(data)

            def flush(self) -> None:
                self.file.flush()

        def told(checkpoint: Any, file: Any) -> None:
            calls["count"] += 1
            save(checkpoint, Told(file) if calls["count"] == 4 else file)

        torch.save = told
        train(compose_tiny(run.directory), run)

    child = Child(train_and_be_told, tmp_path / "log")
    state, status = {signal.SIGINT: ("interrupted", 130), signal.SIGTERM: ("preempted", 143)}[
        signum
    ]
    assert child.wait() == status, child.log.read_text()
    assert child.log.read_text().splitlines()[-1].startswith(f"{state}; ")
    assert json.loads(run.summary_path.read_text())["state"] == state
    go_on(run, tmp_path)
    assert_same_end(run, whole[0])


@pytest.mark.parametrize("to_the_whole_job", [False, True])
def test_sigterm_saves_and_can_be_resumed(
    to_the_whole_job: bool, whole: tuple[Run, float], tmp_path: Path
) -> None:
    """Breaks if preemption loses finished epochs, or does not end with 143 and the way on.

    Or if a cluster's SIGTERM to all processes kills the workers before that.
    """
    run = Run(tmp_path / "run")
    config = compose_tiny(run.directory)
    config.data.num_workers = 2 if to_the_whole_job else 0

    def train_as_a_job() -> None:
        os.setsid()
        train(config, run)

    child = Child(train_as_a_job, tmp_path / "log")
    wait_for(run.last_path.is_file)
    (os.killpg if to_the_whole_job else os.kill)(child.pid, signal.SIGTERM)
    assert child.wait() == 143, child.log.read_text()
    assert "Traceback" not in child.log.read_text()
    assert f"resume={run.directory}" in child.log.read_text()
    assert json.loads(run.summary_path.read_text())["state"] == "preempted"
    with pytest.raises(ProcessLookupError):  # no worker is left behind
        os.killpg(child.pid, 0)
    go_on(run, tmp_path)
    assert_same_end(run, whole[0])


def test_two_processes_never_train_in_one_directory(
    whole: tuple[Run, float], tmp_path: Path
) -> None:
    """Breaks if resume=DIR of a run that still trains mixes two trainings."""
    run = Run(tmp_path / "run")
    with run.locked(), pytest.raises(UserError, match=r"is being trained by process \d+ on "):
        train(compose_tiny(run.directory), Run(run.directory))
    assert not run.directory.exists()


def test_slurm_requeues_and_goes_on(
    whole: tuple[Run, float], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Breaks if SLURM's warning does not requeue the job, or its own checkpoint gets in the way."""
    run, called = Run(tmp_path / "run"), tmp_path / "called"
    control = tmp_path / "bin" / "scontrol"
    control.parent.mkdir()
    control.write_text(f'#!/bin/sh\necho "$@" > {called}\n')
    control.chmod(0o755)
    monkeypatch.setenv("PATH", f"{control.parent}{os.pathsep}{os.environ['PATH']}")
    job = {"NTASKS": 1, "JOB_ID": 7, "PROCID": 0, "LOCALID": 0, "NODEID": 0, "NTASKS_PER_NODE": 1}
    for name, value in job.items():
        monkeypatch.setenv(f"SLURM_{name}", str(value))
    monkeypatch.setenv("SLURM_JOB_NAME", "train")
    monkeypatch.setenv("SLURM_NODELIST", "localhost")
    config = compose_tiny(run.directory, "trainer.max_epochs=400", "scheduler.T_max=4")
    child = Child(lambda: train(config, run), tmp_path / "log")
    wait_for(run.last_path.is_file)
    child.kill(signal.SIGUSR1)
    wait_for(called.is_file)
    child.kill(signal.SIGTERM)
    assert child.wait() == 143, child.log.read_text()
    assert called.read_text().split() == ["requeue", "7"]
    assert not list(run.directory.rglob("hpc_ckpt*"))
    config = resumed(run)
    epoch = torch.load(run.last_path, weights_only=True)["epoch"]
    config.trainer.max_epochs = epoch + 2
    child = Child(lambda: train(config, run), tmp_path / "resumed")
    assert child.wait() == 0, child.log.read_text()
    rows = run.metrics_path.read_text().splitlines()
    assert len(rows) == epoch + 3
    same = min(len(rows), EPOCHS)
    assert rows[:same] == whole[0].metrics_path.read_text().splitlines()[:same]


@pytest.mark.parametrize("workers", [0, 2])
def test_resume_draws_the_cases_of_its_own_epoch(
    workers: int, whole: tuple[Run, float], tmp_path: Path
) -> None:
    """Breaks if workers, which draw ahead, begin a resumed training with the order of epoch 0."""
    run = Run(tmp_path / "run")
    half = compose_tiny(run.directory, "trainer.max_epochs=2", f"scheduler.T_max={EPOCHS}")
    half.data.num_workers = workers
    child = Child(lambda: train(half, run), tmp_path / "log")
    assert child.wait() == 0, child.log.read_text()
    config = resumed(run)
    config.trainer.max_epochs = EPOCHS
    child = Child(lambda: train(config, run), tmp_path / "resumed")
    assert child.wait() == 0, child.log.read_text()
    assert_same_end(run, whole[0])
