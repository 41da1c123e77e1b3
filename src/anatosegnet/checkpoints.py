"""Checkpoints that cannot be lost: written whole, the one before kept, damage noticed."""

import os
import zipfile
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO

from anatosegnet.errors import UserError
from anatosegnet.run import Run, replacing


class SafeCheckpointIO(TorchCheckpointIO):
    """Writes checkpoints so that a kill or a full disk at any moment leaves a usable one.

    A checkpoint is written under a temporary name, brought to the disk, and renamed. The
    ``last.ckpt`` that it replaces stays as ``previous.ckpt``. Loading accepts tensors and
    primitives only.

    Args:
        run: The run whose checkpoints these are.
    """

    def __init__(self, run: Run) -> None:
        self.run = run

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:
        """Write a checkpoint.

        Raises:
            UserError: It cannot be written; those before it are untouched.
        """
        path = Path(path)
        if path.name.startswith("hpc_ckpt"):
            return  # Lightning's own, amid an epoch, before SLURM requeues: epochs are replayed
        try:
            with replacing(path) as temporary:
                with temporary.open("wb") as file:
                    torch.save(checkpoint, file)
                    file.flush()
                    os.fsync(file.fileno())
                if path == self.run.last_path and path.exists():
                    keep_as(path, self.run.previous_path)
        except (OSError, RuntimeError) as error:  # RuntimeError: torch's own writer
            raise UserError(
                f"{path} cannot be written ({reason(error)}); the checkpoints before it are kept. "
                f"Make room, then go on with: resume={self.run.directory}"
            ) from error

    def load_checkpoint(
        self, path: str | Path, map_location: Any = "cpu", weights_only: bool | None = True
    ) -> dict[str, Any]:
        """Read a checkpoint, which need not be trusted."""
        return torch.load(path, map_location="cpu", weights_only=True)


def keep_as(path: Path, other: Path) -> None:
    """Give a file a second name; where the file system has no links, another name."""
    try:
        with replacing(other) as temporary:
            os.link(path, temporary)
    except OSError:
        path.replace(other)


def usable_checkpoint(run: Run) -> tuple[Path | None, list[str]]:
    """The newest checkpoint to go on from, and what is wrong with newer ones.

    Returns:
        Its path, or None where training has to begin anew; and a line for each damaged file.
    """
    remarks: list[str] = []
    for path in (run.last_path, run.previous_path):
        if not path.is_file():
            continue
        damage = damage_of(path)
        if damage is None:
            return path, remarks
        remarks.append(f"{path} is damaged ({damage})")
    return None, remarks


def damage_of(path: Path) -> str | None:
    """What is wrong with a checkpoint file, None for nothing; reads all of it."""
    try:
        with zipfile.ZipFile(path) as archive:  # torch.load itself compares no checksum
            entry = archive.testzip()
    except (OSError, zipfile.BadZipFile) as error:
        return reason(error)
    return None if entry is None else f"wrong checksum in {entry}"


def reason(error: BaseException) -> str:
    """An error in a few words."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return " ".join(str(error).split())[:120]
