"""Where the configs are, what a program composes of them, and Hydra's words in one line."""

import argparse
import difflib
import re
import sys
from functools import cache
from pathlib import Path
from typing import Any

import hydra
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.plugins import Plugins
from hydra.errors import HydraException
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from anatosegnet.config import monitors
from anatosegnet.config.places import user_path
from anatosegnet.errors import UserError

EXPECTED = (UserError, HydraException, OmegaConfBaseException)  # said in one line
# what configs compute: Hydra makes the run directory before any of our code sees its name
OmegaConf.register_new_resolver("user_path", lambda path: str(user_path(path)), replace=True)
OmegaConf.register_new_resolver("best_is", monitors.best_is, replace=True)
OmegaConf.register_new_resolver(
    "one_of", lambda values, name, other: values.get(name, other), replace=True
)


def config_directory() -> Path:
    """The configs beside the package (wheel), or at the top of the checkout (editable)."""
    package = Path(__file__).resolve().parents[1]
    inside = package / "configs"
    return inside if inside.is_dir() else package.parents[1] / "configs"


def local_directory() -> Path:
    """A checkout's folder of the user's own configs; git ignores it."""
    return config_directory() / "local"


class LocalConfigs(SearchPathPlugin):
    """Lets Hydra search `local_directory` after this package's own configs."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Called by Hydra whenever a search path is made, those of other programs too."""
        ours = f"file://{config_directory()}"
        places = [str(entry.path) for entry in search_path.get_path()]
        if local_directory().is_dir() and {ours, str(config_directory())} & set(places):
            search_path.append("local", f"file://{local_directory()}")


Plugins.instance().register(LocalConfigs)


def own_directories() -> list[Path]:
    """Where this program looks for a user's own configs."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--config-dir", "-cd")
    given = parser.parse_known_args(sys.argv[1:])[0].config_dir
    folders = [local_directory(), *([Path(given).absolute()] if given else [])]
    return [folder for folder in folders if folder.is_dir()]


def require_visible(folder: Path) -> None:
    """UserError if a file of a user's own configs has the name of one that is found before it."""
    for ours in config_directory().rglob("*.yaml"):
        name = ours.relative_to(config_directory())
        if (folder / name).is_file():
            raise UserError(
                f"{folder / name} would not be read: AnatoSegNet has a {name} of its own, which "
                "comes first; give yours another name"
            )


def top_level(config_name: str) -> dict[str, Any]:
    """What a program's YAML, and those it builds on, give outside the groups."""
    content = yaml_of(config_name)
    below: dict[str, Any] = {}
    for name in content.pop("defaults", []):
        if isinstance(name, str) and name != "_self_":
            below |= top_level(name)
    content.pop("hydra", None)
    return below | content


def yaml_of(config_name: str) -> dict[str, Any]:
    """The YAML of a program as it stands."""
    path = config_directory() / f"{config_name}.yaml"
    content: Any = OmegaConf.to_container(OmegaConf.load(path))
    return content


def one_line(error: Exception, config_name: str = "train") -> str:
    """Hydra's message on one line; for a misspelt key, the nearest one that exists."""
    cause = error.__cause__
    text = " ".join(f"{error} {cause if cause is not None else ''}".split())
    if isinstance(error, MissingMandatoryValue):
        key = text.split("full_key: ")[-1].split()[0]
        return f"{key} has no value; give {key}=…"
    options = r"(?: Available options in '[^']+': (.+) Config)?"  # not said of lists of choices
    unknown = re.search(rf"Could not (?:find|load) '([^']+/[^']+)'{options}", text)
    if unknown:
        names = unknown[2].split() if unknown[2] else choices_of(unknown[1].rpartition("/")[0])
        available = ", ".join(name for name in names if not name.startswith("_"))
        return f"there is no {unknown[1]}" + (f"; available: {available}" if available else "")
    misspelt = re.search(r"Could not override '([^']+)'", text)
    if misspelt and (inside := re.search(r"@(experiment|sweep)\.", misspelt[1])):
        chosen = [a for a in sys.argv[1:] if a.lstrip("+").startswith(f"{inside[1]}=")]
        file = chosen[-1].lstrip("+").replace("=", "/") if chosen else inside[1]
        return f"the first line of {file}.yaml must be: # @package _global_"
    if misspelt:
        near = difflib.get_close_matches(misspelt[1], _known_keys(config_name))
        near.sort(key=lambda key: sorted(key) != sorted(misspelt[1]))  # letters swapped come first
        hint = f"; did you mean {near[0]}?" if near else "; --cfg job lists the settings"
        return f"{misspelt[1]} is not a setting{hint}"
    return text


def choices_of(group: str) -> list[str]:
    """The names to choose from in a group, a user's own among them."""
    folders = (config_directory(), *own_directories())
    return sorted(path.stem for folder in folders for path in (folder / group).glob("[!_]*.yaml"))


def yaml_of_choice(group: str, name: str) -> Path:
    """The file of one of `choices_of` a group."""
    places = [
        folder / group / f"{name}.yaml" for folder in (config_directory(), *own_directories())
    ]
    return next(place for place in places if place.is_file())


@cache
def named_callbacks() -> dict[str, Any]:
    """The classes of our callbacks by their keys, by which `keys.role` knows what an override does.

    A user's own are not among them: what is not known is taken to train.
    """
    files = [config_directory() / "callbacks" / f"{name}.yaml" for name in choices_of("callbacks")]
    each: Any = OmegaConf.merge(*(OmegaConf.load(path) for path in files if path.is_file()))
    return {f"callbacks.{name}._target_": each[name]._target_ for name in each}


def _known_keys(config_name: str) -> list[str]:
    """Dotted keys and groups of the program at hand, composed without overrides."""
    from hydra.core.global_hydra import GlobalHydra

    own = own_directories()
    folders = [path for place in (config_directory(), *own) for path in place.iterdir()]
    groups = [path.name for path in folders if path.is_dir()]
    try:
        GlobalHydra.instance().clear()
        with hydra.initialize_config_dir(str(config_directory()), version_base="1.3"):
            choices = [a for a in sys.argv[1:] if re.match(r"\w+=", a)]
            choices += [f"hydra.searchpath=[{','.join(f'file://{folder}' for folder in own)}]"]
            composed = hydra.compose(config_name, choices)
    except Exception:  # the hint is a courtesy; the error itself is already known
        return groups
    return groups + dotted_keys(composed)


def dotted_keys(config: DictConfig) -> list[str]:
    """Keys of all settings as they are written in an override, those of whole nodes too."""
    keys: list[str] = []

    def walk(node: Any, prefix: str) -> None:
        if isinstance(node, dict):
            for key, value in node.items():
                keys.append(f"{prefix}{key}")
                walk(value, f"{prefix}{key}.")

    walk(OmegaConf.to_container(config, resolve=False), "")
    return keys
