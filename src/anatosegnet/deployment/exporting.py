"""A run exported: written, run again on images, compared, and kept only where it agrees."""

import json
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig

from anatosegnet.config.places import user_path
from anatosegnet.console import plain, say
from anatosegnet.deployment.agreement import Check
from anatosegnet.deployment.conversion import quiet
from anatosegnet.deployment.hub import push
from anatosegnet.deployment.onnx import write_onnx
from anatosegnet.deployment.original import Original
from anatosegnet.deployment.package import write_only_weights, write_package
from anatosegnet.errors import UserError, reason
from anatosegnet.files import weights
from anatosegnet.files.hub import Address
from anatosegnet.files.writing import replacing_directory, write_json
from anatosegnet.run import Run

SUMMARY = "export.json"
FORMATS = ("onnx", "safetensors", "torchscript", "package")
WRITTEN_WITH = ("anatosegnet", "torch", "onnx", "onnxruntime", "onnxscript")


def export(run: Run, config: DictConfig, own_data: bool = True) -> Path:
    """Write a run as ``format`` into the folder ``out``.

    Args:
        run: The run.
        config: Of the verb: format, out, precision, licence, push, overwrite, data,
            paths, accept_changed_data.
        own_data: Compare on the run's own test images; else on those of ``config.data``.

    Returns:
        The folder.

    Raises:
        UserError: A setting is at fault; the run or its data are; or what was exported computes
            something else, and nothing is left of it.
    """
    if config.format not in FORMATS:
        raise UserError(f"format={plain(config.format)} must be one of {', '.join(FORMATS)}")
    if config.out is None:
        raise UserError("say where it goes: out=DIR, a new folder")
    if config.push is not None:
        if config.format != "package":
            raise UserError("push=hf://… sends packages: format=package")
        Address.of(config.push)
    out = user_path(config.out)
    mark = weights.NAME if config.format == "package" else SUMMARY
    with replacing_directory(out, config.overwrite, mark) as directory:
        if config.format == "package":
            write_package(run, directory, out.name, config.licence)
        else:
            writers = {"onnx": write_onnx, "torchscript": write_script}
            writer = writers.get(config.format, write_safetensors)
            summary = writer(run, config, directory, own_data)
            write_json(directory / SUMMARY, {**summary, "written_with": versions()})
    say(f"written {out}")
    if config.push is not None:
        push(out, config.push)
    return out


def write_script(run: Run, config: DictConfig, directory: Path, own_data: bool) -> dict[str, Any]:
    """Write the network as TorchScript traces it; see `export`."""
    original = Original(run)
    check = Check(original, run, config, own_data)
    described, path = original.described, directory / "model.pt"
    try:
        with quiet(), torch.no_grad():
            traced = torch.jit.trace(original.network, original.example, check_trace=False)
    except Exception as error:  # of the tracer, of many kinds
        name = type(original.network.network).__name__
        raise UserError(f"{name} cannot be traced ({reason(error)})") from error
    metadata = json.dumps(described, ensure_ascii=False)
    with quiet():
        torch.jit.save(traced, str(path), _extra_files={"anatosegnet.json": metadata})
        loaded = torch.jit.load(str(path))

    @torch.no_grad()
    def network(batch: np.ndarray) -> np.ndarray:
        return loaded(torch.from_numpy(batch)).numpy()

    check("float32", network)
    return {**described, "agreement": check.told}


def write_safetensors(run: Run, _: DictConfig, directory: Path, __: bool) -> dict[str, Any]:
    """Write the weights alone; see `export`."""
    original = Original(run)
    write_only_weights(original, directory)
    return original.described


def versions() -> dict[str, str]:
    """Of the packages that wrote the files."""
    found = {}
    for package in WRITTEN_WITH:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found
