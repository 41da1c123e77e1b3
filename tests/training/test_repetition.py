"""Runs that repeat others, and commands that mean a run which is there already."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from omegaconf import DictConfig, OmegaConf

from anatosegnet.errors import UserError
from anatosegnet.run import Run
from anatosegnet.train import train
from anatosegnet.training.command import open_run
from tests.running import compose

pytestmark = pytest.mark.slow

TINY = [
    "model.encoder=mobilenetv3_small_050", "model.pretrained=false", "data.count=12",
    "data.image_size=32", "data.batch_size=8", "data.num_workers=0", "trainer=cpu",
    "trainer.max_epochs=1", "test=false",
]  # fmt: skip
Opener = Callable[..., tuple[DictConfig, Run]]


@pytest.fixture
def opened(in_hydra_job: Callable, tmp_path: Path) -> Opener:
    """Calls ``open_run`` as a command line would."""

    def call(*overrides: str) -> tuple[DictConfig, Run]:
        given = list(overrides)
        return in_hydra_job(compose(*given), given, open_run)

    return call


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run to repeat."""
    run = Run(tmp_path_factory.mktemp("source") / "run")
    train(compose(*TINY, f"run_dir={run.directory}"), run)
    run.update_summary({"overrides": [*TINY, f"run_dir={run.directory}"]})  # as a command records
    return run


def test_a_repetition_has_the_same_numbers(source: Run, opened: Opener, tmp_path: Path) -> None:
    """Breaks if from_run=DIR trains anything else, or writes into the run it repeats."""
    before = {path: path.stat().st_mtime_ns for path in source.directory.rglob("*")}
    config, run = opened(f"from_run={source.directory}", f"run_dir={tmp_path / 'again'}")
    assert OmegaConf.to_yaml(config).count(str(source.directory)) == 1  # from_run itself
    summary = train(config, run)
    assert run.metrics_path.read_text() == source.metrics_path.read_text()
    assert summary["repetition"] == f"every epoch has the numbers of {source.directory}"
    assert {path: path.stat().st_mtime_ns for path in source.directory.rglob("*")} == before


def test_a_repetition_lies_beside_by_default(source: Run, opened: Opener) -> None:
    """Breaks if from_run=DIR alone would write into DIR, or under another run's name."""
    _, run = opened(f"from_run={source.directory}")
    assert run.directory.parts[:2] == ("runs", "phantom")


def test_overrides_reach_all_that_depends_on_them(source: Run, opened: Opener) -> None:
    """Breaks if seed=1 leaves the old seed in the data, or max_epochs the old schedule."""
    config, _ = opened(f"from_run={source.directory}", "seed=1", "trainer.max_epochs=7")
    assert (config.seed, config.data.seed) == (1, 1)
    assert (config.trainer.max_epochs, config.scheduler.T_max) == (7, 7)
    assert config.data.count == 12


def test_changed_configs_are_not_mixed_with_overrides(
    source: Run, opened: Opener, tmp_path: Path
) -> None:
    """Breaks if a run is composed anew from configs that are no longer those it had."""
    copy = Run(tmp_path / "copy")
    shutil.copytree(source.directory, copy.directory)
    config = copy.config
    config.optimizer.weight_decay = 0.5
    copy.write_config(config)
    with pytest.raises(UserError, match=r"changed since .*: optimizer"):
        opened(f"from_run={copy.directory}", "seed=1")
    assert opened(f"from_run={copy.directory}")[0].optimizer.weight_decay == 0.5


def test_resume_auto_begins_or_goes_on(source: Run, opened: Opener, tmp_path: Path) -> None:
    """Breaks if a requeued job cannot use one command for its first and its later starts."""
    config, run = opened(*TINY, f"run_dir={tmp_path / 'new'}", "resume=auto")
    assert config.resume is None and run.directory == tmp_path / "new"
    copy = tmp_path / "copy"
    shutil.copytree(source.directory, copy)
    config, run = opened(*TINY, f"run_dir={copy}", "resume=auto")
    assert config.resume == str(copy) == str(run.directory)


def test_contradictions_end_in_one_line(source: Run, opened: Opener) -> None:
    """Breaks if a command that makes no sense trains something."""
    with pytest.raises(UserError, match="give one of them"):
        opened(f"from_run={source.directory}", f"resume={source.directory}")
    with pytest.raises(UserError, match=r"cannot be changed when resuming"):
        opened(f"resume={source.directory}", "sweep=seeds")


def test_summary_has_what_repeats_the_run(source: Run) -> None:
    """Breaks if a fingerprint, the process, or the versions are not recorded."""
    summary = json.loads(source.summary_path.read_text())
    for key in (
        "command",
        "overrides",
        "versions",
        "git_commit",
        "machine",
        "host",
        "pid",
        "began",
    ):
        assert key in summary
    assert len(summary["data_fingerprint"]) == len(summary["split_fingerprint"]) == 12
