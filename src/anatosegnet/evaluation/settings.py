"""Which runs tried the same, and what to call what they tried."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from omegaconf import DictConfig

from anatosegnet.config.keys import TRIED, settings_of, shorten
from anatosegnet.config.objects import network_name

LONGEST = 40  # characters of a value in a label
NETWORK = "model._target_"
OURS = (
    "anatosegnet.",
    "torch.",
    "monai.",
    "albumentations.",
    "lightning.",
)  # classes known by name


def setting_of(config: DictConfig) -> dict[str, Any]:
    """The part of a run's config that decides what was tried, as dotted keys."""
    return settings_of(config, *TRIED)


def group_settings(configs: Sequence[DictConfig]) -> list[list[int]]:
    """Indices of the configs of each setting, settings and runs in the order given."""
    groups: dict[str, list[int]] = {}
    for index, config in enumerate(configs):
        key = repr(sorted(setting_of(config).items()))
        groups.setdefault(key, []).append(index)
    return list(groups.values())


def labels(settings: Sequence[Mapping[str, Any]]) -> list[str]:
    """A short name for each setting: its network, where those differ, and what sets it apart.

    What an object is given is compared among the settings that have an object of its class. The
    most common value goes without saying; a setting of nothing but those says all of them. Keys
    are shortened to their last words as long as they stay distinct.
    """
    settings = [spelled_out(setting) for setting in settings]
    keys = [
        key
        for key in dict.fromkeys(key for setting in settings for key in setting)
        if len({repr(setting.get(key)) for setting in settings}) > 1
    ]
    short = shorten([key for key in keys if key != NETWORK])
    names = []
    for setting in settings:
        network = [in_words(network_name(setting))] if NETWORK in keys else []
        apart, everything = [], []
        for key in short:
            holders = [other for other in keys if key.startswith(inside(other)) and other != key]
            values = [
                repr(other.get(key))
                for other in settings
                if all(other.get(holder) == setting.get(holder) for holder in holders)
            ]
            (usual, times), *others = Counter(values).most_common()
            if others:
                everything.append(f"{short[key]}={in_words(setting.get(key))}")
                if repr(setting.get(key)) != usual or others[0][1] == times:
                    apart.append(everything[-1])
        parts = network + (apart or everything)
        names.append(", ".join(parts) or in_words(network_name(setting)) or "setting")
    repeated = {name for name, count in Counter(names).items() if count > 1}
    return [f"{name} ({i})" if name in repeated else name for i, name in enumerate(names)]


def inside(key: str) -> str:
    """How the keys of what an object is given begin, from the key of its class."""
    return key.removesuffix("_target_").removesuffix(".") + "."


def spelled_out(setting: Mapping[str, Any]) -> dict[str, Any]:
    """A setting with what the objects of a list are given as keys, and data by their name.

    ``augmentation.transforms`` becomes the list of their classes, and what one of them is given
    ``augmentation.transforms.Gain p``.
    """
    flat: dict[str, Any] = {}
    for key, value in setting.items():
        flat[key] = value
        if isinstance(value, list) and all(isinstance(v, dict) and "_target_" in v for v in value):
            flat[key] = names = [in_words(item["_target_"]) for item in value]
            for index, (name, item) in enumerate(zip(names, value, strict=True)):
                again = names[:index].count(name)
                place = f"{key}.{name}{again + 1 if again else ''}"
                flat |= spelled_out(
                    {f"{place} {word}": given for word, given in item.items() if word != "_target_"}
                )
    if "data.name" in flat:
        flat["data._target_"] = flat.pop("data.name")
    return flat


def in_words(value: Any) -> str:
    """A value as people write it; of a class only its name; long lists are cut."""
    if isinstance(value, list):
        words = "[" + ", ".join(in_words(item) for item in value) + "]"
        return words if len(words) <= LONGEST else words[: LONGEST - 2] + "…]"
    if isinstance(value, str) and value.startswith(OURS):
        return value.rsplit(".", 1)[-1]
    if value is None or isinstance(value, bool):
        return "none" if value is None else str(value).lower()
    return str(value)
