"""A run that goes on with other settings: what takes effect is recorded, the rest is refused."""

import difflib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra import compose
from omegaconf import DictConfig, OmegaConf, open_dict

from anatosegnet.config.checks import expand_home
from anatosegnet.config.composition import dotted_keys
from anatosegnet.config.keys import (
    RESUMED_WITH,
    Role,
    flatten,
    is_of_the_run,
    may_change,
    placeless,
    role,
)
from anatosegnet.config.overrides import in_override, is_group, key_of, parse
from anatosegnet.config.recorded import confine
from anatosegnet.config.whereabouts import at_home
from anatosegnet.console import plain
from anatosegnet.errors import UserError
from anatosegnet.run import Run

if TYPE_CHECKING:
    from lightning import LightningModule

Changes = dict[str, tuple[Any, Any]]  # of each setting: as it was, and as it is now


def apply(recorded: DictConfig, overrides: Sequence[str], run: Run) -> None:
    """Change a recorded config by overrides, which are looked up in it.

    Args:
        recorded: The config; changed in place.
        overrides: As on a command line.
        run: Whose config it is.

    Raises:
        UserError: There is no such setting in the run, or a whole group is chosen anew.
    """
    known = dotted_keys(recorded)
    for override in parse(overrides):
        key = key_of(override)
        if not is_of_the_run(key):
            continue
        if is_group(key):
            if key != "logger":
                raise cannot_change(str(override.input_line), run)
            with open_dict(recorded):
                recorded.logger = compose("train", [str(override.input_line)]).logger
            continue
        if key not in known and not (override.is_add() or override.is_force_add()):
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"+{override.input_line} adds it"
            raise UserError(f"{key} is not a setting of {run.directory}; {hint}")
        OmegaConf.update(recorded, key, override.value(), force_add=True)


def cannot_change(override: str, run: Run) -> UserError:
    """The refusal of what cannot change, with what can be done instead."""
    return UserError(
        f"{plain(override)} cannot be changed when resuming; from_run={run.directory} "
        f"{plain(override)} starts anew"
    )


def changes_between(before: DictConfig, after: DictConfig) -> Changes:
    """The settings in which a run goes on otherwise than it was recorded.

    What is null, empty, or not there is the same.
    """
    then, now = (
        {key: None if value in ({}, []) else value for key, value in placeless(config).items()}
        for config in (before, after)
    )
    return {
        key: (then.get(key), now.get(key))
        for key in {**then, **now}
        if then.get(key) != now.get(key) and role(key) is not Role.COMMAND and key != RESUMED_WITH
    }


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


@dataclass
class Resumption:
    """What is other when a run goes on.

    Attributes:
        run: The run.
        changes: The settings that are other now; all of them take effect.
        done: Epochs that were finished before, once the checkpoint is known.
    """

    run: Run
    changes: Changes
    done: int = 0

    @classmethod
    def judge(cls, config: DictConfig, run: Run) -> "Resumption":
        """Compare the config to go on with and the recorded one.

        Args:
            config: Before anything else was done with it.
            run: The run.

        Raises:
            UserError: A change would be without effect, or spoil what was done.
        """
        before = run.config
        changes = changes_between(before, config)
        settings = {**flatten(before), **flatten(config)}
        for key, (_, value) in changes.items():
            if not may_change(key, settings):
                raise cannot_change(f"{key}={in_override(value)}", run)
        return cls(run, changes)

    def require_effect(
        self, config: DictConfig, module: "LightningModule", checkpoint: Path | None
    ) -> None:
        """Refuse what the checkpoint to go on from (None: from the start) is at odds with.

        Raises:
            UserError: There are to be fewer epochs than there are already, or the loss is changed
                in what the checkpoint would put back.
        """
        self.done = epochs_done(checkpoint)
        epochs = config.trainer.get("max_epochs")
        if isinstance(epochs, int) and 0 <= epochs < self.done:
            raise UserError(
                f"{self.run.directory} has {self.done} epochs already, more than "
                f"trainer.max_epochs={epochs}"
            )
        for key, (_, value) in self.changes.items():
            if key.startswith("loss.") and has_state(module):
                raise cannot_change(f"{key}={in_override(value)}", self.run)

    def note(self, config: DictConfig) -> None:
        """Add to a config what of it was otherwise before, for all who compare runs."""
        settings = flatten(config)
        decisive = [
            f"{key}={in_override(value)} from epoch {self.done + 1} on"
            for key, (_, value) in self.changes.items()
            if role(key, settings) is Role.DECISIVE
        ]
        if decisive and self.done:
            with open_dict(config):
                config[RESUMED_WITH] = [*(config.get(RESUMED_WITH) or ()), *decisive]

    def entries(self, versions: Mapping[str, Any]) -> dict[str, Any]:
        """What ``summary.json`` says of it.

        Args:
            versions: Of what is installed now.
        """
        before = self.run.summary
        now: dict[str, Any] = {
            "when": time.strftime("%Y-%m-%d %H:%M:%S"),
            "from_epoch": self.done + 1,
            "changed": {key: {"from": a, "to": b} for key, (a, b) in self.changes.items()},
        }
        known = before.get("versions") or {}
        if other := {name: v for name, v in versions.items() if known.get(name) != v}:
            now["versions"] = other
        return {"resumptions": [*before.get("resumptions", ()), now]}

    @property
    def lines(self) -> list[str]:
        """The changes in words."""
        return [
            f"with {key}={in_override(value)}, was {in_override(before)}"
            for key, (before, value) in self.changes.items()
        ]


def has_state(module: "LightningModule") -> bool:
    """Whether the loss has numbers of its own, which a checkpoint would put back."""
    return any(name.startswith("loss.") for name in module.state_dict())


def epochs_done(checkpoint: Path | None) -> int:
    """Finished epochs of a checkpoint; 0 without one."""
    if checkpoint is None:
        return 0
    import torch

    content = torch.load(checkpoint, map_location="cpu", weights_only=True, mmap=True)
    return int(content["epoch"]) + 1
