"""``python -m anatosegnet.runs``: the runs there are, how far they are, how good they were."""

import csv
import json
import math
import os
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig

from anatosegnet.config import verb
from anatosegnet.console import say
from anatosegnet.errors import UserError
from anatosegnet.process import is_alive
from anatosegnet.run import Run

# several times as fast as yaml's own
Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@verb("runs")
def main(config: DictConfig) -> None:
    """List the runs of a directory, newest last."""
    try:
        list_runs(Path(config.dir))
        sys.stdout.flush()
    except BrokenPipeError:  # such as: … | head
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


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
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            remarks.append(f"{place}: {' '.join(str(error).split())[:200]}")
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
    summary = read_json(run.summary_path)
    try:
        config = yaml.load(run.config_path.read_bytes(), Loader)
    except yaml.YAMLError as error:
        raise ValueError(f"{run.config_path.name} cannot be read ({error})") from error
    if not isinstance(config, dict) or "trainer" not in config or "state" not in summary:
        raise ValueError("this is no run of ours")
    done, best_epoch, val_iou = progress(run.metrics_path)
    if number(summary.get("val/iou")) is not None:
        val_iou, best_epoch = number(summary["val/iou"]), summary.get("best_epoch")
    state = str(summary["state"])
    if state == "running" and is_alive(summary) is False:
        state = "stopped"
    began = number(summary.get("began")) or run.config_path.stat().st_mtime
    minutes = number(summary.get("minutes"))
    if state != "finished":  # a resumed run has minutes from before
        end = time.time() if state == "running" else last_sign(run)
        minutes = (minutes or 0) + max(0, end - began) / 60
    return Line(
        name=name,
        state=state,
        done=done,
        planned=config["trainer"].get("max_epochs"),
        val_iou=val_iou,
        best_epoch=best_epoch,
        test_iou=number(summary.get("test/iou")),
        minutes=minutes,
        began=began,
    )


def read_json(path: Path) -> dict[str, Any]:
    """A summary; raises ValueError if it is damaged."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path.name} cannot be read ({error})") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path.name} is no summary")
    return content


def progress(metrics: Path) -> tuple[int, int | None, float | None]:
    """Epochs done, the best one (from 1) and its ``val/iou``, from a ``metrics.csv``."""
    done, best_epoch, best = 0, None, None
    with suppress(FileNotFoundError), metrics.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            epoch = number(row.get("epoch"))
            if epoch is None:
                continue
            done = max(done, int(epoch) + 1)
            score = number(row.get("val/iou"))
            if score is not None and (best is None or score > best):
                best_epoch, best = int(epoch) + 1, score
    return done, best_epoch, best


def number(value: Any) -> float | None:
    """A finite number, or None."""
    try:
        found = float(value)
    except (TypeError, ValueError):
        return None
    return found if math.isfinite(found) else None


def last_sign(run: Run) -> float:
    """When a run last wrote something, seconds since 1970."""
    paths = (run.summary_path, run.metrics_path)
    return max(path.stat().st_mtime for path in paths if path.exists())


def print_lines(lines: list[Line]) -> None:
    """The table; in a pipe without frames, one line a run."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False, soft_wrap=True)
    if not console.is_terminal:  # no reason to cut at 80 columns
        console.width = 1000
    table = Table(box=box.HEAVY_HEAD if console.is_terminal else None)
    table.pad_edge = console.is_terminal
    table.add_column("run", overflow="fold")
    table.add_column("state", no_wrap=True)
    for title in ("epochs", "val IoU", "at epoch", "test IoU", "minutes"):
        table.add_column(title, justify="right", no_wrap=True)
    for line in lines:
        table.add_row(
            line.name,
            line.state,
            f"{line.done}/{line.planned}" if line.planned else str(line.done),
            score(line.val_iou),
            str(line.best_epoch or "-"),
            score(line.test_iou),
            f"{line.minutes:.1f}" if line.minutes is not None else "-",
        )
    console.print(table)


def score(value: float | None) -> str:
    """A score to four digits."""
    return "-" if value is None else f"{value:.4f}"


if __name__ == "__main__":
    main()
