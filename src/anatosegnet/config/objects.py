"""An object of a config."""

import inspect
from collections.abc import Mapping
from typing import Any

import hydra
from hydra.errors import InstantiationException
from omegaconf import DictConfig, OmegaConf

from anatosegnet.config.checks import check_arguments, one_error
from anatosegnet.config.composition import EXPECTED
from anatosegnet.config.recorded import locate, require_admitted, targets
from anatosegnet.console import plain
from anatosegnet.errors import UserError


def network_name(settings: Mapping[str, Any]) -> str:
    """What a flat config's network is called: the path of its class; U-Net, without attention."""
    if settings.get("model.attention.levels") == []:
        return "U-Net"
    return str(settings.get("model._target_", ""))


def instantiate(config: DictConfig, key: str, **arguments: Any) -> Any:
    """Build the object of one config group, or of one entry of a group.

    Args:
        config: The whole config.
        key: Such as ``model`` or ``callbacks.best``.
        **arguments: Finished objects that the constructor takes beside its config.

    Raises:
        UserError: The constructor refused its settings, or a recorded config names what it may
            not build.
    """
    require_admitted(config, key)
    node = OmegaConf.select(config, key)
    if not isinstance(node, DictConfig) or "_target_" not in node:
        raise UserError(f"{key} is {plain(node)!r} and says nothing to build (no _target_)")
    check_arguments(OmegaConf.to_container(node, resolve=True), key)
    try:
        if arguments:
            return hydra.utils.instantiate(node, _partial_=True)(**arguments)
        return hydra.utils.instantiate(node)
    except Exception as error:
        chain: list[BaseException] = [error]
        while chain[-1].__cause__ is not None:
            chain.append(chain[-1].__cause__)
        for link in chain:
            if isinstance(link, EXPECTED) and not isinstance(link, InstantiationException):
                raise link from error
        root = chain[-1]
        usual = isinstance(root, TypeError | ValueError | ImportError | AttributeError)
        usual |= type(root).__name__ == "MisconfigurationException"  # Lightning's own
        text = " ".join(str(root).split()) if usual else one_error(root)
        if isinstance(root, ModuleNotFoundError) and root.name in packages_of(config, key):
            text += (
                f"; where {root.name} is your own, run python -m anatosegnet… in the folder that "
                "holds it, give that folder in PYTHONPATH, or install it: pip install -e FOLDER"
            )
        raise UserError(f"{key}: {text}") from error


def instantiate_with(config: DictConfig, key: str, **parts: Any) -> Any:
    """`instantiate` with those of the finished parts that the constructor takes."""
    require_admitted(config, key)  # before anything is imported
    found = locate(str(OmegaConf.select(config, f"{key}._target_")))
    try:
        parameters = inspect.signature(found).parameters.values()
    except (TypeError, ValueError):  # there is none of this name, or it is not written in Python
        return instantiate(config, key)
    takes_all = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)
    names = {parameter.name for parameter in parameters}
    taken = {name: part for name, part in parts.items() if takes_all or name in names}
    return instantiate(config, key, **taken)


def packages_of(config: DictConfig, key: str) -> set[str]:
    """The top packages of what a config node would build."""
    node = OmegaConf.to_container(OmegaConf.select(config, key))
    return {str(target).partition(".")[0] for _, target in targets(node, key)}
