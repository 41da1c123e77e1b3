"""Values of a wrong kind, found before anything is built, by the types that the code names."""

import inspect
import types
import typing
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Union

from omegaconf import DictConfig, OmegaConf

from anatosegnet.config.keys import is_path
from anatosegnet.config.overrides import in_override
from anatosegnet.config.places import user_path
from anatosegnet.config.recorded import locate
from anatosegnet.console import plain
from anatosegnet.errors import UserError

WORDS: dict[Any, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
    list: "a list",
    dict: "settings of its own",
    type(None): "null",
}
# top-level settings that may be of another kind than their default
ALSO: dict[str, tuple[type, ...]] = {
    "baseline": (str,),
    "size": (list,),
    "run": (list,),
    "tta": (list, type(None)),
    "input": (list,),
    "runs": (list,),
    "scores": (list,),
}


def check_top_level(config: DictConfig, defaults: Mapping[str, Any]) -> None:
    """Compare the settings outside the groups with their defaults, and put them in order.

    A name or path that looks like a number (``run=0``) becomes text, those of a list too, a lone
    value where a list is wanted a list of one, and ``~`` in a path the home folder.

    Args:
        config: As composed; changed in place.
        defaults: What the program's own YAML gives.

    Raises:
        UserError: A value is of another kind than its default.
    """
    for key, default in defaults.items():
        node = config[key]
        value = OmegaConf.to_container(node) if OmegaConf.is_config(node) else node
        is_text = default is None or isinstance(default, str)
        is_names = is_text or (
            isinstance(default, list) and all(isinstance(one, str) for one in default)
        )
        if is_text and type(value) in (int, float):
            value = str(value)
        elif isinstance(default, list) and not isinstance(value, list | dict) and value is not None:
            value = [value]
        if is_names and isinstance(value, list):
            value = [str(one) if type(one) in (int, float) else one for one in value]
            if not all(isinstance(one, str) for one in value):
                raise UserError(f"{key}={shown(value)} must be a list of names")
        if value == "" and default != "" and is_path(key):
            raise UserError(f"{key}= is empty; give a path, or leave it out")
        wanted: list[type] = [str, type(None)] if default is None else [type(default)]
        wanted += ALSO.get(key, ())
        if type(value) not in wanted:
            raise UserError(f"{key}={shown(value)} must be {in_words(wanted)}")
        config[key] = value


def expand_home(config: DictConfig) -> None:
    """Put the home folder in the place of ``~`` in every setting that is a path."""

    def walk(node: Any, prefix: str) -> None:
        for key in list(node):
            dotted = f"{prefix}{key}"
            if OmegaConf.is_interpolation(node, key) and not is_path(dotted):
                continue
            value: Any = None if OmegaConf.is_missing(node, key) else node[key]
            if isinstance(value, DictConfig) and dotted != "hydra":
                walk(value, f"{dotted}.")
            elif is_path(dotted) and isinstance(value, str) and value.startswith("~"):
                node[key] = str(user_path(value))
            elif is_path(dotted) and OmegaConf.is_list(value):
                node[key] = [str(user_path(v)) if isinstance(v, str) else v for v in value]

    walk(config, "")


def check_arguments(node: Any, key: str) -> None:
    """Compare the settings of every object below a config node with the types it takes.

    Args:
        node: Plain, with ``_target_``.
        key: Where it stands, such as ``data``.

    Raises:
        UserError: A value is of none of the types that its class, or function, says.
    """
    if isinstance(node, list):
        for index, item in enumerate(node):
            check_arguments(item, f"{key}[{index}]")
    if not isinstance(node, dict):
        return
    target = node.get("_target_")
    annotations = types_of(locate(target)) if isinstance(target, str) else {}
    for name, value in node.items():
        if type(value) is int and not -(2**63) <= value < 2**63:
            raise UserError(f"{key}.{name}={shown(value)} must be a number of at most 64 bits")
        wanted = annotations.get(str(name), Any)
        if not fits(value, wanted):
            raise UserError(f"{key}.{name}={shown(value)} must be {in_words(kinds(wanted))}")
        check_arguments(value, f"{key}.{name}")


def types_of(target: Any) -> dict[str, Any]:
    """The types of the arguments of a class or function, as far as it says them."""
    found: dict[str, Any] = {}
    constructors = (
        [vars(cls)["__init__"] for cls in target.__mro__ if "__init__" in vars(cls)]
        if isinstance(target, type)
        else [target]
        if callable(target)
        else []
    )
    for function in constructors:
        try:
            hints = typing.get_type_hints(function)
            parameters = inspect.signature(function).parameters.values()
        except Exception:  # names that exist for type checkers only; builtins
            return found
        for parameter in parameters:
            if parameter.kind is not parameter.VAR_KEYWORD and parameter.name in hints:
                found.setdefault(parameter.name, hints[parameter.name])
        if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
            return found
    return found


def kinds(annotation: Any) -> list[Any]:
    """The plain types that an annotation comes down to; ``Any`` for what YAML cannot say."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if annotation is None or annotation is type(None):
        return [type(None)]
    if origin in (Union, types.UnionType):
        return list(dict.fromkeys(kind for argument in arguments for kind in kinds(argument)))
    if origin is Literal:  # which of them is the constructor's to say
        return list(dict.fromkeys(type(argument) for argument in arguments))
    if annotation is Path:
        return [str]
    if annotation in (bool, int, float, str):
        return [annotation]
    if (origin or annotation) in (list, tuple, Sequence, Collection):
        return [list]
    if (origin or annotation) in (dict, Mapping):
        return [dict]
    return [Any]


def fits(value: Any, annotation: Any) -> bool:
    """Whether a plain value may be what an annotation says."""
    known = kinds(annotation)
    return Any in known or type(value) in known or (type(value) is int and float in known)


def in_words(wanted: Collection[Any]) -> str:
    """``a whole number or null``."""
    return " or ".join(dict.fromkeys(WORDS.get(kind, str(kind)) for kind in wanted))


def shown(value: Any) -> str:
    """A value as it is written in an override, cut."""
    text = plain(in_override(value))
    return text if len(text) <= 60 else text[:60] + "…"


def one_error(error: BaseException) -> str:
    """The kind and text of an exception, on one line."""
    text = " ".join(str(error).split())[:300]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
