"""Which run a command means: a new one, one to go on with, or one to repeat."""

from itertools import count
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from anatosegnet.config.overrides import given, given_keys, in_sweep
from anatosegnet.config.recorded import moved, with_strings
from anatosegnet.console import is_first_process
from anatosegnet.errors import UserError
from anatosegnet.run import Run
from anatosegnet.training.repetition import repeated
from anatosegnet.training.resume import resumed


def open_run(config: DictConfig, output: Path) -> tuple[DictConfig, Run]:
    """The config and directory of the run that the command means.

    Args:
        config: As composed.
        output: The directory that Hydra made for a new run.

    Raises:
        UserError: The command contradicts itself, or the run cannot be gone on with or repeated.
    """
    overrides = given()
    refuse_processes_in_sweep(config)
    if config.resume is not None and config.from_run is not None:
        raise UserError("resume= goes on in a run, from_run= repeats one: give one of them")
    if config.resume == "auto":
        config.resume = str(output) if Run(output).exists else None
        # what the run was begun with is no change; it may have been changed since
        begun = Run(output).summary.get("overrides", ()) if config.resume else ()
        overrides = [override for override in overrides if override not in begun]
    if config.resume is not None:
        run = Run.open(config.resume, "resume=DIR", config.trust)
        return resumed(config, run, overrides), run
    if config.from_run is not None:
        source = Run.open(config.from_run, "from_run=DIR", config.trust)
        config, output = repeated(config, source, overrides, output if is_named() else None)
    run = new_run(output)
    if run.directory != output:
        plain_config = OmegaConf.to_container(config)
        now = str(run.directory)
        config = OmegaConf.create(
            with_strings(plain_config, lambda _, text: moved(text, (str(output),), now))
        )
    with open_dict(config):
        config.run_dir = str(run.directory)
    return config, run


def new_run(output: Path) -> Run:
    """The run of a directory that holds none.

    One that the user did not name, such as that of another training begun in the same second, is
    given a number.

    Raises:
        UserError: The directory that the user named already holds a run.
    """
    run = Run(output)
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
