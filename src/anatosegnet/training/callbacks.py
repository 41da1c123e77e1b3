"""Callbacks that Lightning does not have."""

import math
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint, ProgressBar, RichProgressBar
from torch import Tensor

from anatosegnet.config.recorded import moved, with_strings
from anatosegnet.console import duration, say
from anatosegnet.errors import UserError
from anatosegnet.files.rows import write_rows
from anatosegnet.files.writing import replacing


class History(Callback):
    """The scores of every epoch: a row of ``metrics.csv`` each, and part of every checkpoint.

    The file is written whole after each epoch. A resumed run goes on from the rows of its
    checkpoint, so the file is the one that an uninterrupted run would have written.

    Args:
        path: The csv.
    """

    def __init__(self, path: str) -> None:
        self.path = Path(path)
        self.rows: list[dict[str, float]] = []
        self._validated = self._placed = False

    def on_fit_start(self, *_: Any) -> None:
        """Remember whether there is a folder for the file."""
        self._placed = self.path.parent.is_dir()

    def on_validation_end(self, *_: Any) -> None:
        """Remember that this epoch's validation scores are fresh."""
        self._validated = True

    def on_train_epoch_end(self, trainer: lightning.Trainer, *_: Any) -> None:
        """Add the epoch's row and write the file."""
        scores = {name: float(value) for name, value in trainer.callback_metrics.items()}
        parts = ("train/", "val/") if self._validated else ("train/",)
        row = {
            name: value for part in parts for name, value in scores.items() if name.startswith(part)
        }
        self.rows.append({"epoch": trainer.current_epoch, **row})
        self._validated = False
        if trainer.is_global_zero:
            if self._placed and not self.path.parent.is_dir():  # not to be made again
                raise UserError(f"{self.path.parent} was removed while training")
            columns = list(dict.fromkeys(name for row in self.rows for name in row))
            with replacing(self.path) as temporary, temporary.open("w", newline="") as file:
                write_rows(file, columns, self.rows)

    def best(self, score: str = "val/iou", mode: str = "max") -> tuple[float, int]:
        """The best value so far and its epoch, counted from 1; NaN and 0 if there is none."""
        known = [(row[score], int(row["epoch"]) + 1) for row in self.rows if score in row]
        sign = 1 if mode == "max" else -1
        return max(known, default=(math.nan, 0), key=lambda pair: (sign * pair[0], -pair[1]))

    def state_dict(self) -> dict[str, Any]:
        """The rows."""
        return {"rows": self.rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from the rows of a checkpoint."""
        self.rows = list(state_dict["rows"])


class Divergence(Callback):
    """Stops a training whose loss is no number, or too large, and names the cases of the batch.

    The losses stay on the device and are looked at together, so that no step waits for it. A
    bad loss is found before the epoch is validated and saved.

    Args:
        limit: Largest loss that is not called exploding.
        every: Steps between two looks; there is one at the end of each epoch too.
    """

    def __init__(self, limit: float = 1e4, every: int = 50) -> None:
        self.limit = limit
        self.every = every
        self._losses: list[Tensor] = []
        self._batches: list[tuple[int, list[int]]] = []

    def on_train_batch_end(
        self,
        trainer: lightning.Trainer,
        module: lightning.LightningModule,
        outputs: Any,
        batch: Mapping[str, Any],
        batch_index: int,
    ) -> None:
        """Keep the loss; look at all that were kept when it is time."""
        if (loss := (outputs or {}).get("loss")) is not None:
            self._losses.append(loss.detach())
            self._batches.append((batch_index, batch["index"]))
        if self._losses and (len(self._losses) >= self.every or trainer.is_last_batch):
            self._look(trainer)

    def _look(self, trainer: lightning.Trainer) -> None:
        losses = torch.stack(self._losses).float().tolist()
        batches, self._losses, self._batches = self._batches, [], []
        for loss, (step, indices) in zip(losses, batches, strict=True):
            if not abs(loss) <= self.limit:  # NaN compares false
                names = trainer.datamodule.prepared.split.train  # type: ignore[attr-defined]
                cases = ", ".join(names[index] for index in indices)
                what = "exploded" if math.isfinite(loss) else "is NaN or infinite"
                raise UserError(
                    f"the loss {what} ({loss:g}) in epoch {trainer.current_epoch + 1}, step "
                    f"{step + 1}, on the cases {cases}; look at them, or lower optimizer.lr, set "
                    "trainer.gradient_clip_val=1, or take trainer.precision=32-true"
                )


class EpochLines(ProgressBar):
    """One line an epoch, for logs and pipes, where a moving bar would be noise."""

    def __init__(self, history: History | None = None) -> None:
        super().__init__()
        self.history = history
        self._start = self._first = 0.0
        self._done = 0

    def disable(self) -> None:
        """Lightning silences all but the first process with this."""
        self._enabled = False

    def enable(self) -> None:
        """The opposite of `disable`."""
        self._enabled = True

    def on_train_epoch_start(self, trainer: lightning.Trainer, *_: Any) -> None:
        """Start the epoch's clock."""
        self._start = time.perf_counter()
        self._first = self._first or self._start

    def on_train_epoch_end(self, trainer: lightning.Trainer, *_: Any) -> None:
        """Print the epoch's line: scores, the best so far, the time it took and what is left."""
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
        shown = "  ".join(
            f"{name} {metrics[name]:.3f}"
            for name in ("train/loss", "train/iou", "val/loss", "val/iou")
            if name in metrics
        )
        self._done += 1
        if getattr(self, "_enabled", True):
            epochs = f"{trainer.current_epoch + 1:3d}/{trainer.max_epochs}"
            now = time.perf_counter()
            say(
                f"epoch {epochs}  {shown}{best_so_far(trainer, self.history)}  "
                f"{duration(now - self._start)}"
                f"{time_left(trainer, (now - self._first) / self._done)}",
            )


class Bar(RichProgressBar):
    """A moving bar with loss, IoU, and the time left of the whole training."""

    def __init__(self, refresh_rate: int) -> None:
        super().__init__(refresh_rate=refresh_rate, leave=True)
        self._first: tuple[float, int] | None = None
        self._loss: Tensor | None = None
        self._shown: dict[str, Any] = {}

    def configure_columns(self, trainer: lightning.Trainer) -> list[Any]:
        """Without the time of the epoch: what is left of all is shown, and 80 letters hold it."""
        columns = super().configure_columns(trainer)
        return [column for column in columns if type(column).__name__ != "CustomTimeColumn"]

    def on_train_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        outputs: Any,
        *rest: Any,
    ) -> None:
        """Keep the loss on its device: what `self.log` gives a bar is fetched at every step."""
        self._loss = (outputs or {}).get("loss")
        super().on_train_batch_end(trainer, pl_module, outputs, *rest)

    def get_metrics(self, trainer: lightning.Trainer, module: Any) -> dict[str, Any]:
        """What stands behind the bar; the loss is fetched from the device only now and then."""
        items = super().get_metrics(trainer, module)
        items.pop("v_num", None)
        now, step = time.perf_counter(), trainer.global_step
        self._first = self._first or (now, step)
        if (step % self.refresh_rate == 0 or step < 3) and self._loss is not None:
            loss = f"{float(self._loss):.3f}"
            left = trainer.estimated_stepping_batches - step
            if step > self._first[1] and math.isfinite(left):
                seconds = (now - self._first[0]) / (step - self._first[1]) * left
                self._shown["left"] = duration(seconds)
            self._shown["loss"] = loss
        return {**self._shown, **items}


def progress_bar(refresh_rate: int = 10, history: History | None = None) -> ProgressBar:
    """A moving bar with loss and IoU in a terminal, one line an epoch elsewhere.

    Args:
        refresh_rate: Steps between two updates of the bar.
        history: Knows the best epoch so far, for the lines.
    """
    return Bar(refresh_rate) if sys.stdout.isatty() else EpochLines(history)


def best_so_far(trainer: lightning.Trainer, history: History | None) -> str:
    """The best value of what ``best.ckpt`` is chosen by, in words."""
    best = trainer.checkpoint_callback
    if not isinstance(best, ModelCheckpoint) or best.monitor is None or history is None:
        return ""
    value, epoch = history.best(best.monitor, best.mode)
    named = "" if best.monitor == "val/iou" else f"{best.monitor} "
    return f"  best {named}{value:.3f} (epoch {epoch})" if epoch else ""


def time_left(trainer: lightning.Trainer, seconds_per_epoch: float) -> str:
    """The time that the remaining epochs will take, in words; empty after the last."""
    left = (trainer.max_epochs or 0) - trainer.current_epoch - 1
    return f", {duration(left * seconds_per_epoch)} left" if left > 0 else ""


class GoOn(Callback):
    """Lets the callbacks of a checkpoint go on where the run is now, with its present settings.

    Lightning records the absolute paths of a ``ModelCheckpoint`` and forgets the best score where
    they differ; it also takes the patience of an ``EarlyStopping`` from the checkpoint.

    Args:
        directory: Of the run.
        callbacks: All others of the training.
    """

    def __init__(self, directory: Path, callbacks: Sequence[Callback]) -> None:
        self.callbacks = callbacks
        self.checkpoints = directory.resolve() / "checkpoints"

    def on_load_checkpoint(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        checkpoint: dict[str, Any],
    ) -> None:
        """Called before the callbacks take their states."""
        states = checkpoint.get("callbacks", {})
        for callback in self.callbacks:
            state = states.get(callback.state_key)
            if not isinstance(state, dict):
                continue
            if isinstance(callback, ModelCheckpoint):
                before = str(state.get("dirpath") or "")
                if callback.dirpath == str(self.checkpoints) and before:
                    states[callback.state_key] = relocated(state, before, callback.dirpath)
            elif "patience" in state and hasattr(callback, "patience"):
                state["patience"] = callback.patience


def relocated(state: Any, before: str, now: str) -> Any:
    """A state in which paths below one folder are below another; keys too."""
    if isinstance(state, dict):
        return {
            with_strings(key, lambda _, text: moved(text, (before,), now)): relocated(
                value, before, now
            )
            for key, value in state.items()
        }
    return with_strings(state, lambda _, text: moved(text, (before,), now))
