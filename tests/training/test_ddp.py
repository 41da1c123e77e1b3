"""Two processes train and score like one."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from anatosegnet.data.build import build_data
from anatosegnet.data.leakage import recorded_split
from anatosegnet.files.split_table import PARTS
from anatosegnet.run import Run
from anatosegnet.train import train
from anatosegnet.training.build import build_module, build_trainer
from tests.running import compose

pytestmark = pytest.mark.slow

SETTINGS = (
    "data.count=40", "data.image_size=32", "data.num_workers=0", "optimizer.lr=1e-2",
    "trainer.max_epochs=3", "trainer.precision=32-true", "split.fractions=[0.6,0.175,0.225]",
    "scheduler=poly_step",
)  # fmt: skip


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Run]:
    """The same training in one process with batches of 8, and in two with batches of 4."""
    folder = tmp_path_factory.mktemp("ddp")
    command = [
        sys.executable, "-m", "anatosegnet.train", "--config-dir", "tests/configs", "model=deep",
        "trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2", "data.batch_size=4",
        "trainer.sync_batchnorm=false", f"run_dir={folder / 'two'}", *SETTINGS,
    ]  # fmt: skip
    root = Path(__file__).resolve().parents[2]
    result = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=root)
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stdout.count("\nmodel ") == 1, "the second process prints too"
    config = compose("trainer=cpu", "data.batch_size=8", f"run_dir={folder / 'one'}", *SETTINGS)
    config.model = OmegaConf.create({"_target_": "tests.networks.Deep"})
    one = Run(folder / "one")
    train(config, one)
    return one, Run(folder / "two", trust=["tests"])


def rows(run: Run) -> list[dict[str, str]]:
    """The rows of metrics.csv."""
    with run.metrics_path.open() as file:
        return list(csv.DictReader(file))


def test_two_processes_have_the_loss_curve_of_one(pair: tuple[Run, Run]) -> None:
    """Breaks if the processes share cases, weigh them wrongly, or do not average gradients."""
    one, two = map(rows, pair)
    assert len(one) == len(two) == 3
    for ours, theirs in zip(two, one, strict=True):
        for name in (
            "train/loss",
            "train/lr",
            "val/loss",
            "val/iou",
            "val/dice",
            "val/iou_batch_pooled",
        ):
            assert float(ours[name]) == pytest.approx(float(theirs[name]), rel=1e-4), name


def test_two_processes_score_a_checkpoint_like_one(pair: tuple[Run, Run]) -> None:
    """Breaks if an odd number of images makes one count twice, or one process's are lost."""
    two = pair[1]
    config = two.config
    config.trainer.accelerator, config.trainer.devices = "cpu", 1
    config.trainer.strategy = "auto"
    module = build_module(config)
    state = torch.load(two.best_path, weights_only=True)["state_dict"]
    module.load_state_dict(state)
    data = build_data(config, recorded_split(two, PARTS))
    build_trainer(config, module, two).test(module, datamodule=data, verbose=False)
    scores = module.scores(module.test_counts)
    assert len(scores["iou"]) == 9  # odd: two processes cannot share them evenly
    summary = json.loads(two.summary_path.read_text())
    for name, values in scores.items():
        assert summary[f"test/{name}"] == pytest.approx(float(np.mean(values)), abs=1e-6), name
    assert summary["test_conditions"]["data"] == "phantom, 9 test images"
