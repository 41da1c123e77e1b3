"""Which runs tried the same, and what to call what they tried."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from omegaconf import DictConfig

from anatosegnet.config.keys import Role, chosen

LONGEST = 40  # characters of a value in a label


def setting_of(config: DictConfig) -> dict[str, Any]:
    """The part of a run's config that decides what was tried, as dotted keys."""
    return chosen(config, Role.DECISIVE, Role.LENGTH)


def group_settings(configs: Sequence[DictConfig]) -> list[list[int]]:
    """Indices of the configs of each setting, settings and runs in the order given."""
    groups: dict[str, list[int]] = {}
    for index, config in enumerate(configs):
        key = repr(sorted(setting_of(config).items()))
        groups.setdefault(key, []).append(index)
    return list(groups.values())


def labels(settings: Sequence[Mapping[str, Any]]) -> list[str]:
    """A short name for each setting: what sets it apart from most others.

    One that is like most others in everything is named by all its values of the keys in which
    the settings differ. Keys are shortened to their last words as long as they stay distinct.
    """
    keys = [key for key in dict.fromkeys(key for setting in settings for key in setting)
            if len({repr(setting.get(key)) for setting in settings}) > 1]  # fmt: skip
    # another class brings other settings along: its name says it all
    classes = {key.removesuffix("_target_") for key in keys if key.endswith("._target_")}
    keys = [
        key
        for key in keys
        if key.endswith("._target_") or not any(key.startswith(group) for group in classes)
    ]
    if not keys:
        return [in_words(setting.get("model._target_", "setting")) for setting in settings]
    short = shorten(keys)
    usual = {
        key: Counter(repr(setting.get(key)) for setting in settings).most_common(1)[0][0]
        for key in keys
    }
    names = []
    for setting in settings:
        parts = [
            f"{short[key]}={in_words(setting.get(key))}"
            for key in keys
            if repr(setting.get(key)) != usual[key]
        ]
        everything = [f"{short[key]}={in_words(setting.get(key))}" for key in keys]
        names.append(", ".join(parts or everything))
    repeated = {name for name, count in Counter(names).items() if count > 1}
    return [f"{name} ({i})" if name in repeated else name for i, name in enumerate(names)]


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


def in_words(value: Any) -> str:
    """A value as people write it; of a class only its name; long lists are cut."""
    if isinstance(value, list):
        words = "[" + ", ".join(in_words(item) for item in value) + "]"
        return words if len(words) <= LONGEST else words[: LONGEST - 2] + "…]"
    if isinstance(value, str) and value.startswith(("anatosegnet.", "torch.", "monai.")):
        return value.rsplit(".", 1)[-1]
    if value is None or isinstance(value, bool):
        return "none" if value is None else str(value).lower()
    return str(value)
