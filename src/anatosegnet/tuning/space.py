"""``search.space``: which settings are searched, and between what."""

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from anatosegnet.config.composition import dotted_keys, one_line
from anatosegnet.config.keys import Role, role
from anatosegnet.config.overrides import in_override, is_group, key_of, parse
from anatosegnet.errors import UserError

if TYPE_CHECKING:
    import optuna

WORDS = {"low", "high", "log", "step", "choices"}
# what a study decides itself, and what to give instead
DECIDED = {
    "run_dir": "give the study's directory instead: search.directory=DIR",
    "resume": "the same command again goes on with a study",
    "retry": "other trials take the place of those that failed",
    "from_run": "give the settings themselves",
    "test": "tuning never scores the test cases; train with the best settings to test them",
}


@dataclass(frozen=True)
class Dimension:
    """One searched setting.

    Attributes:
        key: The setting or the group, as in an override: ``optimizer.lr``, ``loss``.
        low: Least value; an int where the setting is searched in whole numbers.
        high: Greatest value, itself possible.
        log: Search the logarithm.
        step: Distance of two values, from ``low``.
        choices: Instead of all that: what the override says after ``key=``.
    """

    key: str
    low: float = 0
    high: float = 0
    log: bool = False
    step: float | None = None
    choices: tuple[str, ...] = ()

    def suggest(self, trial: "optuna.Trial") -> str:
        """The override of one trial."""
        value: str | float
        if self.choices:
            value = trial.suggest_categorical(self.key, self.choices)
        elif isinstance(self.low, int) and isinstance(self.high, int):
            step = 1 if self.log else int(self.step or 1)
            value = trial.suggest_int(self.key, self.low, self.high, step=step, log=self.log)
        else:
            value = trial.suggest_float(self.key, self.low, self.high, log=self.log, step=self.step)
        return f"{self.key}={value}"

    def examples(self) -> list[str]:
        """Overrides of all choices, or of the low end."""
        return [f"{self.key}={value}" for value in self.choices or (self.low,)]

    def describe(self) -> dict[str, Any]:
        """The same in words, for comparing studies."""
        if self.choices:
            return {"choices": list(self.choices)}
        return {"low": self.low, "high": self.high, "log": self.log, "step": self.step}


def read_space(space: DictConfig | None) -> list[Dimension]:
    """The searched settings, from nested or dotted keys; those that are null are left out.

    Raises:
        UserError: The space is empty, or a description is not understood.
    """
    dimensions: list[Dimension] = []

    def walk(node: Any, key: str) -> None:
        if node is None:
            return
        if not isinstance(node, Mapping):
            known = "{low: …, high: …} or {choices: […]}"
            raise UserError(f"search.space: {key} is {node!r}; give {known}")
        if WORDS & set(node) and not any(isinstance(value, Mapping) for value in node.values()):
            dimensions.append(read_dimension(key, node))
            return
        for word, below in node.items():
            walk(below, f"{key}.{word}" if key else str(word))

    walk(OmegaConf.to_container(space, resolve=True) if space is not None else None, "")
    if not dimensions:
        raise UserError(
            "search.space is empty: say what to search, such as "
            "'+search.space.optimizer.lr={low:1e-5,high:1e-2,log:true}'"
        )
    keys = [dimension.key for dimension in dimensions]
    for key in keys:
        if keys.count(key) > 1:
            raise UserError(f"search.space holds {key} twice, once nested and once dotted")
    return dimensions


def read_dimension(key: str, node: Mapping[str, Any]) -> Dimension:
    """One description; raises UserError if it is not understood."""

    def wrong(what: str) -> UserError:
        return UserError(f"search.space: {key} {what}")

    unknown = sorted(set(map(str, node)) - WORDS)
    if unknown:
        raise wrong(f"has {', '.join(unknown)}; known are {', '.join(sorted(WORDS))}")
    if "choices" in node:
        choices = node["choices"]
        if len(node) > 1 or not isinstance(choices, list) or not choices:
            raise wrong("takes a list of choices and nothing else")
        texts = tuple(in_override(choice) for choice in choices)
        if len(set(texts)) < len(texts):
            raise wrong("has a choice twice")
        return Dimension(key, choices=texts)
    low, high = node.get("low"), node.get("high")
    log, step = node.get("log", False), node.get("step")
    for name, value in (("low", low), ("high", high), ("step", step)):
        if not is_number(value) and not (name == "step" and value is None):
            raise wrong(f"needs a number as {name}, not {value!r}")
    assert low is not None and high is not None
    if not low < high:
        raise wrong(f"has low={low}, which is not below high={high}")
    if log and (low <= 0 or step is not None):
        raise wrong("with log: true needs low above 0, and no step")
    if step is not None and step <= 0:
        raise wrong("needs a step above 0")
    if isinstance(low, int) and isinstance(high, int) and step is not None and int(step) != step:
        low, high = float(low), float(high)
    return Dimension(key, low, high, bool(log), step)


def is_number(value: Any) -> bool:
    """Whether a value is an int or a float; true and false are not."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def compose_training(overrides: Sequence[str]) -> DictConfig:
    """The config that ``train`` would have of these overrides. Call it inside a hydra program."""
    return hydra.compose("train", list(overrides))


def searchpath() -> list[str]:
    """``--config-dir`` of this program, for its trainings."""
    if not HydraConfig.initialized():
        return []
    sources = HydraConfig.get().runtime.config_sources
    return [
        argument
        for source in sources
        if source.provider == "command-line"
        for argument in ("--config-dir", source.path)
    ]


def check(space: Sequence[Dimension], given: Sequence[str]) -> DictConfig:
    """Compose every choice beside the given overrides; returns the config without any of them.

    Raises:
        UserError: A key is no setting, is also given, belongs to the study, or a choice of it
            does not compose.
    """
    for override in parse(given):
        key = key_of(override)
        for dimension in space:
            if dimension.key == key:
                raise UserError(
                    f"{key} is both searched and given: leave out {override.input_line}, or "
                    f"search.space.{key}=null"
                )
    training = compose_training(given)
    known = dotted_keys(training)
    for dimension in space:
        key = dimension.key
        if key in DECIDED or key.startswith("search.") or role(key) in (Role.COMMAND, Role.PLACE):
            raise UserError(f"search.space: {key} cannot be searched, the study decides it")
        if key not in known and not is_group(key):
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"; did you mean {near[0]}?" if near else "; train --cfg job lists the settings"
            raise UserError(f"search.space: {key} is not a setting{hint}")
    first = [dimension.examples()[0] for dimension in space]
    tried = [first]  # then one other choice at a time; a range composes where its low end does
    for index, dimension in enumerate(space):
        for other in dimension.examples()[1:]:
            tried.append([*first[:index], other, *first[index + 1 :]])
    for choices in tried:
        try:
            compose_training([*given, *choices])
        except (HydraException, OmegaConfBaseException) as error:
            message = f"search.space: {' '.join(choices)}: {one_line(error)}"
            raise UserError(message) from error
    return training
