"""Callbacks that Lightning does not have."""

import sys
import time
from typing import Any

import lightning
from lightning.pytorch.callbacks import ProgressBar, RichProgressBar


class EpochLines(ProgressBar):
    """One line an epoch, for logs and pipes, where a moving bar would be noise."""

    def __init__(self) -> None:
        super().__init__()
        self._start = 0.0
        self._best = (-1.0, 0)

    def disable(self) -> None:
        """Lightning silences all but the first process with this."""
        self._enabled = False

    def enable(self) -> None:
        """The opposite of `disable`."""
        self._enabled = True

    def on_train_epoch_start(self, trainer: lightning.Trainer, *_: Any) -> None:
        """Start the epoch's clock."""
        self._start = time.perf_counter()

    def on_train_epoch_end(self, trainer: lightning.Trainer, *_: Any) -> None:
        """Print the epoch's line: training and validation scores, the best so far, the time."""
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
        if metrics.get("val/iou", -1.0) > self._best[0]:
            self._best = (metrics["val/iou"], trainer.current_epoch)
        shown = "  ".join(
            f"{name} {metrics[name]:.3f}"
            for name in ("train/loss", "train/iou", "val/loss", "val/iou")
            if name in metrics
        )
        if getattr(self, "_enabled", True):
            epochs = f"{trainer.current_epoch + 1:3d}/{trainer.max_epochs}"
            seconds = time.perf_counter() - self._start
            best, epoch = self._best
            print(
                f"epoch {epochs}  {shown}  best {best:.3f} (epoch {epoch + 1})  {seconds:.0f} s",
                flush=True,
            )


def progress_bar(refresh_rate: int = 5) -> ProgressBar:
    """A moving bar with loss and IoU in a terminal, one line an epoch elsewhere.

    Args:
        refresh_rate: Steps between two updates of the bar.
    """
    if sys.stdout.isatty():
        return RichProgressBar(refresh_rate=refresh_rate, leave=True)
    return EpochLines()
