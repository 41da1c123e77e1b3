"""The encoder: any timm network with maps of 1/4 to 1/32 of the image, as five levels."""

import contextlib
import copy
import functools
from collections.abc import Callable, Iterator
from typing import Any

import timm
import torch
from timm.layers import Format
from timm.models import FeatureListNet
from timm.models.efficientnet import EfficientNetFeatures
from timm.models.mobilenetv3 import MobileNetV3Features
from torch import Tensor, nn

from anatosegnet.errors import UserError, reason
from anatosegnet.models.blocks import convolution
from anatosegnet.models.decoder import crop_or_pad
from anatosegnet.models.pretrained import did_you_mean, with_timm_weights

REDUCTIONS = (2, 4, 8, 16, 32)
STEM_WIDTH = 64
"""Most channels of the stem that gives a network of four levels its map of 1/2."""

TRIED: dict[str, tuple[bool, bool, int]] = {}
"""What `Encoder` found of a network when it was first built; it takes a tenth of a second."""


class Encoder(nn.Module):
    """Five levels of a timm network, each half the size of the one before.

    A network that is a chain of layers is cut into stages, so that attention can stand between two
    of them. One with four levels gets a stem beside the chain, two convolutions from random
    weights, that gives the map of 1/2. Others (HRNet, those with branches) give all their maps at
    once. Only the layers that lead to the features are kept: no classifier, hence no unused
    parameter (one would stop distributed training).

    Args:
        name: A timm model name, such as ``resnet50.tv_in1k``.
        in_channels: Channels of the image.
        pretrained: Start from ImageNet weights: those of an installed package (see `packaged`),
            else those that timm names (downloaded once).
        weights: A local file (.safetensors, .pth, .bin) with such weights; implies pretrained.

    Attributes:
        channels: Of the levels 1..5.
        pads: Images are padded with zeros to multiples of 32 pixels.
        unit: The sides of images must be multiples of it.

    Raises:
        UserError: The name is unknown, the network has no such levels, the weights cannot be had,
            or (of images) it is bound to another size.
    """

    def __init__(
        self,
        name: str = "resnet50.tv_in1k",
        in_channels: int = 3,
        pretrained: bool = True,
        weights: str | None = None,
    ) -> None:
        super().__init__()
        network: Any = _create(name, in_channels, pretrained, weights)
        maps = network.feature_info.get_dicts()
        self.chosen = [i for i, level in enumerate(maps) if level["reduction"] in REDUCTIONS]
        levels = [maps[i] for i in self.chosen]
        reductions = tuple(level["reduction"] for level in levels)
        if reductions not in (REDUCTIONS, REDUCTIONS[1:]):
            given = ", ".join(f"1/{level['reduction']}" for level in maps)
            raise UserError(
                f"model.encoder={name} gives maps of {given} of the image; wanted are 1/4, 1/8, "
                "1/16, 1/32: take a ResNet, EfficientNet, ConvNeXt, Swin, PVT or the like "
                "(docs/models.md has a list)"
            )
        self.channels: tuple[int, ...] = tuple(level["num_chs"] for level in levels)
        self.stem: nn.Module | None = None
        if reductions != REDUCTIONS:
            width = min(STEM_WIDTH, self.channels[0] // 2)
            self.channels = (width, *self.channels)
            self.stem = nn.Sequential(
                *convolution(in_channels, width, stride=2, bias=False),
                *convolution(width, width, bias=False),
            )
        stages = _cut(network, [level["module"].replace(".", "_") for level in levels])
        self.stages = nn.ModuleList(stages or [network])
        self.name, self.is_chain, self.pads, self.unit = name, stages is not None, False, 1
        if name not in TRIED:
            TRIED[name] = self._try(in_channels)
        self.is_chain, self.pads, self.unit = TRIED[name]
        if not self.is_chain:
            self.stages = nn.ModuleList([network])

    @property
    def attended(self) -> tuple[int, ...]:
        """Levels at which attention can stand: what it makes of them is read by the next stage."""
        if not self.is_chain:
            return (5,)
        return (1, 2, 3, 4, 5) if self.stem is None else (2, 3, 4, 5)

    def forward(
        self, image: Tensor, attend: Callable[[int, Tensor], Tensor] = lambda _, x: x
    ) -> list[Tensor]:
        """Features of levels 1..5 of images (B, C, H, W).

        Args:
            image: The images.
            attend: Makes of a level and its features what is both given back and read by the next
                stage; called at the levels `attended`.

        Returns:
            (B, channels[i], ~H/2^(i+1), ~W/2^(i+1)) of each level; for networks that pad, of the
            padded image.
        """
        height, width = image.shape[-2:]
        if height % self.unit or width % self.unit:
            raise UserError(
                f"model.encoder={self.name} takes no images of {height}×{width} pixels but of "
                f"{self.unit}×{self.unit}: data.image_size={self.unit}"
            )
        if self.pads:
            largest = REDUCTIONS[-1]
            image = crop_or_pad(image, height + -height % largest, width + -width % largest)
        features = [] if self.stem is None else [self.stem(image)]
        if not self.is_chain:
            maps = self.stages[0](image)
            features += [maps[i] for i in self.chosen]
            return [*features[:-1], attend(5, features[-1])]
        x = image
        for stage in self.stages:
            x = stage(x)
            if len(features) + 1 in self.attended:
                x = attend(len(features) + 1, x)
            features.append(x)
        return features

    def _try(self, in_channels: int) -> tuple[bool, bool, int]:
        """What `is_chain`, `pads` and `unit` have to be, tried without weights.

        Stages that hand on several maps each, of which timm takes one, are no chain here.
        """
        trial = copy.deepcopy(self).to("meta")  # some keep things from one image to the next

        def features(height: int, width: int) -> list[Tensor]:
            with contextlib.suppress(AssertionError, RuntimeError, ValueError):
                return trial(torch.empty(2, in_channels, height, width, device="meta"))
            return []

        odd = features(171, 235)
        several = any(not isinstance(feature, Tensor) for feature in odd)
        pads = self.stem is not None or not self.is_chain or several or not odd
        bound = not (odd or features(160, 224))
        configuration = timm.get_pretrained_cfg(self.name) if bound else None
        unit = configuration.input_size[-1] if configuration is not None else 1
        return self.is_chain and not several, pads, unit


class Axes(nn.Module):
    """Puts the axes of a map in another order."""

    def __init__(self, *order: int) -> None:
        super().__init__()
        self.order = order

    def forward(self, x: Tensor) -> Tensor:
        """The map (B, C, H, W) as (B, H, W, C), or back."""
        return x.permute(self.order)


def _create(name: str, in_channels: int, pretrained: bool, weights: str | None) -> nn.Module:
    if not timm.is_model(name):
        near = did_you_mean(name, timm.list_models())
        raise UserError(f"model.encoder={name} is no timm model{near}")
    create = for_all_sizes(
        functools.partial(timm.create_model, name, features_only=True, in_chans=in_channels)
    )
    if pretrained or weights is not None:
        return with_timm_weights(name, weights, create)
    try:
        return create()
    except Exception as error:
        raise UserError(f"model.encoder={name} gives no feature maps: {reason(error)}") from error


def for_all_sizes(create: Callable[..., nn.Module]) -> Callable[..., nn.Module]:
    """What makes a network of timm, such that those of Swin's kind take images of all sizes."""
    with contextlib.suppress(Exception), torch.device("meta"):
        create(strict_img_size=False)
        return functools.partial(create, strict_img_size=False)
    return create


def _cut(network: Any, levels: list[str]) -> list[nn.Module] | None:
    """A chain of layers cut after each level, into stages that give (B, C, H, W); else None."""
    chain = (FeatureListNet, EfficientNetFeatures, MobileNetV3Features)
    layers = list(_chain(network, levels))
    names = [layer for layer, _ in layers]
    if not isinstance(network, chain) or any(level not in names for level in levels):
        return None
    stages: list[nn.Module] = []
    start = 0
    for level in levels:
        end = names.index(level) + 1
        stage = [layer for _, layer in layers[start:end]]
        if getattr(network, "output_fmt", Format.NCHW) == Format.NHWC:
            stage = [*([Axes(0, 2, 3, 1)] if stages else []), *stage, Axes(0, 3, 1, 2)]
        stages.append(nn.Sequential(*stage))
        start = end
    return stages


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
