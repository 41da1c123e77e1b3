"""A network of 100 weights on ten phantoms: what training does, without its cost."""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning
import torch
import yaml
from lightning.pytorch.callbacks import ModelCheckpoint
from omegaconf import DictConfig, OmegaConf
from torch import nn

from anatosegnet.config.composition import config_directory
from anatosegnet.config.objects import instantiate
from anatosegnet.data.build import build_data
from anatosegnet.data.datamodule import SegmentationDataModule
from anatosegnet.run import Run
from anatosegnet.training.checkpoints import SafeCheckpointIO
from anatosegnet.training.ema import EMA
from anatosegnet.training.module import SegmentationModule
from tests.running import compose

EPOCHS = 4


def tiny_data(*overrides: str) -> SegmentationDataModule:
    """Ten phantoms of 32 px in batches of 4: two steps an epoch."""
    small = ("data.count=10", "data.image_size=32", "data.batch_size=4", "data.num_workers=0")
    return build_data(compose(*small, "augmentation=light", *overrides))


@functools.cache
def default_config() -> DictConfig:
    """The default training of a few epochs; composing takes longer than training."""
    return compose(f"trainer.max_epochs={EPOCHS}")


def tiny_config(*overrides: str) -> DictConfig:
    """The default training with overrides: ``group=choice``, or ``key=value``."""
    config = default_config().copy()
    OmegaConf.set_struct(config, False)
    for override in overrides:
        key, value = override.split("=", 1)
        if "." in key:
            OmegaConf.update(config, key, yaml.safe_load(value))
        else:
            config[key] = OmegaConf.load(config_directory() / key / f"{value}.yaml") or None
    return config


def tiny_module(*overrides: str, in_channels: int = 3, dropout: float = 0.0) -> SegmentationModule:
    """BatchNorm between two convolutions; loss, optimiser and schedule as configured."""
    config = tiny_config(*overrides)
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(in_channels, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Dropout(dropout),
        nn.Conv2d(4, 2, 1),
    )
    schedule = instantiate(config, "scheduler") if config.scheduler else None
    parts = instantiate(config, "loss"), instantiate(config, "optimizer")
    return SegmentationModule(network, *parts, schedule)


def fit(
    module: SegmentationModule,
    data: SegmentationDataModule,
    directory: Path,
    epochs: int = EPOCHS,
    callbacks: Sequence[lightning.Callback] = (),
    resume: Path | None = None,
    **settings: Any,
) -> lightning.Trainer:
    """Train; ``best.ckpt`` (here of the last epoch) and ``last.ckpt`` as in any run."""
    common: dict[str, Any] = {"dirpath": directory, "enable_version_counter": False}
    best = ModelCheckpoint(filename="best", save_weights_only=True, mode="max", **common)
    last = ModelCheckpoint(filename="last", **common)
    averaging = next((callback for callback in callbacks if isinstance(callback, EMA)), None)
    directory.mkdir(exist_ok=True)
    lightning.seed_everything(0, verbose=False)
    trainer = lightning.Trainer(
        accelerator="cpu",
        max_epochs=epochs,
        callbacks=[*callbacks, best, last],
        num_sanity_val_steps=0,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        default_root_dir=directory,
        plugins=[SafeCheckpointIO(Run(directory), averaging)],
        **{"logger": False, "log_every_n_steps": 1, **settings},
    )
    trainer.fit(module, datamodule=data, ckpt_path=resume, weights_only=True)
    return trainer
