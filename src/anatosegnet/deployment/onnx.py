"""A run as ``model.onnx``, and the same in lower precision beside it, with what that costs."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
from omegaconf import DictConfig

from anatosegnet.config.overrides import given_keys
from anatosegnet.config.whereabouts import at_home
from anatosegnet.console import plain
from anatosegnet.data.build import build_found_data
from anatosegnet.data.case import CaseError
from anatosegnet.data.leakage import recorded_split, require_unchanged
from anatosegnet.deployment.agreement import TOLERANCE, Check, iou_costs, say_costs
from anatosegnet.deployment.conversion import halved, quantized, to_onnx, with_metadata
from anatosegnet.deployment.original import Original
from anatosegnet.errors import UserError
from anatosegnet.prediction.inference import Predictor
from anatosegnet.prediction.onnx import OnnxPredictor
from anatosegnet.run import Run

if TYPE_CHECKING:
    from onnx import ModelProto

CALIBRATED_ON = 32  # training images


def write_onnx(run: Run, config: DictConfig, directory: Path, own_data: bool) -> dict[str, Any]:
    """Write a file for each precision; see `export`.

    Returns:
        What is in the metadata of the files, the agreement of each, and what each costs.

    Raises:
        UserError: A setting or the run's data are at fault, the network cannot be exported, or
            what was exported computes something else.
    """
    precisions = precisions_of(config.precision)
    original = Original(run)
    model = to_onnx(original.network, original.example)
    check = Check(original, run, config, own_data)
    described, predictors = original.described, {}
    for precision in precisions:
        path = directory / ("model.onnx" if precision == "float32" else f"model_{precision}.onnx")
        kind = in_precision(precision, model, run, config, original)
        about = {**described, "precision": precision}
        path.write_bytes(with_metadata(kind, about))
        predictors[precision] = predictor = OnnxPredictor(path)
        agreement = check(precision, predictor.of_batch)
        path.write_bytes(with_metadata(kind, {**about, "agreement": agreement}))
    summary = {**described, "agreement": check.told}
    if precisions != ["float32"]:
        costs = iou_costs(
            run, config, own_data, {"run": Predictor.from_run(run, "cpu"), **predictors}
        )
        say_costs(costs, str(run.config.trainer.get("precision", "32-true")))
        summary["iou"] = costs
    return summary


def in_precision(
    precision: str, model: "ModelProto", run: Run, config: DictConfig, original: Original
) -> "ModelProto":
    """The network in a precision of `TOLERANCE`, of that in float32."""
    if precision == "fp16":
        return halved(model)
    if precision == "int8":
        with TemporaryDirectory() as folder:
            return quantized(model, calibration(run, config, original), Path(folder))
    return model


def precisions_of(given: Sequence[str] | None) -> list[str]:
    """``[float32,fp16,int8]``, or some of it; raises UserError for others."""
    names = list(given or ())
    if not names or any(name not in TOLERANCE for name in names) or len({*names}) < len(names):
        raise UserError(
            f"precision={plain(names)} must be one of {', '.join(TOLERANCE)}, or several"
        )
    return names


def calibration(run: Run, config: DictConfig, original: Original) -> Iterator[np.ndarray]:
    """Training images of the run, prepared, one after the other; never of its test cases.

    Raises:
        UserError: They are not there, or the split was changed since training.
    """
    settings = run.config
    at_home(settings, config.paths, given_keys())
    recorded = recorded_split(run, ["train"])
    require_unchanged(run, recorded)
    data = build_found_data(settings)
    names = [name for name in recorded.read().train if name in data.cases]
    if not names:
        raise UserError(
            "precision=int8 is calibrated on training images of the run, and none is there; "
            "point paths.data_dir to them"
        )
    step = max(1, len(names) // CALIBRATED_ON)
    for name in names[::step][:CALIBRATED_ON]:
        try:
            image, _ = data.read(name)
        except CaseError as error:
            raise UserError(str(error)) from error
        yield original.processing([image])
