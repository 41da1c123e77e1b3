"""Weights of a stranger: what is refused before it takes memory."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from anatosegnet.files.weights import read_weights, write_weights

WEIGHTS = {"a": torch.arange(6.0).reshape(2, 3), "b.c": torch.tensor(3), "e": torch.zeros(0)}


def sound(folder: Path) -> tuple[Path, dict[str, Any], bytes]:
    """A sound file, its header, and the bytes behind that."""
    path = folder / "model.safetensors"
    write_weights(path, WEIGHTS, {"version": "1", "text": "é"})
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    return path, json.loads(content[8 : 8 + length]), content[8 + length :]


def with_header(path: Path, header: object, data: bytes) -> Path:
    """The file with another header, whose length is right."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return path


def test_weights_come_back(tmp_path: Path) -> None:
    """Breaks if a bit, a type or what is said of them is lost, or others may not read the file."""
    path, _, _ = sound(tmp_path)
    weights, described = read_weights(path)
    assert described == {"version": "1", "text": "é"}
    assert weights.keys() == WEIGHTS.keys()
    for name, tensor in weights.items():
        assert tensor.dtype == WEIGHTS[name].dtype and torch.equal(tensor, WEIGHTS[name])
    (tmp_path / "other").write_bytes(b"")
    assert path.stat().st_mode == (tmp_path / "other").stat().st_mode


def test_tied_weights_are_written(tmp_path: Path) -> None:
    """Breaks if two names of one tensor cannot be packed."""
    shared = torch.ones(4)
    write_weights(tmp_path / "x", {"a": shared, "b": shared[:2]}, {})
    assert torch.equal(read_weights(tmp_path / "x")[0]["b"], torch.ones(2))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("shape", [2**40, 2**40]),
        ("shape", [-2, -3]),
        ("shape", [True, 6]),
        ("shape", [2.0, 3]),
        ("shape", "6"),
        ("shape", [6, 1, 2]),
        ("dtype", "F128"),
        ("dtype", {}),
        ("data_offsets", [0, 2**47]),
        ("data_offsets", [4, 28]),
        ("data_offsets", [24, 0]),
        ("data_offsets", [0]),
        ("data_offsets", None),
    ],
)
def test_claims_are_checked(tmp_path: Path, key: str, value: object) -> None:
    """Breaks if a tensor is taken for larger, or elsewhere, than its bytes are."""
    path, header, data = sound(tmp_path)
    header["a"][key] = value
    with pytest.raises(ValueError, match="its header"):
        read_weights(with_header(path, header, data))


def test_bytes_without_a_tensor_and_tensors_without_bytes(tmp_path: Path) -> None:
    """Breaks if something may be hidden in a file, or a part of it is missing."""
    path, header, data = sound(tmp_path)
    for wrong in (data + b"MZ", data[:-1], b""):
        with pytest.raises(ValueError, match="cut off, or holds more"):
            read_weights(with_header(path, header, wrong))
    header["twice"] = header["a"]
    with pytest.raises(ValueError, match="does not tell of the bytes"):
        read_weights(with_header(path, header, data))


@pytest.mark.parametrize(
    "header", [b"[" * 10**5, b"[]", b"{", b"\xff\xfe", b'{"a\\u001b[2J": {}}', b'{"a": 1}', b"nul"]
)
def test_headers_that_are_none(tmp_path: Path, header: bytes) -> None:
    """Breaks if such a header ends in anything but a ValueError."""
    with pytest.raises(ValueError):
        read_weights(with_header(tmp_path / "x", header, b""))


@pytest.mark.parametrize("content", [b"", b"12345678", b"\xff" * 16, b"\0" * 8, b"PK\3\4" * 9])
def test_other_files(tmp_path: Path, content: bytes) -> None:
    """Breaks if a length of exabytes is believed."""
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(ValueError, match="no safetensors file, or was cut off"):
        read_weights(tmp_path / "x")


@pytest.mark.parametrize("told", ["[" * 10**5, "{", "[]", "1"])
def test_metadata_of_others(tmp_path: Path, told: str) -> None:
    """Breaks if what a stranger says of the weights ends in anything but nothing, or one line."""
    path, header, data = sound(tmp_path)
    header["__metadata__"] = {"anatosegnet": told}
    try:
        _, described = read_weights(with_header(path, header, data))
    except ValueError:
        return
    assert described == {}
