"""Networks that give several logits in training: their loss, and all that follows of a run."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from torch import Tensor, nn
from torch.nn import functional as F

from anatosegnet.data.resizing import resize_mask
from anatosegnet.errors import UserError
from anatosegnet.evaluation.evaluate import evaluate
from anatosegnet.losses import DiceCELoss, deeply_supervised, mask_at_size_of
from anatosegnet.prediction.inference import Predictor
from anatosegnet.run import Run
from anatosegnet.train import train
from anatosegnet.training.build import build_module
from anatosegnet.training.module import SegmentationModule
from tests.networks import Deep
from tests.running import compose, compose_tiny


def deep_config(directory: Path, *overrides: str, channels: int = 2, **settings: Any) -> Any:
    """A tiny training of the network of two outputs."""
    config = compose_tiny(directory, "trainer.max_epochs=2", *overrides)
    config.model = OmegaConf.create({"_target_": "tests.networks.Deep", "channels": channels})
    OmegaConf.set_struct(config, False)
    for key, value in settings.items():
        config.module[key] = value
    return config


def test_the_loss_by_hand() -> None:
    """Breaks if the weights are not 1, ½, ¼, normalised, or a mask is of another size."""
    mask = torch.randint(0, 2, (3, 8, 12))
    outputs = [torch.randn(3, 2, *size) for size in ((8, 12), (4, 6), (3, 5))]
    loss = DiceCELoss()
    one, two, three = (loss(x, mask_at_size_of(x, mask)) for x in outputs)
    for ratio, expected in ((0.5, (4 * one + 2 * two + three) / 7), (1, (one + two + three) / 3)):
        torch.testing.assert_close(deeply_supervised(loss, outputs, mask, ratio), expected)
    assert torch.equal(deeply_supervised(loss, outputs, mask, 0), one)
    assert torch.equal(deeply_supervised(loss, outputs[:1], mask, 0.5), loss(outputs[0], mask))


@pytest.mark.parametrize("size", [(32, 24), (16, 12), (9, 7), (1, 1), (64, 48)])
def test_masks_are_resized_as_those_of_cases_are(size: tuple[int, int]) -> None:
    """Breaks if a coarse mask is half a pixel off."""
    mask = np.random.default_rng(0).integers(0, 2, (32, 24), np.uint8)
    ours = mask_at_size_of(torch.zeros(1, 2, *size), torch.from_numpy(mask)[None].long())
    assert ours.dtype == torch.int64
    assert (ours[0].numpy() == resize_mask(mask, size)).all()


def test_a_weight_of_nothing_leaves_the_finest() -> None:
    """Breaks if deep_supervision=0 moves the coarse head, or leaves it without a gradient.

    Without one, several processes would refuse it as an unused parameter.
    """
    network = Deep()
    image, mask = torch.randn(2, 3, 8, 8), torch.randint(0, 2, (2, 8, 8))
    deeply_supervised(nn.CrossEntropyLoss(), network(image), mask, 0).backward()
    found = {name: parameter.grad for name, parameter in network.named_parameters()}
    network.zero_grad()
    F.cross_entropy(network.eval()(image), mask).backward()
    for name, parameter in network.named_parameters():
        gradient = found[name]
        assert gradient is not None
        expected = torch.zeros_like(gradient) if "coarse" in name else parameter.grad
        assert expected is not None
        torch.testing.assert_close(gradient, expected)


@pytest.mark.parametrize("extra", [(), ("callbacks=[default,ema]", "trainer.precision=bf16-mixed")])
def test_trains_resumes_evaluates_and_predicts(extra: tuple[str, ...], tmp_path: Path) -> None:
    """Breaks if a verb, an average of weights or a precision cannot do with several outputs."""
    both = {name: Run(tmp_path / name, trust=["tests"]) for name in ("whole", "parts")}
    whole, parts = both.values()
    settings = ("test=true", "scheduler.T_max=2", "callbacks.panels.every_n_epochs=1", *extra)
    train(deep_config(whole.directory, *settings), whole)
    assert (whole.directory / "panels" / "epoch_002.png").is_file()
    train(deep_config(parts.directory, *settings, "trainer.max_epochs=1"), parts)
    config = parts.config
    config.resume, config.trainer.max_epochs = str(parts.directory), 2
    train(config, parts)
    ours, theirs = (torch.load(run.last_path)["state_dict"] for run in both.values())
    assert any("coarse" in name for name in ours)
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())
    given = ("at=model", "surface=false", "extremes=1", "device=cpu")
    scores = evaluate(whole, compose(*given, name="evaluate"))
    assert scores["iou"] == pytest.approx(whole.summary["test/iou"], abs=1e-6)
    predictor = Predictor.from_run(whole, "cpu")
    assert predictor.probabilities([np.zeros((40, 50, 3), np.uint8)]).shape == (1, 32, 32)


def test_train_scores_are_those_of_the_finest(tmp_path: Path) -> None:
    """Breaks if train/iou, or what a module of someone's own is given, is of a coarse output."""
    module = build_module(deep_config(tmp_path))
    assert isinstance(module, SegmentationModule)
    image = torch.randn(2, 3, 32, 32)
    finest = module(image)
    assert finest.shape == (2, 2, 32, 32)
    module.eval()
    assert torch.equal(module(image), finest)


class Difference(nn.Module):
    """One logit of each output of a network of two: the lesion's less the background's."""

    def __init__(self) -> None:
        super().__init__()
        self.network = Deep()

    def forward(self, image: Tensor) -> Tensor | list[Tensor]:
        """(B, 3, H, W) -> (B, 1, H, W), and (B, 1, H/2, W/2) in training."""
        outputs = self.network(image)
        if isinstance(outputs, Tensor):
            return outputs[:, 1:] - outputs[:, :1]
        return [logits[:, 1:] - logits[:, :1] for logits in outputs]


def test_one_logit_is_supervised_as_two_are() -> None:
    """Breaks if a sigmoid's coarse output weighs otherwise than a softmax's."""
    torch.manual_seed(0)
    one, two = Difference(), Deep()
    two.load_state_dict(one.network.state_dict())
    image, mask = torch.randn(2, 3, 8, 8), torch.randint(0, 2, (2, 8, 8))
    losses = []
    for network in (one, two):
        module = SegmentationModule(network, DiceCELoss(), torch.optim.SGD)
        losses.append(deeply_supervised(module.loss, module.outputs(image), mask, 0.5))
    torch.testing.assert_close(*losses)


@pytest.mark.parametrize("wrong", [-0.1, 1.5])
def test_a_weight_out_of_range_is_one_line(wrong: float, tmp_path: Path) -> None:
    """Breaks if coarse outputs could outweigh the finest without a word."""
    with pytest.raises(UserError, match=f"module: deep_supervision={wrong} must be from 0 to 1"):
        build_module(deep_config(tmp_path, deep_supervision=wrong))
