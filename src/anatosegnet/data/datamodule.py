"""What Lightning trains on: batches of prepared data."""

from typing import Any, Literal

import albumentations as A
import lightning
from torch.utils.data import DataLoader

from anatosegnet.data.augmentation import check_augmentation
from anatosegnet.data.dataset import EpochSampler, SegmentationDataset, loader, unpack
from anatosegnet.data.prepared import PreparedData

Part = Literal["train", "val", "test"]
TRIED_ON = 64  # cases that an augmentation may be tried on


class SegmentationDataModule(lightning.LightningDataModule):
    """Loads prepared data; knows which share of them its process has.

    Args:
        prepared: The data.
        augmentation: An albumentations pipeline for training, or None.

    Raises:
        UserError: The augmentation does something else than change pixels.
    """

    def __init__(self, prepared: PreparedData, augmentation: A.Compose | None = None) -> None:
        super().__init__()
        self.prepared = prepared
        self.augmentation = augmentation
        if augmentation is not None:
            names = prepared.split.train[:TRIED_ON]
            check_augmentation(augmentation, (prepared.resized[name] for name in names))

    def dataset(self, part: Part) -> SegmentationDataset:
        """The dataset of a part; only training is augmented."""
        return SegmentationDataset(
            getattr(self.prepared.split, part),
            self.prepared.resized,
            self.prepared.settings.in_channels,
            augmentation=self.augmentation if part == "train" else None,
            seed=self.prepared.settings.seed,
        )

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int = 0) -> Any:
        """Normalise a batch where the network is; see `unpack`."""
        settings = self.prepared.settings
        return unpack(batch, settings.in_channels, settings.normalization)

    def _loader(self, part: Part) -> DataLoader[dict[str, Any]]:
        train, rank, world_size, epoch = part == "train", 0, 1, 0
        if self.trainer is not None:
            rank, world_size = self.trainer.global_rank, self.trainer.world_size
            current = self.trainer.fit_loop.epoch_progress.current
            epoch = current.processed  # type: ignore[attr-defined]  # > 0 on resume
        dataset, settings = self.dataset(part), self.prepared.settings
        sampler = EpochSampler(len(dataset), settings.seed, train, rank, world_size, epoch)
        return loader(
            dataset,
            sampler,
            settings.batch_size,
            settings.num_workers,
            settings.seed,
            outlive_sigterm=self.trainer is not None,
        )

    def train_dataloader(self) -> DataLoader[dict[str, Any]]:
        """Shuffled and augmented training batches."""
        return self._loader("train")

    def val_dataloader(self) -> DataLoader[dict[str, Any]]:
        """Validation batches in fixed order."""
        return self._loader("val")

    def test_dataloader(self) -> DataLoader[dict[str, Any]]:
        """Test batches in fixed order."""
        return self._loader("test")
