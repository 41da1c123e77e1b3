"""What a network and a loss must keep, tried once before anything is written."""

import copy
from typing import Any

import lightning
import torch
from lightning.pytorch.utilities.seed import isolate_rng
from omegaconf import DictConfig
from torch import Tensor

from anatosegnet.data.transforms import two_sizes
from anatosegnet.errors import UserError, reason
from anatosegnet.network import kind, require_logits
from anatosegnet.training.module import SegmentationModule
from anatosegnet.training.outcome import is_out_of_memory, out_of_memory


def require_contract(
    config: DictConfig, module: SegmentationModule, trainer: lightning.Trainer
) -> None:
    """Send black images through network and loss as training and validation will.

    On a copy, so that no statistic moves; and nothing random is drawn from the training's own
    numbers. Costs three images forward: with ResNet-50 at 256 px 2 s of one CPU core, a fifteenth
    of one training step of 16 images. A network that cannot be copied goes unchecked.

    Args:
        config: The composed config.
        module: The module; not changed.
        trainer: Gives device and precision.

    Raises:
        UserError: The network fails on this size, or gives no logits (B, 2, H, W); or the loss
            fails, or is no single number.
    """
    size = two_sizes(config.data.image_size)
    device = trainer.strategy.root_device

    def send(trial: SegmentationModule, count: int) -> None:
        images = torch.zeros(count, config.data.in_channels, *size, device=device)
        images = images.contiguous(memory_format=module.memory_format)
        logits = attempt(config, "model", trial.model, images)
        require_logits(logits, images, type(module.model).__name__)
        mask = torch.zeros(count, *size, dtype=torch.long, device=device)
        loss = attempt(config, "loss", trial.loss, logits.float(), mask)
        if not (isinstance(loss, Tensor) and loss.is_floating_point() and loss.dim() == 0):
            name = type(module.loss).__name__
            raise UserError(f"loss: {name} gives {kind(loss)}; wanted is a single number")

    with isolate_rng(), torch.no_grad(), trainer.precision_plugin.forward_context():
        try:
            trial = copy.deepcopy(module)
        except Exception:  # some tensors cannot be copied
            return
        trial.to(device)
        send(trial, 2)  # one image would be too few for BatchNorm if its features are one pixel
        trial.eval()
        send(trial, 1)


def attempt(config: DictConfig, key: str, function: Any, *arguments: Tensor) -> Any:
    """Call a user's module; UserError for whatever it raises."""
    try:
        return function(*arguments)
    except Exception as error:
        if is_out_of_memory(error):
            raise UserError(out_of_memory(config)) from error
        name = type(function).__name__
        raise UserError(
            f"{key}: {name} fails on {kind(arguments[0])} ({type(error).__name__}: {reason(error)})"
        ) from error
