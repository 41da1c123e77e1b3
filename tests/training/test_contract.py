"""What a network or a loss of someone's own does wrong is said before a run begins."""

from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from torch import Tensor, nn

from anatosegnet.errors import UserError
from anatosegnet.run import Run
from anatosegnet.train import train
from anatosegnet.training.build import build_module, build_trainer
from anatosegnet.training.contract import require_contract
from anatosegnet.training.module import SegmentationModule
from tests.networks import Tiny
from tests.running import compose_tiny


class Odd(Tiny):
    """A network that goes wrong in a way to be named."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.way = way

    def forward(self, image: Tensor) -> Any:
        """Whatever the way says."""
        logits = super().forward(image)
        ways = {
            "one channel": lambda: logits[:, :1],
            "three channels": lambda: torch.cat([logits, logits[:, :1]], dim=1),
            "half size": lambda: logits[..., ::2, ::2],
            "a list": lambda: [logits, logits],
            "a dict": lambda: {"out": logits},
            "whole numbers": lambda: logits.long(),
            "classes": lambda: logits.argmax(1),
            "an error": lambda: logits @ torch.zeros(7, 7),
            "a list in training": lambda: [logits] if self.training else logits,
            "only one image": lambda: logits[:1],
        }
        return ways[self.way]()


class PerImage(nn.Module):
    """A loss that forgets to average."""

    def forward(self, logits: Tensor, mask: Tensor) -> Tensor:
        """(B, 2, H, W), (B, H, W) -> (B,)."""
        return logits.mean((1, 2, 3))


@pytest.mark.parametrize(
    ("way", "message"),
    [
        ("one channel", r"model: Odd gives 2×1×32×32 float32 .* wanted are logits 2×2×32×32"),
        ("three channels", "gives 2×3×32×32"),
        ("half size", "gives 2×2×16×16"),
        ("a list", "gives a list of 2 for images 2×3×32×32"),
        ("a dict", "gives a dict"),
        ("whole numbers", "gives 2×2×32×32 int64"),
        ("classes", "gives 2×32×32 int64"),
        ("an error", r"model: Odd fails on 2×3×32×32 float32 \(RuntimeError: "),
        ("a list in training", "gives a list of 1"),
        ("only one image", "gives 1×2×32×32"),
    ],
)
def test_an_odd_network_is_one_line(way: str, message: str, tmp_path: Path) -> None:
    """Breaks if a network of another kind is found out after the run directory was made."""
    config = compose_tiny(tmp_path / "run")
    config.model = OmegaConf.create({"_target_": "tests.training.test_contract.Odd", "way": way})
    with pytest.raises(UserError, match=message) as caught:
        train(config, Run(tmp_path / "run"))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_an_odd_loss_is_one_line(tmp_path: Path) -> None:
    """Breaks if a loss per image ends in a traceback of the backward pass."""
    config = compose_tiny(tmp_path / "run")
    config.loss = OmegaConf.create({"_target_": "tests.training.test_contract.PerImage"})
    with pytest.raises(UserError, match="loss: PerImage gives 2 float32; wanted is a single"):
        train(config, Run(tmp_path / "run"))


def test_the_trial_leaves_no_trace(tmp_path: Path) -> None:
    """Breaks if trying a network moves its statistics, its modes, or what is drawn at random."""
    config = compose_tiny(tmp_path / "run")
    module: SegmentationModule = build_module(config)
    frozen = module.model.layers[1].eval()
    trainer = build_trainer(config, module, Run(tmp_path / "run"))
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    random = torch.get_rng_state()
    require_contract(config, module, trainer)
    assert torch.equal(random, torch.get_rng_state())
    assert module.training and not frozen.training
    for name, tensor in module.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    assert all(parameter.grad is None for parameter in module.parameters())
