"""Learning rates against hand-worked numbers."""

from pathlib import Path
from typing import Any

import lightning
import pytest
import torch

from anatosegnet.config.objects import instantiate
from anatosegnet.errors import UserError
from tests.tiny import fit, tiny_config, tiny_data, tiny_module

pytestmark = pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")
HAND = {
    # 4 epochs, full rate 1
    "constant": [1, 1, 1, 1],
    "step": [1, 1, 0.1, 0.1],  # step_size=2
    "poly": [1, 0.77189, 0.535887, 0.287175],  # (1 - e/4)^0.9
    "cosine": [1, 0.853553, 0.5, 0.146447],  # (1 + cos(πe/4)) / 2
    "cosine_warmup": [0.5, 1, 0.75, 0.25],  # warmup=1: 1/2, then (1 + cos(π(e-1)/3)) / 2
}


@pytest.mark.parametrize("name", HAND)
def test_rates(name: str) -> None:
    """Breaks if a schedule starts, ends, or steps elsewhere than its formula says."""
    extra = {"step": ["scheduler.step_size=2"], "cosine_warmup": ["scheduler.warmup=1"]}
    config = tiny_config(f"scheduler={name}", *extra.get(name, []))
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = instantiate(config, "scheduler")(optimizer) if config.scheduler else None
    rates = []
    for _ in range(4):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if scheduler is not None:
            scheduler.step()
    assert rates == pytest.approx(HAND[name], abs=2e-6)


def test_no_warmup_is_cosine() -> None:
    """Breaks if warmup=0 is refused or shifts the cosine."""
    rates = []
    for settings in (["scheduler=cosine"], ["scheduler=cosine_warmup", "scheduler.warmup=0"]):
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
        scheduler = instantiate(tiny_config(*settings), "scheduler")(optimizer)
        optimizer.step()
        scheduler.step()
        rates.append(optimizer.param_groups[0]["lr"])
    assert rates[0] == rates[1] < 1


class Rates(lightning.Callback):
    """Keeps the rate that each batch is trained with."""

    def __init__(self) -> None:
        self.rates: list[float] = []

    def on_train_batch_start(self, trainer: lightning.Trainer, *_: Any) -> None:
        """Called before each batch."""
        self.rates.append(trainer.optimizers[0].param_groups[0]["lr"])


def rates_of(directory: Path, batch_size: int, epochs: int = 2, **settings: Any) -> list[float]:
    """The rates of all batches of a training on seven phantoms, of full rate 1."""
    rates, data = Rates(), tiny_data(f"data.batch_size={batch_size}")
    module = tiny_module("scheduler=poly_step", "scheduler.epochs=2", "optimizer.lr=1.0")
    fit(module, data, directory, epochs, [rates], **settings)
    return rates.rates


def test_poly_by_step(tmp_path: Path) -> None:
    """Breaks if the rate is not (1 - i/I)^0.9 after step i, or steps amid accumulated batches."""
    whole = [(1 - i / 8) ** 0.9 for i in range(8)]  # 4 batches an epoch, the last one of one image
    assert rates_of(tmp_path / "whole", 2) == pytest.approx(whole, rel=1e-12)
    accumulated = [rate for rate in whole[::2] for _ in range(2)]
    rates = rates_of(tmp_path / "accumulated", 2, accumulate_grad_batches=2)
    assert rates == pytest.approx(accumulated, rel=1e-12)
    limited = [(1 - i / 4) ** 0.9 for i in range(4)]
    rates = rates_of(tmp_path / "limited", 2, limit_train_batches=2)
    assert rates == pytest.approx(limited, rel=1e-12)


def test_poly_by_step_goes_on_at_the_rate_of_its_epoch(tmp_path: Path) -> None:
    """Breaks if other batches after resuming, or more epochs, shift the rate or make it rise."""
    rates_of(tmp_path, 2, epochs=1)
    goes_on = rates_of(tmp_path, 1, epochs=3, resume=tmp_path / "last.ckpt")
    left = [(1 - i / 14) ** 0.9 for i in range(7, 14)]  # 7 batches an epoch now
    assert goes_on == pytest.approx([*left, *[0.0] * 7], rel=1e-12)


def test_poly_by_step_asks_to_be_told() -> None:
    """Breaks if a module that steps it without a word trains at a rate that never falls."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = instantiate(tiny_config("scheduler=poly_step"), "scheduler")(optimizer)
    optimizer.step()
    with pytest.raises(UserError, match="epochs_done"):
        scheduler.step()
