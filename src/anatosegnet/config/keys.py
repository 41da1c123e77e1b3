"""What each setting is: the one table behind compare, from_run, resume and the paths of a config.

Everything else asks here whether two runs are one experiment, whether a setting may change while
a run goes on, and which settings are paths.
"""

from collections.abc import Mapping, Sequence
from enum import Enum
from fnmatch import fnmatchcase
from typing import Any

from omegaconf import DictConfig, OmegaConf

from anatosegnet.config.recorded import HERE, moved, with_strings


class Role(Enum):
    """What a setting means for the numbers of a run."""

    COMMAND = "which run a command means; no part of the run"
    PLACE = "where things lie, and where they are reported to"
    CIRCUMSTANCE = "how fast it is computed, and what is shown of it"
    REPETITION = "another draw of the same experiment"
    LENGTH = "when training ends; changed at any time, it is as if it had been so from the start"
    DECISIVE = "what is tried"


RESUMED_WITH = "resumed_with"  # what was changed while the run trained; never given

# first match decides; the last column: takes effect, and is allowed, when a run goes on
TABLE: tuple[tuple[str, Role, bool], ...] = (
    ("resume", Role.COMMAND, True),
    ("from_run", Role.COMMAND, True),
    ("run_dir", Role.COMMAND, True),
    ("trust", Role.COMMAND, True),
    ("accept_changed_data", Role.COMMAND, True),
    ("recorded", Role.COMMAND, True),
    ("name", Role.PLACE, True),
    ("paths.*", Role.PLACE, True),
    ("hydra.*", Role.PLACE, True),
    ("logger", Role.PLACE, True),
    ("logger.*", Role.PLACE, True),
    ("data.root", Role.PLACE, True),
    ("data.cache_dir", Role.PLACE, True),
    ("split.directory", Role.PLACE, True),
    ("trainer.default_root_dir", Role.PLACE, True),
    ("test", Role.CIRCUMSTANCE, True),
    ("compile", Role.CIRCUMSTANCE, True),
    ("deterministic", Role.CIRCUMSTANCE, True),
    ("channels_last", Role.CIRCUMSTANCE, True),
    ("data.num_workers", Role.CIRCUMSTANCE, True),
    ("data.cache", Role.CIRCUMSTANCE, True),
    ("data.cache_limit_gb", Role.CIRCUMSTANCE, True),
    ("trainer.accelerator", Role.CIRCUMSTANCE, True),
    ("trainer.enable_*", Role.CIRCUMSTANCE, True),
    ("trainer.log_*", Role.CIRCUMSTANCE, True),
    ("trainer.profiler", Role.CIRCUMSTANCE, True),
    ("optimizer.fused", Role.CIRCUMSTANCE, False),  # part of the optimiser's state
    ("seed", Role.REPETITION, False),
    ("data.seed", Role.REPETITION, False),
    ("data.fold", Role.REPETITION, False),
    ("split.seed", Role.REPETITION, False),
    ("split.fold", Role.REPETITION, False),
    ("split.train", Role.REPETITION, False),
    ("split.val", Role.REPETITION, False),
    ("split.test", Role.REPETITION, False),
    ("trainer.max_epochs", Role.LENGTH, True),
    ("trainer.max_time", Role.LENGTH, True),
    ("trainer._target_", Role.DECISIVE, False),
    ("trainer.*", Role.DECISIVE, True),
    ("data.batch_size", Role.DECISIVE, True),
    ("loss._target_", Role.DECISIVE, False),
    ("loss.*", Role.DECISIVE, True),
    ("callbacks.best.monitor", Role.DECISIVE, False),
    ("callbacks.best.*", Role.CIRCUMSTANCE, False),
    ("callbacks.last.*", Role.CIRCUMSTANCE, False),
    # callbacks by what they do, see `kind_of_callback`
    ("callbacks.<shows>.*", Role.CIRCUMSTANCE, True),
    ("callbacks.<shows>", Role.CIRCUMSTANCE, True),
    ("callbacks.<stops>.patience", Role.LENGTH, True),
    ("callbacks.<stops>.monitor", Role.DECISIVE, False),
    ("callbacks.<stops>.mode", Role.DECISIVE, False),
    ("callbacks.<stops>._target_", Role.DECISIVE, False),
    ("callbacks.<stops>.*", Role.DECISIVE, True),
    ("*", Role.DECISIVE, False),
)
# callbacks that show or keep what happens and change nothing of it; any other is decisive
SHOWS = frozenset({
    "anatosegnet.training.Divergence",
    "anatosegnet.training.History",
    "anatosegnet.training.ValidationPanels",
    "anatosegnet.training.progress_bar",
    *(f"lightning.pytorch.callbacks.{name}" for name in (
        "DeviceStatsMonitor", "LearningRateMonitor", "ModelCheckpoint", "ModelSummary",
        "RichModelSummary", "RichProgressBar", "ThroughputMonitor", "TQDMProgressBar",
    )),
})  # fmt: skip
STOPS = frozenset({"lightning.pytorch.callbacks.EarlyStopping"})

# settings that are paths, of all programs: ``~`` is the home folder in them
PATHS = (
    "run", "runs", "input", "output", "out", "export", "dir", "run_dir", "resume", "from_run",
    "init_from", "paths.*", "data.root", "data.cache_dir", "split.directory", "split.train",
    "split.val", "split.test", "model.encoder_weights", "search.directory",
)  # fmt: skip
# of these, what a run reads; recorded as absolute, so that it means the same from elsewhere
READ = (
    "init_from", "paths.data_dir", "data.root", "split.directory", "split.train", "split.val",
    "split.test", "model.encoder_weights",
)  # fmt: skip

# what is put right for the machine, or follows from other settings, before it is recorded
SETTLED = ("trainer.precision", "optimizer.fused", "callbacks.*.mode")


def role(key: str, settings: Mapping[str, Any] | None = None) -> Role:
    """What a setting is.

    Args:
        key: Dotted, as `flatten` gives it.
        settings: The flat config that it stands in: what a callback does is seen by its class.
    """
    return look_up(key, settings)[0]


def may_change(key: str, settings: Mapping[str, Any] | None = None) -> bool:
    """Whether a setting takes effect, and is allowed, when a run goes on."""
    return look_up(key, settings)[1]


def look_up(key: str, settings: Mapping[str, Any] | None) -> tuple[Role, bool]:
    """The row of `TABLE` for a setting."""
    names = [key]
    group, _, rest = key.partition(".")
    if group == "callbacks" and rest:
        name, dot, inside = rest.partition(".")
        kind = kind_of_callback((settings or {}).get(f"callbacks.{name}._target_"))
        names.append(f"callbacks.{kind}{dot}{inside}")
    for pattern, its_role, changes in TABLE:
        if any(fnmatchcase(name, pattern) for name in names):
            return its_role, changes
    raise AssertionError(key)  # the last pattern is *


def kind_of_callback(target: Any) -> str:
    """``<shows>``, ``<stops>``, or ``<trains>`` for a class that is not known."""
    return "<shows>" if target in SHOWS else "<stops>" if target in STOPS else "<trains>"


def flatten(config: DictConfig) -> dict[str, Any]:
    """``{"model.attention.bias": "rows", …}``; lists are values."""
    flat: dict[str, Any] = {}

    def walk(node: Any, prefix: str) -> None:
        if isinstance(node, dict) and node:
            for key, value in node.items():
                walk(value, f"{prefix}.{key}" if prefix else str(key))
        else:
            flat[prefix] = node

    walk(OmegaConf.to_container(config, resolve=True), "")
    return flat


def placeless(config: DictConfig) -> dict[str, Any]:
    """`flatten`, with paths inside the run as they would be in any other."""
    directory = str(config.get("run_dir") or "")
    return {
        key: with_strings(value, lambda _, text: moved(text, (directory,), HERE))
        for key, value in flatten(config).items()
    }


def chosen(config: DictConfig, *roles: Role) -> dict[str, Any]:
    """The settings of a config that have one of the roles, as dotted keys.

    What is switched off by null or empty is as good as not there: older runs lack newer keys.
    """
    flat = placeless(config)
    return {
        key: value
        for key, value in flat.items()
        if value is not None and value != {} and role(key, flat) in roles
    }


def is_path(key: str) -> bool:
    """Whether a setting is a path that a user gives."""
    return any(fnmatchcase(key, pattern) for pattern in PATHS)


def shorten(keys: Sequence[str]) -> dict[str, str]:
    """The fewest last words of each dotted key that tell it from the others."""
    short = {}
    for key in keys:
        words = [word for word in key.split(".") if word != "_target_"]
        for count in range(1, len(words) + 1):
            end = ".".join(words[-count:])
            alike = [
                other for other in keys if f".{other.removesuffix('._target_')}".endswith(f".{end}")
            ]
            if len(alike) == 1:
                break
        short[key] = end
    return short
