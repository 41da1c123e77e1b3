"""An optimizer that moves a pretrained encoder more slowly than the rest of the network."""

from collections.abc import Callable, Iterable
from typing import Any

from omegaconf import DictConfig, open_dict
from torch import nn
from torch.optim import Optimizer

from anatosegnet.config.objects import instantiate
from anatosegnet.errors import UserError

FACTOR = "encoder_lr_factor"


def build_optimizer(config: DictConfig, network: nn.Module) -> Callable[..., Optimizer]:
    """What makes the optimizer of parameters, by the config's group ``optimizer``.

    Args:
        config: The whole config. With ``optimizer.encoder_lr_factor``, parameters of
            ``network.encoder`` are a second group whose rate is that part of the others'; the
            schedule falls for both alike. Without it there is one group.
        network: Whose encoder is meant.

    Raises:
        UserError: The factor is no positive number, or the network keeps no encoder.
    """
    factor = config.optimizer.get(FACTOR)
    if factor is not None:
        if not (isinstance(factor, float | int) and 0 < factor <= 1):
            raise UserError(f"optimizer.{FACTOR}={factor} must be above 0 and at most 1")
        if not isinstance(getattr(network, "encoder", None), nn.Module):
            name = type(network).__name__
            raise UserError(f"optimizer.{FACTOR}={factor}: {name} has no part named encoder")
    config = config.copy()
    with open_dict(config):
        config.optimizer.pop(FACTOR, None)
    optimizer = instantiate(config, "optimizer")
    if factor is None:
        return optimizer
    encoder = {id(parameter) for parameter in network.get_submodule("encoder").parameters()}

    def build(parameters: Iterable[Any]) -> Optimizer:
        given = list(parameters)
        groups = [
            {"params": [parameter for parameter in given if id(parameter) not in encoder]},
            {"params": [parameter for parameter in given if id(parameter) in encoder]},
        ]
        built = optimizer(groups)
        built.param_groups[1]["lr"] *= factor
        return built

    return build
