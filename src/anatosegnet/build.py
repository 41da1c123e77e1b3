"""The objects of a run from its config: data, network, trainer."""

from pathlib import Path
from typing import Any

import lightning
from omegaconf import DictConfig, OmegaConf

from anatosegnet.config import instantiate
from anatosegnet.data.datamodule import SegmentationDataModule
from anatosegnet.data.split import RecordedSplit, Split
from anatosegnet.errors import UserError
from anatosegnet.module import SegmentationModule
from anatosegnet.run import Run


def build_data(config: DictConfig, recorded: Path | None = None) -> SegmentationDataModule:
    """The data module, with its split (or one that a run recorded) and its augmentation."""
    split = RecordedSplit(recorded) if recorded else instantiate(config, "split")
    augmentation = instantiate(config, "augmentation") if config.augmentation else None
    return instantiate(config, "data", split=split, augmentation=augmentation)


def build_module(config: DictConfig, pretrained: bool | None = None) -> SegmentationModule:
    """The network with its loss and optimiser.

    Args:
        config: The composed config.
        pretrained: Overrides ``model.pretrained``: False where weights are loaded anyway.
    """
    if pretrained is not None and "pretrained" in config.model:
        config = config.copy()
        config.model.pretrained, config.model.encoder_weights = pretrained, None
    module = SegmentationModule(
        instantiate(config, "model"),
        instantiate(config, "loss"),
        instantiate(config, "optimizer"),
        instantiate(config, "scheduler") if config.scheduler else None,
    )
    try:
        module.configure_optimizers()  # now, not after the run has begun to write
    except (TypeError, ValueError) as error:
        raise UserError(f"optimizer or scheduler: {error}") from error
    return module


def build_trainer(
    config: DictConfig, module: SegmentationModule, run: Run, resume: bool = False
) -> lightning.Trainer:
    """The trainer with its callbacks and loggers."""
    callbacks = [instantiate(config.callbacks, key) for key in named(config.callbacks)]
    earlier = run.metrics_path.read_text() if resume and run.metrics_path.exists() else None
    loggers = [instantiate(config.logger, key) for key in named(config.logger)]
    trainer = instantiate(config, "trainer", callbacks=callbacks, logger=loggers or False)
    if trainer.is_global_zero:
        settings = OmegaConf.to_container(config, resolve=True)
        for logger in loggers:
            if type(logger).__name__ == "CSVLogger":  # config.yaml says it; metrics go on
                if earlier is not None:
                    continue_metrics(logger, run, earlier)
            else:
                logger.log_hyperparams(settings)
    return trainer


def named(group: DictConfig | None) -> list[str]:
    """The keys of a group of objects that are not switched off by null."""
    return [str(key) for key, value in (group or {}).items() if value is not None]


def continue_metrics(logger: Any, run: Run, earlier: str) -> None:
    """Put the rows of the finished epochs back, which Lightning's csv logger deletes."""
    _ = logger.experiment
    run.metrics_path.write_text(earlier)
    logger.experiment.metrics_keys = earlier.splitlines()[0].split(",")


def selection(config: DictConfig, split: Split) -> str:
    """How the epoch of ``best.ckpt`` was chosen, said beside every score."""
    best = config.callbacks.get("best")
    if best is not None and best.get("monitor") is None:
        return "the last epoch, none was chosen"
    return split.selection
