"""Learning rates per epoch against hand-worked numbers."""

import pytest
import torch

from anatosegnet.config.objects import instantiate
from tests.tiny import tiny_config

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
