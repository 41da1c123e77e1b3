"""SegmentationModule: the LightningModule around any network."""

from collections.abc import Callable
from typing import Any

import lightning
import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torchmetrics import MeanMetric

from anatosegnet.errors import UserError
from anatosegnet.losses import deeply_supervised
from anatosegnet.metrics.logits import PixelCounts, count_pixels, lesion_probability, two_logits
from anatosegnet.metrics.overlap import BENCHMARK_BATCH, overlap_scores, pooled_scores
from anatosegnet.training.depthwise import depthwise_in_float32

Batch = dict[str, Any]


class SegmentationModule(lightning.LightningModule):
    """Trains a network and keeps per-image scores.

    Logs ``train/loss``, ``train/iou``, ``train/lr``, ``val/loss``, ``val/iou``, ``val/dice`` and
    the same for ``test``: IoU and Dice per image at the network's size, averaged over images.
    ``iou_pooled`` is of the pixels of all images together, ``iou_batch_pooled`` the same inside
    batches of 8, averaged (the public benchmark's convention). ``train/iou`` is of every n-th
    batch, n = ``trainer.log_every_n_steps``.

    Args:
        model: (B, C, H, W) images -> (B, K, H, W) logits, class 0 is background; K = 1 is the
            lesion alone, see `two_logits`. In training it may give a list of logits of any
            sizes, the finest, of the images' size, first.
        loss: (logits, mask (B, H, W) int64) -> scalar.
        optimizer: Takes the parameters.
        scheduler: Takes the optimizer; stepped every epoch, or when its ``interval`` says; its
            ``epochs_done``, if it has one, is set before.
        seed: Of what the network draws, such as dropout.
        channels_last: Memory format of network and images.
        deep_supervision: Where the network gives several logits in training, the weight of each
            beside the finer one before it, 0 to 1; see `deeply_supervised`. ``train/iou`` is of
            the finest.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: nn.Module,
        optimizer: Callable[..., Optimizer],
        scheduler: Callable[[Optimizer], LRScheduler] | None = None,
        seed: int = 0,
        channels_last: bool = True,
        deep_supervision: float = 0.5,
    ) -> None:
        super().__init__()
        if not 0 <= deep_supervision <= 1:
            raise ValueError(f"deep_supervision={deep_supervision} must be from 0 to 1")
        self.deep_supervision = deep_supervision
        self.memory_format = torch.channels_last if channels_last else torch.contiguous_format
        self.model = model.to(memory_format=self.memory_format)
        self.loss = loss
        self.optimizer = optimizer
        self.scheduler = scheduler
        self.seed = seed
        self.val_counts = PixelCounts()
        self.test_counts = PixelCounts()
        # not self.log's own mean: over processes with unequal shares it divides by a rounded count
        self.val_loss = MeanMetric()
        self.test_loss = MeanMetric()

    def forward(self, image: Tensor) -> Tensor:
        """Images (B, C, H, W) -> float32 logits (B, 2, H, W); of several the finest."""
        return self.outputs(image)[0]

    def outputs(self, image: Tensor) -> list[Tensor]:
        """Images (B, C, H, W) -> all logits of the network, (B, 2, h, w) float32, finest first."""
        output = self.model(image.contiguous(memory_format=self.memory_format))
        every = [output] if isinstance(output, Tensor) else output
        return [two_logits(logits.float()) for logits in every]

    def loss_of(self, image: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """The loss of images (B, C, H, W) with masks (B, H, W), and their finest logits."""
        with depthwise_in_float32(image):
            outputs = self.outputs(image)
        return deeply_supervised(self.loss, outputs, mask, self.deep_supervision), outputs[0]

    def on_train_epoch_start(self) -> None:
        """Log the rate of the epoch's first step and seed the epoch.

        What is drawn in an epoch depends on the seed, the epoch and the process alone, so an
        epoch that is replayed after a crash is the same again.
        """
        self.log("train/lr", self.trainer.optimizers[0].param_groups[0]["lr"], sync_dist=True)
        numbers = np.random.SeedSequence([self.seed, self.current_epoch, self.global_rank])
        lightning.seed_everything(int(numbers.generate_state(1)[0]), verbose=False)

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        """The loss of a batch."""
        loss, logits = self.loss_of(batch["image"], batch["mask"])
        epoch_mean: dict[str, Any] = {"on_step": False, "on_epoch": True, "sync_dist": True}
        size = len(logits)
        self.log("train/loss", loss.detach(), batch_size=size, **epoch_mean)
        if batch_index % self.trainer.log_every_n_steps == 0:  # type: ignore[attr-defined]
            self.log("train/iou", mean_iou(logits, batch["mask"]), batch_size=size, **epoch_mean)
        return loss

    def validation_step(self, batch: Batch, batch_index: int) -> None:
        """Score a validation batch."""
        self._score(batch, self.val_counts, self.val_loss)

    def test_step(self, batch: Batch, batch_index: int) -> None:
        """Score a test batch."""
        self._score(batch, self.test_counts, self.test_loss)

    def _score(self, batch: Batch, counts: PixelCounts, mean_loss: MeanMetric) -> None:
        logits = self(batch["image"])
        mean_loss.update(self.loss(logits, batch["mask"]), weight=len(logits))
        counts.update(logits, batch["mask"], batch["index"])

    def on_validation_epoch_end(self) -> None:
        """Log the validation scores."""
        self._log_scores("val", self.val_counts, self.val_loss)
        self.val_counts.reset()
        self.val_loss.reset()

    def on_test_epoch_end(self) -> None:
        """Log the test scores."""
        self._log_scores("test", self.test_counts, self.test_loss)

    def _log_scores(self, part: str, counts: PixelCounts, mean_loss: MeanMetric) -> None:
        scores = self.scores(counts)
        means = {name: float(scores[name].mean()) for name in ("iou", "dice")}
        loss = {"loss": float(mean_loss.compute())}
        for name, value in {**loss, **means, **self.pooled(counts)}.items():
            # the same in every process already
            self.log(f"{part}/{name}", value, prog_bar=name == "iou", sync_dist=True)

    @staticmethod
    def scores(counts: PixelCounts) -> dict[str, np.ndarray]:
        """Per-image scores, each (N,), in order of the cases."""
        return overlap_scores(counts.compute().cpu().numpy()[:, 1:])

    @staticmethod
    def pooled(counts: PixelCounts) -> dict[str, float]:
        """IoU of pooled pixels: ``iou_pooled`` of all images, ``iou_batch_pooled`` in eights."""
        pixels = counts.compute().cpu().numpy()[:, 1:]
        return {
            "iou_pooled": pooled_scores(pixels)["iou"],
            "iou_batch_pooled": pooled_scores(pixels, BENCHMARK_BATCH)["iou"],
        }

    def configure_optimizers(self) -> Any:
        """The optimizer over all parameters, and the scheduler with when it is stepped."""
        optimizer = self.optimizer(self.parameters())
        if self.scheduler is None:
            return optimizer
        scheduler = self.scheduler(optimizer)
        interval = getattr(scheduler, "interval", "epoch")
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": interval},
        }

    def lr_scheduler_step(self, scheduler: Any, metric: Any) -> None:
        """Step the scheduler, told how far training is where it asks for that."""
        if hasattr(scheduler, "epochs_done"):
            batches = self.trainer.fit_loop.epoch_loop.batch_progress.current.ready
            done = batches / self.trainer.num_training_batches
            scheduler.epochs_done = self.current_epoch + done
        super().lr_scheduler_step(scheduler, metric)


def network_of(module: lightning.LightningModule) -> nn.Module:
    """The network of any module: what `evaluate` applies; UserError where there is none."""
    network = getattr(module, "model", None)
    if not isinstance(network, nn.Module):
        raise UserError(f"module: {type(module).__name__} keeps no network in self.model")
    return network


def mean_iou(logits: Tensor, mask: Tensor) -> Tensor:
    """IoU per image, averaged over a batch, on its device: (B, K, H, W), (B, H, W) -> scalar."""
    prediction = lesion_probability(logits.detach()) > 0.5
    hits, false_alarms, misses = count_pixels(prediction, mask > 0).float().unbind(1)
    union = hits + false_alarms + misses
    return torch.where(union > 0, hits / union.clamp(min=1), 1.0).mean()
