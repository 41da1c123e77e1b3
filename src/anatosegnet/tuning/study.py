"""A study: where it is kept, what it must not be mixed with, and how many trials are left."""

import json
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from anatosegnet.config.keys import DECIDES, flat, nested, settings_of
from anatosegnet.config.recorded import renew
from anatosegnet.console import some, without_password
from anatosegnet.errors import UserError, reason
from anatosegnet.files.locks import holder
from anatosegnet.tuning.space import Dimension

if TYPE_CHECKING:
    import optuna

HEARTBEAT = 60  # seconds; a trial that is silent for three of them is taken for dead


def open_storage(where: str, directory: Path) -> "optuna.storages.BaseStorage":
    """The storage of ``search.storage``: sqlite, journal, a path, or a URL.

    Raises:
        UserError: It cannot be opened.
    """
    import optuna
    from optuna.storages import JournalStorage, RDBStorage
    from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

    where = {"sqlite": str(directory / "study.db"), "journal": str(directory / "study.log")}.get(
        where, where
    )
    try:
        if where.endswith(".log"):
            path = Path(where).resolve()
            path.parent.mkdir(parents=True, exist_ok=True)
            # Optuna's usual lock, a link, is never given up where the path is relative
            lock = JournalFileOpenLock(str(path), grace_period=10)
            return JournalStorage(JournalFileBackend(str(path), lock))
        engine: dict[str, Any] = {}
        if "://" not in where:
            Path(where).parent.mkdir(parents=True, exist_ok=True)
            where = f"sqlite:///{Path(where).resolve()}"
        if where.startswith("sqlite"):
            engine = {"connect_args": {"timeout": 60}}  # other workers write too
        return RDBStorage(
            where, engine_kwargs=engine, heartbeat_interval=HEARTBEAT, grace_period=3 * HEARTBEAT
        )
    except Exception as error:
        if is_of_the_storage(error) or isinstance(error, OSError | ValueError | ImportError):
            message = f"search.storage={where}: {reason(error).split(' [SQL: ')[0]}"
            raise UserError(without_password(message)) from error
        raise
    finally:
        optuna.logging.set_verbosity(optuna.logging.ERROR)


def is_of_the_storage(error: BaseException) -> bool:
    """Whether a study's database is at fault: its errors have no common ancestor."""
    return type(error).__module__.startswith(("sqlalchemy", "optuna.storages", "sqlite3")) or (
        type(error).__name__ in ("StorageInternalError", "DuplicatedStudyError")
    )


def open_study(
    storage: "optuna.storages.BaseStorage", directory: Path, conditions: dict[str, Any]
) -> "optuna.Study":
    """The study of a directory: a new one, or one to go on with.

    Args:
        storage: From `open_storage`.
        directory: Its name is a new study's.
        conditions: From `conditions_of`; kept in the study.

    Raises:
        UserError: The study was begun under other conditions.
    """
    import optuna

    name = directory.resolve().name
    trials = directory / "trials"
    has_trials = trials.is_dir() and any(trials.iterdir())
    names = optuna.get_all_study_names(storage)
    if has_trials and len(names) == 1:
        name = names[0]  # the folder's name when it was begun
    study = optuna.create_study(
        study_name=name,
        storage=storage,
        direction="maximize",
        load_if_exists=True,
    )
    begun = study.user_attrs.get("conditions")
    if begun is None:
        if study.get_trials(deepcopy=False) or has_trials:
            raise UserError(
                f"{directory} holds trials of something else; give another search.directory=DIR"
            )
        study.set_user_attr("conditions", conditions)
        return study
    then, now = renewed(begun), renewed(conditions)
    changes = [
        f"{key} was {json.dumps(then.get(key))}, now {json.dumps(now.get(key))}"
        for key in {**then, **now}
        if then.get(key) != now.get(key)
    ]
    if changes:
        raise UserError(
            f"the study in {directory} was begun with other settings: {some(changes, 3, '; ')}; "
            "go on with those, or give another search.directory=DIR"
        )
    return study


def renewed(conditions: Mapping[str, Any]) -> dict[str, Any]:
    """Conditions under the names that they have today."""
    tree = nested(conditions)
    renew(tree)
    return flat(tree)


def conditions_of(training: DictConfig, space: Sequence[Dimension]) -> dict[str, Any]:
    """All that makes two trials comparable: the settings they share, and the space.

    Where and how fast they run is left out: workers may differ in that.
    """
    searched = tuple(dimension.key for dimension in space)
    fixed = settings_of(training, *DECIDES)
    conditions = {
        key: value
        for key, value in sorted(fixed.items())
        if not any(key == name or key.startswith(f"{name}.") for name in searched)
    }
    for dimension in space:
        conditions[f"search.space.{dimension.key}"] = dimension.describe()
    return dict(json.loads(json.dumps(conditions, default=str)))


def fail_lost_trials(study: "optuna.Study", storage: "optuna.storages.BaseStorage") -> list[int]:
    """Mark the trials whose worker is gone as failed; returns their numbers.

    A worker holds a claim as long as it lives. Nobody may be starting a trial meanwhile: one of
    this machine that does not say whose it is counts as lost. Those of machines that share no disk
    with this one are found by their heartbeat: their storage is a database.
    """
    from optuna.trial import TrialState

    lost, here = [], socket.gethostname()
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        lock = Path(trial.user_attrs.get("lock", ""))
        if trial.user_attrs.get("host", here) != here and not lock.is_file():
            continue
        if not (lock.is_file() and holder(lock)):
            storage.set_trial_user_attr(trial._trial_id, "lost", True)
            study.tell(trial.number, state=TrialState.FAIL)
            lost.append(trial.number)
    return lost


def count(study: "optuna.Study") -> dict[str, int]:
    """Trials by what became of them: complete, pruned, failed, lost, running.

    Lost are those whose worker was interrupted or died: they say nothing about their settings.
    """
    from optuna.trial import TrialState

    names = {
        TrialState.COMPLETE: "complete",
        TrialState.PRUNED: "pruned",
        TrialState.FAIL: "failed",
        TrialState.RUNNING: "running",
    }
    counts = dict.fromkeys(("complete", "pruned", "failed", "lost", "running"), 0)
    for trial in study.get_trials(deepcopy=False):
        name = names.get(trial.state)
        if name == "failed" and "failure" not in trial.user_attrs:
            name = "lost"
        if name is not None:
            counts[name] += 1
    return counts


def left(study: "optuna.Study", trials: int) -> int:
    """How many trials are still to be started; running ones are as good as done."""
    counts = count(study)
    return max(0, trials - sum(counts[n] for n in ("complete", "pruned", "failed", "running")))
