"""A run's network is all that inference takes of its training."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from anatosegnet.network import trained_network
from anatosegnet.prediction.inference import Predictor
from anatosegnet.run import Run

pytestmark = pytest.mark.slow


def test_a_run_whose_loss_is_gone_predicts(trained_run: Run, tmp_path: Path) -> None:
    """Breaks if loss, optimiser, schedule or callbacks are built, or asked for, to predict."""
    images = [np.full((40, 50, 3), grey, np.uint8) for grey in (0, 90, 200)]
    expected = Predictor.from_run(trained_run, "cpu").probabilities(images)
    run = Run(shutil.copytree(trained_run.directory, tmp_path / "run"))
    config = yaml.safe_load(run.config_path.read_text())
    for key in ("loss", "optimizer", "scheduler"):
        config[key] = {"_target_": "gone.from.here"}
    config["callbacks"] = {"gone": {"_target_": "gone.too"}}
    run.config_path.write_text(yaml.safe_dump(config))
    assert np.array_equal(Predictor.from_run(run, "cpu").probabilities(images), expected)


def test_the_network_has_the_weights_of_the_best_epoch(trained_run: Run) -> None:
    """Breaks if a weight is left as it was drawn, or those of another network are taken."""
    saved = torch.load(trained_run.best_path, weights_only=True)["state_dict"]
    weights = trained_network(trained_run).state_dict()
    assert weights and {f"model.{name}" for name in weights} == {*saved}
    assert all(torch.equal(tensor, saved[f"model.{name}"]) for name, tensor in weights.items())
