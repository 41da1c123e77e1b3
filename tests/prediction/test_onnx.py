"""An ONNX file of a stranger: what is refused, each in one line, before anything of it runs."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from anatosegnet.errors import UserError
from anatosegnet.prediction.onnx import METADATA, OnnxPredictor
from anatosegnet.prediction.opening import open_predictor
from anatosegnet.prediction.processing import Processing
from tests.running import compose

SOUND = {"format": 1, **Processing((32, 32)).described}


def model(*nodes: onnx.NodeProto, **described: Any) -> onnx.ModelProto:
    """Images (B, 3, 32, 32) to their mean over the channels, and what else is given."""
    graph = helper.make_graph(
        [helper.make_node("ReduceMean", ["image"], ["probability"], axes=[1], keepdims=0), *nodes],
        "network",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 3, 32, 32])],
        [helper.make_tensor_value_info("probability", TensorProto.FLOAT, ["batch", 32, 32])],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    helper.set_model_props(made, {METADATA: json.dumps({**SOUND, **described})})
    return made


def written(folder: Path, made: onnx.ModelProto | bytes) -> Path:
    """The file of a model."""
    path = folder / "net.onnx"
    path.write_bytes(made if isinstance(made, bytes) else made.SerializeToString())
    return path


def refused(path: Path) -> str:
    """The one line with which a file is refused."""
    with pytest.raises(UserError) as caught:
        OnnxPredictor(path).probabilities([np.zeros((40, 40, 3), np.uint8)])
    line = str(caught.value)
    assert "\n" not in line and str(path) in line and len(line) < 500
    return line


def test_a_sound_file_is_predicted_with(tmp_path: Path) -> None:
    """Breaks if the file that the others are made of is refused itself."""
    config = compose(f"model={{file: {written(tmp_path, model())}}}", name="predict")
    prediction = open_predictor(config).predict([np.full((50, 40, 3), 255, np.uint8)] * 3)
    assert prediction.probability.shape == (3, 32, 32)
    assert prediction.probability.max() <= 1  # white is 2.4 after normalisation


def test_a_run_and_a_file_are_not_both_named(tmp_path: Path) -> None:
    """Breaks if one of two networks is silently left out."""
    config = compose("run=DIR", "model={file: net.onnx}", name="predict")
    with pytest.raises(UserError, match=r"give run=DIR or model=FILE.onnx, not both"):
        open_predictor(config)


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("format", 2, "not of format 1"),
        ("image_size", [32], r"image_size=\[32\] must be \[height, width\]"),
        ("image_size", [32, 1e9], r"must be \[height, width\]"),
        ("image_size", [32, 10**9], "is too large; at most 8192 px"),
        ("image_size", [True, 32], r"must be \[height, width\]"),
        ("image_size", [32, 64], "its network takes and gives"),
        ("in_channels", "3", "in_channels=3 must be 1"),
        ("in_channels", 1, "mean=.* is not what is done here"),
        ("normalization", "../../x", "must be one of imagenet, symmetric, benchmark"),
        ("normalization", {"a": []}, "must be one of imagenet, symmetric, benchmark"),
        ("mean", [0, 0, 0], "mean=.* is not what is done here"),
        ("std", None, "std=None is not what is done here"),
        ("threshold", 0.9, r"threshold=0.9 is not what is done here: 0.5"),
        ("classes", ["background", "\x1b[2Jlesion" * 99], "classes=.* is not what is done here"),
    ],
)
def test_metadata_are_checked(tmp_path: Path, key: str, value: Any, said: str) -> None:
    """Breaks if a wrong value is believed, or its letters reach the terminal."""
    line = refused(written(tmp_path, model(**{key: value})))
    assert "\x1b" not in line
    with pytest.raises(UserError, match=said):
        OnnxPredictor(tmp_path / "net.onnx")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "does not say how its images are prepared"),
        ("[" * 10**5, "its metadata cannot be used"),
        ("[]", "not of format 1"),
        ("{", "its metadata cannot be used"),
        (" " * 2**21, "far too long"),
    ],
)
def test_metadata_are_json(tmp_path: Path, text: str | None, said: str) -> None:
    """Breaks if other texts end in a traceback."""
    made = model()
    del made.metadata_props[:]
    if text is not None:
        helper.set_model_props(made, {METADATA: text})
    assert said in refused(written(tmp_path, made))


def with_weights_elsewhere(made: onnx.ModelProto) -> None:
    """Weights that a path in the file leads to."""
    tensor = made.graph.initializer.add()
    tensor.name, tensor.data_type = "weights", TensorProto.FLOAT
    tensor.dims.append(4)
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/passwd")


def with_weights_elsewhere_inside(made: onnx.ModelProto) -> None:
    """The same in an attribute of a node of a branch."""
    inner = model().graph
    value = numpy_helper.from_array(np.zeros(4, np.float32))
    value.data_location = TensorProto.EXTERNAL
    inner.node.append(helper.make_node("Constant", [], ["c"], value=value))
    made.graph.node.append(
        helper.make_node("If", ["image"], ["b"], then_branch=inner, else_branch=inner)
    )


def with_custom_operator(made: onnx.ModelProto) -> None:
    """An operator that a library of the stranger's would compute."""
    made.graph.node.append(helper.make_node("Evil", ["image"], ["x"], domain="evil.corp"))


def with_endless_loop(made: onnx.ModelProto) -> None:
    """A node that goes on as long as the file says."""
    made.graph.node.append(helper.make_node("Loop", ["", ""], ["x"], body=model().graph))


def with_function(made: onnx.ModelProto) -> None:
    """A function, which hides what a node does."""
    node = helper.make_node("Identity", ["a"], ["b"])
    opset = [helper.make_opsetid("", 13)]
    made.functions.append(helper.make_function("own", "f", ["a"], ["b"], [node], opset))


def with_all_memory(made: onnx.ModelProto) -> None:
    """A tensor of 40 GB in a file of a few hundred bytes."""
    shape = numpy_helper.from_array(np.array([10**10], np.int64), "shape")
    made.graph.initializer.append(shape)
    made.graph.node[0].output[0] = "mean"
    made.graph.node.extend(
        [
            helper.make_node("ConstantOfShape", ["shape"], ["huge"]),
            helper.make_node("ReduceMax", ["huge"], ["one"], keepdims=0),
            helper.make_node("Add", ["mean", "one"], ["probability"]),
        ]
    )


def with_more_than_is_there(made: onnx.ModelProto) -> None:
    """Weights of 40 GB, of which four bytes are in the file."""
    tensor = made.graph.initializer.add(name="w", data_type=TensorProto.FLOAT, raw_data=b"1234")
    tensor.dims.append(10**10)
    made.graph.node[0].output[0] = "mean"
    made.graph.node.append(helper.make_node("Add", ["mean", "w"], ["probability"]))


def with_another_size(made: onnx.ModelProto) -> None:
    """An answer of another size than the images."""
    made.graph.node[0].output[0] = "mean"
    made.graph.node.append(helper.make_node("Transpose", ["mean"], ["probability"], perm=[2, 1, 0]))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (with_weights_elsewhere, "its weights lie in other files: weights"),
        (with_weights_elsewhere_inside, "its weights lie in other files"),
        (with_custom_operator, "its operator evil.corp.Evil is of a library of its own"),
        (with_endless_loop, "it holds a Loop, which may have no end"),
        (with_function, "it holds functions or training"),
        (with_all_memory, "failed"),
        (with_more_than_is_there, "cannot be used"),
        (with_another_size, "gives (32, 32, 1) instead of (1, 32, 32)"),
    ],
)
def test_hostile_networks_are_refused(
    tmp_path: Path, change: Callable[[onnx.ModelProto], None], said: str
) -> None:
    """Breaks if such a file is run, waits, or takes the memory."""
    made = model()
    change(made)
    assert said in refused(written(tmp_path, made))


@pytest.mark.parametrize("content", [b"", b"\x00" * 99, b"PK\x03\x04", b"ORTM" * 40])
def test_other_files_are_refused(tmp_path: Path, content: bytes) -> None:
    """Breaks if what is no ONNX file ends in a traceback."""
    refused(written(tmp_path, content))


def test_every_cut_is_refused(tmp_path: Path) -> None:
    """Breaks if a file that was cut off is predicted with, or ends in a traceback."""
    content = model().SerializeToString()
    for end in range(1, len(content) - 1, 13):
        refused(written(tmp_path, content[:end]))


def test_folders_and_files_that_are_not_there(tmp_path: Path) -> None:
    """Breaks if they end in a traceback."""
    assert "it is a folder" in refused(tmp_path)
    assert "No such file" in refused(tmp_path / "none.onnx")
