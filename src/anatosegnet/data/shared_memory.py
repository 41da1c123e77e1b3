"""Room for the batches that workers hand over: shared memory, which containers keep small."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

from anatosegnet.errors import UserError

if TYPE_CHECKING:
    from anatosegnet.data.datamodule import SegmentationDataModule

PLACE = Path("/dev/shm")
AHEAD = 2  # batches that torch lets each worker prepare
LOOKED_AT = 8  # images that tell whether batches are grey


def require_shared_memory(data: "SegmentationDataModule", processes: int = 1) -> None:
    """Refuse what would fill the shared memory: a batch that a worker cannot send is lost.

    Training, validation and test take turns, so the largest of them counts.

    Args:
        data: The data, set up.
        processes: Trainings on this machine that have workers each.

    Raises:
        UserError: There is less room than all batches under way take together.
    """
    free = free_bytes()
    if free is None or not data.num_workers or data.split is None:
        return
    batch = batch_bytes(data)
    cases = max(len(part) for part in (data.split.train, data.split.val, data.split.test))
    batches = -(-cases // data.batch_size)
    under_way = min(AHEAD * data.num_workers * processes, batches) + processes
    if under_way * batch <= free:
        return
    fitting = max(0, free // batch - processes) // (AHEAD * processes)
    height, width = data.image_size
    raise UserError(
        f"{PLACE} has {free / 1e6:.0f} MB free, and batches of {data.batch_size} images of "
        f"{height}×{width} px from {data.num_workers} workers may take "
        f"{under_way * batch / 1e6:.0f} MB there; give the container more (docker's --shm-size), "
        f"or take data.num_workers={fitting}"
    )


def free_bytes() -> int | None:
    """Bytes left in the shared memory; None where the system has no such place."""
    try:
        status = os.statvfs(PLACE)
    except OSError:
        return None
    return status.f_bavail * status.f_frsize


def batch_bytes(data: "SegmentationDataModule") -> int:
    """Bytes of a batch on its way; see `collate`."""
    assert data.split is not None
    names = data.split.train[:: -(-len(data.split.train) // LOOKED_AT)]
    channels = max(min(data.resized[name][0].shape[2], data.in_channels) for name in names)
    height, width = data.image_size
    return data.batch_size * (channels + 1) * height * width
