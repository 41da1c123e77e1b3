"""A worker of a study: one process that runs trials, one at a time, perhaps beside others."""

import shutil
import socket
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock
from omegaconf import DictConfig

from anatosegnet.config.keys import shorten
from anatosegnet.config.objects import instantiate
from anatosegnet.config.overrides import in_override
from anatosegnet.console import say
from anatosegnet.errors import UserError
from anatosegnet.files.locks import Claim
from anatosegnet.run import Run
from anatosegnet.tuning.report import in_short
from anatosegnet.tuning.space import Dimension, searchpath
from anatosegnet.tuning.study import count, left
from anatosegnet.tuning.trial import Training, TrialFailed, val_iou

if TYPE_CHECKING:
    import optuna

    from anatosegnet.data.split import Split

TRAIN = [sys.executable, "-m", "anatosegnet.train"]
GIVE_UP = 5  # failures without a single score: it is not the searched settings


@dataclass
class Worker:
    """One process that runs trials of a study, one at a time.

    Attributes:
        study: The study, perhaps shared with other workers.
        space: What is searched.
        given: Overrides that all trials share.
        directory: Of the study; trial n trains in ``trials/000n``.
        lock: Held while a trial is being started, so that no two workers start the last one.
        alive: Held as long as this worker lives; by it others know whether its trial is lost.
        epochs: Planned for each trial.
        common: More overrides, of where and how a trial runs.
    """

    study: "optuna.Study"
    space: Sequence[Dimension]
    given: Sequence[str]
    directory: Path
    lock: FileLock
    alive: Claim
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

        run = Run(self.directory / "trials" / f"{trial.number:04d}")
        trial.set_user_attr("host", socket.gethostname())
        trial.set_user_attr("lock", str(self.alive.path))
        self.lock.release()
        tried = [dimension.suggest(trial) for dimension in self.space]
        trial.set_user_attr("overrides", tried)
        own = [*self.common, f"run_dir={in_override(str(run.directory))}", "test=false"]
        command = [*TRAIN, *searchpath(), *self.given, *tried, *own]
        short = shorten(list(trial.params))
        words = (f"{short[key]}={in_short(value)}" for key, value in trial.params.items())
        say_trial(trial, " ".join(words))
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
                    done = f"epoch {epoch + 1} of {self.epochs}"
                    say_trial(trial, f"pruned after {done}, val/iou {score:.4f}")
                    raise optuna.TrialPruned
        scores = val_iou(run.metrics_path)
        if training.process.returncode != 0 or not scores:
            failure = training.failure() if training.process.returncode else "it wrote no val/iou"
            trial.set_user_attr("failure", failure)
            say_trial(trial, f"failed: {failure}; see {training.log}")
            raise TrialFailed(failure)
        best = self.record(trial, run, started)
        found = trial.user_attrs
        when = f"epoch {found['best_epoch']} of {len(scores)}, {found['minutes']:.1f} min"
        say_trial(trial, f"val/iou {best:.4f} at {when}")
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


def require_separate(split: "Split") -> None:
    """UserError if a case both validates and tests."""
    if shared := set(split.val) & set(split.test):
        raise UserError(
            f"{len(shared)} of the {len(split.test)} test cases also validate "
            f"({split.description}), so the search would fit them; take another split, such as "
            "split=holdout"
        )


def say_trial(trial: "optuna.Trial", text: str) -> None:
    """One line about a trial."""
    say(f"trial {trial.number:<4d} {text}")
