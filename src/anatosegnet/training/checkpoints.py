"""Checkpoints that cannot be lost: written whole, and found again to go on from."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lightning import LightningModule
from lightning.pytorch.core.optimizer import _configure_optimizers
from lightning.pytorch.plugins.io import TorchCheckpointIO
from torch import Tensor

from anatosegnet.console import some
from anatosegnet.errors import UserError, origins, reason
from anatosegnet.files.checkpoint import UnusableCheckpoint, read_checkpoint
from anatosegnet.files.writing import replacing
from anatosegnet.network import require_fit
from anatosegnet.run import Run
from anatosegnet.training.ema import EMA

# what Lightning needs to go on, beside the weights
TRAINING: dict[str, type] = {
    "epoch": int,
    "global_step": int,
    "pytorch-lightning_version": str,
    "loops": dict,
    "callbacks": dict,
    "optimizer_states": list,
    "lr_schedulers": list,
}
STATE = ("loops", "callbacks", "optimizer_states", "lr_schedulers")  # not of weights alone
MOMENTS = ("exp_avg", "exp_avg_sq", "max_exp_avg_sq", "momentum_buffer")  # of a weight's shape


class SafeCheckpointIO(TorchCheckpointIO):
    """Writes checkpoints so that a kill or a full disk at any moment leaves a usable one.

    A checkpoint is written under a temporary name, brought to the disk, and renamed. The
    ``last.ckpt`` that it replaces stays as ``previous.ckpt``. Loading accepts tensors and
    primitives only.

    Args:
        run: The run whose checkpoints these are.
        averaging: Whose averages are saved where a checkpoint is of weights only.
    """

    def __init__(self, run: Run, averaging: EMA | None = None) -> None:
        self.run = run
        self.averaging = averaging

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:
        """Write a checkpoint.

        Raises:
            UserError: It cannot be written; those before it are untouched.
            KeyboardInterrupt: Ctrl-C, which torch's writer turns into a RuntimeError.
        """
        path = Path(path)
        if path.name.startswith("hpc_ckpt"):
            return  # Lightning's own, amid an epoch, before SLURM requeues: epochs are replayed
        if not self.run.directory.is_dir():  # not to be made again, with nothing but this in it
            raise UserError(f"{self.run.directory} was removed while training")
        if self.averaging:
            self.averaging.put_average(checkpoint)
        try:
            with replacing(path) as temporary:
                with temporary.open("wb") as file:
                    torch.save(checkpoint, file)
                    file.flush()
                    os.fsync(file.fileno())
                if path == self.run.last_path and path.exists():
                    keep_as(path, self.run.previous_path)
        except (OSError, RuntimeError) as error:
            for origin in origins(error):  # torch's writer makes a RuntimeError of anything
                if not isinstance(origin, Exception):
                    raise origin from None
            causes = [origin for origin in origins(error) if isinstance(origin, OSError)]
            raise UserError(
                f"{path} cannot be written ({reason(causes[0] if causes else error)}); the "
                "checkpoints before it are kept. Make room, then go on with: "
                f"resume={self.run.directory}"
            ) from error

    def load_checkpoint(
        self, path: str | Path, map_location: Any = "cpu", weights_only: bool | None = True
    ) -> dict[str, Any]:
        """Read a checkpoint; see `read_checkpoint`."""
        return read_checkpoint(Path(path))


def keep_as(path: Path, other: Path) -> None:
    """Give a file a second name; where the file system has no links, another name."""
    try:
        with replacing(other) as temporary:
            temporary.unlink()
            os.link(path, temporary)
    except OSError:
        path.replace(other)


def usable_checkpoint(run: Run, module: LightningModule) -> tuple[Path | None, list[str]]:
    """The newest checkpoint to go on from, and what is wrong with a newer one.

    Args:
        run: The run.
        module: The module that is going to be trained; not changed.

    Returns:
        Its path, or None where there is no checkpoint; and a line for each that cannot be used.

    Raises:
        UserError: There are checkpoints, and none can be used; or the run is finished and was
            published without any.
    """
    if run.summary.get("state") == "finished" and not run.last_path.parent.exists():
        raise UserError(
            f"{run.directory} is finished, and has no checkpoints to go on from; train it anew: "
            f"from_run={run.directory}"
        )
    remarks: list[str] = []
    for path in (run.last_path, run.previous_path):
        if not os.path.lexists(path):
            continue
        try:
            require_training_state(read_checkpoint(path), module, path)
        except UnusableCheckpoint as error:
            remarks.append(str(error))
        else:
            return path, remarks
    if remarks:
        raise UserError(
            f"{'; '.join(remarks)}. Put a copy of {run.last_path.name} there, or train it anew: "
            f"from_run={run.directory}"
        )
    return None, remarks


def take_last_as_best(run: Run) -> None:
    """Make ``best.ckpt`` of the weights of ``last.ckpt``, where no epoch was ever compared.

    Raises:
        UserError: There is no ``last.ckpt``, or no room.
    """
    checkpoint = read_checkpoint(run.last_path)
    weights = {key: checkpoint[key] for key in checkpoint if key not in STATE}
    SafeCheckpointIO(run).save_checkpoint(weights, run.best_path)


def require_training_state(
    checkpoint: Mapping[str, Any], module: LightningModule, path: Path
) -> None:
    """UnusableCheckpoint unless a training of a module can go on from a checkpoint."""
    require_fit(checkpoint["state_dict"], module, path)
    lacking = [key for key, kind in TRAINING.items() if not isinstance(checkpoint.get(key), kind)]
    if lacking:
        raise UnusableCheckpoint(
            f"{path} cannot be used (it has no {some(lacking)}: weights alone are not the state "
            "of a training)"
        )
    try:
        _restore(checkpoint, module)
    except Exception as error:  # whatever torch's load_state_dict makes of foreign content
        text = f"its state of the training does not fit: {type(error).__name__}: {reason(error)}"
        raise UnusableCheckpoint(f"{path} cannot be used ({text})") from error


def _restore(checkpoint: Mapping[str, Any], module: LightningModule) -> None:
    """Load the state of optimiser and schedule into new ones; raises what that raises."""
    configured: Any = module.configure_optimizers()
    optimizers, schedulers, _ = _configure_optimizers(configured)
    schedulers = [s["scheduler"] if isinstance(s, dict) else s for s in schedulers]
    for key, wanted in {"optimizer_states": optimizers, "lr_schedulers": schedulers}.items():
        if len(checkpoint[key]) != len(wanted):
            raise ValueError(f"{len(checkpoint[key])} {key} instead of {len(wanted)}")
        for target, state in zip(wanted, checkpoint[key], strict=True):
            target.load_state_dict(state)
    for optimizer in optimizers:
        for parameter, state in optimizer.state.items():
            for name in MOMENTS:
                if isinstance(state.get(name), Tensor) and state[name].shape != parameter.shape:
                    raise ValueError(f"{name} of another shape")
    if not all(isinstance(state, dict) for state in checkpoint["callbacks"].values()):
        raise TypeError("callbacks")
    int(checkpoint["loops"]["fit_loop"]["epoch_progress"]["current"]["processed"])
