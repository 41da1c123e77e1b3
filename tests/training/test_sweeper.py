"""Which jobs of a sweep a worker trains; the trainings themselves are left out here."""

import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import hydra
import pytest
from hydra.core.global_hydra import GlobalHydra
from hydra.core.utils import JobReturn, JobStatus
from hydra.types import HydraContext, RunMode
from omegaconf import DictConfig

from anatosegnet.config.composition import config_directory
from anatosegnet.errors import TrainingFailed, UserError
from anatosegnet.run import Run
from anatosegnet.sweep import Sweep
from anatosegnet.training.command import open_run
from anatosegnet.training.sweeper import Sweeper
from tests.running import compose

TINY = ("data.count=12", "trainer=cpu", "trainer.max_epochs=4")


def write_job(run: Run, state: str, *overrides: str, **summary: object) -> Run:
    """A job of a sweep that came to a state, as training records it."""
    config = compose(*TINY, *overrides, f"run_dir={run.directory}")
    run.directory.mkdir(parents=True, exist_ok=True)
    run.write_config(config)
    given = [*TINY, *overrides]
    run.update_summary({"state": state, "overrides": given, **summary})
    return run


# what becomes of a job


@pytest.fixture
def opened(tmp_path: Path, in_hydra_job: Callable[..., Any]) -> Callable[..., Any]:
    """Opens job 1 of a sweep in ``tmp_path``, and gives its claim back."""

    def call(*overrides: str) -> tuple[DictConfig, Run] | None:
        given = [*TINY, f"run_dir={tmp_path / '1'}", *overrides]
        inside = [*given, "hydra.mode=MULTIRUN", "hydra.job.num=1"]
        found: tuple[DictConfig, Run] | None = in_hydra_job(compose(*given), inside, open_run)
        if found:
            assert found[1].claim.is_taken
            found[1].claim.release()
        return found

    return call


def test_a_job_that_waits_is_begun(opened: Callable[..., Any], tmp_path: Path) -> None:
    """Breaks if resume=auto demands that every job has begun."""
    config, run = opened("resume=auto", "seed=3")
    assert config.resume is None and config.seed == 3
    assert run.directory == tmp_path / "1"


def test_a_finished_job_is_skipped(
    opened: Callable[..., Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Breaks if a finished job is tested again, or cannot be prolonged."""
    run = write_job(Run(tmp_path / "1"), "finished", "seed=3")
    assert opened("resume=auto", "seed=3") is None
    assert opened("resume=auto", "seed=3", "data.num_workers=1", "trainer.max_epochs=4") is None
    assert capsys.readouterr().out.splitlines() == [f"job 1 is finished: {tmp_path}/1"] * 2
    config, _ = opened("resume=auto", "seed=3", "trainer.max_epochs=5")
    assert config.resume == str(tmp_path / "1") and config.trainer.max_epochs == 5
    assert run.holder is None


@pytest.mark.parametrize("state", ["running", "interrupted", "preempted"])
def test_an_interrupted_job_goes_on(opened: Callable[..., Any], tmp_path: Path, state: str) -> None:
    """Breaks if a job that was stopped or killed begins anew, or with other settings."""
    write_job(Run(tmp_path / "1"), state, "seed=3")
    config, _ = opened("resume=auto", "seed=3")
    assert config.resume == str(tmp_path / "1") and config.seed == 3


def test_a_failed_job_is_tried_again_on_demand(opened: Callable[..., Any], tmp_path: Path) -> None:
    """Breaks if a job fails again and again with each start, or can never be tried again."""
    run = write_job(Run(tmp_path / "1"), "failed", "seed=3", error="the loss is nan")
    with pytest.raises(TrainingFailed, match="the loss is nan; retry=true tries it again"):
        opened("resume=auto", "seed=3")
    assert run.holder is None
    config, _ = opened("resume=auto", "seed=3", "retry=true")
    assert config.resume == str(tmp_path / "1")
    assert "retry" not in config or not config.retry


def test_retry_alone_is_one_line(opened: Callable[..., Any]) -> None:
    """Breaks if retry=true seems to do something without resume=auto."""
    with pytest.raises(UserError, match="retry=true goes with resume=auto"):
        opened("retry=true")


def test_a_job_of_another_worker_is_passed_over(
    opened: Callable[..., Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Breaks if two workers train one job, even before it has written anything."""
    run = Run(tmp_path / "1")
    assert run.claim.take()
    assert opened("resume=auto") is None
    assert "job 1 is passed over: process " in capsys.readouterr().out
    run.claim.release()
    assert opened("resume=auto") is not None


def test_a_job_that_is_refused_is_free_again(opened: Callable[..., Any], tmp_path: Path) -> None:
    """Breaks if a launcher's process keeps a job that it could not go on with."""
    write_job(Run(tmp_path / "1"), "interrupted", "seed=3")
    with pytest.raises(UserError, match="cannot be changed when resuming"):
        opened("resume=auto", "seed=3", "loss=focal")
    assert Run(tmp_path / "1").holder is None


# what becomes of a sweep


class Workers:
    """In the place of a launcher: jobs do what a test says.

    Args:
        directory: Of the sweep.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.launched: list[int] = []
        self.does: dict[int, Callable[[Run], Any]] = {}

    def launch(self, batch: Sequence[Sequence[str]], initial_job_idx: int) -> list[JobReturn]:
        """Let each job do its part; by default it finishes."""
        returned = []
        for number in range(initial_job_idx, initial_job_idx + len(batch)):
            self.launched.append(number)
            run = Run(self.directory / str(number))
            result = JobReturn(overrides=list(batch[number - initial_job_idx]))
            try:
                result.return_value = self.does.pop(number, finish)(run)
                result.status = JobStatus.COMPLETED
            except UserError as error:
                result.return_value, result.status = error, JobStatus.FAILED
            returned.append(result)
        return returned


def finish(run: Run) -> None:
    """What a job does."""
    run.directory.mkdir(parents=True, exist_ok=True)
    run.config_path.touch()
    run.update_summary({"state": "finished"})


@pytest.fixture
def workers(tmp_path: Path) -> Workers:
    """The jobs of a sweep in ``tmp_path/sweep``."""
    return Workers(tmp_path / "sweep")


@pytest.fixture
def sweep(workers: Workers, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Any]]:
    """Runs a sweep of these overrides, as ``-m`` does."""
    with hydra.initialize_config_dir(str(config_directory()), version_base="1.3"):

        def call(*overrides: str) -> Any:
            monkeypatch.setattr(sys, "argv", ["train", "-m", *overrides])
            program: Any = GlobalHydra.instance().hydra
            given = [o for o in overrides if "," not in o]
            ours = Sweeper(max_batch_size=None)
            ours.config = program.compose_config(
                "train", given, RunMode.MULTIRUN, from_shell=False, with_log_configuration=False
            )
            ours.params = ours.config.hydra.sweeper.params or {}
            workers.directory = Path(str(ours.config.hydra.sweep.dir))
            ours.hydra_context = HydraContext(program.config_loader, callbacks=None)  # type: ignore[arg-type]
            ours.launcher = workers  # type: ignore[assignment]
            return ours.sweep(list(overrides))

        here = f"run_dir={workers.directory}"
        yield lambda *overrides, place=here: call(*overrides, place, "resume=auto")


def test_jobs_are_recorded_with_what_hydra_calls_them(
    sweep: Callable[..., Any], workers: Workers
) -> None:
    """Breaks if a job's number or folder is another in the record than in Hydra."""
    returned = sweep("sweep=ablation", "seed=0,1", "trainer.max_epochs=7")
    jobs = Sweep(workers.directory).jobs
    assert len(jobs) == 12 and workers.launched == list(range(12))
    assert [job.directory for job in jobs] == [str(number) for number in range(12)]
    assert {job.epochs for job in jobs} == {7}
    assert "seed=1" in jobs[1].overrides
    assert len(returned) == 1 and [r.return_value for r in returned[0]] == [None] * 12


def test_a_job_is_taken_up_when_its_worker_died(
    sweep: Callable[..., Any], workers: Workers, capsys: pytest.CaptureFixture[str]
) -> None:
    """Breaks if the job of a dead worker stays undone, or one is waited for that lives."""
    dead, alive = workers.directory / "0", Run(workers.directory / "2")
    workers.does[0] = lambda run: run.directory.mkdir(parents=True)  # killed after it claimed it
    assert alive.claim.take()
    workers.does[2] = lambda run: None
    sweep("seed=0,1,2,3")
    assert workers.launched == [0, 1, 2, 3, 0]
    assert Run(dead).state == "finished"
    assert "job 2 is left to process " in capsys.readouterr().out
    alive.claim.release()
    sweep("seed=0,1,2,3")
    assert Run(workers.directory / "2").state == "finished"


def test_a_failure_does_not_keep_others_waiting(
    sweep: Callable[..., Any], workers: Workers
) -> None:
    """Breaks if a failed job is tried again in the same pass, or hides what others left."""

    def fail(run: Run) -> None:
        finish(run)
        run.update_summary({"state": "failed"})
        raise TrainingFailed("the loss is nan")

    workers.does[0] = fail
    workers.does[1] = lambda run: None
    with pytest.raises(TrainingFailed, match="the loss is nan"):
        sweep("seed=0,1,2")
    assert workers.launched == [0, 1, 2, 1]


@pytest.mark.parametrize("stop", [KeyboardInterrupt(), SystemExit(130), SystemExit(143)])
def test_a_stopped_sweep_says_how_to_go_on(
    sweep: Callable[..., Any],
    workers: Workers,
    stop: BaseException,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Breaks if Ctrl-C stops a job only, or the command that is said is not the one."""

    def stopped(run: Run) -> None:
        run.directory.mkdir()
        raise stop

    workers.does[1] = stopped
    with pytest.raises(SystemExit) as stopping:
        sweep("seed=0,1,2", "name='a b'")
    assert stopping.value.code == (143 if stop.args == (143,) else 130)
    assert workers.launched == [0, 1]
    assert capsys.readouterr().err.splitlines()[-1] == (
        "the sweep is stopped; go on with: python -m anatosegnet.train -m seed=0,1,2 "
        f"""'name='"'"'a b'"'"'' run_dir={workers.directory} resume=auto"""
    )


def test_a_refused_job_leaves_nothing(sweep: Callable[..., Any], workers: Workers) -> None:
    """Breaks if a sweep that never began is in the way of the corrected command."""

    def refuse(run: Run) -> None:
        raise SystemExit(2)

    workers.does[0] = refuse
    with pytest.raises(SystemExit) as stop:
        sweep("seed=0,1")
    assert stop.value.code == 2
    assert not workers.directory.exists()
    with pytest.raises(hydra.errors.HydraException):
        sweep("optimizer.lrr=0,1")
    assert not workers.directory.exists()


def test_another_grid_touches_nothing(sweep: Callable[..., Any], workers: Workers) -> None:
    """Breaks if a worker with another numbering of the jobs begins with one of them."""
    sweep("seed=0,1")
    before = {path: path.read_bytes() for path in workers.directory.rglob("*") if path.is_file()}
    with pytest.raises(UserError, match="job 0 was begun with seed=0, and would now have seed=1"):
        sweep("seed=1,0")
    now = {path: path.read_bytes() for path in workers.directory.rglob("*") if path.is_file()}
    assert now == before and workers.launched == [0, 1]


def test_a_new_folder_each_time_is_said(
    sweep: Callable[..., Any], workers: Workers, capsys: pytest.CaptureFixture[str]
) -> None:
    """Breaks if a second worker waits for ever to share a sweep, in another folder."""
    sweep("seed=0,1")
    assert "run_dir is new" not in capsys.readouterr().out
    place = workers.directory
    sweep("seed=0,1", place=f"paths.runs_dir={place}")
    assert f"with run_dir={place}/phantom/20" in capsys.readouterr().out
