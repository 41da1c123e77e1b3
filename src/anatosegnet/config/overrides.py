"""Overrides of a command line, read as Hydra reads them."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType
from hydra.errors import HydraException
from hydra.types import RunMode

from anatosegnet.errors import UserError

FORCED = "++"  # set whether or not it is there


def parse(overrides: Sequence[str]) -> list[Override]:
    """Overrides as Hydra understands them."""
    return OverridesParser.create().parse_overrides(list(overrides))


def key_of(override: Override) -> str:
    """``optimizer.lr`` of ``+optimizer.lr=1``; ``data`` of ``data@x=busi``."""
    return str(override.key_or_group).replace("/", ".")


def is_group(key: str) -> bool:
    """Whether an override of this key chooses a file. Call it inside a hydra program."""
    hydra_ = GlobalHydra.instance().hydra
    assert hydra_ is not None
    return bool(hydra_.config_loader.get_group_options(key.replace(".", "/")))


def in_override(value: Any) -> str:
    """A value as the part of an override after ``=``."""
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    if isinstance(value, list):
        return "[" + ",".join(in_override(item) for item in value) + "]"
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{key}:{in_override(item)}" for key, item in value.items()) + "}"
    if isinstance(value, str) and not re.fullmatch(r"[A-Za-z_/][\w./-]*", value):
        return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"
    return str(value)


def readable(arguments: Sequence[str]) -> list[Override]:
    """The overrides among a program's arguments, those left out that Hydra will complain of.

    Raises:
        UserError: Spaces or brackets in a value were not quoted.
    """
    found = []
    for argument in arguments:
        if argument.startswith("-") or not ("=" in argument or argument.startswith("~")):
            continue
        try:
            found += parse([argument])
        except HydraException as error:
            key, _, value = argument.partition("=")
            inside = value.replace("\\", "\\\\").replace('"', '\\"')
            if re.fullmatch(r"[+~]*[\w./@-]+", key) and not value.startswith(("[", "{")):
                raise UserError(
                    f"{argument} cannot be read; a value with spaces, brackets or ~ is put in "
                    f"quotes, and all of it in others for the shell: '{key}=\"{inside}\"'"
                ) from error
    return found


def of_a_run(arguments: Sequence[str]) -> list[str]:
    """Arguments of ``train`` that Hydra takes whatever the settings of the named run are.

    With ``resume=DIR`` or ``from_run=DIR`` an override is about that run, which may have chosen
    other groups than the defaults that Hydra composes: ``data.root=…``, ``loss.gamma=…``. Such
    overrides are forced here; `given` gives them back, to be looked up in the run.
    """
    overrides = {override.input_line: override for override in readable(arguments)}
    named = any(
        key_of(override) in ("resume", "from_run") and override.value() not in (None, "auto")
        for override in overrides.values()
        if override.type == OverrideType.CHANGE
    )
    return [
        forced(argument, overrides.get(argument)) if named else argument for argument in arguments
    ]


def of_own_data(arguments: Sequence[str]) -> list[str]:
    """Arguments of ``evaluate`` in which ``data.root`` is taken without a choice of ``data``."""
    overrides = {override.input_line: override for override in readable(arguments)}
    if any(key_of(override) == "data" for override in overrides.values()):
        return list(arguments)
    return [
        forced(argument, overrides.get(argument)) if argument.startswith("data.") else argument
        for argument in arguments
    ]


def of_a_file(arguments: Sequence[str]) -> list[str]:
    """Arguments of ``predict`` and ``app``; their ``model=FILE`` is a file, not a group."""
    files = {
        override.input_line: override.value()
        for override in readable(arguments)
        if key_of(override) == "model" and isinstance(override.value(), str)
    }
    return [
        f"model={in_override({'file': files[argument]})}" if argument in files else argument
        for argument in arguments
    ]


def of_a_folder(arguments: Sequence[str]) -> list[str]:
    """Arguments of ``runs``, in which a folder may stand alone: ``DIR`` means ``dir=DIR``."""
    before = ["", *arguments]
    return [
        argument
        if "=" in argument or argument.startswith("-") or before[place].startswith("-")
        else f"dir={in_override(argument)}"
        for place, argument in enumerate(arguments)
    ]


def forced(argument: str, override: Override | None) -> str:
    """An override of a value as one that is set whether or not it is there."""
    if override is None or "." not in key_of(override) or key_of(override).startswith("hydra."):
        return argument
    if override.type == OverrideType.CHANGE:
        return FORCED + argument
    if override.type == OverrideType.DEL:
        return f"{FORCED}{key_of(override)}=null"  # as good as not there
    return argument


def given() -> list[str]:
    """The overrides of this job, without the mark of `of_a_run`; none outside a program."""
    if not HydraConfig.initialized():
        return []
    return [str(override).removeprefix(FORCED) for override in HydraConfig.get().overrides.task]


def in_sweep() -> bool:
    """Whether this is a job of a multirun (-m)."""
    return HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN


def is_own_data() -> bool:
    """Whether no other dataset was chosen on the command line of ``evaluate`` or ``compare``."""
    return HydraConfig.get().runtime.choices.get("data") in (None, "null")


def given_keys() -> list[str]:
    """The keys of the overrides of this job."""
    return [key_of(override) for override in parse(given())]
