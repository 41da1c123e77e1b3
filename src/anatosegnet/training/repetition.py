"""A run that repeats another one: its config, and whether it came to the same numbers."""

import re
import time
from collections.abc import Sequence
from contextlib import suppress
from fnmatch import fnmatchcase
from pathlib import Path

from hydra import compose
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from anatosegnet.config.checks import expand_home
from anatosegnet.config.keys import (
    DECIDES,
    PATHS_READ,
    RESUMED_WITH,
    SETTLED,
    Role,
    flatten,
    is_of_the_run,
    role,
    settings_of,
)
from anatosegnet.config.overrides import (
    FORCED,
    given,
    in_override,
    is_group,
    key_of,
    parse,
)
from anatosegnet.config.places import path_part, user_path
from anatosegnet.config.recorded import MARK, confine, read_config
from anatosegnet.config.whereabouts import at_home
from anatosegnet.console import plain, some
from anatosegnet.errors import UserError
from anatosegnet.files.epoch_table import read_epochs
from anatosegnet.run import PACKAGES, Run
from anatosegnet.training.resume import apply, changes_between


def repeated(
    config: DictConfig, source: Run, overrides: Sequence[str], output: Path | None
) -> tuple[DictConfig, Path]:
    """The config of a run that repeats another one, and its directory: None takes a new one.

    Without further overrides this is the recorded config. With some, it is composed anew from
    the recorded command line and these, so that what depends on them follows.
    """
    own = about_the_run(overrides)
    keys = [key_of(override) for override in parse(overrides)]
    if output is None:
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


def about_the_run(overrides: Sequence[str]) -> list[str]:
    """The overrides that are not about the command or the user's folders."""
    return [str(o.input_line) for o in parse(overrides) if is_of_the_run(key_of(o))]


def differences(composed: DictConfig, recorded: DictConfig) -> list[str]:
    """Keys in which two configs differ, but for where things lie and what the machine decides."""
    changed = changes_between(recorded, composed)
    ignored = (*PATHS_READ, *SETTLED)
    return [
        key
        for key in changed
        if role(key) is not Role.PLACE and not any(fnmatchcase(key, own) for own in ignored)
    ]


def source_of(config: DictConfig) -> Run | None:
    """The run that this one repeats, if it is still there."""
    source = Run(config.from_run) if config.get("from_run") else None
    return source if source is not None and source.exists else None


def agreement(config: DictConfig, run: Run, source: Run) -> str | None:
    """Whether a repetition came to the same epochs; None where something else was asked for."""
    if settings_of(config, *DECIDES) != settings_of(source.config, *DECIDES):
        return None
    ours, before = (read_epochs(each.metrics_path) for each in (run, source))
    for epoch, (now, then) in enumerate(zip(ours.values(), before.values(), strict=False), start=1):
        if now != then:
            name = next(name for name in {**now, **then} if now.get(name) != then.get(name))
            return (
                f"differs from {source.directory} from epoch {epoch} on ({name} {now.get(name)} "
                f"instead of {then.get(name)}){other_versions(run, source)}"
            )
    if len(ours) != len(before):
        return f"{len(ours)} epochs instead of {len(before)} of {source.directory}, those equal"
    return f"every epoch has the numbers of {source.directory}"


def other_versions(run: Run, source: Run) -> str:
    """What else was installed, and another machine or commit, in words."""
    now, then = run.summary, source.summary
    changes = [
        f"{name} {then['versions'].get(name)} → {now['versions'].get(name)}"
        for name in ("python", *PACKAGES)
        if then.get("versions", {}).get(name) != now["versions"].get(name)
    ]
    changes += [
        f"{key.replace('_', ' ')} {then.get(key)} → {now.get(key)}"
        for key in ("git_commit", "machine")
        if then.get(key) != now.get(key)
    ]
    return f"; changed since: {', '.join(changes)}" if changes else ""
