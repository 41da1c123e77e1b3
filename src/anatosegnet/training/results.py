"""What a training came to: its best epoch, tested, written and said."""

from pathlib import Path
from typing import Any

import numpy as np
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from omegaconf import DictConfig

from anatosegnet.console import say
from anatosegnet.data.changes import Changes
from anatosegnet.data.datamodule import SegmentationDataModule
from anatosegnet.data.split import selection
from anatosegnet.files.epoch_table import read_epochs
from anatosegnet.network import best_weights
from anatosegnet.report import print_scores
from anatosegnet.report.curves import write_curves
from anatosegnet.run import Run
from anatosegnet.training.checkpoints import take_last_as_best
from anatosegnet.training.module import SegmentationModule
from anatosegnet.training.repetition import agreement, source_of

Scores = dict[str, np.ndarray]  # of each image (N,), by name


def test_result(
    config: DictConfig,
    trainer: Trainer,
    module: LightningModule,
    loading: SegmentationDataModule,
    run: Run,
) -> tuple[dict[str, Any], Scores]:
    """Find the best epoch, draw the curves, and test if the config says so.

    Returns:
        Entries of ``summary.json``, and the scores of each test image.
    """
    summary, scores = {"state": "finished", **best_epoch(trainer, run)}, Scores()
    if trainer.is_global_zero:
        write_curves(run, summary.get("best_epoch"))
    if config.test and "best_epoch" in summary:
        selected = selection(config, loading.prepared.split, summary["epoch_chosen"])
        entries, scores = test_best(trainer, module, loading, run, selected)
        summary |= entries
    return summary, scores


def finish(config: DictConfig, run: Run, summary: dict[str, Any], scores: Scores) -> dict[str, Any]:
    """Write the summary of a finished training and say what it came to.

    Returns:
        What ``summary.json`` holds.
    """
    source = source_of(config)
    repetition = agreement(config, run, source) if source else None
    if repetition is not None:
        summary["repetition"] = repetition
    summary = run.update_summary(summary)
    if scores:  # all is on the disk by now
        print_scores("test", scores, summary["test_conditions"])
    if repetition is not None:
        say(f"repetition: {repetition}")
    say(f"run: {run.directory}")
    return summary


def test_best(
    trainer: Trainer,
    module: LightningModule,
    loading: SegmentationDataModule,
    run: Run,
    selection: str,
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Test the best epoch.

    Returns:
        Entries of ``summary.json``, and the scores of each image (N,) by name; none by image
        where a module of someone's own does not keep them.
    """
    trainer.test(module, datamodule=loading, ckpt_path=str(run.best_path), verbose=False)
    data = loading.prepared
    scores, pooled = {}, {}
    if isinstance(module, SegmentationModule):
        scores, pooled = module.scores(module.test_counts), module.pooled(module.test_counts)
    summary = run.summary
    height, width = data.settings.size
    conditions = {
        "data": f"{data.title}, {len(data.split.test)} test images",
        "split": f"{data.split.description}; fingerprint {data.split.fingerprint}",
        **Changes.recorded(run).condition,
        "leakage": summary.get("leakage", data.leakage.text),
        "selection": selection,
        "aggregation": f"per image at {height}×{width} px (the network's size), mean over images",
    }
    means = {f"test/{score}": round(float(v.mean()), 6) for score, v in scores.items()}
    deviations = {f"test/{score}_sd": round(float(v.std()), 6) for score, v in scores.items()}
    computed = {
        **means,
        **deviations,
        **{f"test/{name}": round(v, 6) for name, v in pooled.items()},
    }
    logged = {
        name: round(float(value), 6)
        for name, value in trainer.callback_metrics.items()
        if name.startswith("test/") and name not in computed
    }
    return {**computed, **logged, "test_conditions": conditions}, scores


def best_epoch(trainer: Trainer, run: Run) -> dict[str, Any]:
    """The epoch of ``best.ckpt`` (counted from 1) and its validation scores.

    A training that never came to a validation compared no epochs: its last one becomes
    ``best.ckpt``. Nothing where no checkpoint is kept at all.

    Raises:
        UserError: ``best.ckpt`` was removed, or damaged.
    """
    best = trainer.checkpoint_callback
    if not isinstance(best, ModelCheckpoint) or trainer.fast_dev_run:  # type: ignore[attr-defined]
        return {}
    compared = bool(best.best_model_path) and Path(best.best_model_path).name == run.best_path.name
    if not compared and not run.last_path.exists():
        say("no epoch was validated, and callbacks.last is off: no weights are kept")
        return {}
    if not compared and trainer.is_global_zero:
        say("no epoch was validated: the last one is the result")
        take_last_as_best(run)
    trainer.strategy.barrier()
    epoch, scores = best_weights(run)["epoch"], {}
    if best.monitor and best.best_model_score is not None:
        scores[best.monitor] = float(best.best_model_score)
    row = read_epochs(run.metrics_path).get(epoch, {})
    scores |= {name: value for name, value in row.items() if name.startswith("val/")}
    rounded = {name: round(value, 6) for name, value in scores.items()}
    return {
        "best_epoch": epoch + 1,
        "epoch_chosen": compared and best.monitor is not None,
        "epochs": trainer.current_epoch,
        **rounded,
    }
