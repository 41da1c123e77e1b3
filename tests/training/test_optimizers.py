"""A rate of its own for the encoder."""

from pathlib import Path

import pytest
import torch
from omegaconf import open_dict

from anatosegnet.errors import UserError
from anatosegnet.training.build import build_module
from tests.running import compose_small, compose_tiny


def test_encoder_has_a_part_of_the_rate_and_the_schedule(tmp_path: Path) -> None:
    """Breaks if a parameter is left out or in the wrong group, or a group misses the schedule."""
    config = compose_small(
        tmp_path, "optimizer.lr=0.01", "optimizer.encoder_lr_factor=0.1", "scheduler=cosine_warmup",
        "scheduler.warmup=1",
    )  # fmt: skip
    module = build_module(config)
    made = module.configure_optimizers()
    rest, encoder = made["optimizer"].param_groups
    assert (rest["lr"], encoder["lr"]) == pytest.approx((0.005, 0.0005))
    assert {*map(id, encoder["params"])} == {*map(id, module.model.encoder.parameters())}
    assert len(rest["params"]) + len(encoder["params"]) == len(list(module.parameters()))
    made["optimizer"].step()
    made["lr_scheduler"].step()
    assert (rest["lr"], encoder["lr"]) == pytest.approx((0.01, 0.001))


def test_without_a_factor_there_is_one_group(tmp_path: Path) -> None:
    """Breaks if a run of before this setting would not go on with its optimiser's state."""
    config = compose_tiny(tmp_path)
    today, before = config.copy(), config
    with open_dict(before):
        del before.optimizer.encoder_lr_factor
    for settings in (today, before):
        optimizer: torch.optim.Optimizer = build_module(settings).configure_optimizers()[
            "optimizer"
        ]
        assert len(optimizer.param_groups) == 1
        assert "encoder_lr_factor" not in optimizer.defaults


@pytest.mark.parametrize(
    ("factor", "message"),
    [("0", "above 0"), ("2", "at most 1"), ("slow", "above 0"), ("0.1", "Tiny has no part named")],
)
def test_refusals(factor: str, message: str, tmp_path: Path) -> None:
    """Breaks if a factor that means nothing is a traceback, or trains something else."""
    config = compose_tiny(tmp_path, f"optimizer.encoder_lr_factor={factor}")
    with pytest.raises(UserError, match=message):
        build_module(config)
