"""A run exported: the file computes what the run computes, says how, and is refused otherwise."""

import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
import torch

from anatosegnet.data.case import read_image
from anatosegnet.deployment import agreement
from anatosegnet.deployment.exporting import export
from anatosegnet.errors import UserError
from anatosegnet.prediction.inference import Predictor
from anatosegnet.prediction.onnx import METADATA, OnnxPredictor
from anatosegnet.run import Run
from tests.conftest import grey_image, write_png
from tests.deployment.untrained import untrained_run
from tests.running import compose

BLOCKED = ("torch", "lightning", "albumentations", "timm", "torchmetrics", "monai")
# predicts where importing any of these raises
WITHOUT_TORCH = f"""
import sys
class Blocked:
    def find_spec(self, name, *_):
        if name.partition(".")[0] in {BLOCKED}:
            raise ImportError(name + " is blocked")
sys.meta_path.insert(0, Blocked())
from anatosegnet.predict import main
main()
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A network of one layer; read only."""
    return untrained_run(tmp_path_factory.mktemp("export") / "run")


@pytest.fixture(scope="module")
def exported(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that ``export`` made of it."""
    out = tmp_path_factory.mktemp("exported") / "net"
    return export(run, compose(f"out={out}", name="export"))


def images(count: int = 3) -> list[np.ndarray]:
    """Images of different sizes (H, W, 3) uint8."""
    sizes = [(40 + 9 * seed, 50) for seed in range(count)]
    return [np.dstack([grey_image(seed, size)] * 3) for seed, size in enumerate(sizes)]


def test_the_file_computes_what_the_run_computes(run: Run, exported: Path) -> None:
    """Breaks if preparation or network differ, or the batch is fixed."""
    predictor = OnnxPredictor(exported / "model.onnx")
    assert predictor.image_size == (32, 32)
    for count in (1, 3):
        expected = Predictor.from_run(run, "cpu").probabilities(images(count))
        found = predictor.predict(images(count))
        np.testing.assert_allclose(found.probability, expected, atol=1e-5)
        assert found.mutual_information is None


def test_the_file_says_how_images_are_prepared(run: Run, exported: Path) -> None:
    """Breaks if metadata miss what another program needs, or name folders of this machine."""
    model = onnx.load(exported / "model.onnx")
    (entry,) = model.metadata_props
    said = json.loads(entry.value)
    summary = json.loads((exported / "export.json").read_text())
    assert entry.key == METADATA
    assert said["image_size"] == [32, 32] and said["threshold"] == 0.5
    np.testing.assert_allclose(said["mean"], [0.485, 0.456, 0.406], rtol=1e-6)
    np.testing.assert_allclose(said["std"], [0.229, 0.224, 0.225], rtol=1e-6)
    assert said["classes"] == ["background", "lesion"] and "INTER_AREA" in said["resizing"]
    assert said["provenance"]["best_epoch"] == 3 and said["provenance"]["data"] == "phantom"
    assert said["agreement"] == summary["agreement"]["float32"]
    assert said["agreement"]["largest_difference"] < 1e-5
    assert said["agreement"]["images"] == "2 test images of phantom"
    content = (exported / "model.onnx").read_bytes() + (exported / "export.json").read_bytes()
    assert str(run.directory.parent).encode() not in content
    assert os.path.dirname(torch.__file__).encode() not in content


def test_a_file_that_computes_something_else_is_not_kept(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Breaks if a wrong network is written, or something is left of it."""
    monkeypatch.setattr(OnnxPredictor, "of_batch", lambda _, batch: 0.3 + 0 * batch[:, 0])
    with pytest.raises(UserError, match="float32 network computes something else: its largest"):
        export(run, compose(f"out={tmp_path / 'net'}", name="export"))
    assert not list(tmp_path.iterdir())


def test_no_number_is_no_agreement() -> None:
    """Breaks if a network that gives NaN passes."""
    batch = np.zeros((2, 3, 4, 4), np.float32)
    apart = agreement.difference(lambda b: b[:, 0], lambda b: b[:, 0] + np.nan, batch)
    assert np.isinf(apart).all() and apart.shape == (3, 4, 4)


def test_phantoms_stand_in_for_images_that_are_not_there(run: Run, tmp_path: Path) -> None:
    """Breaks if an export needs the data, or does not say what it was compared on."""
    other = Run(tmp_path / "run")
    other.directory.mkdir()
    config = run.config_path.read_text()
    other.config_path.write_text(config.replace("count: 12", "count: 2"))
    (other.directory / "checkpoints").symlink_to(run.best_path.parent)
    export(other, compose(f"out={tmp_path / 'net'}", name="export"))
    summary = json.loads((tmp_path / "net" / "export.json").read_text())
    said = summary["agreement"]["float32"]["images"]
    assert said.startswith("8 phantoms, the images not being there (")


@pytest.mark.slow
def test_half_precision_and_integers_say_what_they_cost(run: Run, tmp_path: Path) -> None:
    """Breaks if a precision cannot be made or predicted with, or its cost is not told."""
    out = tmp_path / "net"
    export(run, compose(f"out={out}", "precision=[fp16,int8]", name="export"))
    summary = json.loads((out / "export.json").read_text())
    assert {"cases", "split", "run", "fp16", "int8"} == set(summary["iou"])
    assert summary["iou"]["cases"] == "2 test cases of phantom, at original size"
    assert abs(summary["iou"]["fp16"]["difference"]) < 0.05
    for precision in ("fp16", "int8"):
        predictor = OnnxPredictor(out / f"model_{precision}.onnx")
        assert predictor.described["precision"] == precision
        expected = Predictor.from_run(run, "cpu").probabilities(images())
        np.testing.assert_allclose(predictor.probabilities(images()), expected, atol=0.1)


def test_integers_are_calibrated_on_training_images_alone(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Breaks if a test or validation image takes part."""
    from anatosegnet.data.datasets.phantom import PhantomSource
    from anatosegnet.deployment.onnx import calibration
    from anatosegnet.deployment.original import Original
    from anatosegnet.files.split_table import read_split

    read: list[str] = []
    original = PhantomSource.read
    monkeypatch.setattr(
        PhantomSource, "read", lambda self, case: (read.append(case.name), original(self, case))[1]
    )
    config = compose("out=x", name="export")
    batches = list(calibration(run, config, Original(run)))
    train = {row.id for row in read_split(run.split_path) if row.part == "train"}
    assert set(read) == train and len(batches) == len(train)


@pytest.mark.slow
def test_torchscript_computes_what_the_run_computes(run: Run, tmp_path: Path) -> None:
    """Breaks if the traced network cannot be loaded without this project, or is another."""
    out = export(run, compose(f"out={tmp_path / 'net'}", "format=torchscript", name="export"))
    extra = {"anatosegnet.json": ""}
    loaded = torch.jit.load(out / "model.pt", _extra_files=extra)
    predictor = Predictor.from_run(run, "cpu")
    from anatosegnet.prediction.processing import read_processing

    batch = read_processing(json.loads(extra["anatosegnet.json"]))(images())
    found = loaded(torch.from_numpy(batch)).numpy()
    np.testing.assert_allclose(found, predictor.probabilities(images()), atol=1e-5)


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("format=caffe", "format=caffe must be one of onnx"),
        ("precision=[float64]", r"precision=\['float64'\] must be one of float32, fp16, int8"),
        ("out=null", "say where it goes: out=DIR"),
    ],
)
def test_settings_are_checked(run: Run, tmp_path: Path, override: str, line: str) -> None:
    """Breaks if an impossible setting ends in something else than one line."""
    with pytest.raises(UserError, match=line):
        export(run, compose(f"out={tmp_path / 'net'}", override, name="export"))


@pytest.mark.slow
def test_predicting_needs_no_torch(run: Run, exported: Path, tmp_path: Path) -> None:
    """Breaks if anything on the way from an ONNX file to masks imports PyTorch, or masks differ."""
    for number, image in enumerate(images()):
        write_png(tmp_path / "in" / f"{number}.png", image)
    arguments = [f"input={tmp_path / 'in'}", f"output={tmp_path / 'out'}"]
    model = f"model={exported / 'model.onnx'}"
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, model, *arguments], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    predictor = Predictor.from_run(run, "cpu")
    for number in range(3):
        image = read_image(tmp_path / "in" / f"{number}.png")
        probability = predictor.probabilities([image])[0]
        size = (image.shape[1], image.shape[0])
        large = cv2.resize(probability, size, interpolation=cv2.INTER_LINEAR)
        mask = cv2.imread(str(tmp_path / "out" / f"{number}.png"), cv2.IMREAD_UNCHANGED)
        sure = np.abs(large - 0.5) > 1e-5  # the difference that a probability may have
        assert ((mask > 0) == (large > 0.5))[sure].all() and sure.mean() > 0.99
