"""The encoder: any timm network with five feature levels, cut into five stages in a row."""

import functools
from collections.abc import Iterator
from typing import Any, cast

import timm
from torch import Tensor, nn

from anatosegnet.errors import UserError, reason
from anatosegnet.models.pretrained import did_you_mean, with_timm_weights

REDUCTIONS = (2, 4, 8, 16, 32)


class Encoder(nn.Module):
    """Five stages of a timm network, each halving the map.

    The stages are separate modules so that attention can stand between two of them. Only the
    layers that lead to the features are kept: no classifier, hence no unused parameter (one
    would stop distributed training).

    Args:
        name: A timm model name, such as ``resnet50.tv_in1k``.
        in_channels: Channels of the image.
        pretrained: Start from ImageNet weights: those of an installed package (see `packaged`),
            else those that timm names (downloaded once).
        weights: A local file (.safetensors, .pth, .bin) with such weights; implies pretrained.

    Raises:
        UserError: The name is unknown, the network has no such five levels, or the weights
            cannot be had.
    """

    def __init__(
        self,
        name: str = "resnet50.tv_in1k",
        in_channels: int = 3,
        pretrained: bool = True,
        weights: str | None = None,
    ) -> None:
        super().__init__()
        network = _create(name, in_channels, pretrained, weights)
        levels = [
            (info["module"].replace(".", "_"), info["num_chs"])
            for info in cast(Any, network).feature_info.get_dicts()
            if info["reduction"] in REDUCTIONS
        ]
        self.stages = nn.ModuleList(_cut(name, network, [module for module, _ in levels]))
        self.channels: tuple[int, ...] = tuple(channels for _, channels in levels)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Features of levels 1..5, (B, channels[i], ~H/2^(i+1), ~W/2^(i+1))."""
        features = []
        for stage in self.stages:
            x = stage(x)
            features.append(x)
        return features


def _create(name: str, in_channels: int, pretrained: bool, weights: str | None) -> nn.Module:
    if not timm.is_model(name):
        near = did_you_mean(name, timm.list_models())
        raise UserError(f"model.encoder={name} is no timm model{near}")
    create = functools.partial(timm.create_model, name, features_only=True, in_chans=in_channels)
    if pretrained or weights is not None:
        return with_timm_weights(name, weights, create)
    try:
        return create()
    except Exception as error:
        raise UserError(f"model.encoder={name} gives no feature maps: {reason(error)}") from error


def _cut(name: str, network: nn.Module, levels: list[str]) -> Iterator[nn.Sequential]:
    """Cut the network's chain of layers after each level."""
    layers = list(_chain(network, levels))
    names = [layer for layer, _ in layers]
    if len(levels) != len(REDUCTIONS) or any(level not in names for level in levels):
        raise UserError(
            f"model.encoder={name} is not a chain of five levels (1/2 to 1/32 of the image); "
            "take a ResNet, RegNet, EfficientNet, DenseNet, VGG or the like"
        )
    start = 0
    for level in levels:
        end = names.index(level) + 1
        yield nn.Sequential(*(layer for _, layer in layers[start:end]))
        start = end


def _chain(
    module: nn.Module, levels: list[str], prefix: str = ""
) -> Iterator[tuple[str, nn.Module]]:
    """The children in order; a Sequential that holds a level inside is opened."""
    for child_name, child in module.named_children():
        name = f"{prefix}{child_name}"
        inside = any(level.startswith(f"{name}_") for level in levels)
        if inside and isinstance(child, nn.Sequential):
            yield from _chain(child, levels, f"{name}_")
        else:
            yield name, child
