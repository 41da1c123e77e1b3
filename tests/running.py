"""A small run shared by the tests of train, evaluate and predict (a pytest plugin)."""

import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import hydra
import pytest
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from anatosegnet.config.composition import config_directory
from anatosegnet.run import Run
from anatosegnet.train import train

SMALL = (
    "model.encoder=mobilenetv3_small_050",
    "model.pretrained=false",
    "data.count=20",
    "data.image_size=64",
    "data.batch_size=4",
    "data.num_workers=0",
    "trainer=cpu",
    "trainer.max_epochs=3",
)


def compose(*overrides: str, name: str = "train") -> DictConfig:
    """Compose a config as the command line would."""
    with hydra.initialize_config_dir(str(config_directory()), version_base="1.3"):
        return hydra.compose(name, list(overrides))


def compose_small(directory: Path, *overrides: str) -> DictConfig:
    """A training of seconds on 20 phantoms of 64 px; later overrides win."""
    given = {override.split("=")[0] for override in overrides}
    phantom = not any(override.startswith("data=") for override in overrides)
    small = [
        override
        for override in SMALL
        if override.split("=")[0] not in given and (phantom or "count" not in override)
    ]
    return compose(*small, *overrides, f"run_dir={directory}")


def compose_tiny(directory: Path, *overrides: str) -> DictConfig:
    """A training of a second: a network of two layers on 24 phantoms of 32 px."""
    config = compose(
        "data.count=24",
        "data.image_size=32",
        "data.batch_size=4",
        "data.num_workers=0",
        "trainer=cpu",
        "trainer.max_epochs=4",
        "test=false",
        f"run_dir={directory}",
        *overrides,
    )
    config.model = OmegaConf.create({"_target_": "tests.networks.Tiny"})
    return config


def heed_ctrl_c() -> None:
    """For a process to be started: shells make what they run in the background ignore Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def wait_for(condition: Callable[[], Any], seconds: float = 60) -> None:
    """Return when something has come true; fail where it does not."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)


@pytest.fixture(scope="session")
def trained_run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A finished run of three epochs; read only."""
    run = Run(tmp_path_factory.mktemp("trained") / "run")
    train(compose_small(run.directory), run)
    return run


@pytest.fixture
def in_hydra_job(
    tmp_path: Path,
) -> Callable[[DictConfig, Sequence[str], Callable[..., Any]], Any]:
    """Calls ``function(config, output)`` as hydra would: with its own config set."""

    def call(config: DictConfig, overrides: Sequence[str], function: Callable[..., Any]) -> Any:
        with hydra.initialize_config_dir(str(config_directory()), version_base="1.3"):
            whole = hydra.compose("train", list(overrides), return_hydra_config=True)
            given = any(override.startswith("run_dir=") for override in overrides)
            output = Path(config.run_dir) if given else tmp_path / "output"
            whole.hydra.runtime.output_dir = str(output)
            HydraConfig.instance().set_config(whole)
            try:
                return function(config, output)
            finally:
                HydraConfig.instance().cfg = None

    return call
