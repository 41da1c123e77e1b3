"""The config of a run as its file has it: what it may name, and where it may point.

A run directory may come from anybody. Its config is read without resolvers, builds only classes
of a known kind, and has no say over where anything is written: paths inside the run follow the
run, and others are refused until the one who opens it gives them on the command line.
"""

import importlib
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from types import NoneType
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from anatosegnet.console import plain
from anatosegnet.errors import UserError, reason
from anatosegnet.files.opening import read_yaml_text, require_harmless

# who opens a run decides them
OPENERS = frozenset({"trust", "accept_changed_data", "recorded", "retry"})
HERE = "${run_dir}"  # the run directory, in its own config
MARK = "recorded"  # key of a config that was read from a run: the packages trusted beside ADMITTED
WRITING = ("callbacks", "logger", "trainer")  # groups whose objects write files
PLACE = re.compile(
    r"^_args_$|(^|_)(dir|dirpath|directory|folder|path|file)$"
)  # such as default_root_dir
OUTSIDE = re.compile(r"^(/|~|[A-Za-z]:|\\)|(^|[/\\])\.\.([/\\]|$)|://")

COLLECTIONS = ("callbacks", "logger")  # groups of groups
# what a run records, whatever it trains: verbs rely on it, the rest is for the objects to judge
OPTIONAL = {
    "augmentation": (dict, NoneType), "scheduler": (dict, NoneType), "logger": (dict, NoneType),
    "data.root": (str, NoneType), "data.cache_dir": (str, NoneType),
    "init_from": (str, NoneType), "from_run": (str, NoneType),
}  # fmt: skip
SHAPE: dict[str, tuple[type, ...]] = {
    **dict.fromkeys(
        ("model", "data", "split", "loss", "optimizer", "module", "trainer", "paths"), (dict,)
    ),
    **dict.fromkeys(("model._target_", "data._target_", "split._target_"), (str,)),
    **dict.fromkeys(("name", "data.name"), (str, int, float)),
    **dict.fromkeys(("seed", "data.seed", "data.in_channels", "data.batch_size"), (int,)),
    **dict.fromkeys(("paths.data_dir", "paths.runs_dir", "paths.cache_dir"), (str, NoneType)),
    "callbacks": (dict, NoneType), "data.image_size": (int, list), "data.normalization": (str,),
    **OPTIONAL,
}  # fmt: skip
# what a recorded config may build: classes that are defined below a package and are of a kind
MODULE = "torch.nn.Module"
CALLBACK = "lightning.pytorch.callbacks.Callback"
TRANSFORM = "albumentations.BasicTransform"
ADMITTED: dict[str, tuple[str, ...]] = {
    "torch.nn": (MODULE,),
    "torch.optim": ("torch.optim.Optimizer", "torch.optim.lr_scheduler.LRScheduler"),
    "lightning": ("lightning.Trainer", CALLBACK, "lightning.pytorch.loggers.Logger"),
    "albumentations": (TRANSFORM, "albumentations.BaseCompose"),
    "monai.losses": (MODULE,),
    "anatosegnet": (
        MODULE, CALLBACK, TRANSFORM, "anatosegnet.data.Source",
        "anatosegnet.data.split.Splitter", "torch.optim.lr_scheduler.LRScheduler",
    ),
}  # fmt: skip
# modules whose classes are of these kinds, but fetch and run code, serve, write what they are given
# while they are built, or report to an account or a server that the config names
NEVER = (
    "monai.losses.perceptual", "lightning.pytorch.serve", "lightning.pytorch.cli",
    *(f"lightning.pytorch.loggers.{name}" for name in ("comet", "litlogger", "mlflow", "neptune")),
)  # fmt: skip
# what earlier configs named, and what it is called now; one after the other
EARLIER = {
    r"(?:callbacks|ema|module|panels|schedules)\.(\w+)": r"training.\1",
    r"data\.(?:busi|breast_lesions_usg|bus_bra|bus_uclm|datamodule|folder|phantom)\.(\w+)": (
        r"data.\1"
    ),
    r"data\.(?:split|transforms|ultrasound)\.(\w+)": r"data.\1",
    r"data\.(\w+)DataModule": r"data.\1Source",
}
# functions of this project that its configs name
FUNCTIONS = frozenset({
    "anatosegnet.data.benchmark_split",
    "anatosegnet.data.released_augmentation",
    "anatosegnet.training.cosine_warmup",
    "anatosegnet.training.progress_bar",
})  # fmt: skip


def read_config(path: Path, directory: Path, trust: Sequence[str] = ()) -> DictConfig:
    """The config that a run recorded, with the paths inside the run where the run is now.

    Args:
        path: The file.
        directory: The run directory.
        trust: Packages whose objects the config may build beside those of `ADMITTED`.

    Returns:
        The config, marked as one that was recorded; see `require_admitted`.

    Raises:
        UserError: It cannot be read, is no config, or holds an interpolation.
    """
    try:
        plain_config = OmegaConf.to_container(OmegaConf.create(read_yaml_text(path)))
    except (OSError, OmegaConfBaseException, ValueError, YAMLError) as error:
        raise UserError(f"{path} cannot be read ({reason(error)})") from error
    except AssertionError:  # OmegaConf's, of a number alone
        plain_config = None
    if not isinstance(plain_config, dict):
        raise UserError(f"{path} is no config of a run")
    renew(plain_config)
    before = str(plain_config.pop("run_dir", None) or "")

    def settle(key: str, value: str) -> str:
        if key.partition(".")[0] in WRITING:
            value = moved(value, (HERE, before), str(directory))
        if "${" in value:
            raise UserError(
                f"{path}: {plain(key)} is {plain(value)!r}; a run records its config without "
                "interpolations, so this one was changed by hand"
            )
        return value

    settled = with_strings(plain_config, settle)
    require_shape(settled, path)
    config = OmegaConf.create(settled)
    config.run_dir = str(directory)
    config[MARK] = [str(package) for package in trust]
    return config


def renew(config: dict[Any, Any]) -> None:
    """Bring settings as earlier versions recorded them to their present names, in place."""
    for key, value in config.items():
        config[key] = with_strings(value, _renamed, str(key))
    own = "anatosegnet.training.SegmentationModule"
    module = config.setdefault("module", {"_target_": own})
    if isinstance(module, dict) and module.get("_target_") == own:
        module.setdefault("deep_supervision", 0.5)  # without effect on the networks of that time
    model = config.get("model")
    attention = model.get("attention") if isinstance(model, dict) else None
    if isinstance(attention, dict) and "residual" in attention:
        residual = attention.pop("residual")
        attention.setdefault("placement", "residual" if residual else "replace")


def _renamed(key: str, value: str) -> str:
    """The present name of a ``_target_`` that names something by an earlier one."""
    if not key.endswith("._target_"):
        return value
    for earlier, now in EARLIER.items():
        value = re.sub(rf"^anatosegnet\.{earlier}$", rf"anatosegnet.{now}", value)
    return value


def require_shape(config: dict[Any, Any], path: Path) -> None:
    """UserError if what must be there is missing, or a group or a text is something else."""
    kinds = dict(SHAPE)
    for group in COLLECTIONS:
        if isinstance(entries := config.get(group), dict):
            kinds |= {f"{group}.{name}": (dict, NoneType) for name in entries}
    for key, allowed in kinds.items():
        group, _, name = key.partition(".")
        node = config.get(group) if name else config
        value = node.get(name or group, ...) if isinstance(node, dict) else ...
        if value is ... and key in OPTIONAL:
            continue
        if not isinstance(value, allowed) or (isinstance(value, bool) and int in allowed):
            found = "is missing" if value is ... else f"is {plain(str(value)[:60])!r}"
            raise UserError(f"{path} is no config of a run: {plain(key)} {found}")


def written_config(config: DictConfig) -> str:
    """The text of ``config.yaml``: resolved, with paths inside the run as `HERE`.

    Raises:
        UserError: It could not be read again: a value holds ``${``, or it is beyond all measure.
    """
    directory = str(config.get("run_dir") or "")

    def settle(key: str, value: str) -> str:
        if "${" in value:
            raise UserError(f"{key}={plain(value)} must not hold ${{: it could not be read again")
        return moved(value, (directory,), HERE) if key.partition(".")[0] in WRITING else value

    resolved: Any = OmegaConf.to_container(config, resolve=True)
    settled = {k: v for k, v in with_strings(resolved, settle).items() if k not in OPENERS}
    of_the_command: dict[str, Any] = {"run_dir": ".", "resume": None}
    text = OmegaConf.to_yaml(OmegaConf.create({**settled, **of_the_command}))
    try:
        require_harmless(text)
    except ValueError as error:
        raise UserError(f"this config could not be read again ({error})") from error
    return text


def moved(value: str, before: Sequence[str], now: str) -> str:
    """A path below one of the folders ``before``, below the folder ``now``; others as they are."""
    for folder in before:
        if folder and (value == folder or value.startswith(f"{folder.rstrip('/')}/")):
            return now + value[len(folder.rstrip("/")) :]
    return value


def confine(config: DictConfig, given: Collection[str] = ()) -> None:
    """Let the writing objects of a recorded config write inside its run alone.

    Relative paths of keys that name places become paths inside the run.

    Args:
        config: As `read_config` gives it; changed in place.
        given: Keys that the command line gives, which are the opener's own decision.

    Raises:
        UserError: A value points outside; the command line can give it.
    """
    directory = str(config.run_dir)

    def settle(key: str, value: str) -> str:
        if key.endswith("._target_") or any(below(key, own) for own in given):
            return value
        inside = moved(value, (directory,), "")
        rest = inside.lstrip("/") if value == directory or inside != value else value
        # a logger's nested settings say to whom it sends, and with which programs
        if OUTSIDE.search(rest) or re.match(r"logger\.[^.]+\.[^.]+[.\[].*", key):
            raise UserError(
                f"the recorded {plain(key)}={plain(value)} points outside the run; give "
                f"{plain(key)}=… on the command line, or null"
            )
        is_place = PLACE.search(re.sub(r"\[\d+\]$", "", key).rpartition(".")[2])
        return f"{directory}/{value}" if is_place and value and rest == value else value

    for group in WRITING:
        if config.get(group):
            content = OmegaConf.to_container(config[group])
            config[group] = with_strings(content, settle, group)


def with_strings(node: Any, change: Callable[[str, str], str], key: str = "") -> Any:
    """A copy of plain lists and dictionaries whose strings went through ``change(key, text)``."""
    if isinstance(node, dict):
        return {
            name: with_strings(value, change, f"{key}.{name}" if key else str(name))
            for name, value in node.items()
        }
    if isinstance(node, list):
        return [with_strings(value, change, f"{key}[{i}]") for i, value in enumerate(node)]
    return change(key, node) if isinstance(node, str) else node


def require_admitted(config: DictConfig, key: str) -> None:
    """UserError if a group of a recorded config would build what is not on the list.

    A config that was composed from the user's own command line is free.
    """
    if MARK not in config:
        return
    node = OmegaConf.select(config, key)
    content = OmegaConf.to_container(node) if isinstance(node, DictConfig | ListConfig) else node
    for place, target in targets(content, key):
        if not admitted(target, config[MARK]):
            package = plain(str(target).partition(".")[0])
            raise UserError(
                f"the recorded config would build {plain(target)} ({plain(place)}), which is none "
                "of the known kinds of network, loss, optimizer, transform or callback. If you "
                f"trust its author and have read it: trust=[{package}]"
            )


def targets(node: Any, place: str) -> Iterator[tuple[str, Any]]:
    """Every ``_target_`` below a node, with where it stands."""
    if isinstance(node, dict):
        for key, value in node.items():
            if key == "_target_":
                yield place, value
            else:
                yield from targets(value, f"{place}.{key}")
    elif isinstance(node, list):
        for index, value in enumerate(node):
            yield from targets(value, f"{place}[{index}]")


def admitted(target: Any, trust: Sequence[str] = ()) -> bool:
    """Whether a recorded config may build an object of this name.

    Nothing is imported but what lies below the packages of `ADMITTED` and the trusted ones.
    """
    if not isinstance(target, str) or not re.fullmatch(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+", target):
        return False
    if target in FUNCTIONS:
        return True
    for package in trust:
        if below(target, package):
            found = locate(target)
            return callable(found) and below(getattr(found, "__module__", ""), package)
    for package, kinds in ADMITTED.items():
        if below(target, package):
            found = locate(target)
            if isinstance(found, type) and below(found.__module__, package):
                never = any(below(found.__module__, module) for module in NEVER)
                return not never and issubclass(found, tuple(locate(kind) for kind in kinds))
    return False


def below(name: str | None, package: str) -> bool:
    """Whether a dotted name is a package or lies below it."""
    return name is not None and f"{name}.".startswith(f"{package}.")


def locate(target: str) -> Any:
    """The object of a dotted name, None if there is none; found as Hydra finds it."""
    parts = target.split(".")
    found: Any = None
    try:
        found = importlib.import_module(parts[0])
        for index, part in enumerate(parts[1:], start=1):
            try:
                found = getattr(found, part)
            except AttributeError:
                found = importlib.import_module(".".join(parts[: index + 1]))
    except Exception:  # whatever a module does when it is imported
        return None
    return found
