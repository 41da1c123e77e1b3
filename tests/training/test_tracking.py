"""Weights & Biases, offline: own runs, shared groups, and going on."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from omegaconf import DictConfig

from anatosegnet.run import Run
from anatosegnet.train import train
from anatosegnet.training import tracking
from tests.running import SMALL, compose, compose_small


def offline(directory: Path) -> list[str]:
    """Ids of the wandb runs that were written into a run directory, in order."""
    return [
        path.name.split("-")[-1] for path in sorted((directory / "wandb").glob("offline-run-*"))
    ]


@pytest.mark.slow
def test_jobs_of_one_process_are_not_mixed(tmp_path: Path) -> None:
    """Breaks if the second job of a sweep goes on in the first one's run, or resuming does not."""
    wandb = ("logger=wandb", "logger.wandb.offline=true", "test=false", "trainer.max_epochs=1",
             "data.image_size=32", "model.encoder=mobilenetv3_small_050",
             "callbacks.panels=null")  # fmt: skip
    runs = [Run(tmp_path / name) for name in ("0", "1")]
    for run in runs:
        train(compose_small(run.directory, *wandb), run)
    resumed = runs[0].config
    resumed.resume, resumed.trainer.max_epochs = str(runs[0].directory), 2
    train(resumed, runs[0])
    ids = [run.config.logger.wandb.id for run in runs]
    assert ids[0] != ids[1]
    assert offline(runs[1].directory) == [ids[1]]
    assert offline(runs[0].directory) == [ids[0], ids[0]]


@pytest.mark.slow
def test_no_account_is_one_line(tmp_path: Path) -> None:
    """Breaks if a missing login is a traceback, or leaves a run directory behind."""
    # a process of its own: wandb remembers how earlier tests set it up
    environment = {key: value for key, value in os.environ.items() if "WANDB" not in key}
    environment.update(HOME=str(tmp_path / "home"), NETRC=str(tmp_path / "none"))
    run = tmp_path / "run"
    command = [sys.executable, "-m", "anatosegnet.train", *SMALL, "logger=wandb", f"run_dir={run}"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment)
    assert result.returncode == 2, result.stderr
    assert "Traceback" not in result.stderr
    last = result.stderr.splitlines()[-1]
    assert re.match(r"error: wandb: .*; or .* logger.wandb.offline=true$", last)
    assert not run.exists()


@pytest.fixture
def in_sweep(in_hydra_job: Callable) -> Callable[[DictConfig], DictConfig]:
    """Calls identify as a job of a sweep in runs/ablation/now."""
    sweep = ["hydra.mode=MULTIRUN", "hydra.sweep.dir=runs/ablation/now"]

    def call(config: DictConfig) -> DictConfig:
        in_hydra_job(config, sweep, lambda config, _: tracking.identify(config))
        return config

    return call


def test_jobs_of_a_sweep_share_a_group(in_sweep: Callable) -> None:
    """Breaks if the jobs of a sweep cannot be told from other runs, or share an id."""
    jobs = [in_sweep(compose("logger=wandb", f"run_dir=runs/ablation/now/{n}")) for n in range(2)]
    assert [job.logger.wandb.group for job in jobs] == ["ablation/now"] * 2
    assert jobs[0].logger.wandb.id != jobs[1].logger.wandb.id
    named = in_sweep(compose("logger=wandb", "logger.wandb.group=mine", "run_dir=x"))
    assert named.logger.wandb.group == "mine"


def test_only_a_resumed_run_keeps_its_id() -> None:
    """Breaks if a repetition of a run logs into the first one, or a resumed one does not."""
    first = compose("logger=wandb", "run_dir=a")
    tracking.identify(first)
    own = first.logger.wandb.id
    assert len(own) == 16
    assert first.logger.wandb.group is None
    resumed = first.copy()
    resumed.resume = "a"
    tracking.identify(resumed)
    assert resumed.logger.wandb.id == own
    repeated = first.copy()
    repeated.run_dir, repeated.from_run, repeated.logger.wandb.group = "b", "a", "a's sweep"
    tracking.identify(repeated)
    assert repeated.logger.wandb.id != own
    assert repeated.logger.wandb.group is None
    without = compose()
    tracking.identify(without)
    assert not without.logger
