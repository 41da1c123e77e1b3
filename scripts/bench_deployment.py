"""Images per second of a network in PyTorch, ONNX Runtime and OpenVINO, in one process, in turn.

    python scripts/bench_deployment.py [--seconds 1.5] [--rounds 3] [--threads 1] [--size 256]

Networks of this project with random weights (their speed is that of trained ones), one image and
eight. Each engine runs for so many seconds a round, one after the other, so that whatever else the
machine does hits all of them; the median of the rounds counts. Timed is the network alone, from
prepared images to probabilities. OpenVINO is optional: pip install openvino. Prints a markdown
table: images per second, and how many times PyTorch's float32.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import hydra
import numpy as np
import torch

from anatosegnet.config.composition import config_directory
from anatosegnet.deployment.conversion import halved, quantized, to_onnx
from anatosegnet.deployment.original import LesionProbability
from anatosegnet.network import build_network
from anatosegnet.prediction.onnx import INPUT, OUTPUT, open_session
from anatosegnet.report.markdown import table_lines
from bench_attention import machine

Engine = Callable[[np.ndarray], object]
NETWORKS = {"ResNet-50": "resnet50", "EfficientNet-Lite0": "tf_efficientnet_lite0"}
BATCHES = (1, 8)
BASELINE = "PyTorch float32"


def in_torch(network: LesionProbability, dtype: torch.dtype | None) -> Engine:
    """The network as predict runs it; in autocast where there is a dtype."""

    @torch.inference_mode()
    def run(batch: np.ndarray) -> object:
        images = torch.from_numpy(batch).to(memory_format=torch.channels_last)
        with torch.autocast("cpu", dtype, enabled=dtype is not None):
            return network(images)

    return run


def in_onnxruntime(content: bytes, threads: int) -> Engine:
    """The content of an ONNX file in ONNX Runtime."""
    session = open_session(content, "the network", threads)
    return lambda batch: session.run([OUTPUT], {INPUT: batch})


def in_openvino(content: bytes, threads: int, precision: str) -> Engine:
    """The content of an ONNX file in OpenVINO, computed in a precision of its own."""
    import openvino

    core = openvino.Core()
    settings = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": precision}
    compiled = core.compile_model(core.read_model(content), "CPU", settings)
    return lambda batch: compiled(batch)


def engines(encoder: str, size: int, threads: int) -> Iterator[tuple[str, Engine]]:
    """The engines of a network, by name."""
    with hydra.initialize_config_dir(str(config_directory()), version_base="1.3"):
        given = [f"model.encoder={encoder}", "model.pretrained=false", f"data.image_size={size}"]
        config = hydra.compose("train", given)
    torch.manual_seed(0)
    network = LesionProbability(build_network(config)).eval().requires_grad_(False)
    random = np.random.default_rng(0)
    images = random.standard_normal((8, 1, 3, size, size)).astype(np.float32)
    model = to_onnx(network, torch.from_numpy(images[:2, 0]))
    network = network.to(memory_format=torch.channels_last)
    content = model.SerializeToString()
    yield BASELINE, in_torch(network, None)
    yield "PyTorch bf16", in_torch(network, torch.bfloat16)
    yield "ONNX Runtime float32", in_onnxruntime(content, threads)
    yield "ONNX Runtime fp16", in_onnxruntime(halved(model).SerializeToString(), threads)
    with tempfile.TemporaryDirectory() as folder:
        integers = quantized(model, images, Path(folder)).SerializeToString()
    yield "ONNX Runtime int8", in_onnxruntime(integers, threads)
    if find_spec("openvino"):
        yield "OpenVINO float32", in_openvino(content, threads, "f32")
        yield "OpenVINO bf16", in_openvino(content, threads, "bf16")


def rate(engine: Engine, batch: np.ndarray, seconds: float) -> float:
    """Images per second over at least so many seconds."""
    engine(batch)  # not timed: what is set up at the first call
    done, began = 0, time.perf_counter()
    while (passed := time.perf_counter() - began) < seconds:
        engine(batch)
        done += len(batch)
    return done / passed


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--seconds", type=float, default=1.5, help="of an engine in a round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--size", type=int, default=256, help="edge of the images, px")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    rows: dict[str, list[str]] = {}
    columns = ["images per second"]
    for name, encoder in NETWORKS.items():
        ready = dict(engines(encoder, given.size, given.threads))
        for count in BATCHES:
            columns.append(f"{name}, batch {count}")
            batch = np.zeros((count, 3, given.size, given.size), np.float32)
            batch += np.linspace(-1, 1, given.size, dtype=np.float32)
            rounds = [
                {label: rate(engine, batch, given.seconds) for label, engine in ready.items()}
                for _ in range(given.rounds)
            ]
            for label in ready:
                median = statistics.median(one[label] for one in rounds)
                ratio = statistics.median(one[label] / one[BASELINE] for one in rounds)
                rows.setdefault(label, []).append(f"{median:.1f} ({ratio:.2f}×)")
    print("\n".join(table_lines(columns, [[label, *cells] for label, cells in rows.items()])))
    installed = [name for name in ("torch", "onnxruntime", "openvino") if find_spec(name)]
    packages = ", ".join(f"{name} {version(name)}" for name in installed)
    print(f"\n{given.size} px, {given.threads} threads; {machine('cpu')}; {packages}")


if __name__ == "__main__":
    main()
