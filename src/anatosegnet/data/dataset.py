"""The dataset and the sampler: cases become tensors, the same for any number of workers."""

from collections.abc import Callable, Iterator, Sequence
from itertools import cycle, islice
from typing import Any

import albumentations as A
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from anatosegnet.data.case import Case
from anatosegnet.data.transforms import (
    Normalization,
    image_to_tensor,
    resize_image,
    resize_mask,
    seed_augmentation,
)

Reader = Callable[[Case], tuple[np.ndarray, np.ndarray]]
Key = tuple[int, int]


class SegmentationDataset(Dataset[dict[str, Any]]):
    """Cases as tensors at the network's size.

    An item is asked for by (epoch, index): the augmentation of a case depends on the seed, the
    epoch and the index alone, never on the worker that happens to draw it. An index alone means
    epoch 0 (Lightning's ``overfit_batches`` replaces the sampler).

    Args:
        cases: The cases, in order.
        read: Reads a case: image (H, W, 3) uint8 RGB and mask (H, W) uint8 {0, 1}.
        image_size: (height, width) of the tensors.
        in_channels: 3 or 1.
        normalization: See `image_to_tensor`.
        augmentation: An albumentations pipeline, or None.
        seed: Of the augmentation.
        resized: The cases already read and resized (images, masks), or None to read them anew.

    Items: ``image`` (C, H, W) float32, ``mask`` (H, W) int64 in {0, 1}, ``index`` int.
    """

    def __init__(
        self,
        cases: Sequence[Case],
        read: Reader,
        image_size: tuple[int, int],
        in_channels: int = 3,
        normalization: Normalization = "imagenet",
        augmentation: A.Compose | None = None,
        seed: int = 0,
        resized: Sequence[tuple[np.ndarray, np.ndarray]] | None = None,
    ) -> None:
        self.cases = list(cases)
        self.read = read
        self.image_size = image_size
        self.in_channels = in_channels
        self.normalization: Normalization = normalization
        self.augmentation = augmentation
        self.seed = seed
        self.resized = resized

    def __len__(self) -> int:
        return len(self.cases)

    def __getitem__(self, key: Key | int) -> dict[str, Tensor | int]:
        epoch, index = key if isinstance(key, tuple) else (0, key)
        if self.resized is not None:
            image, mask = self.resized[index]
        else:
            image, mask = read_resized(self.cases[index], self.read, self.image_size)
        if self.augmentation is not None:
            seed_augmentation(self.augmentation, (self.seed, epoch, index))
            augmented = self.augmentation(image=image, mask=mask)
            image, mask = augmented["image"], augmented["mask"]
        return {
            "image": image_to_tensor(image, self.in_channels, self.normalization),
            "mask": torch.from_numpy(np.ascontiguousarray(mask)).long(),
            "index": index,
        }


def read_resized(case: Case, read: Reader, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Read a case and bring its image and mask to (height, width)."""
    image, mask = read(case)
    return resize_image(image, size), resize_mask(mask, size)


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
    """

    def __init__(
        self, size: int, seed: int = 0, train: bool = False, rank: int = 0, world_size: int = 1
    ) -> None:
        self.size = size
        self.seed = seed
        self.train = train
        self.rank = rank
        self.world_size = world_size
        self.epoch = 0

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
        return ((self.epoch, index) for index in order[self.rank :: self.world_size])

    def __len__(self) -> int:
        if self.train:
            return -(-self.size // self.world_size)
        return len(range(self.rank, self.size, self.world_size))
