"""What is said and written when a training begins: all that repeats the run."""

import logging
import os
import shlex
import socket
import sys
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning
import torch
from hydra.core.hydra_config import HydraConfig
from lightning import LightningModule
from omegaconf import DictConfig

from anatosegnet.config.keys import flatten
from anatosegnet.config.objects import network_name
from anatosegnet.config.overrides import given, in_sweep
from anatosegnet.config.recorded import written_config
from anatosegnet.console import say, without_password
from anatosegnet.data.case import count_labels
from anatosegnet.data.changes import KEY, Changes
from anatosegnet.data.duplicates import write_pairs
from anatosegnet.data.groups import disagreements
from anatosegnet.data.prepared import PreparedData
from anatosegnet.data.recorded_split import write_split
from anatosegnet.data.split import selection
from anatosegnet.errors import UserError
from anatosegnet.run import Run, environment
from anatosegnet.training.module import network_of
from anatosegnet.training.origin import Origin
from anatosegnet.training.repetition import overrides_of
from anatosegnet.training.resume import Resumption


def settle_process(config: DictConfig) -> None:
    """Seed this process, and keep its libraries quiet.

    Raises:
        UserError: The seed is none.
    """
    quieten()
    if not (type(config.seed) is int and 0 <= config.seed < 2**32):
        raise UserError(f"seed={config.seed} must be a whole number from 0 to {2**32 - 1}")
    lightning.seed_everything(config.seed, workers=True, verbose=False)
    torch.set_float32_matmul_precision("high")


def begin(
    config: DictConfig,
    run: Run,
    data: PreparedData,
    changes: Changes,
    origin: Origin,
    settled: Sequence[str],
) -> None:
    """Write what is known when training begins, and say it.

    Args:
        config: As the run is trained with.
        run: Where it is written.
        data: What it is trained on.
        changes: What is other in the data than the run resumed or repeated had.
        origin: What training starts from.
        settled: Lines on settings that were put right.
    """
    write_beginning(config, run, data, changes, origin.resumption)
    print_start(config, run, data, origin.module)
    for line in changes.condition.values():
        say(f"data   warning: changed since {config.resume or config.from_run}: {line}")
    if origin.resumption:
        print_resume(origin.checkpoint, [*origin.remarks, *origin.resumption.lines])
    if origin.transfer:
        run.update_summary({"init_from": origin.transfer.summary})
        say(origin.transfer.text)
    for line in settled:
        say(line)


def write_beginning(
    config: DictConfig,
    run: Run,
    data: PreparedData,
    changes: Changes,
    resumption: Resumption | None = None,
) -> None:
    """Write what is known when training begins: all that repeats the run.

    What is known of the data of a resumed run stays as it is: it is the evidence of what the run
    was trained with.
    """
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


def print_start(config: DictConfig, run: Run, data: PreparedData, module: LightningModule) -> None:
    """What is going to be trained, on what, and where it goes."""
    split, network = data.split, network_of(module)
    parameters = sum(parameter.numel() for parameter in network.parameters())
    say(f"run    {run.directory}")
    if in_sweep():
        say(f"sweep  {' '.join(HydraConfig.get().overrides.task)}")
    excluded = f", {len(data.excluded)} excluded" if data.excluded else ""
    say(f"data   {data.name}: {count_labels(data.cases.values())}{excluded}")
    if data.duplicates:
        groups = len(set(data.duplicates.values()))
        say(
            f"groups {len(data.duplicates)} images in {groups} groups of duplicates; "
            f"data.duplicates={data.settings.duplicates}"
        )
        unlike = list(disagreements(data.cases.values(), data.duplicates))
        for line in unlike[:5]:
            say(f"       the same picture, but {line}")
        if len(unlike) > 5:
            say(f"       and {len(unlike) - 5} more; prepare lists them all")
    say(
        f"split  {split.description}: {len(split.train)} train, {len(split.val)} val, "
        f"{len(split.test)} test; {selection(config, split)}; fingerprint {split.fingerprint}"
    )
    if not data.source.simulated:
        warning = "warning: " if data.leakage.leaks else ""
        say(f"leaks  {warning}{data.leakage.text}")
    name = network_name(flatten(config)).rpartition(".")[2]
    say(f"model  {name}, {parameters:,} parameters")


def print_resume(checkpoint: Path | None, remarks: list[str]) -> None:
    """Where a resumed run goes on from."""
    for remark in remarks:
        say(f"resume {remark}")
    if checkpoint is None:
        say("resume from the start: no epoch was finished")
    else:
        say(f"resume from {checkpoint}")


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
