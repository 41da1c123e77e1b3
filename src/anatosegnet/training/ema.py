"""Averaged weights: validated, saved as the result, and taken along on resume."""

from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import WeightAveraging
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor


class EMA(WeightAveraging):
    r"""Exponential moving average of the weights, over Lightning's ``WeightAveraging``.

    .. math:: \bar w_t = d_t \bar w_{t-1} + (1 - d_t) w_t, \qquad
        d_t = \min\big(d, \tfrac{1 + t}{10 + t}\big)

    after every optimiser step t; the second term lets the average follow in the first epochs, as
    in TensorFlow's ``ExponentialMovingAverage``. BatchNorm's means and variances are averaged
    with the weights they belong to; its counters are copied.

    Validation sees the averaged weights, and they are the ``state_dict`` of both checkpoints.
    ``last.ckpt`` holds the others beside them, for going on. What Lightning's
    ``EMAWeightAveraging`` lacks: ``best.ckpt``, saved with weights only, would hold the weights
    that are *not* averaged; and the average would lie on the CPU while the network is on a GPU.

    Args:
        decay: d, between 0 and 1; 0.999 averages over about the last thousand steps.
    """

    def __init__(self, decay: float = 0.999) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"decay={decay} must be at least 0 and less than 1")
        super().__init__(multi_avg_fn=self._average)
        self.decay = decay

    def setup(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, stage: str
    ) -> None:
        """Copy the network to where it is going to be trained."""
        if stage != "fit":
            return
        self._device = trainer.strategy.root_device
        super().setup(trainer, pl_module, stage)
        assert self._average_model is not None
        # counted on the host: a comparison on the GPU would hold up every step
        self._average_model.n_averaged = self._average_model.n_averaged.cpu()

    def on_load_checkpoint(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        checkpoint: dict[str, Any],
    ) -> None:
        """Go on with both sets of weights; a test takes the averaged ones, which are there."""
        if trainer.state.fn == TrainerFn.FITTING:
            super().on_load_checkpoint(trainer, pl_module, checkpoint)

    def put_average(self, checkpoint: dict[str, Any]) -> None:
        """Put the averaged weights in a checkpoint that has others.

        Lightning tells callbacks nothing of a checkpoint of weights only: who writes it calls this.
        """
        if "averaging_state" not in checkpoint and self._average_model is not None:
            checkpoint["state_dict"] = self._average_model.module.state_dict()

    @torch.no_grad()
    def _average(self, averaged: list[Tensor], current: list[Tensor], _: Any) -> None:
        """Move the averaged tensors, all of one type, towards the current ones."""
        assert self._average_model is not None
        if not averaged[0].is_floating_point():
            for target, source in zip(averaged, current, strict=True):
                target.copy_(source)
            return
        count = int(self._average_model.n_averaged)
        decay = min(self.decay, (1 + count) / (10 + count))
        torch._foreach_lerp_(averaged, current, 1 - decay)
