"""Pictures of a few validation cases while training goes on."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import lightning
import numpy as np
import torch

from anatosegnet.console import say
from anatosegnet.data.dataset import SegmentationDataset, collate
from anatosegnet.data.transforms import resize_image, resize_mask
from anatosegnet.files.writing import replacing
from anatosegnet.metrics.overlap import count_pixels, lesion_probability, overlap_scores
from anatosegnet.report.overlay import encode_png, tint_errors

if TYPE_CHECKING:
    from PIL.ImageFont import FreeTypeFont, ImageFont

CELL = 224  # px, the longer edge of a picture
GAP, LINE, MARGIN = 6, 17, 78  # px
TOP = 2 * LINE + 18
INK, GREY = (20, 20, 20), (110, 110, 110)
LEGEND = "white = hit, red = missed, green = false alarm"


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
    """A sheet with a column per case: image, truth, prediction with errors.

    Args:
        title: Above the sheet.
        cases: Name, image (H, W, 3) uint8 RGB, truth (H, W) bool and prediction (H, W) bool of
            each; all of one size.

    Returns:
        (height, width, 3) uint8 RGB.
    """
    from PIL import Image, ImageDraw, ImageFont

    height, width = cases[0][1].shape[:2]
    scale = CELL / max(height, width)
    cell = round(height * scale), round(width * scale)
    rows = ("image", "truth", "prediction")
    size = (
        MARGIN + len(cases) * (cell[1] + GAP),
        TOP + len(rows) * (cell[0] + GAP) + LINE + 4,
    )
    size = max(size[0], 480), size[1]
    sheet = Image.new("RGB", size, (255, 255, 255))
    pen = ImageDraw.Draw(sheet)
    large, small = (ImageFont.load_default(points) for points in (14, 12))
    pen.text((GAP, 5), fitting(title, large, size[0] - 2 * GAP), INK, large)
    for line, row in enumerate(rows):
        middle = TOP + line * (cell[0] + GAP) + cell[0] // 2
        pen.text((GAP, middle), row, GREY, small, anchor="lm")
    for column, (name, image, truth, prediction) in enumerate(cases):
        left = MARGIN + column * (cell[1] + GAP)
        counts = count_pixels(torch.from_numpy(prediction)[None], torch.from_numpy(truth)[None])
        iou = overlap_scores(counts.numpy())["iou"][0]
        score = f"IoU {iou:.3f}"
        room = cell[1] - small.getlength(score) - 8
        pen.text((left, TOP - LINE - 2), fitting(name, small, room), INK, small)
        pen.text((left + cell[1], TOP - LINE - 2), score, INK, small, anchor="ra")
        image = resize_image(np.ascontiguousarray(image), cell)
        truth, prediction = (
            resize_mask(mask.astype(np.uint8), cell) > 0 for mask in (truth, prediction)
        )
        white = np.repeat(truth[..., None], 3, axis=2).astype(np.uint8) * 255
        pictures = (image, white, tint_errors(image, truth, prediction, thickness=1))
        for line, picture in enumerate(pictures):
            sheet.paste(Image.fromarray(picture), (left, TOP + line * (cell[0] + GAP)))
    pen.text((MARGIN, size[1] - LINE - 2), LEGEND, GREY, small)
    return np.asarray(sheet)


def fitting(text: str, font: "FreeTypeFont | ImageFont", room: float) -> str:
    """The text, cut where it is longer than so many pixels."""
    if font.getlength(text) <= room:
        return text
    while text and font.getlength(text + "…") > room:
        text = text[:-1]
    return text + "…"


def send(trainer: lightning.Trainer, sheet: np.ndarray, epoch: int) -> None:
    """Give a sheet to the loggers that take pictures."""
    for logger in trainer.loggers:
        if hasattr(logger, "log_image"):  # wandb
            logger.log_image("panels", [sheet], trainer.global_step, caption=[f"epoch {epoch}"])
        elif add_image := getattr(getattr(logger, "experiment", None), "add_image", None):
            add_image("panels", sheet, epoch, dataformats="HWC")
