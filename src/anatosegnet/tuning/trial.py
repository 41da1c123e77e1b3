"""One training of a study, in a process of its own: started, followed, stopped."""

import ctypes
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from anatosegnet.errors import UserError
from anatosegnet.files.epoch_table import read_epochs
from anatosegnet.files.opening import read_bytes

ERROR = re.compile(r"error: |[\w.]*(Error|Exception|Interrupt)\b")
PATIENCE = 120  # seconds that a training has to save and leave after SIGTERM
INTERVAL = 0.5  # seconds between two looks at metrics.csv


class TrialFailed(Exception):
    """A training that ended without a score; the message says why, in one line."""


def val_iou(metrics: Path) -> dict[int, float]:
    """``val/iou`` of each epoch (from 0) in a ``metrics.csv``; empty before the first."""
    try:
        epochs = read_epochs(metrics)
    except UserError:
        return {}
    return {epoch: row["val/iou"] for epoch, row in epochs.items() if "val/iou" in row}


class Training:
    """A ``train`` process; a context manager at whose end it no longer runs.

    Args:
        command: Program and arguments; output goes to ``log``.
        metrics: Where it writes its ``metrics.csv``.
        log: Written anew.
    """

    def __init__(self, command: Sequence[str], metrics: Path, log: Path) -> None:
        self.metrics, self.log = metrics, log
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("wb") as file:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
                start_new_session=True,  # Ctrl-C is ours; stopped with all its processes
                preexec_fn=dies_with_us(),
            )

    def __enter__(self) -> "Training":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def epochs(self) -> Iterator[tuple[int, float]]:
        """Each epoch (from 0) and its ``val/iou`` as they come, until the process has ended."""
        seen: set[int] = set()
        stamp = None
        while True:
            ended = self.process.poll() is not None  # asked first: nothing is written afterwards
            changed = modified(self.metrics)
            if changed != stamp:
                stamp = changed
                for epoch, score in sorted(val_iou(self.metrics).items()):
                    if epoch not in seen:
                        seen.add(epoch)
                        yield epoch, score
            if ended:
                return
            time.sleep(INTERVAL)

    def stop(self) -> None:
        """End the process as a cluster would, by SIGTERM; one that stays is killed."""
        if self.process.poll() is None:
            self.signal(signal.SIGTERM)
            try:
                with suppress(subprocess.TimeoutExpired):
                    self.process.wait(PATIENCE)
            finally:  # a second Ctrl-C comes through here
                self.signal(signal.SIGKILL)
                self.process.wait()
        self.signal(signal.SIGKILL)  # loader workers or ranks that were left behind

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to all processes of the training."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, number)

    def failure(self) -> str:
        """Why it ended: its last error line, or the signal that killed it."""
        code = self.process.returncode
        if code is not None and code < 0:
            name = signal.Signals(-code).name
            return f"killed by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")
        text = read_bytes(self.log).decode(errors="replace")
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        errors = [line for line in lines if ERROR.match(line)]
        last = (errors or lines or ["it printed nothing"])[-1]
        return f"{last[:300]} (exit status {code})"


def modified(path: Path) -> tuple[int, int, int] | None:
    """What changes when a file is written or replaced."""
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_mtime_ns, stat.st_ino, stat.st_size


def dies_with_us() -> Callable[[], None] | None:
    """What a child calls so that it gets SIGTERM when we are killed; None where Linux is not."""
    if not sys.platform.startswith("linux"):
        return None
    libc = ctypes.CDLL(None)  # now: after the fork nothing may be loaded
    death_signal = 1  # PR_SET_PDEATHSIG

    def ask() -> None:
        libc.prctl(death_signal, int(signal.SIGTERM))

    return ask
