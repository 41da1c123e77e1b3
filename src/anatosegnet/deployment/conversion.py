"""A network as an ONNX model: in float32, in half precision, or in 8-bit integers."""

import json
import logging
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from anatosegnet.deployment.original import LesionProbability
from anatosegnet.errors import UserError, reason
from anatosegnet.prediction.onnx import INPUT, LARGEST, METADATA, OUTPUT, library

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto

# computed in 8 bits; what follows them, from logits to a probability, stays in float32
QUANTIZED = (
    "Add", "AveragePool", "Clip", "Concat", "Conv", "ConvTranspose", "Gemm", "GlobalAveragePool",
    "LeakyRelu", "MatMul", "MaxPool", "Mul", "Pad", "Relu", "Reshape", "Resize", "Sigmoid",
    "Transpose",
)  # fmt: skip


def to_onnx(network: LesionProbability, example: Tensor) -> "ModelProto":
    """The network with any number of images in a batch.

    Args:
        network: In evaluation mode.
        example: Images (B, C, h, w), at least two.

    Raises:
        UserError: A package is missing, or the network cannot be exported.
    """
    for package in ("onnx", "onnxscript"):
        library(package)
    try:
        with quiet():
            program = torch.onnx.export(
                network,
                (example,),
                dynamo=True,
                verbose=False,
                input_names=[INPUT],
                output_names=[OUTPUT],
                dynamic_shapes=({0: torch.export.Dim("batch")},),
            )
    except Exception as error:  # of the exporter, of many kinds
        raise UserError(
            f"{type(network.network).__name__} cannot be exported to ONNX ({reason(error)})"
        ) from error
    assert program is not None
    model = program.model_proto
    without_traces(model.graph)
    model.producer_name = "anatosegnet"
    if model.ByteSize() > LARGEST - 2**20:
        raise UserError("its weights have more than 2 GB, which an ONNX file cannot hold")
    return model


def without_traces(graph: "GraphProto") -> None:
    """Remove what the exporter notes of source files, which names folders of this machine."""
    for part in (graph.node, graph.value_info, graph.input, graph.output, graph.initializer):
        for entry in part:
            del entry.metadata_props[:]
            entry.doc_string = ""
    del graph.metadata_props[:]


def with_metadata(model: "ModelProto", described: dict[str, Any]) -> bytes:
    """The content of the file, with its metadata in the place of any before."""
    del model.metadata_props[:]
    entry = model.metadata_props.add()
    entry.key, entry.value = METADATA, json.dumps(described, ensure_ascii=False)
    return model.SerializeToString()


def halved(model: "ModelProto") -> "ModelProto":
    """The same network in half precision; it takes and gives float32 still."""
    from onnxruntime.transformers.float16 import convert_float_to_float16

    copy = type(model)()
    copy.CopyFrom(model)
    with quiet():  # of weights too small for half precision
        return convert_float_to_float16(copy, keep_io_types=True)


def quantized(model: "ModelProto", batches: Iterable[np.ndarray], folder: Path) -> "ModelProto":
    """The same network in 8-bit integers, weights per channel, calibrated on images.

    Args:
        model: In float32.
        batches: Prepared images (1, C, h, w), of training alone.
        folder: An empty one, for files on the way.
    """
    import onnx
    from onnxruntime import quantization
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(quantization.CalibrationDataReader):
        def __init__(self) -> None:
            self.batches = iter(batches)

        def get_next(self) -> dict[str, np.ndarray] | None:
            batch = next(self.batches, None)
            return None if batch is None else {INPUT: batch}

    given, before, after = (folder / f"{name}.onnx" for name in ("given", "before", "after"))
    onnx.save(model, given)
    with quiet():
        quant_pre_process(str(given), str(before), skip_symbolic_shape=True)
        quantization.quantize_static(
            str(before),
            str(after),
            Reader(),
            op_types_to_quantize=list(QUANTIZED),
            per_channel=True,
            reduce_range=True,  # 7 bits: processors without VNNI saturate at 8
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
        )
    return onnx.load(after)


@contextmanager
def quiet() -> Iterator[None]:
    """Without what exporters and quantizers warn of on every network."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
