"""Depthwise convolutions in float32 where a CPU trains in bf16."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode


def depthwise_in_float32(image: Tensor) -> AbstractContextManager[Any]:
    """A context for the forward pass of a training step; without effect but on a CPU in bf16.

    There oneDNN has no fast backward pass of depthwise convolutions in bf16: those of
    EfficientNet-Lite0 take most of a step. In float32 they are several times faster, and exact;
    what goes in and comes out stays bf16. Measured in docs/performance.md.
    """
    if image.device.type == "cpu" and torch.is_autocast_enabled("cpu"):
        return _DepthwiseInFloat32()
    return nullcontext()


class _DepthwiseInFloat32(TorchFunctionMode):
    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if function is torch.conv2d and is_depthwise(*args, **kwargs):
            args = [in_float32(value) for value in args]
            kwargs = {key: in_float32(value) for key, value in kwargs.items()}
            with torch.autocast("cpu", enabled=False):
                return function(*args, **kwargs).to(torch.get_autocast_dtype("cpu"))
        return function(*args, **kwargs)


def is_depthwise(input: Tensor, *args: Any, groups: int = 1, **_: Any) -> bool:
    """Whether the arguments of `torch.conv2d` give every channel filters of its own."""
    groups = args[5] if len(args) > 5 else groups
    return groups > 1 and groups == input.shape[-3]


def in_float32(value: Any) -> Any:
    """A tensor in float32; anything else as it is."""
    return value.float() if isinstance(value, Tensor) else value
