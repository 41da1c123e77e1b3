"""The runs below a folder: how far each is, how good it was, and whether somebody trains it.

Of a sweep's folder also how far the sweep is, which jobs still wait, and what each of them tries.
"""

import heapq
import math
import os
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from anatosegnet.config.keys import shorten
from anatosegnet.console import duration, plain, rounded, say, say_table
from anatosegnet.errors import UserError, reason
from anatosegnet.files.epoch_table import read_epochs
from anatosegnet.files.opening import read_yaml
from anatosegnet.run import Run, runs_below
from anatosegnet.sweep import Sweep, settings_apart

# states of a run as a sweep's jobs are counted by them
COUNTED = {"preempted": "interrupted", "stopped": "interrupted"}
STATES = ("finished", "running", "interrupted", "failed", "waiting")


@dataclass
class Line:
    """One run, as the table shows it.

    Attributes:
        name: Its path, from the directory that was asked for.
        state: See `Run.state`.
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

    @property
    def counted(self) -> str:
        """Its state, as one of `STATES`; another one, of a run that was changed, as it is."""
        return COUNTED.get(self.state, self.state)


def list_runs(directory: Path) -> list[Line]:
    """Print a table of the runs below a directory, and a remark on each that cannot be read.

    Above it, of a sweep's directory, how far the sweep is.

    Raises:
        UserError: There is no such directory.
    """
    if not directory.is_dir():
        raise UserError(f"there is no folder {plain(directory)}; say where the runs are: runs DIR")
    lines: list[Line] = []
    remarks: list[str] = []
    for place in find_runs(directory):
        try:
            name = str(place.relative_to(directory)) if place != directory else place.name
            lines.append(read_line(Run(place), name))
        except Exception as error:  # whatever is wrong with it: the others are listed
            remarks.append(f"{place}: {reason(error)}")
    lines.sort(key=lambda line: (line.began, line.name))
    apart: dict[str, list[str]] = {}
    sweep = Sweep(directory)
    try:
        lines, apart = jobs_first(sweep, lines)
    except Exception as error:  # the runs are listed without it
        remarks.append(f"{sweep.path}: {reason(error)}")
    if lines:
        print_lines(lines, apart)
    else:
        say(f"{directory} holds no runs")
    for remark in remarks:
        say(f"remark: {remark}")
    return lines


def find_runs(directory: Path) -> Iterator[Path]:
    """Directories of runs that began."""
    return (place for place in runs_below(directory) if os.path.lexists(place / "summary.json"))


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


def jobs_first(sweep: Sweep, lines: list[Line]) -> tuple[list[Line], dict[str, list[str]]]:
    """The jobs of a sweep in the order of their numbers, then other runs; says how far it is.

    Args:
        sweep: Perhaps none.
        lines: The runs below its directory.

    Returns:
        The lines, and of each setting in which the jobs differ what they give for it.
    """
    jobs, known = sweep.jobs, {line.name: line for line in lines}
    of_jobs = []
    for job in jobs:
        waits = Line(job.directory, "", 0, job.epochs, None, None, None, None, 0.0)
        line = known.pop(job.directory, waits)
        line.state = line.state or sweep.run(job).state
        of_jobs.append(line)
    if of_jobs:
        say_progress(of_jobs)
    return [*of_jobs, *known.values()], settings_apart(jobs)


def say_progress(jobs: Sequence[Line]) -> None:
    """How far a sweep is, and how long it will take those who are at it."""
    counts = Counter(line.counted for line in jobs)
    states = ", ".join(f"{counts[state]} {state}" for state in STATES if counts[state])
    say(f"sweep   {len(jobs)} jobs: {states}")
    done = sum(line.done for line in jobs)
    whole = sum(line.done if line.counted in ("finished", "failed") else line.planned or 0
                for line in jobs)  # fmt: skip
    text = f"epochs  {done} of {whole}"
    left, workers = minutes_left(jobs), counts["running"]
    if left:
        who = f"{workers} workers" if workers > 1 else "one worker"
        text += f"; about {duration(60 * left)} left for {who}"
        text += "" if workers else "; nobody is at it"
    say(text)


def minutes_left(jobs: Sequence[Line]) -> float | None:
    """Minutes until a sweep is done, by what its epochs took; None where that is not known.

    Who is done with a job takes the next one; if nobody is at it, one worker is thought of.
    """
    measured = [(line.minutes, line.done) for line in jobs if line.minutes and line.done]
    undone = [line for line in jobs if line.counted in ("running", "interrupted", "waiting")]
    if not measured or any(line.planned is None for line in undone):
        return None
    usual = sum(minutes for minutes, _ in measured) / sum(done for _, done in measured)

    def left(line: Line) -> float:
        an_epoch = line.minutes / line.done if line.minutes and line.done else usual
        return an_epoch * max(0, (line.planned or 0) - line.done)

    workers = [left(line) for line in undone if line.counted == "running"] or [0.0]
    heapq.heapify(workers)
    for line in undone:
        if line.counted != "running":
            heapq.heapreplace(workers, workers[0] + left(line))
    return max(workers)


def print_lines(lines: list[Line], apart: Mapping[str, list[str]]) -> None:
    """The table; in a pipe without frames, one line a run.

    Args:
        lines: The runs.
        apart: Of each setting in which they differ, what the first of them give for it.
    """
    names = shorten(list(apart))
    given = [[values[n] if n < len(values) else "" for values in apart.values()]
             for n in range(len(lines))]  # fmt: skip
    rows = [
        (
            line.name,
            *(value or "-" for value in own),
            line.state,
            f"{line.done}/{line.planned}" if line.planned else str(line.done),
            cell(line.val_iou),
            str(line.best_epoch or "-"),
            cell(line.test_iou),
            cell(line.minutes, 1),
        )
        for line, own in zip(lines, given, strict=True)
    ]
    scores = ("epochs", "val IoU", "at epoch", "test IoU", "minutes")
    columns = ("run", *names.values(), "state", *scores)
    say_table(columns, rows, left=2 + len(names), bare=True)


def cell(value: float | None, digits: int = 4) -> str:
    """A number; a plain dash where there is none, as other programs may read it."""
    return "-" if value is None else rounded(value, digits)
