"""The runs below a folder: how far each is, how good it was, and whether somebody trains it."""

import math
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from anatosegnet.console import rounded, say, say_table
from anatosegnet.errors import UserError, reason
from anatosegnet.files.epoch_table import read_epochs
from anatosegnet.files.opening import read_yaml
from anatosegnet.run import Run


@dataclass
class Line:
    """One run, as the table shows it.

    Attributes:
        name: Its path, from the directory that was asked for.
        state: running, finished, interrupted, preempted, failed; stopped: its process is gone.
        done: Epochs that were finished.
        planned: Epochs it was to have; None where that is not known.
        val_iou: The best so far.
        best_epoch: Of `val_iou`, from 1.
        test_iou: Of the best epoch.
        minutes: It took so far.
        began: Seconds since 1970; a resumed run began when it was resumed.
    """

    name: str
    state: str
    done: int
    planned: int | None
    val_iou: float | None
    best_epoch: int | None
    test_iou: float | None
    minutes: float | None
    began: float


def list_runs(directory: Path) -> list[Line]:
    """Print a table of the runs below a directory, and a remark on each that cannot be read.

    Raises:
        UserError: There is no such directory.
    """
    if not directory.is_dir():
        raise UserError(f"there is no folder {directory}; say where the runs are: dir=DIR")
    lines: list[Line] = []
    remarks: list[str] = []
    for place in find_runs(directory):
        try:
            name = str(place.relative_to(directory)) if place != directory else place.name
            lines.append(read_line(Run(place), name))
        except Exception as error:  # whatever is wrong with it: the others are listed
            remarks.append(f"{place}: {reason(error)}")
    lines.sort(key=lambda line: (line.began, line.name))
    if lines:
        print_lines(lines)
    else:
        say(f"{directory} holds no runs")
    for remark in remarks:
        say(f"remark: {remark}")
    return lines


def find_runs(directory: Path) -> Iterator[Path]:
    """Directories with a ``summary.json`` and a ``config.yaml``; nothing below them is a run."""
    for place, folders, files in os.walk(directory):
        if {"summary.json", "config.yaml"} <= set(files):
            folders.clear()
            yield Path(place)
        folders[:] = [folder for folder in folders if not folder.startswith(".")]


def read_line(run: Run, name: str) -> Line:
    """What the table shows of a run.

    Raises:
        OSError, ValueError, TypeError, KeyError, AttributeError: A file is damaged or not ours.
    """
    summary = run.summary
    try:
        config = read_yaml(run.config_path)
    except (OSError, ValueError) as error:
        raise ValueError(f"{run.config_path.name} cannot be read ({reason(error)})") from error
    trainer = config.get("trainer")
    if not isinstance(trainer, dict) or "state" not in summary:
        raise ValueError("this is no run of ours")
    epochs = read_epochs(run.metrics_path)
    ious = {epoch: scores["val/iou"] for epoch, scores in epochs.items() if "val/iou" in scores}
    best = max(ious, key=ious.__getitem__, default=None)
    best_epoch, val_iou = (None, None) if best is None else (best + 1, ious[best])
    if number(summary.get("val/iou")) is not None:
        val_iou, best_epoch = number(summary["val/iou"]), whole(summary.get("best_epoch"))
    state = run.state
    began = number(summary.get("began")) or run.config_path.stat().st_mtime
    minutes = number(summary.get("minutes"))
    if state != "finished":  # a resumed run has minutes from before
        end = time.time() if state == "running" else last_sign(run)
        minutes = (minutes or 0) + max(0, end - began) / 60
    return Line(
        name=name,
        state=state,
        done=max(epochs, default=-1) + 1,
        planned=whole(trainer.get("max_epochs")),
        val_iou=val_iou,
        best_epoch=best_epoch,
        test_iou=number(summary.get("test/iou")),
        minutes=minutes,
        began=began,
    )


def number(value: Any) -> float | None:
    """A finite number, or None."""
    try:
        found = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return found if math.isfinite(found) else None


def whole(value: Any) -> int | None:
    """A whole number, or None."""
    found = number(value)
    return None if found is None else int(found)


def last_sign(run: Run) -> float:
    """When a run last wrote something, seconds since 1970."""
    paths = (run.summary_path, run.metrics_path)
    return max(path.stat().st_mtime for path in paths if path.exists())


def print_lines(lines: list[Line]) -> None:
    """The table; in a pipe without frames, one line a run."""
    rows = [
        (
            line.name,
            line.state,
            f"{line.done}/{line.planned}" if line.planned else str(line.done),
            cell(line.val_iou),
            str(line.best_epoch or "-"),
            cell(line.test_iou),
            cell(line.minutes, 1),
        )
        for line in lines
    ]
    columns = ("run", "state", "epochs", "val IoU", "at epoch", "test IoU", "minutes")
    say_table(columns, rows, left=2, bare=True)


def cell(value: float | None, digits: int = 4) -> str:
    """A number; a plain dash where there is none, as other programs may read it."""
    return "-" if value is None else rounded(value, digits)
