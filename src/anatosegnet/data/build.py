"""Data from a config: the source that ``data`` names, its settings, its split."""

from dataclasses import fields
from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict

from anatosegnet.config.checks import check_arguments
from anatosegnet.config.objects import instantiate
from anatosegnet.data.datamodule import SegmentationDataModule
from anatosegnet.data.prepared import DataSettings, FoundData, find_data, prepare_data
from anatosegnet.data.recorded_split import RecordedSplit
from anatosegnet.data.source import Source
from anatosegnet.errors import UserError

SHARED = tuple(field.name for field in fields(DataSettings))  # the other settings are the source's


def build_data(config: DictConfig, recorded: RecordedSplit | None = None) -> SegmentationDataModule:
    """The data of a training, read and split, with their augmentation.

    Args:
        config: The composed config.
        recorded: A split to take instead of ``config.split``.

    Raises:
        UserError: A setting or the data are at fault.
    """
    split = recorded or instantiate(config, "split")
    augmentation = instantiate(config, "augmentation") if config.augmentation else None
    prepared = prepare_data(build_source(config), build_settings(config), split)
    return SegmentationDataModule(prepared, augmentation)


def build_found_data(config: DictConfig) -> FoundData:
    """The cases of ``config.data``, not read; raises UserError as `find_data`."""
    settings = build_settings(config)
    return find_data(build_source(config), settings.name, settings.exclude)


def build_source(config: DictConfig) -> Source:
    """The source that ``data._target_`` names, with the settings that are its own.

    Raises:
        UserError: It is none, or a setting is at fault.
    """
    own = config.copy()
    with open_dict(own):
        for key in SHARED:
            if key in own.data:
                del own.data[key]
    source = instantiate(own, "data")
    if not isinstance(source, Source):
        raise UserError(f"data: {config.data.get('_target_')} is no anatosegnet.data.Source")
    return source


def build_settings(config: DictConfig) -> DataSettings:
    """The settings of ``data`` that all datasets share.

    Raises:
        UserError: There is no name, or a value is at fault.
    """
    given: dict[str, Any] = {}
    for key in SHARED:
        if key in config.data:
            value = config.data[key]
            given[key] = OmegaConf.to_container(value) if OmegaConf.is_config(value) else value
    if "name" not in given:
        raise UserError("data needs a name, which names its results: data.name=NAME")
    target = f"{DataSettings.__module__}.{DataSettings.__name__}"
    check_arguments({"_target_": target, **given}, "data")
    return DataSettings(**given)
