"""Exported networks to be damaged: an ONNX file, and the weights of a package."""

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from fuzzing.ground import Sandbox

Change = Callable[[bytes, random.Random], bytes]  # of JSON


def onnx_file() -> bytes:
    """A network of one layer on images of 32 px, as export writes it."""
    from anatosegnet.deployment.conversion import to_onnx, with_metadata
    from anatosegnet.deployment.original import LesionProbability
    from anatosegnet.prediction.processing import Processing

    torch.manual_seed(0)
    network = LesionProbability(torch.nn.Conv2d(3, 2, 1)).eval().requires_grad_(False)
    model = to_onnx(network, torch.linspace(-1, 1, 6144).reshape(2, 3, 32, 32))
    return with_metadata(model, {"format": 1, **Processing((32, 32)).described})


def packed_weights() -> bytes:
    """The weights of the network that the runs here have."""
    from safetensors.torch import save

    torch.manual_seed(0)
    described = {"anatosegnet": json.dumps({"provenance": {"best_epoch": 3}})}
    return save(torch.nn.Conv2d(3, 2, 1).state_dict(), described)


def read_onnx(path: Path, _: Sandbox) -> None:
    """As predict model=FILE.onnx does."""
    from anatosegnet.prediction.onnx import OnnxPredictor

    OnnxPredictor(path, threads=1).predict([np.zeros((40, 50, 3), np.uint8)])


def read_package(path: Path, box: Sandbox) -> None:
    """As predict run=PACKAGE does."""
    from anatosegnet.prediction.inference import Predictor
    from anatosegnet.run import Run

    shutil.copy(box.run / "config.yaml", path.parent)
    image = np.zeros((40, 50, 3), np.uint8)
    Predictor.from_run(Run(path.parent), "cpu").predict([image])


def in_metadata(change: Change) -> Change:
    """A change of JSON in the metadata of an ONNX file."""

    def changed(data: bytes, generator: random.Random) -> bytes:
        import onnx

        model = onnx.ModelProto.FromString(data)
        text = model.metadata_props[0].value.encode()
        model.metadata_props[0].value = change(text, generator).decode(errors="replace")
        return model.SerializeToString()

    return changed


def in_header(change: Change) -> Change:
    """A change of JSON in the header of a safetensors file, whose length is put right."""

    def changed(data: bytes, generator: random.Random) -> bytes:
        end = 8 + int.from_bytes(data[:8], "little")
        header = change(data[8:end], generator)
        return len(header).to_bytes(8, "little") + header + data[end:]

    return changed


def change_network(data: bytes, generator: random.Random) -> bytes:
    """An operator, a domain, an input or the shape of a tensor of an ONNX file is another."""
    import onnx

    model = onnx.ModelProto.FromString(data)
    node = generator.choice(model.graph.node)
    what = generator.randrange(5)
    if what == 0:
        node.op_type = generator.choice(["Loop", "If", "Tile", "Expand", "Resize", "Conv", "X"])
    elif what == 1:
        node.domain = generator.choice(["com.microsoft", "ai.onnx.ml", "evil", "ai.onnx"])
    elif what == 2:
        node.input[0] = generator.choice(["", "image", "nowhere", node.output[0]])
    elif what == 3:
        tensor = generator.choice(model.graph.initializer)
        tensor.dims.append(generator.choice([0, 2, 2**31, 2**62, -1]))
    else:
        shape = model.graph.input[0].type.tensor_type.shape
        generator.choice(shape.dim).dim_value = generator.choice([0, 1, 64, 2**40])
    return model.SerializeToString()
