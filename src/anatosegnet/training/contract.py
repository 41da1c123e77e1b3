"""What a network and a loss must keep, tried once before anything is written."""

import copy
from typing import Any

import lightning
import torch
from lightning import LightningModule
from lightning.pytorch.utilities.seed import isolate_rng
from omegaconf import DictConfig
from torch import Tensor, nn

from anatosegnet.data.resizing import two_sizes
from anatosegnet.errors import UserError, reason
from anatosegnet.losses import mask_at_size_of
from anatosegnet.metrics.logits import two_logits
from anatosegnet.network import kind, require_logits
from anatosegnet.training.interruptions import is_out_of_memory, out_of_memory
from anatosegnet.training.module import network_of


def require_contract(
    config: DictConfig, module: LightningModule, trainer: lightning.Trainer
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
        UserError: The network fails on this size, or gives no logits (B, 1 or 2, H, W), in
            training perhaps with coarser ones behind them; or the loss fails, is no single
            number, or has no gradient.
    """
    size = two_sizes(config.data.image_size)
    device = trainer.strategy.root_device
    memory_format = getattr(module, "memory_format", torch.contiguous_format)

    def send(trial: LightningModule, count: int) -> None:
        images = torch.zeros(count, config.data.in_channels, *size, device=device)
        images = images.contiguous(memory_format=memory_format)
        network, loss_function = network_of(trial), getattr(trial, "loss", None)
        output = attempt(config, "model", network, images)
        name = type(network).__name__
        if trial.training and isinstance(output, list | tuple) and output:  # deep supervision
            require_logits(output[0], images, name)
            for logits in output[1:]:
                require_coarse_logits(logits, images, name)
        else:
            require_logits(output, images, name)
            output = [output]
        if not isinstance(loss_function, nn.Module):  # a module with a loss of its own
            return
        mask = torch.zeros(count, *size, dtype=torch.long, device=device)
        for logits in output:
            with torch.enable_grad():
                logits = two_logits(logits.detach().float()).requires_grad_()
                coarse = mask_at_size_of(logits, mask)
                loss = attempt(config, "loss", loss_function, logits, coarse)
            require_number(loss, type(loss_function).__name__)

    with isolate_rng(), torch.no_grad(), trainer.precision_plugin.forward_context():
        try:
            trial = copy.deepcopy(module)
        except Exception:  # some tensors cannot be copied
            return
        trial.to(device)
        send(trial, 2)  # one image would be too few for BatchNorm if its features are one pixel
        trial.eval()
        send(trial, 1)


def require_coarse_logits(output: Any, images: Tensor, name: str) -> None:
    """UserError unless an output beside the finest is logits (B, 1 or 2, any height, any width)."""
    if isinstance(output, Tensor) and output.is_floating_point() and output.dim() == 4:
        count, channels, height, width = output.shape
        if count == len(images) and channels in (1, 2) and min(height, width) > 0:
            return
    raise UserError(
        f"model: {name} gives {kind(output)} beside its finest logits for images {kind(images)}; "
        "wanted are logits in floating point, of one or two channels, at any size"
    )


def require_number(loss: Any, name: str) -> None:
    """UserError unless a loss is a single number that something can be learned from."""
    if not (isinstance(loss, Tensor) and loss.is_floating_point() and loss.dim() == 0):
        raise UserError(f"loss: {name} gives {kind(loss)}; wanted is a single number")
    if not loss.requires_grad:
        raise UserError(
            f"loss: {name} gives a number without gradient, so that nothing would be learned; "
            "compute it from the logits in torch, without detach, argmax or numpy"
        )


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
