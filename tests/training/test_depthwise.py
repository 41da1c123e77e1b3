"""Depthwise convolutions of a training in bf16 on a CPU."""

import copy
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from anatosegnet.training.build import build_module
from anatosegnet.training.depthwise import depthwise_in_float32
from tests.running import compose_tiny


def gradients(layer: nn.Conv2d, image: Tensor, in_float32: bool) -> tuple[Tensor, Tensor]:
    """The output of a layer under bf16, and its weights' gradient with every output worth 1."""
    layer = copy.deepcopy(layer)
    with torch.autocast("cpu", torch.bfloat16):
        if in_float32:
            with depthwise_in_float32(image):
                output = layer(image)
        else:
            output = layer(image)
    output.float().sum().backward()
    assert layer.weight.grad is not None
    return output.detach(), layer.weight.grad


@pytest.mark.parametrize("groups", [6, 3, 1])
def test_only_depthwise_ones_are_computed_in_float32(groups: int) -> None:
    """Breaks if bf16 rounds a depthwise convolution, or another one loses its speed."""
    torch.manual_seed(0)
    layer, image = nn.Conv2d(6, 6, 5, padding=2, groups=groups), torch.randn(2, 6, 9, 9)
    output, gradient = gradients(layer, image, True)
    assert output.dtype == torch.bfloat16
    if groups == 6:
        exact = layer(image)
        exact.sum().backward()
        assert torch.equal(output, exact.to(torch.bfloat16))
        torch.testing.assert_close(gradient, layer.weight.grad, rtol=1e-6, atol=1e-6)
    else:
        for ours, usual in zip((output, gradient), gradients(layer, image, False), strict=True):
            assert torch.equal(ours, usual)


def test_without_bf16_there_is_nothing_to_do() -> None:
    """Breaks if trainings in float32 change by a bit, or arguments by name are not understood."""
    image, weight = torch.randn(1, 4, 8, 8), torch.randn(4, 1, 3, 3)
    usual = F.conv2d(image, weight, groups=4)
    with depthwise_in_float32(image):
        assert torch.equal(F.conv2d(image, weight, groups=4), usual)
    with torch.autocast("cpu", torch.bfloat16), depthwise_in_float32(image):
        assert torch.equal(F.conv2d(image, weight, groups=4), usual.to(torch.bfloat16))


class Seen(Exception):
    """What the network computed, out of the middle of a step."""


class Probe(nn.Module):
    """Shows its first convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 3, 3, groups=3)

    def forward(self, image: Tensor) -> Tensor:
        """Raises."""
        raise Seen(self.layer(image))


def test_a_training_step_does_it_and_a_validation_does_not(tmp_path: Path) -> None:
    """Breaks if a step trains as slowly as before, or validation differs from evaluate."""
    module = build_module(compose_tiny(tmp_path))
    module.model = network = Probe()
    image = torch.randn(2, 3, 8, 8).contiguous(memory_format=torch.channels_last)
    batch = {"image": image, "mask": torch.zeros(2, 8, 8, dtype=torch.long)}
    with torch.autocast("cpu", torch.bfloat16):
        usual = network.layer(image)
        with pytest.raises(Seen) as training:
            module.training_step(batch, 1)
        with pytest.raises(Seen) as validation:
            module.validation_step(batch, 1)
    exact = network.layer(image).to(torch.bfloat16)
    assert torch.equal(training.value.args[0], exact)
    assert torch.equal(validation.value.args[0], usual)
    assert not torch.equal(exact, usual)
