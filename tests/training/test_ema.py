"""Averaged weights: their formula, what is validated, saved and resumed."""

from pathlib import Path
from typing import Any

import lightning
import pytest
import torch

from anatosegnet.data.datamodule import SegmentationDataModule
from anatosegnet.training.ema import EMA
from tests.tiny import fit, tiny_data, tiny_module

pytestmark = pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")
RATE = "optimizer.lr=0.05"  # steps so large that averaged and other weights differ


@pytest.fixture(scope="module")
def data() -> SegmentationDataModule:
    """Ten phantoms."""
    return tiny_data()


class Steps(lightning.Callback):
    """Keeps all weights and buffers after every step."""

    def __init__(self) -> None:
        self.states: list[dict[str, torch.Tensor]] = []

    def on_train_batch_end(self, _: Any, module: lightning.LightningModule, *args: Any) -> None:
        self.states.append({name: t.clone() for name, t in module.state_dict().items()})


def test_saved_weights_are_the_average(data: SegmentationDataModule, tmp_path: Path) -> None:
    """Breaks if best.ckpt holds the weights of the last step, or BatchNorm's are left out."""
    steps = Steps()
    fit(tiny_module(RATE), data, tmp_path, callbacks=[EMA(decay=0.4), steps])
    expected = {name: tensor.double() for name, tensor in steps.states[0].items()}
    for count, state in enumerate(steps.states[1:], start=1):
        decay = min(0.4, (1 + count) / (10 + count))
        for name, tensor in state.items():
            expected[name] = decay * expected[name] + (1 - decay) * tensor.double()
    assert len(steps.states) == 8
    saved = [torch.load(tmp_path / f"{name}.ckpt", weights_only=True) for name in ("best", "last")]
    for checkpoint in saved:
        for name, tensor in checkpoint["state_dict"].items():
            if tensor.is_floating_point():
                torch.testing.assert_close(tensor.double(), expected[name], rtol=1e-5, atol=1e-6)
        counter = checkpoint["state_dict"]["model.1.num_batches_tracked"]
        assert counter == steps.states[-1]["model.1.num_batches_tracked"]
    assert "optimizer_states" not in saved[0]
    current, last = saved[1]["current_model_state"], steps.states[-1]
    assert all(torch.equal(current[name], last[name]) for name in last)
    assert not torch.equal(current["model.0.weight"], saved[1]["state_dict"]["model.0.weight"])


def test_the_averaged_weights_are_validated_and_tested(
    data: SegmentationDataModule, tmp_path: Path
) -> None:
    """Breaks if val/iou belongs to other weights than best.ckpt, or the test to neither."""
    trainer = fit(tiny_module(RATE), data, tmp_path, callbacks=[EMA(decay=0.9)])
    validated = float(trainer.callback_metrics["val/loss"])
    plain = tiny_module(RATE)
    state = torch.load(tmp_path / "best.ckpt", weights_only=True)["state_dict"]
    plain.load_state_dict(state)
    alone = lightning.Trainer(accelerator="cpu", logger=False, enable_progress_bar=False)
    alone.validate(plain, datamodule=data, verbose=False)
    assert float(alone.callback_metrics["val/loss"]) == pytest.approx(validated, rel=1e-6)
    alone.test(plain, datamodule=data, verbose=False)
    expected = float(alone.callback_metrics["test/loss"])
    module = trainer.lightning_module
    for name in ("best", "last"):
        trainer.test(
            module, data, ckpt_path=tmp_path / f"{name}.ckpt", verbose=False, weights_only=True
        )
        assert float(trainer.callback_metrics["test/loss"]) == pytest.approx(expected, rel=1e-6)


def test_resume_is_bit_identical(data: SegmentationDataModule, tmp_path: Path) -> None:
    """Breaks if the average, its count, or the weights beside it start anew."""
    fit(tiny_module(RATE), data, tmp_path / "whole", callbacks=[EMA()])
    fit(tiny_module(RATE), data, tmp_path / "parts", epochs=2, callbacks=[EMA()])
    last = tmp_path / "parts" / "last.ckpt"
    fit(tiny_module(RATE), data, tmp_path / "parts", callbacks=[EMA()], resume=last)
    ours, theirs = (
        torch.load(tmp_path / part / "last.ckpt", weights_only=True) for part in ("whole", "parts")
    )
    assert ours["averaging_state"]["n_averaged"] == theirs["averaging_state"]["n_averaged"] == 8
    for key in ("state_dict", "current_model_state"):
        for name, tensor in ours[key].items():
            assert torch.equal(tensor, theirs[key][name]), (key, name)


def test_training_itself_is_untouched(data: SegmentationDataModule, tmp_path: Path) -> None:
    """Breaks if averaging feeds back into the weights that are trained."""
    plain, averaged = tiny_module(RATE), tiny_module(RATE)
    fit(plain, data, tmp_path / "plain")
    fit(averaged, data, tmp_path / "ema", callbacks=[EMA()])
    current = torch.load(tmp_path / "ema" / "last.ckpt", weights_only=True)["current_model_state"]
    for name, tensor in plain.state_dict().items():
        assert torch.equal(tensor, current[name]), name


def test_decay_must_leave_something_to_learn() -> None:
    """Breaks if weights that never move are accepted."""
    with pytest.raises(ValueError, match="decay=1"):
        EMA(decay=1)
