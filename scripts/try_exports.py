"""Export every network to ONNX, from random weights, and compare it on batches of several sizes.

    python scripts/try_exports.py [--size 128] [NAME …]

NAME: as in ``model=NAME``; default: all. A line each; exit status 1 if one cannot be exported,
holds what `predict` refuses, or differs by more than the tolerance of `export`.
"""

import argparse
import sys
from collections.abc import Iterator

import hydra
import numpy as np
import torch

from anatosegnet.config.composition import choices_of, config_directory
from anatosegnet.deployment.agreement import TOLERANCE, difference
from anatosegnet.deployment.conversion import to_onnx
from anatosegnet.deployment.original import LesionProbability
from anatosegnet.errors import UserError
from anatosegnet.network import build_network
from anatosegnet.prediction.onnx import INPUT, OUTPUT, faults, open_session

BATCHES = (1, 2, 5)  # exported with two


def tried(name: str, size: int) -> Iterator[float]:
    """The largest difference of a probability, on a batch of each size."""
    with hydra.initialize_config_dir(str(config_directory()), version_base="1.3"):
        config = hydra.compose("train", [f"model={name}", f"data.image_size={size}"])
    torch.manual_seed(0)
    network = LesionProbability(build_network(config, pretrained=False).requires_grad_(False))
    network.eval()
    shape = (config.data.in_channels, size, size)
    model = to_onnx(network, torch.randn(2, *shape))
    if found := list(faults(model)):
        raise UserError("; ".join(found))
    session = open_session(model.SerializeToString(), name)

    def in_torch(batch: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return network(torch.from_numpy(batch)).numpy()

    def in_onnxruntime(batch: np.ndarray) -> np.ndarray:
        return session.run([OUTPUT], {INPUT: batch})[0]

    for count in BATCHES:
        images = torch.randn(count, *shape)
        yield float(difference(in_torch, in_onnxruntime, images.numpy()).max())


def main() -> None:
    """Try them all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*")
    parser.add_argument("--size", type=int, default=128)
    given = parser.parse_args()
    failed = False
    for name in given.names or choices_of("model"):
        try:
            largest = max(tried(name, given.size))
            text = f"largest difference {largest:.1g}"
            failed |= not largest <= TOLERANCE["float32"]
        except UserError as error:
            text, failed = str(error), True
        print(f"{name:22} {text}", flush=True)
    sys.exit(failed)


if __name__ == "__main__":
    main()
