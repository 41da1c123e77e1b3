"""Weights alone, as safetensors: a header that says where each tensor lies, and their bytes.

https://huggingface.co/docs/safetensors: nothing in such a file is ever executed.
"""

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anatosegnet.files.opening import LARGEST_WEIGHTS, open_file

if TYPE_CHECKING:
    from torch import Tensor

NAME = "model.safetensors"
KEY = "anatosegnet"  # of the header's metadata, whose value is JSON
LARGEST_HEADER = 2**24  # bytes
KINDS = {
    "F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1,
    "BOOL": 1,
}  # fmt: skip


def write_weights(
    path: Path, weights: Mapping[str, "Tensor"], described: Mapping[str, Any]
) -> None:
    """Write the weights of a network, each of its own memory, and what is said of them."""
    from safetensors.torch import save

    own = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in weights.items()}
    metadata = {KEY: json.dumps(described, ensure_ascii=False), "format": "pt"}
    path.write_bytes(save(own, metadata))


def read_weights(path: Path) -> tuple[dict[str, "Tensor"], dict[str, Any]]:
    """The weights in a stranger's file, and what is said of them.

    Its header is checked first, so that the tensors take no more memory than the file has bytes.

    Raises:
        OSError: As `open_file`.
        ValueError: It is no such file, was cut off, or claims what is not there.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    described = read_header(path)
    try:
        return load_file(path), described
    except (SafetensorError, RuntimeError, TypeError) as error:
        raise ValueError(" ".join(str(error).split())[:200]) from error


def read_header(path: Path) -> dict[str, Any]:
    """What a file says of itself, once its header is known to tell of the bytes that are there.

    Raises:
        OSError, ValueError: As `read_weights`.
    """
    with open_file(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > LARGEST_WEIGHTS:
            raise ValueError(f"it has more than {LARGEST_WEIGHTS / 1e9:.0f} GB")
        length = int.from_bytes(file.read(8), "little")
        if not 2 <= length <= min(size - 8, LARGEST_HEADER):
            raise ValueError("it is no safetensors file, or was cut off")
        try:
            header = json.loads(file.read(length))
        except RecursionError as error:
            raise ValueError("its header is nested too deeply") from error
    if not isinstance(header, dict):
        raise ValueError("its header holds no tensors")
    told = header.pop("__metadata__", {})
    end = 0
    for start, stop, needed in sorted(_spans(header)):
        if start != end or stop - start != needed:
            raise ValueError("its header does not tell of the bytes that are there")
        end = stop
    if end != size - 8 - length:
        raise ValueError("it was cut off, or holds more than its header tells of")
    return _described(told)


def _spans(header: Mapping[str, Any]) -> list[tuple[int, int, int]]:
    """Of each tensor where it begins and ends, and how many bytes its shape needs."""
    spans = []
    for name, entry in header.items():
        if not name.isprintable() or not isinstance(entry, dict):
            raise ValueError("its header does not hold tensors by name")
        shape, place = _counts(entry.get("shape")), _counts(entry.get("data_offsets"))
        width = KINDS.get(str(entry.get("dtype")))
        if width is None or shape is None or place is None or len(place) != 2:
            raise ValueError(f"its header tells of no tensor as {name[:60]!r}")
        spans.append((place[0], place[1], width * math.prod(shape)))
    return spans


def _counts(value: Any) -> list[int] | None:
    """A list of counts as it is; None of anything else."""
    if isinstance(value, list) and all(type(one) is int and 0 <= one < 2**48 for one in value):
        return value
    return None


def _described(told: Any) -> dict[str, Any]:
    """What `write_weights` was told; empty for a file of other origin."""
    text = told.get(KEY) if isinstance(told, dict) else None
    try:
        described = json.loads(text) if isinstance(text, str) else {}
    except RecursionError as error:
        raise ValueError("its metadata are nested too deeply") from error
    return described if isinstance(described, dict) else {}
