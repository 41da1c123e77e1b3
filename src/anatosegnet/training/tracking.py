"""Weights & Biases: which runs belong together, and that no two are mixed."""

import hashlib
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, open_dict

from anatosegnet.config.overrides import in_sweep
from anatosegnet.errors import UserError
from anatosegnet.run import Run


def identify(config: DictConfig) -> None:
    """Give the run its own ``logger.wandb.id``, and fill in ``logger.wandb.group``.

    Both are kept in its ``config.yaml``, so that a resumed run goes on in the same place. The
    jobs of a sweep share the name of its folder as their group.

    Args:
        config: The config of a run that begins, repeats another, or goes on (``resume``); changed
            in place. Nothing happens without ``logger.wandb``.
    """
    wandb = (config.get("logger") or {}).get("wandb")
    goes_on = config.resume is not None and not is_copy(Run(config.run_dir))
    if wandb is None or (goes_on and wandb.get("id")):
        return
    with open_dict(wandb):
        wandb.id = run_id(Path(config.run_dir))
        if wandb.get("group") is None or config.get("from_run"):  # it was the other run's
            wandb.group = sweep_name(config)


def is_copy(run: Run) -> bool:
    """Whether a run is a copy of one that still lies where it was trained last."""
    before = run.summary.get("directory")
    if not isinstance(before, str) or Path(before) == run.directory.resolve():
        return False
    return Run(before).exists


def run_id(directory: Path) -> str:
    """16 letters, never the same twice: another machine may use the same path."""
    words = (socket.gethostname(), str(directory.resolve()), str(time.time_ns()))
    return hashlib.sha256("\n".join(words).encode()).hexdigest()[:16]


def sweep_name(config: DictConfig) -> str | None:
    """``ablation/2026-11-25_10-00-00``: the folder of this job's sweep; None: it is in none."""
    if not in_sweep():
        return None
    folder = Path(HydraConfig.get().sweep.dir).resolve()
    runs = Path(config.paths.runs_dir).resolve()
    return folder.relative_to(runs).as_posix() if runs in folder.parents else folder.name


@contextmanager
def one_line_errors() -> Iterator[None]:
    """What wandb says when it cannot begin (no account, no network), as one line with the way out.

    Raises:
        UserError: In place of an exception of wandb's.
    """
    try:
        yield
    except Exception as error:
        if type(error).__module__.partition(".")[0] != "wandb":
            raise
        text = (str(error).splitlines() or [type(error).__name__])[0].rstrip(". ")
        raise UserError(f"wandb: {text}; or keep the run here: logger.wandb.offline=true") from None


def finish() -> None:
    """End the wandb run of this process, if any: the next job of a sweep must not go on in it.

    Called in a ``finally``; a run that ends by an error is marked as failed.
    """
    wandb = sys.modules.get("wandb")
    if wandb is not None and wandb.run is not None:
        wandb.finish(exit_code=int(sys.exc_info()[0] is not None))
