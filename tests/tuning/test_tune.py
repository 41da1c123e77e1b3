"""Studies: trials that fail, workers that die, two at once, and what is left behind.

The trainings are a script that writes ``metrics.csv`` as train does; one test runs train itself.
"""

import csv
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import hydra
import optuna
import pytest
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from optuna.trial import TrialState

from anatosegnet.config.composition import config_directory
from anatosegnet.data.case import Case
from anatosegnet.data.duplicates import Pair, write_pairs
from anatosegnet.data.recorded_split import write_split
from anatosegnet.data.split import Split
from anatosegnet.errors import UserError
from anatosegnet.files.locks import Claim
from anatosegnet.run import Run
from anatosegnet.tuning import search as search_module
from anatosegnet.tuning import trial as trial_module
from anatosegnet.tuning import worker as worker_module
from anatosegnet.tuning.report import view_of_test
from anatosegnet.tuning.study import count, fail_lost_trials, open_storage
from tests.running import heed_ctrl_c, wait_for

pytestmark = pytest.mark.slow

TRAINER = '''
"""Writes val/iou of six epochs: better the nearer the learning rate is to 1e-3."""
import math, os, signal, sys, time
from pathlib import Path

given = dict(argument.split("=", 1) for argument in sys.argv[1:] if "=" in argument)
assert given["test"] == "false"
run = Path(given["run_dir"])
run.mkdir(parents=True)  # it must be new
(run / "overrides").write_text(" ".join(sys.argv[1:]))
if "SPLIT" in os.environ:
    (run / "split.csv").write_text(os.environ["SPLIT"])
(run / "checkpoints").mkdir()
(run / "checkpoints" / "best.ckpt").touch()
if run.name in os.environ.get("FAILING", "").split(","):
    print("epoch 1", flush=True)
    raise RuntimeError("CUDA out of memory")
signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
rate = float(given["optimizer.lr"])
rows = ["epoch,train/loss,val/iou"]
for epoch in range(6):
    top = 0.8 - 0.1 * abs(math.log10(rate) + 3)
    rows.append(f"{epoch},1.0,{top * (epoch + 1) / 6:.6f}")
    (run / "new").write_text("\\n".join(rows) + "\\n")
    os.replace(run / "new", run / "metrics.csv")
    time.sleep(float(os.environ.get("SECONDS", "0.02")))
'''
WORKER = """
import sys
import anatosegnet.tune as tune
from anatosegnet.tuning import search, trial, worker
worker.TRAIN, search.report = [sys.executable, sys.argv.pop(1)], lambda *_: None
trial.INTERVAL = 0.05
tune.main()
"""
COMMON = ("trainer.max_epochs=6", "search.space.optimizer.weight_decay=null",
          "search.space.loss=null", "search/pruner=none", "search.directory=study")  # fmt: skip


@pytest.fixture
def trainer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stand-in for train, in an empty working directory."""
    path = tmp_path / "trainer.py"
    path.write_text(TRAINER)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(worker_module, "TRAIN", [sys.executable, str(path)])
    monkeypatch.setattr(trial_module, "INTERVAL", 0.02)
    return path


def search(*overrides: str) -> optuna.Study:
    """Tune in this process."""
    overrides = (*COMMON, *overrides)
    given = [o for o in overrides if not o.lstrip("+~").startswith("search")]
    with hydra.initialize_config_dir(str(config_directory()), version_base="1.3"):
        config = hydra.compose("tune", list(overrides))
        return search_module.tune(config, given)


def worker(trainer: Path, *overrides: str, **environment: str) -> subprocess.Popen[str]:
    """Tune in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-c", WORKER, str(trainer), *COMMON, *overrides],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
        preexec_fn=heed_ctrl_c,
    )


def test_a_crash_is_recorded_and_the_study_goes_on(
    trainer: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Breaks if a failing trial ends a study, or what it leaves behind lies."""
    monkeypatch.setenv("FAILING", "0001")
    study = search("search.trials=6", "data.batch_size=4")
    states = [trial.state for trial in study.trials]
    assert states == [TrialState.COMPLETE, TrialState.FAIL, *[TrialState.COMPLETE] * 4]
    assert (
        study.trials[1].user_attrs["failure"] == "RuntimeError: CUDA out of memory (exit status 1)"
    )
    assert (Path("study/trials/0000/overrides").read_text().split()[:2]) == [
        "trainer.max_epochs=6", "data.batch_size=4",
    ]  # fmt: skip
    best = max(study.trials, key=lambda trial: trial.value or 0)
    kept = [
        path.parent.parent.name for path in Path("study").glob("trials/*/checkpoints/best.ckpt")
    ]
    assert kept == [f"{best.number:04d}"]
    with open("study/trials.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["state"] for row in rows].count("complete") == 5
    assert rows[1]["failure"].startswith("RuntimeError")
    assert float(rows[best.number]["val/iou"]) == best.value
    assert (rows[0]["best_epoch"], rows[0]["epochs"]) == ("6", "6")
    experiment = OmegaConf.load("study/experiment/best.yaml")
    assert experiment.optimizer.lr == best.params["optimizer.lr"]
    assert experiment.data.batch_size == 4
    header = Path("study/experiment/best.yaml").read_text().split("defaults")[0]
    assert f"val/iou {best.value:.4f}" in header
    assert "5 complete, 1 failed" in header
    output = capsys.readouterr().out
    assert "trial 1    failed: RuntimeError: CUDA out of memory" in output
    table = [line for line in output.splitlines() if line.startswith("│")]
    assert len(table) == 5
    assert table[0].split("│")[1].strip() == str(best.number)
    for name in ("history", "importances", "slices"):
        assert Path(f"study/{name}.png").stat().st_size > 2000
    # the finished study, joined again with more trials than it has: it goes on from there
    assert len(search("search.trials=7", "data.batch_size=4").trials) == 7
    with pytest.raises(UserError, match=r"data\.batch_size was 4, now 8; go on with those"):
        search("search.trials=9", "data.batch_size=8")


@pytest.mark.parametrize("storage", ["sqlite", "journal"])
def test_a_moved_study_goes_on(trainer: Path, storage: str) -> None:
    """Breaks if a study is known by what its folder was called when it was begun."""
    search(f"search.storage={storage}", "search.trials=1")
    Path("study").rename("moved")
    study = search(f"search.storage={storage}", "search.trials=2", "search.directory=moved")
    assert len(study.trials) == 2
    assert not Path("study").exists()
    assert sorted(path.name for path in Path("moved/trials").glob("*[0-9]")) == ["0000", "0001"]


def test_two_workers_share_a_study(trainer: Path) -> None:
    """Breaks if two workers run a trial twice, draw the same, or start one trial too many."""
    workers = [
        worker(trainer, "search.storage=journal", "search.trials=7", SECONDS="0.1")
        for _ in range(2)
    ]
    for process in workers:
        _, error = process.communicate(timeout=120)
        assert process.returncode == 0, error
    storage = open_storage("study/study.log", Path("study"))
    study = optuna.load_study(study_name="study", storage=storage)
    assert [trial.state for trial in study.trials] == [TrialState.COMPLETE] * 7
    assert len({trial.params["optimizer.lr"] for trial in study.trials}) == 7
    assert len({trial.user_attrs["lock"] for trial in study.trials}) == 2
    assert not list(Path("study").glob(".worker-*"))
    for trial in study.trials:
        assert trial.intermediate_values.keys() == set(range(6))
        assert trial.value == max(trial.intermediate_values.values())


def test_a_worker_may_die_at_any_moment(trainer: Path) -> None:
    """Breaks if a killed or interrupted worker blocks the study, or leaves its training behind."""
    study: optuna.Study

    def trainings() -> list[int]:
        """Processes of trials, from what they were started with."""
        found = []
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                if str(trainer).encode() in path.read_bytes().split(b"\0")[1:2]:
                    found.append(int(path.parent.name))
            except OSError:
                continue
        return found

    for number, stop in enumerate((signal.SIGKILL, signal.SIGINT)):
        process = worker(trainer, "search.trials=4", SECONDS="0.2")
        metrics = Path(f"study/trials/{number + 1:04d}/metrics.csv")  # the second it runs
        wait_for(metrics.exists)
        process.send_signal(stop)
        _, error = process.communicate(timeout=60)
        study = optuna.load_study(study_name="study", storage=open_storage("sqlite", Path("study")))
        if stop == signal.SIGKILL:
            assert count(study)["running"] == 1
            if sys.platform == "linux":
                wait_for(lambda: not trainings())
        else:
            assert process.returncode == 130
            assert error.count("\n") == 1
            assert "go on with: python -m anatosegnet.tune" in error
            assert count(study)["running"] == 0
            assert not trainings()
    study = search("search.trials=4")
    assert count(study) == {"complete": 4, "pruned": 0, "failed": 0, "lost": 2, "running": 0}


def test_a_hopeless_trial_is_pruned(trainer: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks if a training whose val/iou lies behind is not stopped, or its epochs get lost."""
    monkeypatch.setenv("SECONDS", "0.1")
    monkeypatch.setattr(search_module, "report", lambda *_: None)
    study = search("search.trials=6", "search/pruner=median", "search.pruner.n_startup_trials=2",
                   "search.pruner.n_warmup_steps=1")  # fmt: skip
    counts = count(study)
    assert counts["pruned"] >= 1
    assert counts["pruned"] + counts["complete"] == 6
    for trial in study.trials:
        if trial.state == TrialState.PRUNED:
            assert 2 <= trial.user_attrs["epochs"] < 6
            metrics = Path(f"study/trials/{trial.number:04d}/metrics.csv").read_text()
            assert metrics.count("\n") < 7


def test_nothing_but_failures_ends_in_one_line(
    trainer: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Breaks if a mistake that every trial makes is tried for as long as there are trials."""
    monkeypatch.setenv("FAILING", "0000,0001,0002")
    monkeypatch.setattr(worker_module, "GIVE_UP", 2)
    with pytest.raises(UserError, match="all 2 trials failed, the last with: RuntimeError: CUDA"):
        search("search.trials=20")


def test_mistakes_are_one_line(trainer: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks if a mistake shows a traceback, or leaves a study behind."""
    cases = [
        (["optimizer.lr=1e-3"], "both searched and given: leave out optimizer.lr=1e-3"),
        (["+search.space.optimizer.lrr={low:1,high:2}"], "did you mean optimizer.lr"),
        (["+search.space.run_dir={choices:[a]}"], "the study decides it"),
        (["+search.space.scheduler={choices:[cosine,cosin]}"], "scheduler=cosin: there is no"),
        (["split=released"], r"test cases also validate \(released.*split=holdout"),
        (["search.trials=0"], "give a number above 0"),
        (["search.storage=nosuch://host/db"], "search.storage=nosuch"),
    ]
    for overrides, expected in cases:
        with pytest.raises(UserError, match=expected) as caught:
            search(*overrides)
        assert "\n" not in str(caught.value)
    assert not list(Path().glob("study/*"))
    Path("study/trials/0000").mkdir(parents=True)
    with pytest.raises(UserError, match="holds trials of something else"):
        search()
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(UserError, match=r"pip install 'anatosegnet\[tune\]'"):
        search()


@pytest.mark.parametrize("benchmark", [True, False])
def test_no_search_on_test_cases(trainer: Path, benchmark: bool) -> None:
    """Breaks if a split is judged by its name, and lists that share cases are searched on."""
    lists = {"busi_train1": range(10), "busi_val1": range(10, 16), "other": range(15, 20)}
    for name, numbers in lists.items():
        Path(f"{name}.txt").write_text("".join(f"phantom_{n:04d}\n" for n in numbers))
    given = ["split=benchmark", "split.directory=."]
    if not benchmark:
        files = {"train": "busi_train1", "val": "busi_val1", "test": "other"}
        given = ["split=files", *(f"split.{part}={name}.txt" for part, name in files.items())]
    said = "6 of the 6" if benchmark else "1 of the 5"
    with pytest.raises(UserError, match=f"{said} test cases also validate .*take another split"):
        search("data.count=20", *given)
    assert not Path("study").exists()


def test_a_searched_split_is_looked_at(trainer: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks if a search may try a split that validates on its test cases."""
    monkeypatch.setenv("SPLIT", "id,part\na,train\nb,val\nc,test\nb,test\n")
    with pytest.raises(UserError, match="1 of the 2 test cases also validate"):
        search("+search.space.split={choices:[holdout,released]}", "search.trials=3")
    assert not list(Path("study").glob("*.csv"))


def test_what_a_search_saw_of_the_test_cases(tmp_path: Path) -> None:
    """Breaks if the report claims what is not so, or what nobody knows."""
    run = Run(tmp_path)
    assert "unknown" in view_of_test(run)
    for parts, said in (
        ((("a",), ("b",), ("c", "d")), "the test cases were not looked at"),
        ((("a",), ("b", "c"), ("c", "d")), "warning: 1 of 2 test cases were validated on"),
    ):
        write_split(run.split_path, Split(*parts, ""), map(Case, "abcd"))
        assert view_of_test(run) == said
    write_split(run.split_path, Split(("a",), ("b",), ("c", "d"), ""), map(Case, "abcd"))
    write_pairs(run.duplicates_path, [Pair("a", "d", 0.98)])  # not with validation
    assert view_of_test(run) == "the test cases were not looked at"
    write_pairs(run.duplicates_path, [Pair("b", "d", 0.98)])
    assert view_of_test(run).startswith("warning: 1 of 2 test images have a near-duplicate")


@pytest.mark.parametrize(
    ("override", "expected"),
    [("sweep=seeds", "does not go with -m"),
     ("run_dir=x", "search.directory=DIR"), ("test=true", "never scores the test cases")],
)  # fmt: skip
def test_what_the_study_decides_cannot_be_given(override: str, expected: str) -> None:
    """Breaks if a sweep of studies, or an override that trials need for themselves, is let in."""
    with hydra.initialize_config_dir(str(config_directory()), version_base="1.3"):
        whole = hydra.compose("tune", [override], return_hydra_config=True)
        HydraConfig.instance().set_config(whole)
        try:
            with pytest.raises(UserError, match=expected):
                search_module.given_overrides()
        finally:
            HydraConfig.instance().cfg = None


def test_a_trial_is_lost_when_its_worker_is(tmp_path: Path) -> None:
    """Breaks if a live worker's or another machine's trial is taken away, or a dead one's kept."""
    storage = open_storage("sqlite", tmp_path)
    study = optuna.create_study(storage=storage)
    here, alive = socket.gethostname(), Claim(tmp_path / "alive.lock")
    silent = tmp_path / "silent.lock"
    silent.write_text("machine 1 elsewhere\n")
    for attributes in (
        {"host": here, "lock": str(alive.path)},
        {"host": "elsewhere", "lock": str(tmp_path / "none")},
        {"host": here, "lock": str(tmp_path / "none")},
        {"host": here, "pid": 1},  # of before
        {},
        {"host": "elsewhere", "lock": str(silent)},
    ):
        trial = study.ask()
        for key, value in attributes.items():
            trial.set_user_attr(key, value)
    assert alive.take()
    assert fail_lost_trials(study, storage) == [2, 3, 4]
    alive.release()
    os.utime(silent, (0, 0))
    assert fail_lost_trials(study, storage) == [0, 5]


def test_trials_are_trained_by_train(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Breaks if train does not take a trial's overrides, or the best experiment does not train."""
    monkeypatch.chdir(tmp_path)
    tiny = ("model.encoder=mobilenetv3_small_050", "model.pretrained=false", "data.count=20",
            "data.image_size=32", "data.num_workers=0", "trainer=cpu", "trainer.max_epochs=1",
            "callbacks.panels=null")  # fmt: skip
    study = search(*tiny, "search.trials=1")
    assert [trial.state for trial in study.trials] == [TrialState.COMPLETE]
    trained: DictConfig = OmegaConf.load("study/trials/0000/config.yaml")  # type: ignore[assignment]
    assert trained.optimizer.lr == study.best_params["optimizer.lr"]
    summary = json.loads(Path("study/trials/0000/summary.json").read_text())
    assert summary["val/iou"] == pytest.approx(study.best_value, abs=1e-5)
    assert "test/iou" not in summary
    assert "epochs; the test cases were not looked at" in capsys.readouterr().out
    command = [sys.executable, "-m", "anatosegnet.train", "--config-dir", "study"]
    result = subprocess.run(
        [*command, "experiment=best", "--cfg", "job"], capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    again: Any = OmegaConf.create(result.stdout)
    assert again.optimizer.lr == trained.optimizer.lr
    assert again.model.encoder == "mobilenetv3_small_050"
    assert again.test is True
