"""Which run a command means: a new one, one to go on with, or one to repeat."""

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra import compose
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict

from anatosegnet.errors import UserError
from anatosegnet.recorded import MARK
from anatosegnet.run import Run
from anatosegnet.settings import flatten

# of the command, not of the run
OWN = frozenset({"resume", "from_run", "run_dir", "trust", "accept_changed_data"})
PLACES = (
    MARK,
    "trust",
    "accept_changed_data",
    "run_dir",
    "resume",
    "from_run",
    "paths.",
    "hydra.",
    "logger.",
)  # may differ in a repetition


def open_run(config: DictConfig, output: Path) -> tuple[DictConfig, Run]:
    """The config and directory of the run that the command means.

    Args:
        config: As composed.
        output: The directory that Hydra made for a new run.

    Raises:
        UserError: The command contradicts itself, or the run cannot be gone on with or repeated.
    """
    hydra = HydraConfig.get()
    overrides = [str(override) for override in hydra.overrides.task]
    refuse_processes_in_sweep(config)
    if config.resume is not None and config.from_run is not None:
        raise UserError("resume= goes on in a run, from_run= repeats one: give one of them")
    resume = config.resume
    if resume == "auto":
        resume = output if Run(output).exists else None
    if resume is not None:
        return resumed(config, Run.open(resume, "resume=DIR", config.trust), overrides)
    if config.from_run is not None:
        config, output = repeated(
            config, Run.open(config.from_run, "from_run=DIR", config.trust), overrides, output
        )
    run = Run(output)
    if is_first_process():
        run.require_new()
    with open_dict(config):
        config.run_dir, config.resume = str(output), None
    return config, run


def resumed(config: DictConfig, run: Run, overrides: Sequence[str]) -> tuple[DictConfig, Run]:
    """The recorded config of a run, with what the command line changes of it."""
    recorded = run.config
    for override in overrides:  # such as trainer.max_epochs=100
        key = key_of(override)
        if key in OWN:
            continue
        value = OmegaConf.select(config, key)
        if override.startswith("~") or (value is None and OmegaConf.select(recorded, key) is None):
            raise UserError(f"{override} cannot be changed in a run that is gone on with")
        OmegaConf.update(recorded, key, value, force_add=True)
    with open_dict(recorded):
        recorded.run_dir = recorded.resume = str(run.directory)
        recorded.accept_changed_data = config.accept_changed_data
    return recorded, run


def repeated(
    config: DictConfig, source: Run, overrides: Sequence[str], output: Path
) -> tuple[DictConfig, Path]:
    """The config of a run that repeats another one, and its directory.

    Without further overrides this is the recorded config. With some, it is composed anew from
    the recorded command line and these, so that what depends on them follows.
    """
    recorded, given = source.config, [o for o in overrides if key_of(o) not in OWN]
    if given:
        known = source.summary.get("overrides")
        if known is None:
            raise UserError(f"{source.summary_path} has no overrides to compose the run from")
        kept = [override for override in known if key_of(override) not in OWN]
        changed = differences(compose("train", kept), recorded)
        if changed:
            raise UserError(
                f"the configs were changed since {source.directory}: {', '.join(changed[:5])}; "
                "repeat it without further overrides"
            )
        again = compose("train", [*kept, *given])
        with open_dict(again):
            again[MARK] = recorded[MARK]
    else:
        again = recorded
    if not any(key_of(override) == "run_dir" for override in overrides):
        now = time.strftime("%Y-%m-%d_%H-%M-%S")
        output = Path(config.paths.runs_dir) / str(again.name) / now
    place_below(again, str(again.run_dir), output)
    with open_dict(again):
        again.from_run, again.run_dir = str(source.directory), str(output)
        again.paths, again.accept_changed_data = config.paths, config.accept_changed_data
    return again, output


def place_below(config: DictConfig, before: str, output: Path) -> None:
    """Turn the recorded paths inside the earlier run into paths inside the new one."""
    for key, value in flatten(config).items():
        if isinstance(value, str) and Path(value).is_relative_to(before):
            moved = output / Path(value).relative_to(before)
            OmegaConf.update(config, key, str(moved))


def differences(composed: DictConfig, recorded: DictConfig) -> list[str]:
    """Keys in which two configs differ, except for where things lie."""
    before, now = flatten(recorded), flatten(composed)
    directories = (str(before.get("run_dir")), str(now.get("run_dir")))

    def same(key: str) -> bool:
        values = (str(before.get(key)), str(now.get(key)))
        placed = [v.replace(d, "") for v, d in zip(values, directories, strict=True)]
        return placed[0] == placed[1]

    keys = [key for key in {**before, **now} if not key.startswith(PLACES)]
    return [key for key in keys if key != "data.root" and not same(key)]


def refuse_processes_in_sweep(config: DictConfig) -> None:
    """UserError for several processes in a sweep: they would replay it."""
    trainer = config.trainer
    processes: Any = trainer.get("devices", 1)
    sweep = HydraConfig.get().mode == RunMode.MULTIRUN
    if sweep and (processes not in (1, "1", "auto") or trainer.get("num_nodes", 1) != 1):
        raise UserError(
            f"trainer.devices={processes} does not go with -m: its processes would replay the "
            "sweep; start one command per run, or use trainer.devices=1"
        )


def key_of(override: str) -> str:
    """The key that an override of the command line is about."""
    return override.split("=")[0].lstrip("+~").split("@")[0]


def is_first_process() -> bool:
    """Whether this is the process that writes, of those that train together."""
    return os.environ.get("LOCAL_RANK", "0") == "0" and os.environ.get("SLURM_PROCID", "0") == "0"
