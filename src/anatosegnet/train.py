"""``python -m anatosegnet.train model=… data=…``: train, then test the best epoch."""

import logging
import os
import shlex
import socket
import sys
import time
import warnings
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from anatosegnet.cli import unexpected, verb
from anatosegnet.config.overrides import given
from anatosegnet.config.recorded import written_config
from anatosegnet.config.whereabouts import anchor
from anatosegnet.console import say, without_password
from anatosegnet.errors import UserError
from anatosegnet.run import Run, environment
from anatosegnet.training import tracking
from anatosegnet.training.starting import is_first_process, open_run, overrides_of

if TYPE_CHECKING:  # heavy imports wait until the config is known to be good
    import lightning
    import numpy as np

    from anatosegnet.data.changes import Changes
    from anatosegnet.data.datamodule import SegmentationDataModule
    from anatosegnet.data.prepared import PreparedData
    from anatosegnet.training.resuming import Resumption


@verb("train", shows_tracebacks=True)  # of a training that had begun
def main(config: DictConfig) -> None:
    """Compose, build, fit, test, and leave a run directory."""
    with unexpected():
        config, run = open_run(config, Path(HydraConfig.get().runtime.output_dir))
    train(config, run)


def train(config: DictConfig, run: Run) -> dict[str, Any]:
    """Fit and test as the config says.

    Args:
        config: The composed config.
        run: Where everything is written.

    Returns:
        What was written to ``summary.json``.

    Raises:
        UserError: The data or a setting is at fault, raised before anything is written; or the
            training failed in a way that one line explains.
    """
    with run.locked() if is_first_process() else nullcontext():
        try:
            anchor(config)
            tracking.identify(config)
            return fit_and_test(config, run)
        finally:
            tracking.finish()


def fit_and_test(config: DictConfig, run: Run) -> dict[str, Any]:
    """What `train` does, in each of the processes that train together."""
    import lightning
    import torch
    from lightning.pytorch.utilities.seed import isolate_rng

    from anatosegnet.data.build import build_data
    from anatosegnet.data.changes import changes_in_training
    from anatosegnet.data.leakage import recorded_split, unchanged_split
    from anatosegnet.data.shared_memory import require_shared_memory
    from anatosegnet.files.split_table import PARTS
    from anatosegnet.report import print_scores
    from anatosegnet.report.curves import write_curves
    from anatosegnet.training.build import (
        build_module,
        build_trainer,
        processes_here,
        selection,
        settle_precision,
    )
    from anatosegnet.training.checkpoints import usable_checkpoint
    from anatosegnet.training.outcome import outcome
    from anatosegnet.training.recipes import settle
    from anatosegnet.training.repetition import agreement, source_of
    from anatosegnet.training.resuming import Resumption
    from anatosegnet.training.transfer import load_weights, origin_of

    started = time.perf_counter()
    with unexpected():
        quieten()
        if not (type(config.seed) is int and 0 <= config.seed < 2**32):
            raise UserError(f"seed={config.seed} must be a whole number from 0 to {2**32 - 1}")
        lightning.seed_everything(config.seed, workers=True, verbose=False)
        torch.set_float32_matmul_precision("high")
        settle_precision(config)
        resume = config.resume is not None
        resumption = Resumption.judge(config, run) if resume else None
        settled = settle(config)
        if resume:
            unchanged_split(run)
        loading = build_data(config, recorded_split(run, PARTS) if resume else None)
        data = loading.prepared
        changes = changes_in_training(config, run, data)
        checkpoint: Path | None = None
        remarks: list[str] = []
        if resumption:
            with isolate_rng():  # without a checkpoint the run begins anew, as it did
                module = build_module(config, pretrained=False)
            checkpoint, remarks = usable_checkpoint(run, module)
            resumption.require_effect(config, module, checkpoint)
        origin = None if checkpoint else origin_of(config)
        if checkpoint is None:
            module = build_module(config, pretrained=False if origin else None)
        transfer = load_weights(module, origin, data) if origin else None
        require_shared_memory(data, processes_here(config))
        trainer = build_trainer(config, module, run)
        minutes = run.summary.get("minutes", 0) if resume else 0

        if trainer.is_global_zero:
            begin(config, run, data, changes, resumption)
            print_start(run, data, module, selection(config, data.split))
            for line in changes.condition.values():
                say(f"data   warning: changed since {config.resume or config.from_run}: {line}")
            if resumption:
                print_resume(checkpoint, [*remarks, *resumption.lines])
            if transfer:
                run.update_summary({"init_from": transfer.summary})
            for line in [*([transfer.text] if transfer else []), *settled]:
                say(line)
    table = None
    with outcome(run, config, trainer):
        trainer.fit(module, datamodule=loading, ckpt_path=str(checkpoint) if checkpoint else None)
        summary = {"state": "finished", **best_epoch(trainer, run)}
        if trainer.is_global_zero:
            write_curves(run, summary.get("best_epoch"))
        if config.test and "best_epoch" in summary:
            chosen = selection(config, data.split, summary["epoch_chosen"])
            scores, table = test(trainer, module, loading, run, chosen)
            summary.update(scores)
    summary["minutes"] = round(minutes + (time.perf_counter() - started) / 60, 2)
    if trainer.is_global_zero:
        source = source_of(config)
        result = agreement(config, run, source) if source else None
        if result is not None:
            summary["repetition"] = result
        summary = run.update_summary(summary)
        if table:  # all is on the disk by now
            print_scores("test", table, summary["test_conditions"])
        if result is not None:
            say(f"repetition: {result}")
        say(f"run: {run.directory}")
    return summary


def begin(
    config: DictConfig,
    run: Run,
    data: "PreparedData",
    changes: "Changes",
    resumption: "Resumption | None" = None,
) -> None:
    """Write what is known when training begins: all that repeats the run.

    What is known of the data of a resumed run stays as it is: it is the evidence of what the run
    was trained with.
    """
    from anatosegnet.data.changes import KEY
    from anatosegnet.data.duplicates import write_pairs
    from anatosegnet.data.recorded_split import write_split

    written_config(config)  # now, and not when half of the run is written: it may be refused
    about: dict[str, Any] = {"state": "running", "directory": str(run.directory.resolve())}
    if resumption:
        about |= resumption.entries(environment()["versions"])
        resumption.note(config)
    else:
        write_split(run.split_path, data.split, data.cases.values(), data.digests, data.duplicates)
        if data.pairs:
            write_pairs(run.duplicates_path, data.pairs)
        command = ["python", "-m", "anatosegnet.train", *sys.argv[1:]]
        if in_sweep():  # this job's; a launcher has arguments of its own
            own = [override for override in given() if not override.startswith("run_dir=")]
            alone = ["hydra.mode=RUN"] if any(o.startswith("sweep=") for o in own) else []
            command[3:] = [*own, f"run_dir={run.directory}", *alone]
        about |= {"command": without_password(shlex.join(command)), **environment()}
        about |= {
            "split_description": data.split.description,
            "split_fingerprint": data.split.fingerprint,
            "data_fingerprint": data.fingerprint,
            "leakage": data.leakage.text,
        }
    if resumption and not str(then := run.summary.get("leakage", "unknown")).endswith(
        data.leakage.text
    ):
        about["leakage"] = f"{then}; when resumed: {data.leakage.text}"
    if (overrides := overrides_of(config, run)) is not None:
        about["overrides"] = overrides
    if changes:
        about[KEY] = changes.summary
    about |= {"host": socket.gethostname(), "pid": os.getpid(), "began": time.time()}
    run.update_summary(about)
    run.write_config(config)  # last: a directory with a config can be resumed


def test(
    trainer: "lightning.Trainer",
    module: "lightning.LightningModule",
    loading: "SegmentationDataModule",
    run: Run,
    chosen: str,
) -> tuple[dict[str, Any], dict[str, "np.ndarray"]]:
    """Test the best epoch.

    Returns:
        Entries of ``summary.json``, and the scores of each image (N,) by name; none by image
        where a module of someone's own does not keep them.
    """
    from anatosegnet.data.changes import Changes
    from anatosegnet.training.module import SegmentationModule

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
        "selection": chosen,
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


def best_epoch(trainer: "lightning.Trainer", run: Run) -> dict[str, Any]:
    """The epoch of ``best.ckpt`` (counted from 1) and its validation scores.

    A training that never came to a validation compared no epochs: its last one becomes
    ``best.ckpt``. Nothing where no checkpoint is kept at all.

    Raises:
        UserError: ``best.ckpt`` was removed, or damaged.
    """
    from lightning.pytorch.callbacks import ModelCheckpoint

    from anatosegnet.network import best_weights
    from anatosegnet.training.callbacks import History
    from anatosegnet.training.checkpoints import take_last_as_best

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
    history = next((c for c in trainer.callbacks if isinstance(c, History)), None)  # type: ignore[attr-defined]
    for row in history.rows if history else ():
        if row["epoch"] == epoch:
            scores.update({name: v for name, v in row.items() if name.startswith("val/")})
    rounded = {name: round(value, 6) for name, value in scores.items()}
    return {
        "best_epoch": epoch + 1,
        "epoch_chosen": compared and best.monitor is not None,
        "epochs": trainer.current_epoch,
        **rounded,
    }


def print_start(
    run: Run, data: "PreparedData", module: "lightning.LightningModule", chosen: str
) -> None:
    """What is going to be trained, on what, and where it goes."""
    from anatosegnet.data.case import count_labels
    from anatosegnet.data.groups import disagreements
    from anatosegnet.training.module import network_of

    split, network = data.split, network_of(module)
    parameters = sum(parameter.numel() for parameter in network.parameters())
    say(f"run    {run.directory}")
    if in_sweep():
        say(f"sweep  {' '.join(HydraConfig.get().overrides.task)}")
    excluded = f", {len(data.excluded)} excluded" if data.excluded else ""
    say(f"data   {data.name}: {count_labels(data.cases.values())}{excluded}")
    if data.duplicates:
        groups = len(set(data.duplicates.values()))
        say(f"copies {len(data.duplicates)} images in {groups} groups of near-duplicates; "
              f"data.duplicates={data.settings.duplicates}")  # fmt: skip
        unlike = list(disagreements(data.cases.values(), data.duplicates))
        for line in unlike[:5]:
            say(f"       the same picture, but {line}")
        if len(unlike) > 5:
            say(f"       and {len(unlike) - 5} more; prepare lists them all")
    say(f"split  {split.description}: {len(split.train)} train, {len(split.val)} val, "
          f"{len(split.test)} test; {chosen}; fingerprint {split.fingerprint}")  # fmt: skip
    if not data.source.simulated:
        warning = "warning: " if data.leakage.leaks else ""
        say(f"leaks  {warning}{data.leakage.text}")
    say(f"model  {type(network).__name__}, {parameters:,} parameters")


def print_resume(checkpoint: Path | None, remarks: list[str]) -> None:
    """Where a resumed run goes on from."""
    for remark in remarks:
        say(f"resume {remark}")
    if checkpoint is None:
        say("resume from the start: no epoch was finished")
    else:
        say(f"resume from {checkpoint}")


def in_sweep() -> bool:
    """Whether this is a job of a multirun (-m)."""
    return HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN


def quieten() -> None:
    """Leave out the library messages that would not help a user here."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for message in (
        ".*does not have many workers.*",
        ".*Checkpoint directory .* exists and is not empty.*",
        ".*Experiment logs directory .* exists.*",
        ".*number of training batches .* is smaller than the logging interval.*",
        ".*GPU available but not used.*",
        ".*isinstance.treespec, LeafSpec.*",
    ):
        warnings.filterwarnings("ignore", message=message)


if __name__ == "__main__":
    main()
