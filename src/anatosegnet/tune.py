"""``python -m anatosegnet.tune search=default``: the best settings, found with Optuna.

Each trial is a ``train`` process of its own; the validation IoU of its epochs is what is searched
by. A split that validates on its test cases is refused.
"""

import re
import shlex
import shutil
import signal
import sys
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from anatosegnet.cli import verb
from anatosegnet.config.objects import instantiate
from anatosegnet.config.overrides import key_of, parse
from anatosegnet.console import say, without_password
from anatosegnet.errors import UserError, reason
from anatosegnet.process import this_process
from anatosegnet.run import Run
from anatosegnet.tuning.report import in_short, report
from anatosegnet.tuning.space import (
    Dimension,
    check,
    read_space,
    searchpath,
)
from anatosegnet.tuning.study import (
    conditions_of,
    count,
    fail_lost_trials,
    is_of_the_storage,
    left,
    open_storage,
    open_study,
)
from anatosegnet.tuning.trial import Training, TrialFailed, val_iou

if TYPE_CHECKING:
    import optuna

    from anatosegnet.data.split import Split

TRAIN = [sys.executable, "-m", "anatosegnet.train"]
GIVE_UP = 5  # failures without a single score: it is not the searched settings
DECIDED = {
    "run_dir": "give the study's directory instead: search.directory=DIR",
    "resume": "the same command again goes on with a study",
    "from_run": "give the settings themselves",
    "test": "tuning never scores the test cases; train with the best settings to test them",
}


@verb("tune")
def main(config: DictConfig) -> None:
    """Search, or go on with a search, and show what was found."""
    tune(config, given_overrides())


def given_overrides() -> list[str]:
    """The overrides on the command line that are train's, not the search's.

    Raises:
        UserError: One is for the study to decide, or this is a sweep.
    """
    hydra = HydraConfig.get()
    if hydra.mode == RunMode.MULTIRUN:
        raise UserError(
            "tune chooses the settings itself and does not go with -m or sweep=…; for several "
            "workers start the same command again"
        )
    given = []
    for override in parse(hydra.overrides.task):
        key = key_of(override)
        if key in DECIDED:
            raise UserError(f"{override.input_line} does not go with tune: {DECIDED[key]}")
        if key.split(".")[0] != "search":
            given.append(str(override.input_line))
    return given


def tune(config: DictConfig, given: Sequence[str]) -> "optuna.Study":
    """Run trials until the study has ``search.trials`` of them, and write what was found.

    Args:
        config: The composed config of the verb.
        given: Overrides that all trials share.

    Raises:
        UserError: The space, the study or its storage is at fault, or nothing but failures came.
    """
    try:
        import optuna
    except ImportError as error:
        raise UserError("tune needs Optuna: pip install 'anatosegnet[tune]'") from error

    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    search = config.search
    directory = Path(search.directory)
    if not isinstance(search.trials, int) or search.trials < 1:
        raise UserError(f"search.trials={search.trials}: give a number above 0")
    space = read_space(search.space)
    training = check(space, given)
    refuse_tuning_on_test(training)
    directory.mkdir(parents=True, exist_ok=True)
    lock = FileLock(directory / ".lock")  # of opening the study, and of starting a trial
    try:
        with lock:
            storage = open_storage(str(search.storage), directory)
            study = open_study(storage, directory, conditions_of(training, space))
            lost = fail_lost_trials(study, storage)
    except UserError:
        if [path.name for path in directory.iterdir()] == [".lock"]:
            (directory / ".lock").unlink()
        raise
    if lost:
        numbers = ", ".join(map(str, lost))
        say(f"trial {numbers}: its process is gone; another takes its place")
    worker = Worker(study, space, given, directory, lock, int(training.trainer.max_epochs or 0))
    if "wandb" in (training.logger or {}) and training.logger.wandb.group is None:
        worker.common.append(f"logger.wandb.group={study.study_name}")
    previous = signal.signal(signal.SIGTERM, interrupt)
    try:
        worker.work(search)
    except KeyboardInterrupt as stop:
        again = f"python -m anatosegnet.tune {shlex.join(sys.argv[1:])}"
        say(f"interrupted; the finished trials are kept, go on with: {again}", error=True)
        raise SystemExit(143 if stop.args else 130) from None
    except Exception as error:
        if is_of_the_storage(error):
            why = without_password(reason(error))
            raise UserError(
                f"the study's storage failed ({why}); what it holds is kept, and the same command "
                "goes on with it"
            ) from error
        raise
    finally:
        signal.signal(signal.SIGTERM, previous)
    report(study, space, given, directory, training)
    running = count(study)["running"]
    if running:
        say(f"{running} trials still run in other workers, which will write this again")
    return study


def interrupt(number: int, _: Any) -> None:
    """SIGTERM ends a study as Ctrl-C does."""
    raise KeyboardInterrupt(number)


def refuse_tuning_on_test(training: DictConfig) -> None:
    """UserError if the split of the data that are there validates on its test cases."""
    from anatosegnet.data.groups import with_groups
    from anatosegnet.training.build import build_data

    data = build_data(training)
    # copies are looked for by the trials: they move cases between parts, never into two
    require_separate(data.splitter(with_groups(data.prepare_cases().values(), {})))


def require_separate(split: "Split") -> None:
    """UserError if a case both validates and tests."""
    if shared := set(split.val) & set(split.test):
        raise UserError(
            f"{len(shared)} of the {len(split.test)} test cases also validate "
            f"({split.description}), so the search would fit them; take another split, such as "
            "split=holdout"
        )


@dataclass
class Worker:
    """One process that runs trials of a study, one at a time.

    Attributes:
        study: The study, perhaps shared with other workers.
        space: What is searched.
        given: Overrides that all trials share.
        directory: Of the study; trial n trains in ``trials/000n``.
        lock: Held while a trial is being started, so that no two workers start the last one.
        epochs: Planned for each trial.
        common: More overrides, of where and how a trial runs.
    """

    study: "optuna.Study"
    space: Sequence[Dimension]
    given: Sequence[str]
    directory: Path
    lock: FileLock
    epochs: int
    common: list[str] = field(default_factory=list)

    def work(self, search: DictConfig) -> None:
        """Run trials until none is left to be started."""
        import optuna

        seed = search.sampler.get("seed")
        while True:
            self.lock.acquire()
            try:
                if not left(self.study, search.trials):
                    return
                # each trial draws from its own numbers, whoever runs it, and after whatever crash
                if seed is not None:
                    search.sampler.seed = seed + len(self.study.get_trials(deepcopy=False))
                self.study.sampler = instantiate(search, "sampler")
                self.study.pruner = instantiate(search, "pruner")
                self.study.optimize(self.run_trial, n_trials=1, catch=(TrialFailed,))
            except optuna.exceptions.UpdateFinishedTrialError:
                say("this trial was taken for dead by another worker; its result is lost")
            finally:
                if self.lock.is_locked:
                    self.lock.release()
            self.tidy()
            self.give_up()

    def run_trial(self, trial: "optuna.Trial") -> float:
        """Train with the settings of one trial; returns the best validation IoU."""
        import optuna

        from anatosegnet.data.leakage import recorded_split

        for key, value in this_process().items():
            trial.set_user_attr(key, value)
        self.lock.release()
        chosen = [dimension.suggest(trial) for dimension in self.space]
        run = Run(self.directory / "trials" / f"{trial.number:04d}")
        trial.set_user_attr("overrides", chosen)
        command = [*TRAIN, *searchpath(), *self.given, *chosen, *self.common,
                   f"run_dir={quoted(str(run.directory))}", "test=false"]  # fmt: skip
        say_trial(
            trial,
            " ".join(
                f"{key.rsplit('.', 1)[-1]}={in_short(value)}" for key, value in trial.params.items()
            ),
        )
        started = time.monotonic()
        with Training(command, run.metrics_path, run.directory.with_suffix(".log")) as training:
            for epoch, score in training.epochs():
                if run.split_path.is_file():  # a searched setting may have chosen another split
                    require_separate(recorded_split(run).read())
                trial.report(score, epoch)
                last = 0 < self.epochs <= epoch + 1
                if not last and trial.should_prune():
                    training.stop()
                    self.record(trial, run, started)
                    say_trial(
                        trial,
                        f"pruned after epoch {epoch + 1} of {self.epochs}, val/iou {score:.4f}",
                    )
                    raise optuna.TrialPruned
        scores = val_iou(run.metrics_path)
        if training.process.returncode != 0 or not scores:
            failure = training.failure() if training.process.returncode else "it wrote no val/iou"
            trial.set_user_attr("failure", failure)
            say_trial(trial, f"failed: {failure}; see {training.log}")
            raise TrialFailed(failure)
        best = self.record(trial, run, started)
        minutes = trial.user_attrs["minutes"]
        say_trial(trial, f"val/iou {best:.4f} at epoch {trial.user_attrs['best_epoch']} of "
                   f"{len(scores)}, {minutes:.1f} min")  # fmt: skip
        return best

    def record(self, trial: "optuna.Trial", run: Run, started: float) -> float:
        """Keep what the table shows of a trial; returns its best validation IoU."""
        scores = val_iou(run.metrics_path)
        best = max(scores, key=lambda epoch: (scores[epoch], -epoch))
        trial.set_user_attr("best_epoch", best + 1)
        trial.set_user_attr("epochs", max(scores) + 1)
        trial.set_user_attr("minutes", round((time.monotonic() - started) / 60, 2))
        return scores[best]

    def tidy(self) -> None:
        """Keep the checkpoints of the best trial only: those of a whole study would fill a disk."""
        from optuna.trial import TrialState

        complete = (TrialState.COMPLETE,)
        best = self.study.best_trial.number if self.study.get_trials(False, complete) else None
        for trial in self.study.get_trials(deepcopy=False):
            if trial.state.is_finished() and trial.number != best:
                folder = self.directory / "trials" / f"{trial.number:04d}" / "checkpoints"
                shutil.rmtree(folder, ignore_errors=True)

    def give_up(self) -> None:
        """UserError if there was never anything but failures."""
        counts = count(self.study)
        if counts["complete"] + counts["pruned"] == 0 and counts["failed"] >= GIVE_UP:
            failures = [trial.user_attrs.get("failure") for trial in self.study.trials]
            last = [failure for failure in failures if failure][-1]
            raise UserError(f"all {counts['failed']} trials failed, the last with: {last}")


def quoted(text: str) -> str:
    """A path as hydra reads it: quoted where it holds more than plain letters."""
    if re.fullmatch(r"[\w./-]+", text):
        return text
    return "'" + text.replace("'", "\\'") + "'"


def say_trial(trial: "optuna.Trial", text: str) -> None:
    """One line about a trial."""
    say(f"trial {trial.number:<4d} {text}")


if __name__ == "__main__":
    main()
