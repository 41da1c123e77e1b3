"""The network of a run: built of its config, given its weights, held to what it must give."""

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from anatosegnet.config.objects import instantiate
from anatosegnet.console import some
from anatosegnet.errors import UserError
from anatosegnet.files.checkpoint import UnusableCheckpoint, largest, read_checkpoint
from anatosegnet.run import Run


def build_network(config: DictConfig, pretrained: bool | None = None) -> nn.Module:
    """The network alone.

    Args:
        config: The composed config.
        pretrained: Overrides ``model.pretrained``: False where weights are loaded anyway.

    Raises:
        UserError: It is no network, or one without memory for its weights.
    """
    network = _instantiated(config, pretrained)
    if not isinstance(network, nn.Module):
        raise UserError(f"model: {config.model.get('_target_')} gives no network")
    if any(parameter.is_meta for parameter in network.parameters()):
        raise UserError("model: its weights are on the device meta, where there are none")
    return network


def require_known_shapes(network: nn.Module) -> None:
    """UserError if the shapes of weights wait for the first image, as those of LazyConv2d do."""
    lazy = [name for name, value in network.state_dict(keep_vars=True).items() if is_lazy(value)]
    if lazy:
        raise UserError(
            f"model: the shapes of {len(lazy)} tensors wait for the first image: {some(lazy)}; "
            "give their channels, as Conv2d wants them in the place of LazyConv2d"
        )


def _instantiated(config: DictConfig, pretrained: bool | None) -> Any:
    """What ``model`` builds."""
    if pretrained is not None and "pretrained" in config.model:
        config = config.copy()
        config.model.pretrained, config.model.encoder_weights = pretrained, None
    network = instantiate(config, "model")
    if isinstance(network, nn.Module):
        require_known_shapes(network)
    return network


def trained_network(run: Run) -> nn.Module:
    """The network of a run with the weights of its best epoch; nothing else of the run is built.

    Raises:
        UserError: The checkpoint is missing, damaged, or not of this run's network.
    """
    weights = {
        name.removeprefix("model."): tensor
        for name, tensor in best_weights(run)["state_dict"].items()
        if name.startswith("model.")  # a loss may have some too
    }
    if (empty := network_without_memory(run.config)) is not None:
        require_shapes(weights, empty, run.best_path)  # before a stranger's config takes memory
    network = build_network(run.config, pretrained=False)
    require_fit(weights, network, run.best_path)
    network.load_state_dict(weights)
    return network


def network_without_memory(config: DictConfig) -> nn.Module | None:
    """The network with the shapes of its weights alone; None of the few that cannot be built so."""
    try:
        with torch.device("meta"):
            network = _instantiated(config, pretrained=False)
    except UserError:  # it looks at values of tensors while it is built
        return None
    return network if isinstance(network, nn.Module) else None


def best_weights(run: Run) -> dict[str, Any]:
    """The checkpoint of a run's best epoch, checked.

    Raises:
        UserError: There is none, or it cannot be used.
    """
    if not os.path.lexists(run.best_path):
        why = f"it was removed, or published without; train it anew: from_run={run.directory}"
        if not run.last_path.exists() and run.summary.get("state") != "finished":
            why = f"no epoch was finished; go on with: resume={run.directory}"
        raise UserError(f"{run.directory} has no {run.best_path.name}: {why}")
    try:
        return read_checkpoint(run.best_path)
    except UnusableCheckpoint as error:
        raise UnusableCheckpoint(
            f"{error}; put a copy of it there, or train it anew: from_run={run.directory}"
        ) from error


def require_fit(weights: Mapping[str, Tensor], network: nn.Module, path: Path) -> None:
    """UnusableCheckpoint unless weights have the names and shapes of a network, and are finite."""
    require_shapes(weights, network, path)
    if bad := infinite(weights, network.state_dict()):
        found = f"{len(bad)} tensors are NaN or infinite: {some(bad)}"
        raise UnusableCheckpoint(f"{path} cannot be used ({found})")


def require_shapes(weights: Mapping[str, Tensor], network: nn.Module, path: Path) -> None:
    """UnusableCheckpoint unless weights have the names and shapes of a network."""
    ours = network.state_dict()
    odd = {
        "are not in this network": [name for name in weights if name not in ours],
        "are missing": [name for name in ours if name not in weights],
        "have another shape": [
            f"{name} {shape(weights[name])} instead of {shape(tensor)}"
            for name, tensor in ours.items()
            if name in weights and weights[name].shape != tensor.shape
        ],
    }
    found = [f"{len(names)} tensors {kind}: {some(names)}" for kind, names in odd.items() if names]
    if found:
        raise UnusableCheckpoint(f"{path} cannot be used ({'; '.join(found)})")


def infinite(weights: Mapping[str, Tensor], ours: Mapping[str, Tensor]) -> list[str]:
    """Names of weights that overflowed; a mask of a network may well hold infinities."""
    return [
        name
        for name, tensor in ours.items()
        if name in weights and math.isinf(largest(weights[name])) and largest(tensor) < math.inf
    ]


def require_logits(output: Any, images: Tensor, name: str) -> None:
    """UserError unless a network's output is logits (B, 1 or 2, H, W) for images (B, C, H, W)."""
    wanted = [(len(images), channels, *images.shape[2:]) for channels in (2, 1)]
    if isinstance(output, Tensor) and output.is_floating_point() and output.shape in wanted:
        return
    both, lesion = ("×".join(map(str, sizes)) for sizes in wanted)
    several = isinstance(output, list | tuple)
    raise UserError(
        f"model: {name} gives {kind(output)} for images {kind(images)}; wanted are logits in "
        f"floating point at the images' size: {both} (background and lesion), or {lesion} (lesion)"
        + "; a list of logits, finest first, is for training mode alone"
        * several
    )


def kind(value: Any) -> str:
    """What a network gave, in a few words."""
    if isinstance(value, Tensor):
        return f"{shape(value)} {str(value.dtype).removeprefix('torch.')}"
    if isinstance(value, list | tuple):
        return f"a {type(value).__name__} of {len(value)}"
    return f"a {type(value).__name__}"


def shape(tensor: Tensor) -> str:
    """``64×3×7×7``."""
    return "×".join(map(str, tensor.shape)) or "scalar"
