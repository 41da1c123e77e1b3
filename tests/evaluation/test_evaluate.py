"""evaluate and predict agree with training and with each other."""

import csv
import errno
import json
import os
import shutil
import subprocess
import sys
import weakref
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from anatosegnet import console
from anatosegnet.cli import errors_in_one_line
from anatosegnet.data.case import read_image, read_mask
from anatosegnet.data.checksum import sha256
from anatosegnet.data.datasets.folder import FolderSource
from anatosegnet.data.simulator import simulate
from anatosegnet.data.split import HoldoutSplit
from anatosegnet.errors import UserError
from anatosegnet.evaluation.evaluate import evaluate, evaluation_directory
from anatosegnet.metrics.overlap import overlap_scores
from anatosegnet.prediction.going_on import RECORD
from anatosegnet.prediction.inference import Predictor
from anatosegnet.prediction.masks import NO_NUMBER, mask_at
from anatosegnet.prediction.predict import predict
from anatosegnet.report.overlay import encode_png
from anatosegnet.run import Run
from tests.preparing import prepared
from tests.running import compose

pytestmark = pytest.mark.slow


@pytest.fixture
def run(trained_run: Run, tmp_path: Path) -> Run:
    """A copy of the trained run that a test may write into."""
    shutil.copytree(trained_run.directory, tmp_path / "run")
    return Run(tmp_path / "run")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Six phantoms as someone's images/ and labels/, of different sizes."""
    root = tmp_path / "folder"
    for part in ("images", "labels"):
        (root / part).mkdir(parents=True)
    for index in range(6):
        phantom = simulate(5, index)
        name = f"{phantom.label} ({index}).png"
        (root / "images" / name).write_bytes(encode_png(phantom.image))
        (root / "labels" / name).write_bytes(encode_png(phantom.mask * 255))
    return root


def read_scores(path: Path) -> list[dict[str, str]]:
    """The rows of scores.csv."""
    with path.open() as file:
        return list(csv.DictReader(file))


def test_evaluate_reproduces_the_test_of_training(run: Run) -> None:
    """Breaks if evaluation resizes, normalises, thresholds or selects otherwise than training."""
    summary = json.loads(run.summary_path.read_text())
    result = evaluate(run, compose("at=model", "batch_size=3", name="evaluate"))
    for score in ("iou", "dice", "precision", "recall"):
        assert result[score] == pytest.approx(summary[f"test/{score}"], abs=1e-6)
        assert result[f"{score}_sd"] == pytest.approx(summary[f"test/{score}_sd"], abs=1e-6)
    names = {row["id"] for row in read_scores(run.split_path) if row["part"] == "test"}
    output = run.directory / "evaluation" / "phantom_at_model_size"
    assert {row["id"] for row in read_scores(output / "scores.csv")} == names


def test_evaluate_and_predict_agree_at_the_original_size(run: Run, folder: Path) -> None:
    """Breaks if evaluate scores other masks than predict writes."""
    config = compose("data=folder", f"data.root={folder}", name="evaluate")
    result = evaluate(run, config, own_data=False)
    assert "none: all cases of folder, trained on phantom" in result["conditions"]["split"]
    output = folder.parent / "masks"
    failures = predict(folder / "images", output, compose(f"run={run.directory}", name="predict"))
    assert failures == []
    rows = read_scores(run.directory / "evaluation" / "folder" / "scores.csv")
    assert len(rows) == 6
    for row in rows:
        mask = cv2.imread(str(output / f"{row['id']}.png"), cv2.IMREAD_UNCHANGED)
        truth = read_mask(folder / "labels" / f"{row['id']}.png") > 0
        assert mask.shape == truth.shape == (int(row["height"]), int(row["width"]))
        assert set(np.unique(mask)) <= {0, 255}
        hit = mask > 0
        counts = [(hit & truth).sum(), (hit & ~truth).sum(), (~hit & truth).sum()]
        expected = overlap_scores(np.array([counts]))
        for score, value in expected.items():
            assert float(row[score]) == pytest.approx(value[0], abs=1e-6)
        assert int(row["lesion_area"]) == truth.sum()
        assert row["class"] == row["id"].split()[0]


def test_overlays_show_every_case_at_its_size(run: Run, folder: Path) -> None:
    """Breaks if an overlay is missing, scaled, or its colours change their meaning."""
    evaluate(run, compose("data=folder", f"data.root={folder}", name="evaluate"), own_data=False)
    overlays = run.directory / "evaluation" / "folder" / "overlays"
    images = sorted((folder / "images").iterdir())
    assert sorted(path.stem for path in overlays.iterdir()) == [path.stem for path in images]
    for path in images:
        image, overlay = read_image(path), read_image(overlays / f"{path.stem}.jpg")
        assert overlay.shape[0] == image.shape[0]
        shown = overlay[:, : image.shape[1]].astype(int)
        assert np.abs(shown - image).mean() < 1 and np.abs(shown - image).max() < 40


def test_an_evaluation_is_whole(run: Run) -> None:
    """Breaks if a file is missing, or the summary does not belong to the scores beside it."""
    result = evaluate(run, compose("tolerances=[3]", "extremes=2", name="evaluate"))
    output = run.directory / "evaluation" / "phantom"
    rows = read_scores(output / "scores.csv")
    assert {path.name for path in output.iterdir()} == {
        "scores.csv", "tables.csv", "summary.json", "extremes.png", "report.html", "overlays",
        "thumbnails",
    }  # fmt: skip
    assert len(list((output / "thumbnails").iterdir())) == 4 * len(rows)
    summary = json.loads((output / "summary.json").read_text())
    assert summary == json.loads(json.dumps(result))
    assert summary["scores_sha256"] == sha256(output / "scores.csv")
    assert summary["checkpoint_sha256"] == sha256(run.best_path)
    for score in ("iou", "nsd_3px", "hd95"):
        mean = np.mean([float(row[score]) for row in rows])
        assert summary[score] == pytest.approx(mean, abs=1e-5)
        low, high = summary["intervals"][score]
        assert low <= mean <= high
    assert len(summary["extremes"]["worst"]) == 2
    assert sum(b["share"] for b in summary["calibration"]["bins"]) == pytest.approx(1)


def test_a_diverged_network_overwrites_nothing(run: Run) -> None:
    """Breaks if logits that are NaN get a score, or a failure takes earlier results along."""
    output = run.directory / "evaluation" / "phantom"
    evaluate(run, compose("surface=false", name="evaluate"))
    before = {path: path.read_bytes() for path in output.rglob("*") if path.is_file()}
    checkpoint = torch.load(run.best_path, weights_only=True)
    for weights in checkpoint["state_dict"].values():
        if weights.is_floating_point():
            weights.fill_(3e38)  # finite, and so is nothing that they are multiplied with
    torch.save(checkpoint, run.best_path)
    with pytest.raises(UserError, match="infinite on 4 of 4 cases: phantom_00") as caught:
        evaluate(run, compose("overwrite=true", name="evaluate"))
    assert "\n" not in str(caught.value)
    assert {path: path.read_bytes() for path in output.rglob("*") if path.is_file()} == before
    assert [path.name for path in output.parent.iterdir()] == ["phantom"]


@pytest.mark.parametrize(
    ("override", "expected"),
    [("at=middle", "neither original nor model"), ("extremes=0", "at least 1"),
     ("tolerances=[-1]", "must be distances")],
)  # fmt: skip
def test_impossible_settings(run: Run, override: str, expected: str) -> None:
    """Breaks if a bad setting is found out only after the work, or as a traceback."""
    with pytest.raises(UserError, match=expected):
        evaluate(run, compose(override, name="evaluate"))


def test_results_are_not_overwritten_unasked(run: Run) -> None:
    """Breaks if a second evaluation replaces the first one's results in silence."""
    evaluate(run, compose("surface=false", name="evaluate"))
    with pytest.raises(UserError, match="overwrite=true"):
        evaluate(run, compose(name="evaluate"))
    evaluate(run, compose("overwrite=true", "surface=false", name="evaluate"))
    assert [p.name for p in (run.directory / "evaluation").iterdir()] == ["phantom"]


@pytest.mark.parametrize("damage", ["missing", "cut", "foreign"])
def test_a_bad_checkpoint_is_one_line(run: Run, damage: str) -> None:
    """Breaks if a checkpoint that cannot be used gives a traceback, or half an evaluation."""
    if damage == "missing":
        run.best_path.unlink()
    elif damage == "cut":
        run.best_path.write_bytes(run.best_path.read_bytes()[:1000])
    else:
        torch.save({"state_dict": {"other.weight": torch.zeros(1)}}, run.best_path)
    with pytest.raises(UserError) as caught:
        evaluate(run, compose(name="evaluate"))
    assert "best.ckpt" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (run.directory / "evaluation").exists()


def test_predict_reports_bad_images_and_does_the_others(run: Run, folder: Path) -> None:
    """Breaks if one bad file stops the rest, is passed over in silence, or exits with 0."""
    (folder / "images" / "broken.png").write_bytes(b"\x89PNG but not really")
    (folder / "images" / "empty.jpg").write_bytes(b"")
    output = folder.parent / "out"
    command = [sys.executable, "-m", "anatosegnet.predict", f"run={run.directory}"]
    command += [f"input={folder / 'images'}", f"output={output}"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert result.returncode == 1
    assert len(list(output.glob("*.png"))) == 6
    errors = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 2
    assert "broken.png" in errors[0]
    assert "empty.jpg" in errors[1]
    assert "Traceback" not in result.stderr


def test_predict_says_what_it_passes_over(
    run: Run, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Breaks if pictures of a kind that is not read are left out without a word."""
    images, output = folder / "images", folder.parent / "out"
    shutil.copy(next(images.iterdir()), images / "scan")
    (images / "a.gif").write_bytes(b"x")
    (images / "notes.txt").write_text("x")
    (images / ".hidden").write_text("x")
    failures = predict(images, output, compose(f"run={run.directory}", name="predict"))
    assert len(failures) == 2
    printed = capsys.readouterr()
    assert f"error: {images}/a.gif: .gif is not read; convert it" in printed.err
    assert f"error: {images}/scan: a picture without suffix is not read" in printed.err
    assert f"6 masks in {output}, 2 images failed; 1 other files passed over" in printed.out
    for name in ("a.gif", "scan"):
        with pytest.raises(UserError, match=f"input=.*{name}: .* is not read; convert it"):
            predict(images / name, output, compose(f"run={run.directory}", name="predict"))
    with pytest.raises(UserError, match="batch_size=0 must be at least 1"):
        predict(images, output, compose(f"run={run.directory}", "batch_size=0", name="predict"))


def test_an_output_that_is_no_number_is_no_mask(
    run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Breaks if NaN is written as a mask without a lesion."""
    whole = Predictor.probabilities

    def probabilities(self: Predictor, images: Sequence[np.ndarray]) -> np.ndarray:
        result = whole(self, images)
        result[1, 0, 0] = np.nan
        return result

    monkeypatch.setattr(Predictor, "probabilities", probabilities)
    images, output = folder / "images", folder.parent / "out"
    failures = predict(images, output, compose(f"run={run.directory}", name="predict"))
    bad = sorted(images.iterdir())[1]
    assert failures == [f"{bad}: {NO_NUMBER}"] and failures[0] in capsys.readouterr().err
    assert len(list(output.glob("*.png"))) == 5 and not (output / f"{bad.stem}.png").exists()


def test_long_work_says_how_far_it_is(
    run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Breaks if predicting thousands of images, scoring them, or reading them, is silent."""
    monkeypatch.setattr(console, "PATIENCE", 0)
    monkeypatch.setattr(console, "BETWEEN_LINES", 0)
    predict(
        folder / "images", folder.parent / "out", compose(f"run={run.directory}", name="predict")
    )
    lines = capsys.readouterr().err.splitlines()
    assert "predicting 3 of 6 (50 %), 0:00 left" in lines
    evaluate(run, compose("surface=false", name="evaluate"))
    assert "scoring 4 of 4 (100 %)" in capsys.readouterr().err.splitlines()
    data = prepared(FolderSource(str(folder)), HoldoutSplit((0.4, 0.3, 0.3)), cache="disk")
    assert len(data.fingerprint) == 12
    lines = capsys.readouterr().err.splitlines()
    assert "reading 3 of 6 (50 %), 0:00 left" in lines
    assert lines.count("checking files 3 of 6 (50 %), 0:00 left") == 1


def test_long_names_and_one_failure(run: Run, folder: Path) -> None:
    """Breaks if a name of 240 letters stops prediction, or one mask takes the others along."""
    images, output = folder / "images", folder.parent / "out"
    first = sorted(images.iterdir())[0]
    shutil.copy(first, images / ("L" * 240 + ".png"))
    (output / f"{first.stem}.png").mkdir(parents=True)  # it cannot be written over
    failures = predict(
        images, output, compose(f"run={run.directory}", "overwrite=true", name="predict")
    )
    assert len(failures) == 1
    assert "its mask cannot be written (Is a directory)" in failures[0]
    assert len([path for path in output.glob("*.png") if path.is_file()]) == 6
    assert (output / ("L" * 240 + ".png")).stat().st_size


def test_predict_keeps_one_image_in_memory(run: Run, folder: Path) -> None:
    """Breaks if memory grows with the number or the size of the images."""
    kept: list[weakref.ref] = []

    def read(path: Path) -> np.ndarray:
        alive = [one for one in kept if one() is not None]
        assert len(alive) <= 1, path
        image = read_image(path)
        kept.append(weakref.ref(image))
        return image

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("anatosegnet.prediction.inputs.read_image", read)
        assert (
            predict(
                folder / "images", folder / "o", compose(f"run={run.directory}", name="predict")
            )
            == []
        )
    assert len(kept) == 6


def test_a_full_disk_is_one_line_and_leaves_whole_masks(
    run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Breaks if a mask is half-written, or a full disk is a traceback."""
    output, whole = folder.parent / "out", Path.write_bytes

    def write(path: Path, data: bytes) -> int:
        if len(list(output.glob("[!.]*.png"))) < 3:
            return whole(path, data)
        whole(path, data[:10])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))  # without a name, as from write(2)

    monkeypatch.setattr(Path, "write_bytes", write)
    with pytest.raises(SystemExit) as stopped, errors_in_one_line("predict"):
        predict(folder / "images", output, compose(f"run={run.directory}", name="predict"))
    assert stopped.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {output}/")
    assert line.endswith(
        ".png: No space left on device; make room, then give the same command again"
    )
    masks = sorted(output.glob("*.png"))
    assert len(masks) == 3
    assert all(cv2.imread(str(path), 0) is not None for path in masks)


def test_results_are_there_before_anything_is_printed(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Breaks if a failure to print takes an evaluation along."""

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("no printing")

    monkeypatch.setattr("anatosegnet.evaluation.tables.say_table", fail)
    with pytest.raises(RuntimeError, match="no printing"):
        evaluate(run, compose(name="evaluate"))
    assert (run.directory / "evaluation" / "phantom" / "report.html").stat().st_size


def test_names_of_data_do_not_lead_elsewhere(run: Run) -> None:
    """Breaks if the name of a dataset decides where an evaluation is written."""
    for name in ("../../victim", "/tmp/victim", "a/b", ".."):
        with pytest.raises(UserError, match=r"data\.name="):
            evaluation_directory(run, name, "original")


def test_predict_refuses_to_overwrite(run: Run, folder: Path) -> None:
    """Breaks if masks, or the images themselves, can be overwritten by accident."""
    image = next((folder / "images").iterdir())
    output = folder.parent / "out"
    assert predict(image, output, compose(f"run={run.directory}", name="predict")) == []
    (output / RECORD).unlink()  # by which it would be known for done
    with pytest.raises(UserError, match="exists"):
        predict(image, output, compose(f"run={run.directory}", name="predict"))
    with pytest.raises(UserError, match="folder of the images"):
        predict(
            folder / "images", folder / "images", compose(f"run={run.directory}", name="predict")
        )
    shutil.copy(image, image.with_suffix(".bmp"))
    with pytest.raises(UserError, match="same stem"):
        predict(
            folder / "images",
            folder.parent / "other",
            compose(f"run={run.directory}", name="predict"),
        )


def test_masks_do_not_depend_on_the_batch(run: Run) -> None:
    """Breaks if images of one batch influence each other."""
    predictor = Predictor.from_run(run, "cpu")
    images = [cv2.cvtColor(simulate(9, i).image, cv2.COLOR_GRAY2RGB) for i in range(3)]
    together = predictor.probabilities(images)
    for image, probability in zip(images, together, strict=True):
        np.testing.assert_allclose(predictor.probabilities([image])[0], probability, atol=1e-5)


def test_mask_at_is_strictly_above_one_half() -> None:
    """Breaks if the threshold differs from the argmax of training."""
    assert mask_at(np.array([[0.5, 0.50001]], np.float32), (1, 2)).tolist() == [[False, True]]


def test_a_directory_without_a_run_is_named(tmp_path: Path) -> None:
    """Breaks if any folder passes for a run."""
    with pytest.raises(UserError, match="no run directory"):
        Run.open(tmp_path)
    with pytest.raises(UserError, match="run=DIR"):
        Run.open(None)
