"""What each setting is: the one table behind compare, from_run, resume and the paths of a config.

Everything else asks here whether two runs are one experiment, whether a setting may change while
a run goes on, and which settings are paths.
"""

from collections.abc import Mapping, Sequence
from enum import Enum, Flag, auto
from fnmatch import fnmatchcase
from typing import Any

from omegaconf import DictConfig, OmegaConf

from anatosegnet.config.recorded import HERE, moved, with_strings


class Role(Enum):
    """What a setting means for the numbers of a run."""

    COMMAND = "what a command is about; no part of a run"
    PLACE = "where things lie, and where they are reported to"
    CIRCUMSTANCE = "how fast it is computed, and what is shown of it"
    SEED = "another draw of weights and order"
    FOLD = "another fold of the same split"
    SPLIT = "another draw of the parts"
    LENGTH = "when training ends; changed at any time, it is as if it had been so from the start"
    DECISIVE = "what is tried"


TRIED = (Role.DECISIVE, Role.LENGTH)  # other settings are other rows of a comparison
REPEATED = (Role.SEED, Role.FOLD, Role.SPLIT)  # of the same experiment
DECIDES = (*TRIED, *REPEATED)  # together they decide the numbers of a run


class Trait(Flag):
    """What else is true of a setting."""

    CHANGES = auto()  # takes effect, and is allowed, when a run goes on
    PATH = auto()  # given by a user, so ``~`` is the home folder
    READ = auto()  # a path that a run reads: recorded as absolute, to mean the same from elsewhere
    VIEW = auto()  # of data: how cases are seen, neither which there are nor what is in them


RESUMED_WITH = "resumed_with"  # what was changed while the run trained; never given

CHANGES, PATH, READ, VIEW = Trait
NONE = Trait(0)
# pattern, role, traits; the first that matches decides
TABLE: tuple[tuple[str, Role, Trait], ...] = (
    ("resume", Role.COMMAND, CHANGES | PATH),
    ("from_run", Role.COMMAND, CHANGES | PATH),
    ("run_dir", Role.COMMAND, CHANGES | PATH),
    ("retry", Role.COMMAND, CHANGES),
    ("trust", Role.COMMAND, CHANGES),
    ("accept_changed_data", Role.COMMAND, CHANGES),
    ("recorded", Role.COMMAND, CHANGES),
    ("run", Role.COMMAND, PATH),
    ("runs", Role.COMMAND, PATH),
    ("model.file", Role.COMMAND, PATH),
    ("input", Role.COMMAND, PATH),
    ("output", Role.COMMAND, PATH),
    ("out", Role.COMMAND, PATH),
    ("export", Role.COMMAND, PATH),
    ("dir", Role.COMMAND, PATH),
    ("search.directory", Role.COMMAND, PATH),
    ("name", Role.PLACE, CHANGES),
    ("paths.data_dir", Role.PLACE, CHANGES | PATH | READ),
    ("paths.*", Role.PLACE, CHANGES | PATH),
    ("hydra.*", Role.PLACE, CHANGES),
    ("logger", Role.PLACE, CHANGES),
    ("logger.*", Role.PLACE, CHANGES),
    ("data.root", Role.PLACE, CHANGES | PATH | READ),
    ("data.cache_dir", Role.PLACE, CHANGES | PATH),
    ("split.directory", Role.PLACE, CHANGES | PATH | READ),
    ("trainer.default_root_dir", Role.PLACE, CHANGES),
    ("test", Role.CIRCUMSTANCE, CHANGES),
    ("compile", Role.CIRCUMSTANCE, CHANGES),
    ("deterministic", Role.CIRCUMSTANCE, CHANGES),
    ("channels_last", Role.CIRCUMSTANCE, CHANGES),
    ("data.num_workers", Role.CIRCUMSTANCE, CHANGES),
    ("data.cache", Role.CIRCUMSTANCE, CHANGES),
    ("data.cache_limit_gb", Role.CIRCUMSTANCE, CHANGES),
    ("trainer.accelerator", Role.CIRCUMSTANCE, CHANGES),
    ("trainer.enable_*", Role.CIRCUMSTANCE, CHANGES),
    ("trainer.log_*", Role.CIRCUMSTANCE, CHANGES),
    ("trainer.profiler", Role.CIRCUMSTANCE, CHANGES),
    ("optimizer.fused", Role.CIRCUMSTANCE, NONE),  # part of the optimiser's state
    ("seed", Role.SEED, NONE),
    ("data.seed", Role.SEED, NONE),
    ("data.fold", Role.FOLD, NONE),
    ("split.fold", Role.FOLD, NONE),
    ("split.seed", Role.SPLIT, NONE),
    ("split.train", Role.SPLIT, PATH | READ),
    ("split.val", Role.SPLIT, PATH | READ),
    ("split.test", Role.SPLIT, PATH | READ),
    ("trainer.max_epochs", Role.LENGTH, CHANGES),
    ("trainer.max_time", Role.LENGTH, CHANGES),
    ("trainer._target_", Role.DECISIVE, NONE),
    ("trainer.*", Role.DECISIVE, CHANGES),
    ("init_from", Role.DECISIVE, PATH | READ),
    ("model.encoder_weights", Role.DECISIVE, PATH | READ),
    ("data.image_size", Role.DECISIVE, VIEW),
    ("data.in_channels", Role.DECISIVE, VIEW),
    ("data.normalization", Role.DECISIVE, VIEW),
    ("data.batch_size", Role.DECISIVE, CHANGES | VIEW),
    ("data.duplicates", Role.DECISIVE, VIEW),
    ("loss._target_", Role.DECISIVE, NONE),
    ("loss.*", Role.DECISIVE, CHANGES),
    ("callbacks.best.monitor", Role.DECISIVE, NONE),
    ("callbacks.best.*", Role.CIRCUMSTANCE, NONE),
    ("callbacks.last.*", Role.CIRCUMSTANCE, NONE),
    # callbacks by what they do, see `kind_of_callback`
    ("callbacks.<shows>.*", Role.CIRCUMSTANCE, CHANGES),
    ("callbacks.<shows>", Role.CIRCUMSTANCE, CHANGES),
    ("callbacks.<stops>.patience", Role.LENGTH, CHANGES),
    ("callbacks.<stops>.monitor", Role.DECISIVE, NONE),
    ("callbacks.<stops>.mode", Role.DECISIVE, NONE),
    ("callbacks.<stops>._target_", Role.DECISIVE, NONE),
    ("callbacks.<stops>.*", Role.DECISIVE, CHANGES),
    ("*", Role.DECISIVE, NONE),
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

PATHS_READ = tuple(key for key, _, traits in TABLE if READ in traits)

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
    return CHANGES in look_up(key, settings)[1]


def is_path(key: str) -> bool:
    """Whether a setting is a path that a user gives."""
    return PATH in look_up(key)[1]


def chooses_cases(key: str) -> bool:
    """Whether a setting of data decides which cases there are, or what is in them."""
    its_role, traits = look_up(key)
    return key.startswith("data.") and its_role is Role.DECISIVE and VIEW not in traits


def is_of_the_run(key: str) -> bool:
    """Whether a setting is about the run, and not about the command or the user's folders."""
    return role(key) is not Role.COMMAND and key.partition(".")[0] != "paths"


def look_up(key: str, settings: Mapping[str, Any] | None = None) -> tuple[Role, Trait]:
    """The row of `TABLE` for a setting."""
    names = [key]
    group, _, rest = key.partition(".")
    if group == "callbacks" and rest:
        name, dot, inside = rest.partition(".")
        kind = kind_of_callback((settings or {}).get(f"callbacks.{name}._target_"))
        names.append(f"callbacks.{kind}{dot}{inside}")
    for pattern, its_role, traits in TABLE:
        if any(fnmatchcase(name, pattern) for name in names):
            return its_role, traits
    raise AssertionError(key)  # the last pattern is *


def kind_of_callback(target: Any) -> str:
    """``<shows>``, ``<stops>``, or ``<trains>`` for a class that is not known."""
    return "<shows>" if target in SHOWS else "<stops>" if target in STOPS else "<trains>"


def flatten(config: DictConfig) -> dict[str, Any]:
    """``{"model.attention.bias": "rows", …}``; lists are values."""
    content: Any = OmegaConf.to_container(config, resolve=True)
    return flat(content)


def flat(node: Any, prefix: str = "") -> dict[str, Any]:
    """`flatten` of plain dictionaries."""
    if not isinstance(node, dict) or not node:
        return {prefix: node}
    found: dict[str, Any] = {}
    for key, value in node.items():
        found |= flat(value, f"{prefix}.{key}" if prefix else str(key))
    return found


def nested(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The dictionaries of which `flat` makes these settings."""
    tree: dict[str, Any] = {}
    for key, value in settings.items():
        *groups, last = key.split(".")
        node = tree
        for group in groups:
            node = node.setdefault(group, {})
        node[last] = value
    return tree


def placeless(config: DictConfig) -> dict[str, Any]:
    """`flatten`, with paths inside the run as they would be in any other."""
    directory = str(config.get("run_dir") or "")
    return {
        key: with_strings(value, lambda _, text: moved(text, (directory,), HERE))
        for key, value in flatten(config).items()
    }


def settings_of(config: DictConfig, *roles: Role) -> dict[str, Any]:
    """The settings of a config that have one of the roles, as dotted keys.

    What is switched off by null or empty is as good as not there: older runs lack newer keys.
    """
    flat = placeless(config)
    return {
        key: value
        for key, value in flat.items()
        if value is not None and value != {} and role(key, flat) in roles
    }


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
