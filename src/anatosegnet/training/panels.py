"""Pictures of a few validation cases while training goes on."""

from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch

from anatosegnet.console import say
from anatosegnet.data.dataset import SegmentationDataset, collate
from anatosegnet.files.writing import replacing
from anatosegnet.metrics.logits import count_pixels, lesion_probability
from anatosegnet.metrics.overlap import overlap_scores
from anatosegnet.report.grid import Cell, grid, page, scaled
from anatosegnet.report.overlay import LEGEND, encode_png, tint_errors

BOX = (224, 224)  # px, of a picture


class ValidationPanels(lightning.Callback):
    """Draws image, truth, and prediction with its errors, for the same cases each time.

    Writes ``epoch_010.png`` and so on into a directory, and sends the picture to those loggers
    that take pictures (wandb, TensorBoard). It is the network that is being validated that is
    drawn, averaged weights included. Changes no number: the cases are read and predicted beside
    the validation, by the first process alone.

    Args:
        directory: Where the pictures go.
        every_n_epochs: A picture after so many epochs; the last epoch has one in any case.
        cases: Number of cases, evenly spread over the validation cases.
    """

    def __init__(self, directory: str | Path, every_n_epochs: int = 10, cases: int = 4) -> None:
        if every_n_epochs < 1 or cases < 1:
            raise ValueError("panels: every_n_epochs and cases must be at least 1")
        self.directory = Path(directory)
        self.every_n_epochs = every_n_epochs
        self.cases = cases
        self._predictions: np.ndarray | None = None  # (cases, H, W) bool, of the last validation
        self._drawn = True

    def on_validation_batch_start(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Predict the cases with the weights that are being validated."""
        if batch_idx > 0 or trainer.sanity_checking or not trainer.is_global_zero:
            return
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        dataset = data.dataset("val")
        items = [dataset[index] for index in self._chosen(dataset)]
        image = trainer.strategy.batch_to_device(collate(items))["image"]  # normalised there
        with trainer.precision_plugin.forward_context():
            size = data.prepared.settings.batch_size
            logits = torch.cat([pl_module(some) for some in image.split(size)])
        self._predictions = (lesion_probability(logits) > 0.5).cpu().numpy()
        self._drawn = False

    def on_validation_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Draw, if it is this epoch's turn."""
        if (trainer.current_epoch + 1) % self.every_n_epochs == 0 and not trainer.sanity_checking:
            self._draw(trainer, trainer.current_epoch + 1)

    def on_train_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Draw the last epoch, wherever training stopped."""
        self._draw(trainer, trainer.current_epoch)

    def _chosen(self, dataset: SegmentationDataset) -> list[int]:
        count = min(self.cases, len(dataset))
        return [(2 * place + 1) * len(dataset) // (2 * count) for place in range(count)]

    def _draw(self, trainer: lightning.Trainer, epoch: int) -> None:
        if self._drawn or self._predictions is None:
            return
        self._drawn = True
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        dataset = data.dataset("val")
        chosen = self._chosen(dataset)
        cases = [
            (dataset.names[index], *picture_of(dataset, index), prediction)
            for index, prediction in zip(chosen, self._predictions, strict=True)
        ]
        images = f"{len(chosen)} of {len(dataset)} validation images"
        title = f"{data.prepared.name}, {images}, epoch {epoch}"
        if "val/iou" in trainer.callback_metrics:
            title += f", val/iou {float(trainer.callback_metrics['val/iou']):.3f}"
        sheet = panel(title, cases)
        path = self.directory / f"epoch_{epoch:03d}.png"
        try:
            with replacing(path) as temporary:
                temporary.write_bytes(encode_png(sheet))
        except OSError as error:  # a full disk: no reason to lose the training
            say(f"warning: {path} was not written ({error})", error=True)
        send(trainer, sheet, epoch)


def picture_of(dataset: SegmentationDataset, index: int) -> tuple[np.ndarray, np.ndarray]:
    """A case as the network sees it before normalisation: (H, W, 3) uint8, (H, W) bool."""
    item = dataset[index]
    image = item["image"].numpy().transpose(1, 2, 0)  # type: ignore[union-attr]
    return np.broadcast_to(image, (*image.shape[:2], 3)), item["mask"].numpy() > 0  # type: ignore[union-attr]


def panel(title: str, cases: list[tuple[str, np.ndarray, np.ndarray, np.ndarray]]) -> np.ndarray:
    """A page with a column per case: image, truth, prediction with errors.

    Args:
        title: Above the page.
        cases: Name, image (H, W, 3) uint8 RGB, truth (H, W) bool and prediction (H, W) bool of
            each; all of one size.

    Returns:
        (height, width, 3) uint8 RGB.
    """
    columns = []
    for name, image, truth, prediction in cases:
        counts = count_pixels(torch.from_numpy(prediction)[None], torch.from_numpy(truth)[None])
        iou = overlap_scores(counts.numpy())["iou"][0]
        image, truth, prediction = (scaled(part, BOX) for part in (image, truth, prediction))
        columns.append(
            [
                Cell(image, name, f"IoU {iou:.3f}"),
                Cell(truth),
                Cell(tint_errors(image, truth, prediction, thickness=1)),
            ]
        )
    rows = list(zip(*columns, strict=True))
    return page(title, [grid(rows, BOX, row_names=("image", "truth", "prediction"))], LEGEND)


def send(trainer: lightning.Trainer, sheet: np.ndarray, epoch: int) -> None:
    """Give a sheet to the loggers that take pictures."""
    for logger in trainer.loggers:
        if hasattr(logger, "log_image"):  # wandb
            logger.log_image("panels", [sheet], trainer.global_step, caption=[f"epoch {epoch}"])
        elif add_image := getattr(getattr(logger, "experiment", None), "add_image", None):
            add_image("panels", sheet, epoch, dataformats="HWC")
