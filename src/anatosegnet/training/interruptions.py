"""How a training ends before its end, and what is said and kept then."""

import errno
import os
import re
import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import torch
from lightning.pytorch.utilities.exceptions import SIGTERMException
from omegaconf import DictConfig

from anatosegnet.config.overrides import in_sweep
from anatosegnet.console import say
from anatosegnet.data.case import CaseError
from anatosegnet.errors import TrainingFailed, UserError, reason
from anatosegnet.run import Run

if TYPE_CHECKING:
    import lightning

INTERRUPTED, TERMINATED = 130, 143  # exit statuses by convention: 128 + the signal
DISK = (errno.EROFS, errno.EIO, errno.EFBIG, errno.ESTALE)  # what befalls a disk as a whole
NEVER_LOGGED = re.compile(
    r"\(monitor='(.+?)'\)` could not find|conditioned on metric `(.+?)` which"
)
WORKER_DIED = re.compile(r"DataLoader worker .*(killed by signal|exited unexpectedly)")


@contextmanager
def interruptions(run: Run, config: DictConfig, trainer: "lightning.Trainer") -> Iterator[None]:
    """Record why a training ended, say how to go on, and turn known failures into one line.

    Raises:
        SystemExit: 130 after Ctrl-C, 143 after SIGTERM.
        TrainingFailed: In one line: memory or disk ran out, the loss diverged.
    """
    try:
        yield
    except SIGTERMException:
        _say_how_to_go_on(run, trainer, "preempted", TERMINATED)
    except (SystemExit, KeyboardInterrupt):  # SystemExit is Lightning's answer to Ctrl-C
        _say_how_to_go_on(run, trainer, "interrupted", INTERRUPTED)
    except BaseException as error:
        known = _known(error, config, run, sorted(trainer.callback_metrics))
        if trainer.is_global_zero and run.exists:  # not a folder that was removed
            with suppress(OSError, UserError):  # the disk may be full
                text = str(known or error).splitlines() or [type(error).__name__]
                run.update_summary({"state": "failed", "error": text[0]})
        if known is not None:
            raise TrainingFailed(str(known)) from error
        raise


def _say_how_to_go_on(run: Run, trainer: "lightning.Trainer", state: str, status: int) -> NoReturn:
    if trainer.is_global_zero:
        with suppress(OSError):
            run.update_summary({"state": state})
        epochs = trainer.current_epoch
        done = "no epoch was finished"
        if run.last_path.is_file():
            done = "1 epoch is kept" if epochs == 1 else f"{epochs} epochs are kept"
        command = f"python -m anatosegnet.train resume={shlex.quote(str(run.directory))}"
        if in_sweep():  # how it goes on is said by the sweeper
            say(f"{run.directory}: {state}; {done}", error=True)
        else:
            say(f"{state}; {done}, go on with: {command}", error=True)
    raise SystemExit(status) from None


def _known(
    error: BaseException, config: DictConfig, run: Run, logged: Sequence[str]
) -> UserError | None:
    """A failure that one line explains."""
    if isinstance(error, UserError):
        return error
    go_on = f"go on with: resume={run.directory}"
    if is_out_of_memory(error):
        return UserError(out_of_memory(config))
    if isinstance(error, ValueError) and "more than 1 value per channel" in str(error):
        size, batch = config.data.image_size, config.data.batch_size
        return UserError(
            f"BatchNorm cannot train on a batch of one image whose deepest features are one pixel "
            f"(data.image_size={size}, data.batch_size={batch}; the last batch of an epoch is what "
            "remains); take another data.batch_size, or a data.image_size of 64 or more"
        )
    if isinstance(error, CaseError):
        text = str(error).strip().splitlines()[-1]  # a worker's traceback goes before it
        text = text.removeprefix(f"{CaseError.__module__}.CaseError: ")
        return UserError(f"{text}; what was finished is kept, {go_on}")
    text = reason(error)
    if never := NEVER_LOGGED.search(text):
        monitor = never[1] or never[2]
        keys = [
            f"callbacks.{key}"
            for key, callback in (config.callbacks or {}).items()
            if callback and callback.get("monitor") == monitor
        ]
        return UserError(
            f"{', '.join(keys)}: monitor={monitor} is never logged; logged are {', '.join(logged)}"
        )
    if type(error).__name__ == "MisconfigurationException":  # what Lightning judges late
        return UserError(f"{text}; what was finished is kept")
    if type(error).__name__ in ("BackendCompilerFailed", "InductorError"):  # of a heavy import
        return UserError(f"the network cannot be compiled ({text}); take compile=false")
    if isinstance(error, RuntimeError) and WORKER_DIED.search(str(error)):
        return UserError(
            "a process that prepares batches was killed or could not send one: memory ran out, in "
            "a container mostly the shared memory (docker's --shm-size); what was finished is "
            f"kept, {go_on} data.num_workers=0"
        )
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return UserError(
            f"{error.strerror}: {error.filename or run.directory}; what was finished is kept. Make "
            f"room, then {go_on}"
        )
    if isinstance(error, OSError) and (error.errno in DISK or _is_inside(error.filename, run)):
        place = error.filename or run.directory
        return UserError(f"{place}: {text}; what was finished is kept, {go_on}")
    return None


def _is_inside(path: object, run: Run) -> bool:
    return isinstance(path, str | os.PathLike) and Path(path).is_relative_to(run.directory)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a device or the machine had no memory left."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    text = str(error)
    return isinstance(error, RuntimeError) and (
        "can't allocate memory" in text
        or "not enough memory" in text
        or "CUDA out of memory" in text
    )


def out_of_memory(config: DictConfig) -> str:
    """One line with the overrides that help, each with its cost."""
    batch, steps = config.data.batch_size, config.trainer.get("accumulate_grad_batches", 1)
    help_ = []
    if batch > 1:
        help_.append(
            f"data.batch_size={batch // 2} trainer.accumulate_grad_batches={2 * steps} (the same "
            "batch in two halves)"
        )
    if str(config.trainer.precision).startswith("32"):
        help_.append("trainer.precision=bf16-mixed")
    help_.append(f"a smaller data.image_size than {config.data.image_size}")
    return f"out of memory with batches of {batch}; try {', or '.join(help_)}"
