"""A run's network is all that inference takes of its training."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from omegaconf import DictConfig

from anatosegnet.errors import UserError
from anatosegnet.network import trained_network
from anatosegnet.prediction.inference import Predictor
from anatosegnet.prediction.opening import open_predictor, seen
from anatosegnet.run import Run
from tests.running import compose

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


def test_runs_named_together_are_one_predictor(trained_run: Run, tmp_path: Path) -> None:
    """Breaks if a single run's numbers change, views of it are not taken, or a member is lost."""
    other = shutil.copytree(trained_run.directory, tmp_path / "other")
    images = [np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)]
    alone = Predictor.from_run(trained_run, "cpu").probabilities(images)

    def asked(*overrides: str) -> DictConfig:
        return compose("device=cpu", *overrides, name="predict")

    one = open_predictor(asked(f"run={trained_run.directory}"))
    assert np.array_equal(one.predict(images).probability, alone)
    both = open_predictor(asked(f"run=[{trained_run.directory},{other}]")).predict(images)
    assert np.array_equal(both.probability, alone)
    assert both.mutual_information is not None and not both.mutual_information.any()
    views = open_predictor(asked(f"run={other}", "tta=[flip,scales]"))
    assert views.image_size == (96, 96) and views.predict(images).probability.shape == (1, 96, 96)
    with pytest.raises(UserError, match="is named twice"):
        open_predictor(asked(f"run=[{other},{other}]"))
    with pytest.raises(UserError, match="say which run: run=DIR"):
        open_predictor(asked("run=[]"))


def test_a_network_that_cannot_see_a_scale_says_so(trained_run: Run) -> None:
    """Breaks if ``tta=scales`` ends in a traceback, or in the middle of the images."""

    class OneSize(torch.nn.Module):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            assert image.shape[-1] == 64, "input must be 64×64"
            return image[:, :2]

    fixed = Predictor(OneSize(), (64, 64))
    with pytest.raises(UserError, match=r"tta=scales: OneSize cannot see images of 32×32 px \(.*"):
        seen(fixed, ["scales"])
