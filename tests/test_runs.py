"""The list of runs: what it says of each, and what it survives."""

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from anatosegnet.errors import UserError
from anatosegnet.run import Run
from anatosegnet.run_list import list_runs
from tests.commands import Shell
from tests.running import wait_for


def write_run(directory: Path, epochs: int = 3, **summary: object) -> Path:
    """A run of ``epochs`` of 10, its best epoch the second."""
    directory.mkdir(parents=True)
    (directory / "config.yaml").write_text("trainer: {max_epochs: 10}\n")
    (directory / "summary.json").write_text(json.dumps({"began": time.time() - 60, **summary}))
    scores = [0.2, 0.6, 0.5, 0.4][:epochs]
    rows = [f"{epoch},0.1,{score}" for epoch, score in enumerate(scores)]
    (directory / "metrics.csv").write_text("\n".join(["epoch,train/loss,val/iou", *rows]) + "\n")
    return directory


BOMB = "\n".join(
    ["a0: &a0 [x]", *(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)),
     "trainer: *a11"]
)  # fmt: skip


def pipe(path: Path) -> None:
    """A pipe in the place of a file: who opens it waits for ever."""
    path.unlink()
    os.mkfifo(path)


def link(path: Path, target: str) -> None:
    """A link in the place of a file."""
    path.unlink()
    path.symlink_to(target)


def test_states_epochs_and_scores(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Breaks if a dead run passes for a running one, or a score is another epoch's."""
    now = time.time()
    write_run(tmp_path / "a/done", 4, state="finished", began=now - 900, minutes=12.5,
              **{"val/iou": 0.6, "best_epoch": 2, "test/iou": 0.55})  # fmt: skip
    here = socket.gethostname()
    live = write_run(tmp_path / "a/live", state="running", began=now - 120, host=here)
    write_run(tmp_path / "b/dead", state="running", host=here)
    (tmp_path / "b/dead/.lock").write_text("")
    os.utime(tmp_path / "b/dead/.lock", (0, 0))
    write_run(tmp_path / "b/away", state="running", began=now - 50, host="elsewhere")
    (tmp_path / "b/away/.lock").write_text("machine 12 elsewhere\n")
    write_run(tmp_path / "b/gone", state="running", began=now - 40, host="elsewhere")
    (tmp_path / "b/gone/.lock").write_text("machine 12 elsewhere\n")
    os.utime(tmp_path / "b/gone/.lock", (0, 0))
    new = write_run(tmp_path / "b/new", 0, state="running", began=now, host=here)
    with Run(live).locked(), Run(new).locked():
        lines = {line.name: line for line in list_runs(tmp_path)}
    assert list(lines) == ["a/done", "a/live", "b/dead", "b/away", "b/gone", "b/new"]  # newest last
    assert [line.state for line in lines.values()] == [
        "finished", "running", "stopped", "running", "stopped", "running",
    ]  # fmt: skip
    done, live, new = lines["a/done"], lines["a/live"], lines["b/new"]
    assert (done.done, done.planned, done.val_iou, done.test_iou) == (4, 10, 0.6, 0.55)
    assert done.minutes == 12.5
    assert (live.done, live.val_iou, live.best_epoch, live.test_iou) == (3, 0.6, 2, None)
    assert live.minutes == pytest.approx(2, abs=0.5)
    assert (new.done, new.val_iou) == (0, None)
    output = capsys.readouterr().out.splitlines()
    assert len(output) == 7  # in a pipe: a head, and one line a run
    assert output[1].split() == ["a/done", "finished", "4/10", "0.6000", "2", "0.5500", "12.5"]


@pytest.mark.slow
def test_a_killed_training_is_known_as_stopped(tmp_path: Path) -> None:
    """Breaks if a run whose process was killed passes for a running one, or the other way round."""
    process = subprocess.Popen(
        [sys.executable, "-m", "anatosegnet.train", "model=unet_classic", "data.count=20",
         "data.image_size=32", "data.num_workers=1", "trainer=cpu", "trainer.max_epochs=999",
         "split=holdout", "callbacks.panels=null", f"run_dir={tmp_path / 'run'}"],
        stdout=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        wait_for((tmp_path / "run/metrics.csv").exists, seconds=120)
        assert [line.state for line in list_runs(tmp_path)] == ["running"]
    finally:
        process.kill()
        process.wait()
    wait_for(lambda: [line.state for line in list_runs(tmp_path)] == ["stopped"], seconds=30)


def test_damaged_and_foreign_folders(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Breaks if one bad file hides the other runs, or costs more than a line."""
    write_run(tmp_path / "good", state="finished")
    bad = {
        "cut": lambda run: (run / "summary.json").write_text('{"state": '),
        "list": lambda run: (run / "summary.json").write_text("[]"),
        "yaml": lambda run: (run / "config.yaml").write_text("a: [\nb"),
        "other": lambda run: (run / "config.yaml").write_text("lr: 1\n"),
        "bytes": lambda run: (run / "summary.json").write_bytes(b"\xff\x00"),
        "binary": lambda run: (run / "metrics.csv").write_bytes(b"\xff\x00\n\xff"),
        "deep": lambda run: (run / "summary.json").write_text('{"a":' * 99999),
        "deep_yaml": lambda run: (run / "config.yaml").write_text("a: " + "[" * 9999),
        "bomb": lambda run: (run / "config.yaml").write_text(BOMB),
        "field": lambda run: (run / "metrics.csv").write_text("epoch,x\n0," + "9" * 200_000),
        "huge": lambda run: (run / "summary.json").write_text('{"state":"a","began":' + "9" * 5000),
        "trainer": lambda run: (run / "config.yaml").write_text("trainer: [1]"),
        "pipe": lambda run: pipe(run / "metrics.csv"),
        "pipe_yaml": lambda run: pipe(run / "config.yaml"),
        "pipe_json": lambda run: pipe(run / "summary.json"),
        "device": lambda run: link(run / "summary.json", "/dev/zero"),
        "folder": lambda run: ((run / "metrics.csv").unlink(), (run / "metrics.csv").mkdir()),
    }
    for name, damage in bad.items():
        damage(write_run(tmp_path / name, state="finished"))
    (tmp_path / "empty").mkdir()
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign/config.yaml").write_text("x: 1\n")
    (tmp_path / "loop").symlink_to(tmp_path)
    assert [line.name for line in list_runs(tmp_path)] == ["good"]
    remarks = [line for line in capsys.readouterr().out.splitlines() if line.startswith("remark")]
    assert len(remarks) == len(bad)
    for name in bad:
        assert sum(f"/{name}: " in remark for remark in remarks) == 1


def test_a_folder_stands_alone(shell: Shell) -> None:
    """Breaks if runs DIR is not understood, or only where DIR needs no quotes."""
    write_run(shell.folder / "my runs (1)" / "a", state="finished")
    for given in ("my runs (1)", "./my runs (1)/", "dir='my runs (1)'"):
        assert shell("runs", given).output.splitlines()[1].split()[:2] == ["a", "finished"]
    options = ("--config-dir", str(shell.configs))
    assert "hold" in shell("runs", *options, str(shell.configs)).output
    assert "there is no folder none" in shell("runs", "none", status=2).errors


def test_a_missing_folder_is_one_line(tmp_path: Path) -> None:
    """Breaks if a typing error in dir=DIR looks like a folder without runs."""
    with pytest.raises(UserError, match="there is no folder"):
        list_runs(tmp_path / "none")


@pytest.mark.slow
def test_hundreds_of_runs_take_no_time(tmp_path: Path) -> None:
    """Breaks if a library of seconds is imported, or a run costs more than milliseconds."""
    for number in range(200):
        write_run(tmp_path / "runs" / f"{number:03d}", state="finished")
    command = [sys.executable, "-m", "anatosegnet.runs"]
    before = os.times()
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    after = os.times()
    assert len(result.stdout.splitlines()) == 201, result.stderr
    assert after.children_user - before.children_user < 3  # processor time; others may be at work
