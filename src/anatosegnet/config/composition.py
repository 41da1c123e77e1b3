"""Where the configs are, what a program composes of them, and Hydra's words in one line."""

import difflib
import re
import sys
from pathlib import Path
from typing import Any

import hydra
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from anatosegnet.config import monitors
from anatosegnet.config.places import user_path
from anatosegnet.errors import UserError

EXPECTED = (UserError, HydraException, OmegaConfBaseException)  # said in one line
# what configs compute: Hydra makes the run directory before any of our code sees its name
OmegaConf.register_new_resolver("user_path", lambda path: str(user_path(path)), replace=True)
OmegaConf.register_new_resolver("best_is", monitors.best_is, replace=True)


def config_directory() -> Path:
    """The configs beside the package (wheel), or at the top of the checkout (editable)."""
    package = Path(__file__).resolve().parents[1]
    inside = package / "configs"
    return inside if inside.is_dir() else package.parents[1] / "configs"


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
        files = (config_directory() / unknown[1]).parent.glob("*.yaml")
        names = unknown[2].split() if unknown[2] else sorted(path.stem for path in files)
        available = ", ".join(name for name in names if not name.startswith("_"))
        return f"there is no {unknown[1]}" + (f"; available: {available}" if available else "")
    misspelt = re.search(r"Could not override '([^']+)'", text)
    if misspelt:
        near = difflib.get_close_matches(misspelt[1], _known_keys(config_name), n=1)
        hint = f"; did you mean {near[0]}?" if near else "; --cfg job lists the settings"
        return f"{misspelt[1]} is not a setting{hint}"
    return text


def _known_keys(config_name: str) -> list[str]:
    """Dotted keys and groups of the program at hand, composed without overrides."""
    from hydra.core.global_hydra import GlobalHydra

    groups = [path.name for path in config_directory().iterdir() if path.is_dir()]
    try:
        GlobalHydra.instance().clear()
        with hydra.initialize_config_dir(str(config_directory()), version_base="1.3"):
            choices = [a for a in sys.argv[1:] if re.match(r"\w+=", a)]
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
