"""Room for the batches that workers hand over: shared memory, which containers keep small."""

import os
from pathlib import Path

from anatosegnet.data.prepared import PreparedData
from anatosegnet.errors import UserError

PLACE = Path("/dev/shm")
AHEAD = 2  # batches that torch lets each worker prepare
LOOKED_AT = 8  # images that tell whether batches are grey


def require_shared_memory(data: PreparedData, processes: int = 1) -> None:
    """Refuse what would fill the shared memory: a batch that a worker cannot send is lost.

    Training, validation and test take turns, so the largest of them counts.

    Args:
        data: The data.
        processes: Trainings on this machine that have workers each.

    Raises:
        UserError: There is less room than all batches under way take together.
    """
    free = free_bytes()
    settings = data.settings
    if free is None or not settings.num_workers:
        return
    batch = batch_bytes(data)
    cases = max(len(part) for part in (data.split.train, data.split.val, data.split.test))
    batches = -(-cases // settings.batch_size)
    under_way = min(AHEAD * settings.num_workers * processes, batches) + processes
    if under_way * batch <= free:
        return
    fitting = max(0, free // batch - processes) // (AHEAD * processes)
    height, width = settings.size
    raise UserError(
        f"{PLACE} has {free / 1e6:.0f} MB free, and batches of {settings.batch_size} images of "
        f"{height}×{width} px from {settings.num_workers} workers may take "
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


def batch_bytes(data: PreparedData) -> int:
    """Bytes of a batch on its way; see `collate`."""
    names = data.split.train[:: -(-len(data.split.train) // LOOKED_AT)]
    channels = max(min(data.resized[name][0].shape[2], data.settings.in_channels) for name in names)
    height, width = data.settings.size
    return data.settings.batch_size * (channels + 1) * height * width
