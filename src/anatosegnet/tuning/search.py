"""A search from its first trial to its last: opened or gone on with, worked on, reported."""

import shlex
import signal
import sys
import uuid
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from anatosegnet.config.overrides import in_sweep, key_of, parse
from anatosegnet.console import say, without_password
from anatosegnet.errors import UserError, reason
from anatosegnet.files.locks import Claim
from anatosegnet.tuning.report import report
from anatosegnet.tuning.space import DECIDED, check, read_space
from anatosegnet.tuning.study import (
    conditions_of,
    count,
    fail_lost_trials,
    is_of_the_storage,
    open_storage,
    open_study,
)
from anatosegnet.tuning.worker import Worker, require_separate

if TYPE_CHECKING:
    import optuna


def given_overrides() -> list[str]:
    """The overrides on the command line that are train's, not the search's.

    Raises:
        UserError: One is for the study to decide, or this is a sweep.
    """
    if in_sweep():
        raise UserError(
            "tune chooses the settings itself and does not go with -m or sweep=…; for several "
            "workers start the same command again"
        )
    given = []
    for override in parse(HydraConfig.get().overrides.task):
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
    alive = Claim(directory.absolute() / f".worker-{uuid.uuid4().hex}.lock")
    epochs = int(training.trainer.max_epochs or 0)
    worker = Worker(study, space, given, directory, lock, alive, epochs)
    if "wandb" in (training.logger or {}) and training.logger.wandb.group is None:
        worker.common.append(f"logger.wandb.group={study.study_name}")
    previous = signal.signal(signal.SIGTERM, interrupt)
    try:
        alive.take()
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
        alive.release()
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
    from anatosegnet.config.objects import instantiate
    from anatosegnet.data.build import build_found_data
    from anatosegnet.data.groups import with_groups

    splitter, data = instantiate(training, "split"), build_found_data(training)
    # duplicates are looked for by the trials: they move cases between parts, never into two
    require_separate(splitter(with_groups(data.cases.values(), {})))
