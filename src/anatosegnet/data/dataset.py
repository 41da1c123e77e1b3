"""Dataset, sampler and loader: cases become batches, the same for any number of workers."""

import hashlib
import multiprocessing.queues
import os
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import cycle, islice
from typing import Any

import albumentations as A
import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from anatosegnet.data.augmentation import augmented
from anatosegnet.data.case import Case
from anatosegnet.data.normalization import Normalization
from anatosegnet.data.records import Resized, one_channel_if_grey
from anatosegnet.data.resizing import resize_image, resize_mask
from anatosegnet.data.transforms import normalize, seed_augmentation

Reader = Callable[[Case], tuple[np.ndarray, np.ndarray]]
Key = tuple[int, int]

LAST_SECONDS = 60  # of a worker after SIGTERM; SLURM grants 30 by default


class SegmentationDataset(Dataset[dict[str, Any]]):
    """Cases as tensors at the network's size; normalised per batch, where the network is.

    An item is asked for by (epoch, index): the augmentation of a case depends on the seed, the
    epoch and the case's name alone, never on the worker that happens to draw it, its place in
    the list, or the other cases. An index alone means epoch 0 (Lightning's ``overfit_batches``
    replaces the sampler).

    Args:
        names: Names of the cases, in order.
        resized: Image (H, W, C) and mask (H, W) in {0, 1} of each name, uint8 at the network's
            size; C is 3 (RGB), or 1 where the three channels are equal.
        in_channels: 3 or 1.
        augmentation: An albumentations pipeline, or None.
        seed: Of the augmentation.

    Items: ``image`` (C, H, W) uint8, ``mask`` (H, W) uint8 in {0, 1}, ``index`` int. C is 1 if
    the image is grey or ``in_channels`` is 1, else 3.
    """

    def __init__(
        self,
        names: Sequence[str],
        resized: Mapping[str, Resized],
        in_channels: int = 3,
        augmentation: A.Compose | None = None,
        seed: int = 0,
    ) -> None:
        self.names = list(names)
        self.resized = resized
        self.in_channels = in_channels
        self.augmentation = augmentation
        self.seed = seed

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, key: Key | int) -> dict[str, Tensor | int]:
        epoch, index = key if isinstance(key, tuple) else (0, key)
        name = self.names[index]
        image, mask = self.resized[name]
        if self.augmentation is not None:
            seed_augmentation(self.augmentation, (self.seed, epoch, number_of(name)))
            image, mask = augmented(self.augmentation, image, mask)
        if self.in_channels < image.shape[2]:
            image = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[..., None]
        return {
            "image": _tensor(image.transpose(2, 0, 1)),
            "mask": _tensor(mask),
            "index": index,
        }


class FreshCases(Mapping[str, Resized]):
    """Cases that are read and resized anew each time they are asked for.

    Args:
        cases: The cases by name.
        read: Reads a case: image (H, W, 3) uint8 RGB and mask (H, W) uint8 {0, 1}.
        size: (height, width) of the results.
    """

    def __init__(self, cases: Mapping[str, Case], read: Reader, size: tuple[int, int]) -> None:
        self.cases, self.read, self.size = cases, read, size

    def __getitem__(self, name: str) -> Resized:
        image, mask = read_resized(self.cases[name], self.read, self.size)
        return one_channel_if_grey(image), mask

    def __iter__(self) -> Iterator[str]:
        return iter(self.cases)

    def __len__(self) -> int:
        return len(self.cases)


def read_resized(case: Case, read: Reader, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Read a case and bring its image and mask to (height, width)."""
    image, mask = read(case)
    return resize_image(image, size), resize_mask(mask, size)


def number_of(name: str) -> int:
    """A number that a name alone decides; Python's own hash differs between processes."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")


def collate(items: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Items as a batch in a single tensor: each one costs a worker a connection to hand over.

    Returns:
        ``pixels`` (B, C + 1, H, W) uint8: the image, then the mask; grey images among colour
        ones get three equal channels. ``index``: a list of B integers. See `unpack`.
    """
    channels = max(item["image"].shape[0] for item in items)
    height, width = items[0]["mask"].shape
    pixels = torch.empty(len(items), channels + 1, height, width, dtype=torch.uint8)
    for place, item in zip(pixels, items, strict=True):
        place[:channels] = item["image"]
        place[channels] = item["mask"]
    return {"pixels": pixels, "index": [item["index"] for item in items]}


def unpack(batch: dict[str, Any], in_channels: int, normalization: Normalization) -> dict[str, Any]:
    """A batch as the network takes it.

    Returns:
        ``image`` (B, in_channels, H, W) float32 and ``mask`` (B, H, W) int64 in {0, 1} on the
        device of the batch; ``index``: a list of B integers, which no device needs.
    """
    pixels = batch["pixels"]
    return {
        "image": normalize(pixels[:, :-1], in_channels, normalization),
        "mask": pixels[:, -1].long(),
        "index": batch["index"],
    }


def _tensor(pixels: np.ndarray) -> Tensor:
    """A tensor that owns its memory: a record of the cache may only be read."""
    writable = pixels.flags.writeable and pixels.flags.c_contiguous
    return torch.from_numpy(pixels if writable else pixels.copy())


class EpochSampler(Sampler[Key]):
    """Yields (epoch, index); Lightning tells it the epoch, and it knows the process's share.

    In training every process gets the same number of cases (a few are repeated to fill up). In
    evaluation each case is drawn exactly once over all processes.

    Args:
        size: Number of cases.
        seed: Of the order.
        train: Shuffle, and fill up to equal shares.
        rank: This process.
        world_size: Number of processes.
        epoch: The first one. A resumed training must give it: workers draw ahead before Lightning
            calls `set_epoch`.
    """

    def __init__(
        self,
        size: int,
        seed: int = 0,
        train: bool = False,
        rank: int = 0,
        world_size: int = 1,
        epoch: int = 0,
    ) -> None:
        self.size = size
        self.seed = seed
        self.train = train
        self.rank = rank
        self.world_size = world_size
        self.epoch = epoch

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning before each epoch."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[Key]:
        order = list(range(self.size))
        if self.train:
            generator = np.random.default_rng([self.seed, self.epoch])
            order = generator.permutation(self.size).tolist()
            total = len(self) * self.world_size
            order = list(islice(cycle(order), total))
        epoch = self.epoch  # as it is now, not when an index is drawn
        return ((epoch, index) for index in order[self.rank :: self.world_size])

    def __len__(self) -> int:
        if self.train:
            return -(-self.size // self.world_size)
        return len(range(self.rank, self.size, self.world_size))


def loader(
    dataset: SegmentationDataset,
    sampler: EpochSampler,
    batch_size: int,
    workers: int,
    seed: int,
    outlive_sigterm: bool = False,
) -> DataLoader[dict[str, Any]]:
    """Batches as `collate` makes them.

    Args:
        dataset: The cases.
        sampler: Their order.
        batch_size: Images per step and process.
        workers: Processes that prepare batches; 0 prepares them in this one.
        seed: Of the workers' own random numbers.
        outlive_sigterm: Workers go on serving for a while after SIGTERM. Clusters send it to all
            processes of a job, and the training needs its workers to come to an orderly end.
    """
    return DataLoader(
        dataset,
        batch_size=batch_size,
        sampler=sampler,
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=torch.cuda.is_available(),
        collate_fn=collate,
        worker_init_fn=_start_lasting_worker if outlive_sigterm else _start_worker,
        # its own, or the number of workers would shift the network's random numbers
        generator=torch.Generator().manual_seed(seed),
    )


def _start_worker(worker: int) -> None:
    cv2.setNumThreads(0)  # the workers are the parallelism
    # else a batch that cannot be sent (no shared memory, no file handle) would be waited for
    multiprocessing.queues.Queue._on_queue_feeder_error = staticmethod(_end)  # type: ignore[attr-defined]


def _end(error: Exception, batch: Any) -> None:
    os._exit(1)  # which the training notices


def _start_lasting_worker(worker: int) -> None:
    _start_worker(worker)
    signal.signal(signal.SIGTERM, lambda *_: signal.alarm(LAST_SECONDS))  # the alarm ends it
