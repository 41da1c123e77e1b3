"""A LightningModule of someone's own, and what it logs, by settings alone."""

from pathlib import Path
from typing import Any

import lightning
import pytest
from omegaconf import OmegaConf
from torch import Tensor, nn

from anatosegnet.errors import UserError
from anatosegnet.run import Run
from anatosegnet.train import train
from anatosegnet.training.module import SegmentationModule
from tests.running import compose_tiny

HERE = "tests.training.test_module"


class Weighted(SegmentationModule):
    """Logs a number of its own; has a setting of its own."""

    def __init__(self, weight: float = 1.0, **parts: Any) -> None:
        super().__init__(**parts)
        self.weight = weight

    def training_step(self, batch: dict[str, Any], batch_index: int) -> Tensor:
        """The loss, weighted."""
        return self.weight * super().training_step(batch, batch_index)

    def on_validation_epoch_end(self) -> None:
        """Log what falls from epoch to epoch."""
        super().on_validation_epoch_end()
        self.log("val/age", 10.0 - self.current_epoch)


class Bare(lightning.LightningModule):
    """Nothing of this package: its own loss, step, schedule and score."""

    def __init__(self, model: nn.Module, optimizer: Any) -> None:
        super().__init__()
        self.model, self.optimizer = model, optimizer

    def forward(self, image: Tensor) -> Tensor:
        """Images -> logits."""
        return self.model(image)

    def training_step(self, batch: dict[str, Any], batch_index: int) -> Tensor:
        """Cross-entropy."""
        return nn.functional.cross_entropy(self(batch["image"]), batch["mask"])

    def validation_step(self, batch: dict[str, Any], batch_index: int) -> None:
        """Cross-entropy, under a name that this package does not know."""
        self.log("val/entropy", self.training_step(batch, batch_index))

    def test_step(self, batch: dict[str, Any], batch_index: int) -> None:
        """The same."""
        self.log("test/entropy", self.training_step(batch, batch_index))

    def configure_optimizers(self) -> Any:
        """Two lists, as Lightning takes them too."""
        return [self.optimizer(self.parameters())], []


class NoNetwork(Bare):
    """Keeps its network elsewhere."""

    def __init__(self, model: nn.Module, optimizer: Any) -> None:
        super().__init__(model, optimizer)
        self.network, self.model = model, None  # type: ignore[assignment]


def with_module(directory: Path, name: str, *overrides: str, **settings: Any) -> Any:
    """A tiny training of two epochs with a module of this file."""
    config = compose_tiny(directory, "trainer.max_epochs=2", *overrides)
    config.module = OmegaConf.create({"_target_": f"{HERE}.{name}", **settings})
    return config


def test_a_derived_module_with_a_monitor_of_its_own(tmp_path: Path) -> None:
    """Breaks if a module's own setting, or what it alone logs, cannot be used."""
    run = Run(tmp_path / "run")
    own = ("callbacks.best.monitor=val/age", "callbacks.best.mode=min", "test=true")
    summary = train(with_module(run.directory, "Weighted", *own, weight=0.5), run)
    assert summary["val/age"] == 9 and summary["best_epoch"] == 2
    assert summary["test/iou"] >= 0 and "val/age" in run.metrics_path.read_text()
    assert run.config.module.weight == 0.5


def test_a_bare_module_trains_tests_and_goes_on(tmp_path: Path) -> None:
    """Breaks if a module needs more than a network: a loss, scores, a memory format."""
    run = Run(tmp_path / "run", trust=["tests"])
    own = ("callbacks.best.monitor=val/entropy", "callbacks.best.mode=min", "test=true")
    summary = train(with_module(run.directory, "Bare", *own), run)
    assert summary["test/entropy"] > 0 and "test/iou" not in summary
    assert summary["val/entropy"] > 0
    config = run.config
    config.resume, config.trainer.max_epochs = str(run.directory), 3
    assert train(config, run)["epochs"] == 3


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("NoNetwork", "module: NoNetwork keeps no network in self.model"),
        ("with_module", "module: "),
        ("nothing", "module: "),
    ],
)
def test_what_is_no_module_is_one_line(name: str, message: str, tmp_path: Path) -> None:
    """Breaks if it is found out after the run directory was made."""
    run = Run(tmp_path / "run")
    with pytest.raises(UserError, match=message) as caught:
        train(with_module(run.directory, name), run)
    assert "\n" not in str(caught.value)
    assert not run.directory.exists()


def test_a_package_that_is_not_found_names_the_way_out(tmp_path: Path) -> None:
    """Breaks if somebody's own package, out of Python's sight, ends in a riddle."""
    run = Run(tmp_path / "run")
    config = with_module(run.directory, "Bare")
    config.module._target_ = "mylab_of_nobody.Module"
    with pytest.raises(UserError, match=r"No module named 'mylab_of_nobody'.*PYTHONPATH.*pip"):
        train(config, run)


def test_a_monitor_that_is_never_logged_is_one_line(tmp_path: Path) -> None:
    """Breaks if a wrong monitor is not named with what there is."""
    run = Run(tmp_path / "run")
    own = ("callbacks.best.monitor=val/nothing", "callbacks.best.mode=min")
    with pytest.raises(UserError, match=r"callbacks\.best: monitor=val/nothing .* val/entropy"):
        train(with_module(run.directory, "Bare", *own), run)
