"""Starting from the weights of another run."""

import csv
from pathlib import Path

import pytest
import torch
from torch import nn

from anatosegnet.data.checksum import sha256
from anatosegnet.data.recorded_split import write_split
from anatosegnet.errors import UserError
from anatosegnet.run import Run
from anatosegnet.train import train
from anatosegnet.training.transfer import load_weights, origin_of
from tests.running import compose_small
from tests.tiny import tiny_config, tiny_data, tiny_module


def saved(directory: Path, module: nn.Module) -> Run:
    """A run with nothing but best.ckpt, of epoch 3."""
    run = Run(directory)
    run.best_path.parent.mkdir(parents=True)
    torch.save({"state_dict": module.state_dict(), "epoch": 2}, run.best_path)
    return run


def shifted() -> nn.Module:
    """The tiny module with every number raised by one."""
    module = tiny_module()
    module.load_state_dict({name: tensor + 1 for name, tensor in module.state_dict().items()})
    return module


def test_all_of_it_where_all_fits(tmp_path: Path) -> None:
    """Breaks if a tensor is left out, or the checkpoint is not named by its content."""
    run, module = saved(tmp_path, shifted()), tiny_module()
    transfer = load_weights(module, run)
    for name, tensor in shifted().state_dict().items():
        assert torch.equal(module.state_dict()[name], tensor), name
    assert transfer.loaded == transfer.parameters == 3 * 4 * 9 + 4 + 8 + 4 * 2 + 2
    assert transfer.summary["checkpoint_sha256"] == sha256(run.best_path)
    assert transfer.text == f"init   {tmp_path.resolve()}, epoch 3: 130 of 130 parameters"


def test_what_does_not_fit_is_named_and_left_alone(tmp_path: Path) -> None:
    """Breaks if another number of classes or channels stops the rest, or goes unsaid."""
    run, module = saved(tmp_path, shifted()), tiny_module()
    assert isinstance(module.model, nn.Sequential)
    module.model[4] = nn.Conv2d(4, 3, 1)  # three classes
    module.model.append(nn.Conv2d(3, 3, 1))
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    transfer = load_weights(module, run)
    assert transfer.other_shape == (
        "model.4.weight: 2×4×1×1 -> 3×4×1×1", "model.4.bias: 2 -> 3",
    )  # fmt: skip
    assert transfer.missing == ("model.5.weight", "model.5.bias")
    assert transfer.unused == ()
    assert transfer.loaded == 3 * 4 * 9 + 4 + 8
    after = module.state_dict()
    for name in before:
        kept = name.startswith(("model.4", "model.5"))
        assert torch.equal(after[name], before[name]) == kept, name
    assert "2 tensors another shape: model.4.weight" in transfer.text
    assert "2 tensors not in that run: model.5.weight" in transfer.text


def test_nothing_fits_or_nothing_there(tmp_path: Path) -> None:
    """Breaks if training starts from random weights though another run was asked for."""
    run = saved(tmp_path / "other", nn.Linear(2, 2))
    with pytest.raises(UserError, match=r"^init_from: no weight of .* fits this network"):
        load_weights(tiny_module(), run)
    run.best_path.write_bytes(b"cut")
    with pytest.raises(UserError, match=r"best.ckpt cannot be used .*from_run="):
        load_weights(tiny_module(), run)
    with pytest.raises(UserError, match=r"has no best.ckpt"):
        load_weights(tiny_module(), Run(tmp_path))
    config = tiny_config()
    assert origin_of(config) is None
    config.init_from = str(tmp_path)
    with pytest.raises(UserError, match=r"is no run directory"):
        origin_of(config)


def test_test_cases_seen_before_are_named(tmp_path: Path) -> None:
    """Breaks if pre-training on the test cases goes unsaid, at once or over a further run."""
    data = tiny_data().prepared
    first, second = saved(tmp_path / "first", tiny_module()), saved(tmp_path / "2", tiny_module())
    write_split(first.split_path, data.split, data.cases.values(), data.digests)
    assert load_weights(tiny_module(), first, data).seen == ()
    rows = list(csv.DictReader(first.split_path.open()))
    with first.split_path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        for row in rows:  # another split: what tests here trained there
            part = {"train": "test", "test": "train"}.get(row["part"], row["part"])
            writer.writerow({**row, "part": part, "id": "other " + row["id"]})
    transfer = load_weights(tiny_module(), first, data)
    assert transfer.seen == data.split.test
    assert "NOT A TEST SCORE: 2 of the test images" in transfer.text
    second.update_summary({"init_from": transfer.summary})
    assert load_weights(tiny_module(), second, data).seen == data.split.test


@pytest.mark.slow
def test_a_run_that_starts_from_another(trained_run: Run, tmp_path: Path) -> None:
    """Breaks if ImageNet weights are fetched all the same, or the summary does not say it.

    Or if the score that chose the epoch goes by another score's name.
    """
    run = Run(tmp_path / "run")
    settings = [f"init_from={trained_run.directory}", "model.pretrained=true", "optimizer.lr=0"]
    chosen = "callbacks.best.monitor=val/iou_batch_pooled"  # as in the benchmark's protocol
    train(compose_small(run.directory, *settings, chosen, "trainer.max_epochs=1"), run)
    noted = run.summary["init_from"]
    assert noted["checkpoint_sha256"] == sha256(trained_run.best_path)
    assert noted["parameters_loaded"] == noted["parameters"] > 500_000
    assert noted["test_cases_seen"] == []
    ours, theirs = (
        torch.load(one.best_path, weights_only=True)["state_dict"] for one in (run, trained_run)
    )
    assert torch.equal(ours["model.decoder.head.weight"], theirs["model.decoder.head.weight"])
    assert {"val/iou_batch_pooled", "test/iou_batch_pooled", "val/iou"} <= set(run.summary)
    assert run.curves_path.is_file()
    assert (run.directory / "panels" / "epoch_001.png").is_file()
