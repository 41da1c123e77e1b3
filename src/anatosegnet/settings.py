"""What makes runs alike or different: their configs, compared and named."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from omegaconf import DictConfig, OmegaConf

# a repetition of the same experiment: another seed, fold, or list of cases
REPETITION = frozenset(
    {"seed", "data.seed", "data.fold", "split.seed", "split.fold", "split.train", "split.val",
     "split.test"}
)  # fmt: skip
# where and how fast, but not what
CIRCUMSTANCE = (
    "name", "run_dir", "resume", "test", "paths.", "logger.", "hydra.", "data.root",
    "data.num_workers", "data.cache", "trainer.accelerator", "trainer.default_root_dir",
    "trainer.enable_", "trainer.log", "callbacks.", "optimizer.fused", "split.directory",
    "from_run", "deterministic", "compile", "channels_last",
)  # fmt: skip
# of the callbacks only what decides over training
DECISIVE = ("callbacks.best.monitor", "callbacks.early", "callbacks.ema")
LONGEST = 40  # characters of a value in a label


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


def setting_of(config: DictConfig) -> dict[str, Any]:
    """The part of a run's config that decides what was tried, as dotted keys.

    What is switched off by null is as good as not there: older runs lack newer keys.
    """
    return {
        key: value
        for key, value in flatten(config).items()
        if value is not None
        and key not in REPETITION
        and (key.startswith(DECISIVE) or not key.startswith(CIRCUMSTANCE))
    }


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
