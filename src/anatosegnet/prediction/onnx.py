"""A network in an ONNX file, which may come from anybody, run by onnxruntime alone."""

import importlib
import json
import os
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from anatosegnet.console import plain, some
from anatosegnet.errors import UserError, reason
from anatosegnet.files.opening import read_bytes
from anatosegnet.prediction.predictor import Prediction
from anatosegnet.prediction.processing import Processing, read_processing

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto, TensorProto

METADATA = "anatosegnet"  # key of the file's metadata, whose value is JSON
FORMAT = 1  # of that JSON
INPUT, OUTPUT = "image", "probability"
LARGEST = 2**31 - 1  # bytes, as protobuf has it
MOST_MEMORY = 2**33  # bytes that networks in ONNX files take
LARGEST_METADATA = 2**20  # letters
# nodes that repeat what is in them for as long as the file says
ENDLESS = frozenset({"Loop", "Scan", "SequenceMap"})
STANDARD = ("", "ai.onnx")  # domains of the operators that onnxruntime computes itself
INSTALL = "pip install 'anatosegnet[export]'"


class OnnxPredictor:
    """A network that `export` wrote, on the CPU.

    Args:
        path: The file.
        threads: Processor threads; by default as many as this process may use.

    Raises:
        UserError: It cannot be read, was not written by `export`, or is not safe to run.
    """

    def __init__(self, path: str | Path, threads: int | None = None) -> None:
        self.path = Path(path)
        content = _read(self.path)
        self.described = checked(content, path)
        self.processing: Processing = read_processing(self.described)
        self.image_size = self.processing.image_size
        self.session = open_session(content, path, threads)
        self._require_shapes(path)

    def probabilities(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """Lesion probability (B, height, width) float32 of RGB images (H, W, 3) uint8."""
        return self.of_batch(self.processing(images))

    def predict(self, images: Sequence[np.ndarray]) -> Prediction:
        """Predict RGB images (H, W, 3) uint8 of any sizes."""
        return Prediction.of(self.probabilities(images))

    def of_batch(self, batch: np.ndarray) -> np.ndarray:
        """(B, C, h, w) float32, prepared -> (B, h, w) float32 in [0, 1], of lesion.

        Raises:
            UserError: The network fails on it, or gives something else.
        """
        try:
            (probability,) = self.session.run([OUTPUT], {INPUT: batch})
        except Exception as error:  # onnxruntime's own, of many kinds
            raise UserError(f"the network of {self.path} failed ({reason(error)})") from error
        wanted = (len(batch), *batch.shape[2:])
        if probability.shape != wanted:
            raise UserError(
                f"the network of {self.path} gives {probability.shape} instead of {wanted}"
            )
        return np.clip(probability, 0, 1)

    def _require_shapes(self, path: str | Path) -> None:
        """UserError unless the file declares the input and output that its metadata tell of."""
        wanted = {
            INPUT: [self.processing.in_channels, *self.image_size],
            OUTPUT: [*self.image_size],
        }
        told = [*self.session.get_inputs(), *self.session.get_outputs()]
        found = {one.name: (one.type, list(one.shape[1:])) for one in told}
        if found != {name: ("tensor(float)", shape) for name, shape in wanted.items()}:
            raise UserError(
                f"{path} cannot be used (its network takes and gives {plain(found)}, and its "
                f"metadata say {wanted})"
            )


def open_session(content: bytes, path: str | Path, threads: int | None = None) -> Any:
    """An onnxruntime session of a file's content, which was `checked`.

    Raises:
        UserError: onnxruntime is not installed, or refuses it.
    """
    onnxruntime = library("onnxruntime")
    limit_memory()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = threads or len(_processors())  # said, so that none is pinned
    options.add_session_config_entry("session.use_env_allocators", "1")
    try:
        # without the fallback, which prints lines of its own and tries again
        return onnxruntime.InferenceSession(
            content, options, providers=["CPUExecutionProvider"], enable_fallback=0
        )
    except Exception as error:  # onnxruntime's own, of many kinds
        raise UserError(f"{path} cannot be used ({reason(error)})") from error


@cache
def limit_memory() -> None:
    """Let all sessions of this process take no more than `MOST_MEMORY`: a file may claim any."""
    onnxruntime = library("onnxruntime")
    place = onnxruntime.OrtMemoryInfo(
        "Cpu", onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, onnxruntime.OrtMemType.DEFAULT
    )
    by_default = {"initial_chunk_size_bytes": -1, "max_dead_bytes_per_chunk": -1}
    exactly = 1  # take what is asked for, not the next power of two
    arena = {"max_mem": MOST_MEMORY, "arena_extend_strategy": exactly, **by_default}
    onnxruntime.create_and_register_allocator(place, onnxruntime.OrtArenaCfg(arena))


def checked(content: bytes, path: str | Path) -> dict[str, Any]:
    """The metadata of an ONNX file, once it is known to be safe to run.

    Standard operators without loops alone; no library of operators, no weights in other files.

    Raises:
        UserError: It is no ONNX file, not one that `export` wrote, or one that it never writes.
    """
    onnx = library("onnx")
    try:
        model = onnx.ModelProto.FromString(content)
    except Exception as error:  # protobuf's own
        raise UserError(f"{path} cannot be used (it is no ONNX file, or was cut off)") from error
    if found := list(faults(model)):
        raise UserError(f"{path} cannot be used ({some(found, 3, '; ')})")
    texts = [entry.value for entry in model.metadata_props if entry.key == METADATA]
    if len(texts) != 1:
        raise UserError(
            f"{path} does not say how its images are prepared; export a run: "
            "python -m anatosegnet.export run=DIR format=onnx out=DIR"
        )
    try:
        if len(texts[0]) > LARGEST_METADATA:
            raise ValueError("far too long")
        described = json.loads(texts[0])
        if not isinstance(described, dict) or described.get("format") != FORMAT:
            raise ValueError(f"not of format {FORMAT}")
        read_processing(described)
    except (RecursionError, UserError, ValueError) as error:
        raise UserError(f"{path}: its metadata cannot be used ({reason(error)})") from error
    return described


def faults(model: "ModelProto") -> Iterator[str]:
    """What speaks against running an ONNX model of a stranger."""
    if model.functions or model.training_info:
        yield "it holds functions or training, which export never writes"
    graphs = [model.graph]
    while graphs:
        graph = graphs.pop()
        yield from _of_tensors(graph)
        for node in graph.node:
            yield from _of_node(node)
            for attribute in node.attribute:
                graphs += [*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])]


def _of_node(node: "NodeProto") -> Iterator[str]:
    if node.domain not in STANDARD:
        yield f"its operator {plain(f'{node.domain}.{node.op_type}')} is of a library of its own"
    elif node.op_type in ENDLESS:
        yield f"it holds a {node.op_type}, which may have no end"


def _of_tensors(graph: "GraphProto") -> Iterator[str]:
    tensors: list[TensorProto] = [*graph.initializer]
    for sparse in graph.sparse_initializer:
        tensors += [sparse.values, sparse.indices]
    for node in graph.node:
        for attribute in node.attribute:
            tensors += [attribute.t, *attribute.tensors]
            for inner in [attribute.sparse_tensor, *attribute.sparse_tensors]:
                tensors += [inner.values, inner.indices]
    outside = [one.name for one in tensors if one.data_location or one.external_data]
    if outside:
        yield f"its weights lie in other files: {some([plain(name) for name in outside], 2)}"


def _read(path: Path) -> bytes:
    try:
        return read_bytes(path, LARGEST)
    except OSError as error:
        raise UserError(f"model={path} cannot be read ({reason(error)})") from error


def library(name: str) -> Any:
    """Onnx or onnxruntime; raises UserError where it is not installed."""
    # from 1.32 on it keeps an identifier of the machine in the home folder, and reports
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise UserError(f"ONNX files need {name}: {INSTALL}") from error


def _processors() -> set[int]:
    """The processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return os.sched_getaffinity(0)
    return set(range(os.cpu_count() or 1))
