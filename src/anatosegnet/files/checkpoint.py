"""A checkpoint that need not be trusted, checked as a whole when it is read."""

import math
import os
import pickletools
import re
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from anatosegnet.console import some
from anatosegnet.errors import UserError, reason
from anatosegnet.files.opening import open_file
from anatosegnet.files.weights import NAME as PACKED
from anatosegnet.files.weights import read_weights

# what a checkpoint is pickled from; nothing that makes more of it than the file holds
NAMES = re.compile(
    r"collections (OrderedDict|Counter)|builtins (set|complex)|_codecs encode|torch Size|"
    r"torch device|torch(\.storage)? [A-Za-z]*Storage|torch\.nn\.parameter Parameter|"
    r"torch\._utils _rebuild_(tensor_v[23]|parameter|parameter_with_state)"
)


class UnusableCheckpoint(UserError):
    """A checkpoint that is damaged, or is none, or is of another network."""


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint that need not be trusted, and is checked as a whole.

    It must be a regular file, a zip whose entries all have their checksums, hold tensors and
    primitives only, take no more memory than its own size, and have no NaN among its weights. The
    checks about double the time of loading: 0.2 s more for AnatoSegNet's 370 MB, with ResNet-50.
    A package has its weights as safetensors, which are given as a checkpoint has them.

    Returns:
        What was saved: ``state_dict`` (names to tensors) and, as the case may be, the rest.

    Raises:
        UnusableCheckpoint: It is none of this, in one line.
    """
    try:
        checkpoint: Any = _of_package(path) if path.name == PACKED else _of_training(path)
        _require_tensors(checkpoint)
    except Exception as error:  # zipfile, pickle and torch raise many kinds for foreign bytes
        raise UnusableCheckpoint(f"{path} cannot be used ({reason(error)})") from error
    return checkpoint


def _of_training(path: Path) -> Any:
    """What training saved; raises many kinds of errors where it is damaged, or a trap."""
    with open_file(path) as file:
        _require_sound_zip(file)
        file.seek(0)
        return torch.load(file, map_location="cpu", weights_only=True)


def _of_package(path: Path) -> dict[str, Any]:
    """The weights of a package under the names that training gives them, and their epoch."""
    weights, described = read_weights(path)
    provenance = described.get("provenance")
    epoch = provenance.get("best_epoch") if isinstance(provenance, dict) else None
    state = {f"model.{name}": tensor for name, tensor in weights.items()}
    return {"state_dict": state, **({"epoch": epoch - 1} if type(epoch) is int else {})}


def _require_sound_zip(file: BinaryIO) -> None:
    """ValueError unless a zip is whole, holds no more than its own size, and only known names."""
    size = os.fstat(file.fileno()).st_size
    if not size:
        raise ValueError("it is empty")
    if not zipfile.is_zipfile(file):
        raise ValueError("it is no checkpoint, or was cut off")
    with zipfile.ZipFile(file) as archive:
        entries = archive.infolist()
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
            raise ValueError("it is packed, which no checkpoint is")
        if sum(entry.file_size for entry in entries) > size:
            raise ValueError("it claims to hold more than its size")
        damaged = archive.testzip()  # torch.load itself compares no checksum
        if damaged is not None:
            raise ValueError(f"wrong checksum in {damaged}")
        pickles = [entry for entry in entries if entry.filename.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise ValueError("it is a zip, but no checkpoint")
        for operation, name, _ in pickletools.genops(archive.read(pickles[0])):
            if operation.name == "STACK_GLOBAL":
                raise ValueError("it holds objects, not only tensors and numbers")
            if operation.name in ("GLOBAL", "INST") and not _is_known(str(name)):
                raise ValueError(f"it holds an object of {'.'.join(str(name).split())}")


def _is_known(name: str) -> bool:
    """Whether a name in a pickle, ``module name``, is one that checkpoints need."""
    module, _, rest = name.partition(" ")
    is_dtype = module == "torch" and isinstance(getattr(torch, rest, None), torch.dtype)
    return is_dtype or NAMES.fullmatch(name) is not None


def _require_tensors(checkpoint: Any) -> None:
    """ValueError unless there are named weights without NaN, and no tensor is a trap."""
    if not isinstance(checkpoint, dict):
        raise ValueError(f"it holds a {type(checkpoint).__name__}, not the state of a training")
    weights = checkpoint.get("state_dict")
    if not isinstance(weights, dict) or not weights:
        raise ValueError("it has no state_dict")
    named = (isinstance(n, str) and n.isprintable() for n in weights)
    if not all(named) or not all(isinstance(tensor, Tensor) for tensor in weights.values()):
        raise ValueError("its state_dict does not hold tensors by name")
    if not isinstance(checkpoint.get("epoch", 0), int):
        raise ValueError("its epoch is no number")
    for tensor in _tensors(checkpoint):
        _stored(tensor)
    broken = [name for name, tensor in weights.items() if math.isnan(largest(tensor))]
    if broken:
        raise ValueError(f"weights are NaN: {some(broken)}")


def _tensors(node: Any) -> Iterator[Tensor]:
    """Every tensor in nested containers, once."""
    seen, waiting = set(), [node]
    while waiting:
        node = waiting.pop()
        if id(node) in seen:  # a few lists of one another would take for ever
            continue
        seen.add(id(node))
        if isinstance(node, Tensor):
            yield node
        elif isinstance(node, Mapping):
            waiting.extend(node.values())
        elif isinstance(node, list | tuple | set):
            waiting.extend(node)


def _stored(tensor: Tensor) -> Tensor:
    """The stored elements of a tensor, one of each repeated axis; ValueError for a larger one."""
    for axis, stride in enumerate(tensor.stride()):
        if stride == 0 and tensor.shape[axis] > 1:
            tensor = tensor.narrow(axis, 0, 1)
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        raise ValueError("it holds a tensor that is larger than what is stored of it")
    return tensor


def largest(tensor: Tensor) -> float:
    """The largest magnitude in a tensor of floats, NaN if there is one; 0 of other types."""
    if not tensor.is_floating_point() or not tensor.numel():
        return 0.0
    tensor = _stored(tensor)
    if tensor.element_size() == 1:  # 8-bit floats have no order
        tensor = tensor.float()
    low, high = torch.aminmax(tensor)  # in one pass; NaN wins
    return max(-float(low), float(high))
