"""Training from config to run directory."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from omegaconf import DictConfig, OmegaConf

from anatosegnet.config.monitors import LOGGED
from anatosegnet.data.build import build_data, build_settings, build_source
from anatosegnet.data.datamodule import SegmentationDataModule
from anatosegnet.data.leakage import recorded_split
from anatosegnet.data.prepared import prepare_data
from anatosegnet.data.split import Split
from anatosegnet.errors import UserError
from anatosegnet.files.split_table import PARTS
from anatosegnet.run import Run
from anatosegnet.train import train
from anatosegnet.training.build import build_module, build_trainer
from anatosegnet.training.command import open_run
from tests.running import SMALL, compose_small, heed_ctrl_c, wait_for

pytestmark = pytest.mark.slow


def test_run_directory_holds_what_it_promises(trained_run: Run) -> None:
    """Breaks if a file of a run is missing, or the summary lacks what repeats it."""
    config = yaml.safe_load(trained_run.config_path.read_text())
    text = trained_run.config_path.read_text()
    assert "${" not in text.replace("${run_dir}", "")  # where the run is when it is opened
    assert str(trained_run.directory) not in text
    assert config["model"]["encoder"] == "mobilenetv3_small_050"
    columns = trained_run.metrics_path.read_text().splitlines()[0].split(",")
    assert set(columns) == {"epoch", *LOGGED}  # what callbacks may monitor
    summary = json.loads(trained_run.summary_path.read_text())
    assert summary["state"] == "finished"
    promised = ("command", "versions", "git_commit", "minutes", "best_epoch", "test/iou")
    for key in promised:
        assert key in summary
    assert 0 <= summary["test/iou"] <= 1
    assert "validation" in summary["test_conditions"]["selection"]
    with trained_run.split_path.open() as file:
        rows = list(csv.DictReader(file))
    assert [row["part"] for row in rows].count("test") == 4
    assert len({row["id"] for row in rows}) == 20
    with trained_run.metrics_path.open() as file:
        header = next(csv.reader(file))
    assert {"epoch", "train/loss", "train/iou", "val/loss", "val/iou", "val/dice"} <= set(header)


def test_checkpoints_hold_only_tensors_and_primitives(trained_run: Run) -> None:
    """Breaks if an object is pickled, which would make resume and sharing fail."""
    best = torch.load(trained_run.best_path, weights_only=True)
    last = torch.load(trained_run.last_path, weights_only=True)
    assert "optimizer_states" in last
    assert "optimizer_states" not in best  # a third of the size, and all that evaluation needs
    files = ["best.ckpt", "last.ckpt", "previous.ckpt"]
    assert sorted(os.listdir(trained_run.best_path.parent)) == files


def test_best_checkpoint_is_the_epoch_of_the_best_validation(trained_run: Run) -> None:
    """Breaks if the tested epoch is not the one with the best val/iou."""
    with trained_run.metrics_path.open() as file:
        rows = [row for row in csv.DictReader(file) if row["val/iou"]]
    best = max(rows, key=lambda row: float(row["val/iou"]))
    summary = json.loads(trained_run.summary_path.read_text())
    assert summary["best_epoch"] == int(best["epoch"]) + 1
    assert summary["val/iou"] == pytest.approx(float(best["val/iou"]), abs=1e-6)


def test_same_seed_same_numbers(trained_run: Run, tmp_path: Path) -> None:
    """Breaks if anything in training is drawn from an unseeded source."""
    again = Run(tmp_path / "again")
    train(compose_small(again.directory), again)
    assert again.metrics_path.read_text() == trained_run.metrics_path.read_text()


@pytest.mark.parametrize("setting", ["data.num_workers=2", "data.cache=off", "data.cache=memory"])
def test_loading_does_not_change_the_numbers(
    setting: str, trained_run: Run, tmp_path: Path
) -> None:
    """Breaks if workers, or where cases come from, have a part in a run's numbers."""
    other = Run(tmp_path / "other")
    train(compose_small(other.directory, setting, "test=false"), other)
    assert other.metrics_path.read_text() == trained_run.metrics_path.read_text()


def test_resume_goes_on_where_it_stopped(trained_run: Run, tmp_path: Path) -> None:
    """Breaks if optimiser, schedule, sampler or metrics start anew: 1 + 2 epochs are 3."""
    run = Run(tmp_path / "run")
    config = compose_small(run.directory, "test=false", "scheduler.T_max=3")
    config.trainer.max_epochs = 1
    train(config, run)
    resumed = run.config
    resumed.resume, resumed.trainer.max_epochs = str(run.directory), 3
    train(resumed, run)
    ours = torch.load(run.last_path, weights_only=True)["state_dict"]
    theirs = torch.load(trained_run.last_path, weights_only=True)["state_dict"]
    for name, tensor in theirs.items():
        torch.testing.assert_close(ours[name], tensor, rtol=0, atol=0, msg=name)
    with run.metrics_path.open() as file:
        epochs = {row["epoch"] for row in csv.DictReader(file) if row["val/iou"]}
    assert epochs == {"0", "1", "2"}


def test_a_run_is_never_overwritten(trained_run: Run) -> None:
    """Breaks if a second run may write into the directory of a first one."""
    with pytest.raises(UserError, match="already holds a run"):
        trained_run.require_new()


def test_bad_data_leaves_no_run_behind(tmp_path: Path) -> None:
    """Breaks if a run directory is written before the data was found to be good."""
    run = Run(tmp_path / "run")
    config = compose_small(run.directory, "data=busi", f"data.root={tmp_path / 'none'}")
    with pytest.raises(UserError, match="there is no folder"):
        train(config, run)
    assert not run.directory.exists()


class Same:
    """Every case trains, validates and tests."""

    def __call__(self, cases: list) -> Split:
        """All names, three times."""
        names = tuple(case.name for case in cases)
        return Split(names, names, names, "all")


def test_overfits_four_phantoms(tmp_path: Path) -> None:
    """Breaks if loss, labels, optimiser or network cannot learn four images by heart.

    From many a random start all features of the last stage first die inside the lesions (ReLU);
    only biases move the logits there, about lr a step. Hence this rate and so many steps.
    """
    run = Run(tmp_path)
    config = compose_small(
        run.directory,
        "model.encoder=resnet18",
        "data.count=4",
        "augmentation=none",
        "trainer.max_epochs=120",
        "scheduler=constant",
        "optimizer.lr=3e-3",
        "callbacks.best=null",
        "callbacks.last=null",
        "+trainer.limit_val_batches=0",
        "+trainer.enable_checkpointing=false",
    )
    data = SegmentationDataModule(
        prepare_data(build_source(config), build_settings(config), Same())
    )
    module = build_module(config)
    trainer = build_trainer(config, module, run)
    trainer.fit(module, datamodule=data)
    trainer.test(module, datamodule=data, verbose=False)
    assert module.scores(module.test_counts)["iou"].mean() > 0.95


def test_scores_do_not_depend_on_batch_size(trained_run: Run) -> None:
    """Breaks if scores are averaged over batches instead of images."""
    results = []
    for size in (1, 3, 16):
        config = trained_run.config
        config.data.batch_size, config.logger = size, None
        module = build_module(config)
        state = torch.load(trained_run.best_path, weights_only=True)["state_dict"]
        module.load_state_dict(state)
        trainer = build_trainer(config, module, trained_run)
        data = build_data(config, recorded_split(trained_run, PARTS))
        trainer.test(module, datamodule=data, verbose=False)
        results.append(module.scores(module.test_counts))
    for other in results[1:]:
        for name, values in results[0].items():
            np.testing.assert_array_equal(values, other[name])


def test_ctrl_c_keeps_the_last_checkpoint(tmp_path: Path) -> None:
    """Breaks if an interrupt loses the finished epochs, or does not say how to go on."""
    run = Run(tmp_path / "run with space")
    command = [sys.executable, "-m", "anatosegnet.train", f"run_dir={run.directory}", *SMALL]
    process = subprocess.Popen(
        [*command, "trainer.max_epochs=500"],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        preexec_fn=heed_ctrl_c,
    )
    wait_for(lambda: run.last_path.is_file() or process.poll() is not None, seconds=120)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    assert process.stderr is not None
    error = process.stderr.read().decode()
    assert process.wait(timeout=60) == 130
    assert "Traceback" not in error, error
    assert f"resume='{run.directory}'" in error
    torch.load(run.last_path, weights_only=True)
    assert json.loads(run.summary_path.read_text())["state"] == "interrupted"


def test_multirun_trains_each_job_in_its_own_directory(tmp_path: Path) -> None:
    """Breaks if the jobs of a sweep share a directory, a seed, or a setting."""
    command = [sys.executable, "-m", "anatosegnet.train", "-m", f"run_dir={tmp_path}", *SMALL]
    sweep = "model.attention={bias:rows},{bias:none,differential:none},{levels:[]}"
    result = subprocess.run(
        [*command, "trainer.max_epochs=1", sweep], capture_output=True, text=True, timeout=300
    )
    assert result.returncode == 0, result.stderr
    configs = [Run(tmp_path / str(job)).config for job in range(3)]
    assert [c.model.attention.bias for c in configs] == ["rows", "none", "rows"]
    assert [list(c.model.attention.levels) for c in configs] == [[4, 5], [4, 5], []]
    scores = [json.loads((tmp_path / str(job) / "summary.json").read_text()) for job in range(3)]
    assert all("test/iou" in score for score in scores)


def test_resume_takes_overrides(trained_run: Run, tmp_path: Path, in_hydra_job: Callable) -> None:
    """Breaks if resume=DIR forgets the run's settings, or cannot train for longer."""
    copy = tmp_path / "copy"
    shutil.copytree(trained_run.directory, copy)
    config = compose_small(tmp_path / "unused", f"resume={copy}", "trainer.max_epochs=7")
    resumed, run = in_hydra_job(config, [f"resume={copy}", "trainer.max_epochs=7"], open_run)
    assert run.directory == copy
    assert resumed.trainer.max_epochs == 7
    assert resumed.model.encoder == "mobilenetv3_small_050"
    assert isinstance(resumed, DictConfig)
    assert OmegaConf.select(resumed, "data.count") == 20


def test_training_imports_only_what_it_needs() -> None:
    """Breaks if a library that the chosen config does not need makes every start slower."""
    code = (
        "import sys; from tests.running import compose; from anatosegnet.training.build import *\n"
        "from anatosegnet.data.build import build_data\n"
        "from anatosegnet.run import Run; import anatosegnet.train\n"
        "config = compose('experiment=demo'); build_data(config)\n"
        "module = build_module(config); build_trainer(config, module, Run('unused'))\n"
        "print(sorted({'monai', 'optuna', 'pandas', 'sklearn', 'tensorboard', 'jinja2',"
        " 'openpyxl', 'onnx'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout.splitlines()[-1:] == ["[]"], result.stdout + result.stderr
