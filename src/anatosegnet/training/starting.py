"""Which run a command means: a new one, one to go on with, or one to repeat."""

import os
import re
import time
from collections.abc import Sequence
from contextlib import suppress
from fnmatch import fnmatchcase
from itertools import count
from pathlib import Path
from typing import Any

from hydra import compose
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict, read_write
from omegaconf.errors import OmegaConfBaseException

from anatosegnet.config.checks import expand_home
from anatosegnet.config.keys import (
    PATHS_READ,
    RESUMED_WITH,
    SETTLED,
    Role,
    flatten,
    is_of_the_run,
    role,
)
from anatosegnet.config.overrides import (
    FORCED,
    given,
    given_keys,
    in_override,
    is_group,
    key_of,
    parse,
)
from anatosegnet.config.places import path_part, user_path
from anatosegnet.config.recorded import MARK, confine, moved, read_config, with_strings
from anatosegnet.config.whereabouts import at_home
from anatosegnet.console import plain, some
from anatosegnet.errors import UserError
from anatosegnet.run import Run
from anatosegnet.training.resuming import apply, changes_between


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
        config, output = repeated(config, source, overrides, output)
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
        if run.claim():
            break
        run = Run(output.with_name(f"{output.name}-{number}"))
    whole: Any = HydraConfig.instance().cfg
    with read_write(whole.hydra):
        whole.hydra.run.dir = str(run.directory)  # for processes that train with this one
    return run


def is_named() -> bool:
    """Whether the user gave the directory of a new run; the jobs of a sweep are numbered in it."""
    hydra = HydraConfig.get()
    directories = [o for o in hydra.overrides.hydra if o.lstrip("+").startswith("hydra.run.dir=")]
    return bool(directories) or hydra.mode == RunMode.MULTIRUN or "run_dir" in given_keys()


def resumed(config: DictConfig, run: Run, overrides: Sequence[str]) -> DictConfig:
    """The recorded config of a run, with what the command line changes of it."""
    recorded = run.config
    keys = [key_of(override) for override in parse(overrides)]
    at_home(recorded, config.paths, keys)
    apply(recorded, overrides, run)
    with open_dict(recorded):
        recorded.run_dir = recorded.resume = str(run.directory)
        recorded.accept_changed_data = config.accept_changed_data
    expand_home(recorded)
    confine(recorded, keys)
    return recorded


def repeated(
    config: DictConfig, source: Run, overrides: Sequence[str], output: Path
) -> tuple[DictConfig, Path]:
    """The config of a run that repeats another one, and its directory.

    Without further overrides this is the recorded config. With some, it is composed anew from
    the recorded command line and these, so that what depends on them follows.
    """
    own = about_the_run(overrides)
    keys = [key_of(override) for override in parse(overrides)]
    if not is_named():
        name = [path_part(part, "name") for part in str(source.config.name).split("/")]
        now = time.strftime("%Y-%m-%d_%H-%M-%S")
        output = Path(user_path(config.paths.runs_dir), *name, now)
    again = read_config(source.config_path, output, source.trust)
    moves = all(role(key_of(override)) is Role.PLACE for override in parse(own))
    if own and not moves:
        again = composed_again(source, own)
    with open_dict(again):
        again.run_dir, again.resume = str(output), None
        at_home(again, config.paths, keys)
        if moves:
            apply(again, own, source)
        again.from_run = str(source.directory.absolute())
        again.accept_changed_data = config.accept_changed_data
        again.pop(RESUMED_WITH, None)
    OmegaConf.resolve(again)
    expand_home(again)
    confine(again, keys)
    return again, output


def composed_again(source: Run, own: Sequence[str]) -> DictConfig:
    """The config of a run with further overrides, composed from its recorded command line.

    Raises:
        UserError: There is no such command line, or it gives another config today.
    """
    recorded, kept = source.config, recorded_overrides(source)
    try:
        before = compose("train", kept)
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(
            f"what {source.directory} was begun with cannot be composed any more "
            f"({plain(' '.join(str(error).split()))[:200]}); repeat it without further overrides"
        ) from error
    changed = differences(before, recorded)
    if changed:
        raise UserError(
            f"the configs were changed since {source.directory}: {some(changed, 5)}; "
            "repeat it without further overrides"
        )
    again = compose("train", [*kept, *own])
    keys = {key_of(override) for override in parse(own)}
    flat = flatten(recorded)
    with open_dict(again):
        again[MARK] = recorded[MARK]
        for key in {"trainer.precision", *PATHS_READ} - keys:
            if key in flat and not any(key.startswith(f"{own_key}.") for own_key in keys):
                OmegaConf.update(again, key, flat[key], force_add=True)
    return again


def recorded_overrides(source: Run) -> list[str]:
    """The command line that a run recorded, as far as it is of the run.

    Raises:
        UserError: There is none, or it holds what only its author's command line may.
    """
    known = source.summary.get("overrides")
    if not isinstance(known, list) or not all(isinstance(text, str) for text in known):
        raise UserError(f"{source.summary_path} has no overrides to compose the run from")
    try:
        parsed = parse(known)
    except HydraException as error:
        raise UserError(f"{source.summary_path}: its overrides cannot be read") from error
    kept = []
    for override in parsed:
        text, key = str(override.input_line), key_of(override)
        outside = is_group(key) and re.search(r"(^|[=\[,'\"])/|\.\.", text)
        looks_up = "${" in text or key.partition(".")[0] == "hydra"
        if looks_up or outside or override.is_sweep_override():
            raise UserError(
                f"{source.summary_path} holds {plain(text)!r}, which may look up things on this "
                "machine; repeat the run without further overrides"
            )
        if is_of_the_run(key) and not key.startswith("data.cache_dir"):
            kept.append(text)
    return kept


def about_the_run(overrides: Sequence[str]) -> list[str]:
    """The overrides that are not about the command or the user's folders."""
    return [str(o.input_line) for o in parse(overrides) if is_of_the_run(key_of(o))]


def overrides_of(config: DictConfig, run: Run) -> list[str] | None:
    """The overrides that compose a run's config again, for its ``summary.json``.

    What those that began the run, or the one that it repeats, do not give is added to them. None
    where the run has recorded none.
    """
    if config.resume is not None:
        overrides = run.summary.get("overrides")
    elif config.get("from_run") and HydraConfig.initialized():
        overrides = given()
        with suppress(UserError):  # a repetition without further overrides needs none
            overrides = [*recorded_overrides(Run(config.from_run)), *overrides]
    else:
        return given()
    if overrides is None or not HydraConfig.initialized():
        return overrides
    flat = flatten(config)
    for _ in range(3):  # what is added may change what depends on it
        try:
            composed = compose(
                "train", [o for o in overrides if is_of_the_run(key_of(parse([o])[0]))]
            )
        except (HydraException, OmegaConfBaseException):
            break
        missing = differences(composed, config)
        if not missing:
            break
        overrides = [*overrides, *(f"{FORCED}{k}={in_override(flat.get(k))}" for k in missing)]
    return list(overrides)


def differences(composed: DictConfig, recorded: DictConfig) -> list[str]:
    """Keys in which two configs differ, but for where things lie and what the machine decides."""
    changed = changes_between(recorded, composed)
    ignored = (*PATHS_READ, *SETTLED)
    return [
        key
        for key in changed
        if role(key) is not Role.PLACE and not any(fnmatchcase(key, own) for own in ignored)
    ]


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


def is_first_process() -> bool:
    """Whether this is the process that writes, of those that train together."""
    return os.environ.get("LOCAL_RANK", "0") == "0" and os.environ.get("SLURM_PROCID", "0") == "0"
