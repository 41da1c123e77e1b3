"""Which run a command means: a new one, one to go on with, or one to repeat."""

from contextlib import ExitStack
from itertools import count
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from anatosegnet.config.keys import Role, flatten, role
from anatosegnet.config.overrides import given, given_keys, in_sweep
from anatosegnet.config.recorded import moved, with_strings
from anatosegnet.console import is_first_process, say
from anatosegnet.errors import TrainingFailed, UserError
from anatosegnet.run import Run
from anatosegnet.training.repetition import repeated
from anatosegnet.training.resume import changes_between, resumed


def open_run(config: DictConfig, output: Path) -> tuple[DictConfig, Run] | None:
    """The config and directory of the run that the command means.

    Args:
        config: As composed.
        output: The directory that Hydra made for a new run.

    Returns:
        None for a job of a sweep that is not to be trained here and now.

    Raises:
        UserError: The command contradicts itself, or the run cannot be gone on with or repeated.
        TrainingFailed: The job failed before, and is not to be tried again.
    """
    refuse_processes_in_sweep(config)
    if config.resume == "auto":
        return (open_job if in_sweep() else go_on)(config, Run(output, config.trust))
    if config.retry:
        raise UserError("retry=true goes with resume=auto, of a sweep whose failed jobs it means")
    if config.resume is not None and config.from_run is not None:
        raise UserError("resume= goes on in a run, from_run= repeats one: give one of them")
    if config.resume is not None:
        run = Run.open(config.resume, "resume=DIR", config.trust)
        return resumed(config, run, given()), run
    return begin(config, Run(output))


def open_job(config: DictConfig, run: Run) -> tuple[DictConfig, Run] | None:
    """`open_run` of a job of a sweep that is gone on with, perhaps by several workers.

    The run is ours from here to the end of `Run.locked`, so that no other worker trains it too.
    """
    job = f"job {HydraConfig.get().job.num}"
    if not run.claim.take():
        say(f"{job} is passed over: {run.holder or 'another process'} trains it")
        return None
    with ExitStack() as undo:
        undo.callback(run.claim.release)
        state = run.summary.get("state") if run.exists else None
        if state == "failed" and not config.retry:
            raise TrainingFailed(f"{run.summary.get('error')}; retry=true tries it again")
        opened, _ = go_on(config, run)
        if state == "finished" and not goes_further(run.config, opened):
            say(f"{job} is finished: {run.directory}")
            return None
        undo.pop_all()
    return opened, run


def go_on(config: DictConfig, run: Run) -> tuple[DictConfig, Run]:
    """The run of a directory if it holds one, else a new one in it."""
    config.resume = None
    if not run.exists:
        return begin(config, run)
    # what the run was begun with is no change; it may have been changed since
    begun = run.summary.get("overrides", ())
    return resumed(config, run, [override for override in given() if override not in begun]), run


def goes_further(before: DictConfig, now: DictConfig) -> bool:
    """Whether a finished run would be prolonged."""
    settings = flatten(now)
    return any(role(key, settings) is Role.LENGTH for key in changes_between(before, now))


def begin(config: DictConfig, run: Run) -> tuple[DictConfig, Run]:
    """A run that is trained from its first epoch on: a new one, or one that repeats another."""
    output = run.directory
    if config.from_run is not None:
        source = Run.open(config.from_run, "from_run=DIR", config.trust)
        config, output = repeated(config, source, given(), output if is_named() else None)
    if output != run.directory:
        run = Run(output)
    run = new_run(run)
    if run.directory != output:
        plain_config = OmegaConf.to_container(config)
        now = str(run.directory)
        config = OmegaConf.create(
            with_strings(plain_config, lambda _, text: moved(text, (str(output),), now))
        )
    with open_dict(config):
        config.run_dir = str(run.directory)
    return config, run


def new_run(run: Run) -> Run:
    """The run of a directory that holds none.

    One that the user did not name, such as that of another training begun in the same second, is
    given a number.

    Raises:
        UserError: The directory that the user named already holds a run.
    """
    output = run.directory
    if not is_first_process():
        return run
    if is_named():
        run.require_new()
        return run
    for number in count(1):
        if run.take_new():
            break
        run = Run(output.with_name(f"{output.name}-{number}"))
    whole: Any = HydraConfig.instance().cfg
    with read_write(whole.hydra):
        whole.hydra.run.dir = str(run.directory)  # for processes that train with this one
    return run


def is_named() -> bool:
    """Whether the user gave the directory of a new run; the jobs of a sweep are numbered in it."""
    given_to_hydra = HydraConfig.get().overrides.hydra
    directories = [o for o in given_to_hydra if o.lstrip("+").startswith("hydra.run.dir=")]
    return bool(directories) or in_sweep() or "run_dir" in given_keys()


def refuse_processes_in_sweep(config: DictConfig) -> None:
    """UserError for several processes in a sweep: they would replay it."""
    trainer = config.trainer
    processes: Any = trainer.get("devices", 1)
    if in_sweep() and (processes not in (1, "1", "auto") or trainer.get("num_nodes", 1) != 1):
        raise UserError(
            f"trainer.devices={processes} does not go with -m: its processes would replay the "
            "sweep; start one command per run, or use trainer.devices=1"
        )
