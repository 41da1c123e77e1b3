"""What a network or a loss of someone's own does wrong is said before a run begins."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from torch import Tensor, nn

from anatosegnet.errors import UserError
from anatosegnet.evaluation.evaluate import evaluate
from anatosegnet.prediction.inference import Predictor
from anatosegnet.run import Run
from anatosegnet.train import train
from anatosegnet.training.build import build_module, build_trainer
from anatosegnet.training.contract import require_contract
from anatosegnet.training.module import SegmentationModule
from tests.networks import Tiny
from tests.running import compose, compose_tiny


class Odd(Tiny):
    """A network that goes wrong in a way to be named."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.way = way

    def forward(self, image: Tensor) -> Any:
        """Whatever the way says."""
        logits = super().forward(image)
        ways = {
            "three channels": lambda: torch.cat([logits, logits[:, :1]], dim=1),
            "half size": lambda: logits[..., ::2, ::2],
            "a list": lambda: [logits, logits],
            "a dict": lambda: {"out": logits},
            "whole numbers": lambda: logits.long(),
            "classes": lambda: logits.argmax(1),
            "an error": lambda: logits @ torch.zeros(7, 7),
            "no output": lambda: [],
            "the coarse one first": lambda: [logits[..., ::2, ::2], logits],
            "a mask behind": lambda: [logits, logits.argmax(1)],
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
        (
            "three channels",
            r"model: Odd gives 2×3×32×32 float32 .*: 2×2×32×32 .* or 2×1×32×32 \(lesion\)",
        ),
        ("half size", "gives 2×2×16×16"),
        ("a list", r"gives a list of 2 for images 1×3×32×32 .* is for training mode alone"),
        ("a dict", "gives a dict"),
        ("whole numbers", "gives 2×2×32×32 int64"),
        ("classes", "gives 2×32×32 int64"),
        ("an error", r"model: Odd fails on 2×3×32×32 float32 \(RuntimeError: "),
        ("no output", "gives a list of 0"),
        ("the coarse one first", "gives 2×2×16×16 float32 for images"),
        ("a mask behind", "gives 2×32×32 int64 beside its finest logits"),
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


class Counted(nn.Module):
    """A loss that nothing can be learned from."""

    def forward(self, logits: Tensor, mask: Tensor) -> Tensor:
        """(B, 2, H, W), (B, H, W) -> share of wrong pixels."""
        return (logits.argmax(1) != mask).float().mean()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("PerImage", "loss: PerImage gives 2 float32; wanted is a single"),
        ("Counted", "loss: Counted gives a number without gradient"),
    ],
)
def test_an_odd_loss_is_one_line(name: str, message: str, tmp_path: Path) -> None:
    """Breaks if a loss per image, or of counts, ends in a traceback of the backward pass."""
    config = compose_tiny(tmp_path / "run")
    config.loss = OmegaConf.create({"_target_": f"tests.training.test_contract.{name}"})
    with pytest.raises(UserError, match=message):
        train(config, Run(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


class OfLesion(Tiny):
    """One logit, of the lesion: the difference of the two."""

    def forward(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, 1, H, W)."""
        logits = super().forward(image)
        return logits[:, 1:] - logits[:, :1]


def test_one_logit_scores_as_two(tmp_path: Path) -> None:
    """Breaks if a network with a sigmoid trains otherwise than the same one with a softmax."""
    summaries = []
    for name in ("tests.networks.Tiny", "tests.training.test_contract.OfLesion"):
        directory = tmp_path / name
        config = compose_tiny(
            directory, "test=true", "trainer.max_epochs=2", "callbacks.panels=null"
        )
        config.model = OmegaConf.create({"_target_": name})
        summaries.append(train(config, Run(directory)))
        Predictor.from_run(Run(directory, trust=["tests"]), "cpu").probabilities(
            [np.zeros((40, 50, 3), np.uint8)]
        )
    for score in ("val/loss", "test/loss", "test/iou", "test/dice"):
        assert summaries[0][score] == pytest.approx(summaries[1][score], abs=2e-4), score


def test_one_logit_is_evaluated_and_predicted_as_two(tmp_path: Path) -> None:
    """Breaks if a verb reads one logit of the lesion as something else than two of both."""
    first, second = (Run(tmp_path / name, trust=["tests"]) for name in ("two", "one"))
    config = compose_tiny(first.directory, "trainer.max_epochs=1", "callbacks.panels=null")
    train(config, first)
    shutil.copytree(first.directory, second.directory)
    config = first.config
    config.model._target_ = "tests.training.test_contract.OfLesion"  # its weights have these names
    config.run_dir = str(second.directory)
    second.write_config(config)
    settings = ("at=model", "surface=false", "extremes=1", "device=cpu")
    two, one = (evaluate(run, compose(*settings, name="evaluate")) for run in (first, second))
    for score in ("iou", "dice", "iou_batch_pooled", "brier"):
        assert one[score] == pytest.approx(two[score], abs=1e-6), score
    image = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
    two, one = (Predictor.from_run(run, "cpu").probabilities([image]) for run in (first, second))
    np.testing.assert_allclose(one, two, atol=1e-6)


def test_three_classes_are_one_line(tmp_path: Path) -> None:
    """Breaks if a network of three classes trains as if its third were lesion or background."""
    settings = ("model=unext", "model.num_classes=3", "data=phantom", "data.count=12")
    small = ("data.image_size=32", "data.num_workers=0", "trainer=cpu", "split=holdout")
    config = compose(*settings, *small, f"run_dir={tmp_path / 'run'}")
    with pytest.raises(UserError, match="model: UNeXt gives 2×3×32×32") as caught:
        train(config, Run(tmp_path / "run"))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


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
