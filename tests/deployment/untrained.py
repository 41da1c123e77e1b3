"""A run that was never trained, in no time: its files, with weights as they are drawn."""

from pathlib import Path

import torch
from omegaconf import OmegaConf

from anatosegnet.data.build import build_data
from anatosegnet.data.recorded_split import write_split
from anatosegnet.network import build_network
from anatosegnet.run import Run
from tests.running import compose

NETWORK = {
    "_target_": "torch.nn.Conv2d",
    "in_channels": 3,
    "out_channels": 2,
    "kernel_size": 3,
    "padding": 1,
}


def untrained_run(directory: Path, *overrides: str, **network: object) -> Run:
    """A run of a small network on a dozen phantoms of 32 px.

    Args:
        directory: The run's.
        overrides: Of the training's config.
        network: Settings in the place of those of `NETWORK`.
    """
    small = ("data.count=12", "data.image_size=32", "data.cache=off", "data.duplicates=keep")
    config = compose(*small, "trainer=cpu", *overrides, f"run_dir={directory}")
    config.model = OmegaConf.create({**NETWORK, **network})
    run = Run(directory)
    directory.mkdir()
    run.write_config(config)
    data = build_data(config).prepared
    write_split(run.split_path, data.split, data.cases.values(), data.digests, data.duplicates)
    torch.manual_seed(1)
    weights = build_network(config, pretrained=False).state_dict()
    run.best_path.parent.mkdir()
    checkpoint = {"state_dict": {f"model.{name}": tensor for name, tensor in weights.items()}}
    torch.save({**checkpoint, "epoch": 2}, run.best_path)
    run.update_summary(
        {
            "state": "finished",
            "directory": str(directory),
            "best_epoch": 3,
            "split_description": "holdout of phantoms",
            "split_fingerprint": data.split.fingerprint,
            "leakage": "no image has a near-duplicate in another part",
            "test/iou": 0.25,
            "test/dice": 0.4,
            "test_conditions": {"data": "phantom", "aggregation": "per image"},
        }
    )
    return run
