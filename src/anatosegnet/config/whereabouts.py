"""Where the data, caches and runs of a config lie for the one who uses it here and now."""

from collections.abc import Collection
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf, open_dict

from anatosegnet.config.keys import PATHS_READ
from anatosegnet.config.recorded import below, moved


def at_home(settings: DictConfig, paths: DictConfig, given: Collection[str] = ()) -> None:
    """Let a recorded config use the opener's folders, and find its data where they lie now.

    What it reads below its own data folder is taken from the opener's where it is no longer there,
    or where the opener says so. Caches are always written to the opener's folder.

    Args:
        settings: The config; changed in place.
        paths: The opener's ``paths``.
        given: Keys that the opener's command line gives.
    """
    before = str(settings.paths.data_dir)
    elsewhere = "paths.data_dir" in given
    with open_dict(settings):
        for key in PATHS_READ:
            value = OmegaConf.select(settings, key)
            if not isinstance(value, str) or any(below(key, own) for own in given):
                continue
            here = moved(value, (before,), str(paths.data_dir))
            if elsewhere or not Path(value).exists():
                OmegaConf.update(settings, key, here)
        settings.paths = paths
        if "data.cache_dir" not in given and "cache_dir" in settings.data:
            settings.data.cache_dir = paths.cache_dir


def anchor(config: DictConfig) -> None:
    """Make the paths that a run reads absolute: recorded, they mean the same from elsewhere.

    Args:
        config: Of a training; changed in place.
    """
    start = Path(HydraConfig.get().runtime.cwd) if HydraConfig.initialized() else Path.cwd()
    with open_dict(config):
        for key in PATHS_READ:
            value = OmegaConf.select(config, key)
            if isinstance(value, str) and value and "://" not in value:  # of a hub
                OmegaConf.update(config, key, str(start / value))
