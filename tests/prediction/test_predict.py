"""predict's files in and out, with a network that a test can follow: bright is lesion."""

import csv
import errno
import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from omegaconf import DictConfig

pytest.importorskip("pydicom")
import pydicom
from pydicom import uid

from anatosegnet.data.case import read_image
from anatosegnet.data.resizing import resize_image
from anatosegnet.errors import UserError
from anatosegnet.files import locks
from anatosegnet.files.rows import read_rows
from anatosegnet.metrics.measurement import lesions
from anatosegnet.metrics.uncertainty import predictive_entropy
from anatosegnet.prediction import inputs
from anatosegnet.prediction import predict as module
from anatosegnet.prediction.going_on import LOCK, RECORD
from anatosegnet.prediction.inputs import find_images
from anatosegnet.prediction.measurements import COLUMNS
from anatosegnet.prediction.predict import predict
from anatosegnet.prediction.predictor import Ensemble, Prediction
from tests.conftest import write_png
from tests.dicoms import (
    SECRETS,
    dicom,
    grey_picture,
    phantom_still,
    region,
    write_dicom,
)
from tests.running import compose


class Bright:
    """Grey levels as probabilities; counts what it was shown."""

    image_size = (96, 120)

    def __init__(self) -> None:
        self.shown = 0

    def predict(self, images: Sequence[np.ndarray]) -> Prediction:
        """(B, 96, 120)."""
        self.shown += len(images)
        small = [resize_image(image, self.image_size)[..., 0] for image in images]
        return Prediction.of(np.stack(small).astype(np.float32) / 255)


@pytest.fixture
def network(monkeypatch: pytest.MonkeyPatch) -> Bright:
    """In the place of a trained one."""
    network = Bright()
    monkeypatch.setattr("anatosegnet.prediction.going_on.open_runs", lambda *_: [])
    monkeypatch.setattr(module, "open_predictor", lambda config: network)
    return network


def settings(*overrides: str) -> DictConfig:
    """The config of the verb."""
    return compose(*overrides, name="predict")


def still(*centres: tuple[int, int], size: tuple[int, int] = (96, 120)) -> np.ndarray:
    """(H, W) uint8: dark, with a bright ellipse of 40 × 20 px at each centre (x, y)."""
    image = np.full(size, 20, np.uint8)
    for centre in centres:
        cv2.ellipse(image, centre, (20, 10), 0, 0, 360, 240, -1)
    return image


def rows_of(output: Path) -> list[dict[str, str]]:
    """The rows of measurements.csv."""
    columns, rows = read_rows(output / "measurements.csv", ragged=False)
    assert tuple(columns) == COLUMNS
    return rows


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """One picture without a lesion, two with one, one with two."""
    folder = tmp_path / "images"
    for name, centres in {
        "a": [], "b": [(40, 30)], "c": [(60, 50)], "d": [(30, 30), (90, 70)],
    }.items():  # fmt: skip
        write_png(folder / f"{name}.png", still(*centres))
    return folder


def test_every_image_has_a_mask_and_rows(images: Path, network: Bright, tmp_path: Path) -> None:
    """Breaks if an image without a lesion is passed over, or a lesion is not measured."""
    assert predict(images, tmp_path / "out", settings()) == []
    assert sorted(path.name for path in (tmp_path / "out").glob("*.png")) == [
        "a.png", "b.png", "c.png", "d.png",
    ]  # fmt: skip
    mask = cv2.imread(str(tmp_path / "out" / "d.png"), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(mask > 0, still((30, 30), (90, 70)) > 127)
    rows = rows_of(tmp_path / "out")
    assert [(row["image"], row["lesions"], row["lesion"]) for row in rows] == [
        ("a.png", "0", ""), ("b.png", "1", "1"), ("c.png", "1", "1"), ("d.png", "2", "1"),
        ("d.png", "2", "2"),
    ]  # fmt: skip
    assert float(rows[1]["long_axis_px"]) == pytest.approx(41, abs=1)
    assert float(rows[1]["short_axis_px"]) == pytest.approx(21, abs=1)
    assert float(rows[1]["depth_px"]) == 20
    assert float(rows[1]["mean_probability"]) == pytest.approx(240 / 255, abs=1e-4)
    assert 0 < float(rows[1]["uncertainty"]) < 1
    assert rows[1]["long_axis_mm"] == rows[1]["frame"] == ""
    assert rows[0]["image_uncertainty"] == "1.0"
    assert not (tmp_path / "out" / LOCK).exists()


def test_everything_that_can_be_written(images: Path, network: Bright, tmp_path: Path) -> None:
    """Breaks if a probability loses its 16 bits, or a contour is not that of the mask."""
    output = tmp_path / "out"
    given = "write=[contours,overlays,probabilities,entropy]"
    assert predict(images, output, settings(given, "batch_size=3")) == []
    assert not list(output.glob("*.png"))
    deep = cv2.imread(str(output / "probabilities" / "b.png"), cv2.IMREAD_UNCHANGED)
    assert deep.dtype == np.uint16
    np.testing.assert_array_equal(deep, still((40, 30)).astype(np.uint16) * 257)
    unsure = cv2.imread(str(output / "entropy" / "b.png"), cv2.IMREAD_UNCHANGED)
    expected = np.rint(predictive_entropy(deep / np.float32(65535)) * 65535)
    assert np.abs(unsure - expected).max() <= 1
    overlay = cv2.imread(str(output / "overlays" / "d.jpg"))
    assert overlay.shape == (96, 244, 3)
    coco = json.loads((output / "contours.json").read_text())
    assert [image["file_name"] for image in coco["images"]] == ["a.png", "b.png", "c.png", "d.png"]
    assert [one["image_id"] for one in coco["annotations"]] == [2, 3, 4, 4]
    assert [one["id"] for one in coco["annotations"]] == [1, 2, 3, 4]
    drawn = np.zeros((96, 120), np.uint8)
    for one in coco["annotations"][2:]:
        polygon = np.array(one["segmentation"][0]).reshape(-1, 2) - 0.5
        cv2.fillPoly(drawn, [polygon.astype(np.int32)], 1)
        x, y, width, height = one["bbox"]
        assert drawn[y : y + height, x : x + width].sum() == one["area"]
    np.testing.assert_array_equal(drawn > 0, still((30, 30), (90, 70)) > 127)


def test_what_members_disagree_about(
    images: Path, network: Bright, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Breaks if the map of an ensemble is missing, or one network is said to disagree."""
    given = settings("write=mutual_information")
    with pytest.raises(UserError, match="of an ensemble's members"):
        predict(images, tmp_path / "out", given)
    assert not (tmp_path / "out").exists()
    monkeypatch.setattr(module, "open_predictor", lambda config: Ensemble([network, Bright()]))
    assert predict(images, tmp_path / "out", given) == []
    found = cv2.imread(str(tmp_path / "out" / "mutual_information" / "b.png"), -1)
    assert found.dtype == np.uint16 and found.max() == 0


def test_a_still_in_millimetres(network: Bright, tmp_path: Path, capsys: Any) -> None:
    """Breaks if a lesion is measured with another spacing than that of its region, or squarely."""
    regions = [region(0, 10, 119, 95, (0.02, 0.01)), region(0, 0, 119, 9, RegionDataType=3)]
    image = np.full((96, 120), 20, np.uint8)
    cv2.circle(image, (60, 50), 20, 240, -1)
    write_dicom(tmp_path / "in" / "still.dcm", [image], regions=regions)
    write_dicom(tmp_path / "in" / "IM1", [still((40, 40))], kind="MONOCHROME2", StudyID="7")
    assert predict(tmp_path / "in", tmp_path / "out", settings()) == []
    unscaled, row = rows_of(tmp_path / "out")
    assert float(row["long_axis_mm"]) == pytest.approx(8.2, abs=0.2)  # 41 rows of 0.2 mm
    assert float(row["short_axis_mm"]) == pytest.approx(4.1, abs=0.1)  # 41 columns of 0.1 mm
    assert float(row["area_mm2"]) == pytest.approx(float(row["area_px"]) * 0.02)
    assert float(row["depth_px"]) == 20 and float(row["depth_mm"]) == pytest.approx(4)
    assert (row["pixel_height_mm"], row["pixel_width_mm"]) == ("0.2", "0.1")
    assert unscaled["long_axis_mm"] == "" and unscaled["long_axis_px"]
    assert "1 images say nothing of their scale" in capsys.readouterr().out


def test_frames_of_a_cine_and_nothing_of_the_patient(
    network: Bright, tmp_path: Path, capfd: Any
) -> None:
    """Breaks if frames are lost or misnamed, or the patient is in any output, name or log."""
    frames = [still((20 + 10 * n, 40)) for n in range(3)]
    write_dicom(tmp_path / "in" / "cine.dcm", frames, regions=[region(0, 0, 119, 95)])
    write_dicom(tmp_path / "in" / "one", [still()], syntax=uid.JPEG2000Lossless)
    damaged = (tmp_path / "in" / "one").read_bytes()
    (tmp_path / "in" / "bad.dcm").write_bytes(damaged[:-500])
    output = tmp_path / "out"
    given = "write=[masks,probabilities,contours,overlays,dicom_seg]"
    failures = predict(tmp_path / "in", output, settings(given, "batch_size=2"))
    assert len(failures) == 1 and "bad.dcm" in failures[0]
    names = ["cine_frame001", "cine_frame002", "cine_frame003", "one"]
    assert sorted(path.stem for path in output.glob("*.png")) == names
    assert sorted(path.stem for path in (output / "overlays").iterdir()) == names
    assert [(row["image"], row["frame"]) for row in rows_of(output)] == [
        ("cine.dcm", "1"), ("cine.dcm", "2"), ("cine.dcm", "3"), ("one", ""),
    ]  # fmt: skip
    coco = json.loads((output / "contours.json").read_text())
    assert [image.get("frame") for image in coco["images"]] == [1, 2, 3, None]
    said = "".join(capfd.readouterr())
    for path in output.rglob("*"):
        content = path.read_bytes() if path.is_file() else b""
        for secret in SECRETS:
            assert secret.encode() not in content, path
            assert secret not in path.name and secret not in said
    source = pydicom.dcmread(tmp_path / "in" / "cine.dcm")
    for number, frame in enumerate(frames, start=1):
        found = pydicom.dcmread(output / "dicom_seg" / f"cine_frame{number:03d}.dcm")
        (series,) = found.ReferencedSeriesSequence
        assert series.SeriesInstanceUID == source.SeriesInstanceUID
        (instance,) = series.ReferencedInstanceSequence
        assert instance.ReferencedSOPInstanceUID == source.SOPInstanceUID
        assert found.StudyInstanceUID == source.StudyInstanceUID
        (group,) = found.PerFrameFunctionalGroupsSequence
        (image,) = group.DerivationImageSequence[0].SourceImageSequence
        assert image.ReferencedSOPInstanceUID == source.SOPInstanceUID
        assert image.ReferencedFrameNumber == number
        np.testing.assert_array_equal(np.squeeze(found.pixel_array) > 0, frame > 127)
    single = pydicom.dcmread(output / "dicom_seg" / "one.dcm")
    np.testing.assert_array_equal(np.squeeze(single.pixel_array) > 0, still() > 127)


def test_a_segmentation_of_what_is_no_dicom_is_one_line(
    images: Path, network: Bright, tmp_path: Path
) -> None:
    """Breaks if dicom_seg is left out in silence, or found out after the work."""
    with pytest.raises(UserError, match=r"write=dicom_seg: .*a\.png is no DICOM file"):
        predict(images, tmp_path / "out", settings("write=dicom_seg"))
    with pytest.raises(UserError, match=r"write=movies must be one of masks, prob"):
        predict(images, tmp_path / "out", settings("write=movies"))
    assert not (tmp_path / "out").exists()


def interrupted(monkeypatch: pytest.MonkeyPatch, network: Bright, after: int) -> None:
    """Predicting ends as by Ctrl-C after so many images."""
    whole = Bright.predict

    def predicted(self: Bright, given: Sequence[np.ndarray]) -> Prediction:
        if self.shown >= after:
            raise KeyboardInterrupt
        return whole(self, given)

    monkeypatch.setattr(Bright, "predict", predicted)


def test_it_goes_on_where_it_was(
    images: Path, network: Bright, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """Breaks if what is done is done again, a half-written line counts, or anything differs."""
    given = settings("write=[masks,contours]", "batch_size=1")
    predict(images, tmp_path / "whole", given)
    network.shown = 0
    output = tmp_path / "out"
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        interrupted(patch, network, 3)
        predict(images, output, given)
    assert network.shown == 3
    record = output / RECORD
    assert len(rows_of(output)) == 3
    # killed while the third was written down
    record.write_bytes(record.read_bytes()[:-20])
    with (output / "measurements.csv").open("a") as file:
        file.write("c.png,1")
    network.shown = 0
    assert predict(images, output, given) == []
    assert network.shown == 2
    assert "2 images were done before" in capsys.readouterr().out
    for name in ("measurements.csv", "contours.json", "d.png"):
        assert (output / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name
    network.shown = 0
    assert predict(images, output, given) == []
    assert network.shown == 0
    # what is gone or has changed is done again, what came later too
    (output / "a.png").unlink()
    write_png(images / "b.png", still((50, 50), (90, 20)))
    write_png(images / "e.png", still())
    assert predict(images, output, given) == []
    assert network.shown == 3
    assert sorted(row["image"][0] for row in rows_of(output)) == [*"abbcdde"]


def test_other_settings_are_not_mixed(images: Path, network: Bright, tmp_path: Path) -> None:
    """Breaks if results of two networks, or two ways to write, stand in one folder."""
    output = tmp_path / "out"
    predict(images, output, settings())
    with pytest.raises(UserError, match=r"other settings \(tta\); give another output=DIR"):
        predict(images, output, settings("tta=flip"))
    with pytest.raises(UserError, match=r"other settings \(write\)"):
        predict(images, output, settings("write=[masks,overlays]"))
    network.shown = 0
    predict(images, output, settings("tta=flip", "overwrite=true"))
    assert network.shown == 4
    predict(images, output, settings("tta=flip", "overwrite=true"))
    assert network.shown == 8
    assert len(rows_of(output)) == 5


def test_masks_of_another_origin_are_not_replaced(
    images: Path, network: Bright, tmp_path: Path
) -> None:
    """Breaks if masks that somebody drew are overwritten unasked."""
    write_png(tmp_path / "out" / "b.png", still())
    with pytest.raises(UserError, match=r"b\.png exists \(1 of 4 masks do\)"):
        predict(images, tmp_path / "out", settings())
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["b.png"]
    with pytest.raises(UserError, match="is the folder of the images"):
        predict(images, images, settings("overwrite=true"))


def test_two_at_once(images: Path, network: Bright, tmp_path: Path) -> None:
    """Breaks if two processes write into one folder."""
    output = tmp_path / "out"
    output.mkdir()
    held = os.open(output / LOCK, os.O_RDWR | os.O_CREAT)
    if locks.lock(held) is None:
        pytest.skip("no locks here")
    with pytest.raises(UserError, match="another process is predicting into it"):
        predict(images, output, settings())
    os.close(held)
    assert predict(images, output, settings()) == []


@pytest.mark.parametrize(
    "line",
    [b"[]", b"{}", b'{"name": 3}', b'{"name": "a", "frames": "x"}', b"\xff", b"[" * 100_000,
     b'{"name": "a", "frames": 1, "rows": [3], "contours": []}'],
)  # fmt: skip
def test_a_damaged_record_is_done_again(
    line: bytes, images: Path, network: Bright, tmp_path: Path
) -> None:
    """Breaks if a record that a crash or a stranger left is a traceback, or believed."""
    output = tmp_path / "out"
    predict(images, output, settings())
    first = (output / RECORD).read_bytes().splitlines(True)[0]
    (output / RECORD).write_bytes(first + line + b"\n")
    network.shown = 0
    assert predict(images, output, settings()) == []
    assert network.shown == 4 and len(rows_of(output)) == 5


def test_what_is_given(tmp_path: Path) -> None:
    """Breaks if a pattern or a list loses a file, or takes one twice."""
    for name in ("a.png", "b.jpg", "c.txt", "d.gif", ".hidden.png", "DICOMDIR"):
        (tmp_path / name).write_bytes(b"x")
    scan = write_dicom(tmp_path / "IM7", [grey_picture()])
    folder = find_images(tmp_path)
    assert [path.name for path in folder.images] == ["IM7", "a.png", "b.jpg"]
    assert len(folder.complaints) == 1 and folder.others == 2
    pattern = find_images([str(tmp_path / "*.png"), str(tmp_path / "I*"), str(scan)])
    assert [path.name for path in pattern.images] == ["a.png", "IM7"]
    assert find_images([tmp_path / "*.jpg", tmp_path]).images[0].name == "b.jpg"
    with pytest.raises(UserError, match=r"\*\.bmp: no file matches it"):
        find_images(str(tmp_path / "*.bmp"))
    with pytest.raises(UserError, match="no such file or folder"):
        find_images([str(tmp_path), str(tmp_path / "nothing")])
    with pytest.raises(UserError, match="holds no image"):
        find_images([str(tmp_path / "c.txt"), str(tmp_path / "DICOMDIR")])


def test_names_that_would_meet(network: Bright, tmp_path: Path) -> None:
    """Breaks if a frame of a cine and another image are written to one file."""
    write_dicom(tmp_path / "in" / "a.dcm", [still()] * 2)
    write_png(tmp_path / "in" / "a_frame002.png", still())
    with pytest.raises(UserError, match=r"a_frame002\.png and a frame of a\.dcm"):
        predict(tmp_path / "in", tmp_path / "out", settings())
    write_png(tmp_path / "in" / "a.png", still())
    with pytest.raises(UserError, match="have the same stem"):
        predict(tmp_path / "in", tmp_path / "out", settings())


def test_a_bad_frame_is_one_line_and_is_tried_again(
    network: Bright, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Breaks if one frame takes the others of its file along, or is forgotten."""
    write_dicom(tmp_path / "in" / "a.dcm", [still((40, 40))] * 3)
    whole = module.Outputs.write

    def write(self: Any, picture: inputs.Picture, *rest: Any) -> None:
        if picture.name == "a_frame002":
            raise OSError(errno.EISDIR, "Is a directory")
        whole(self, picture, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(module.Outputs, "write", write)
        failures = predict(tmp_path / "in", tmp_path / "out", settings())
    assert len(failures) == 1 and "a.dcm, frame 2: its mask cannot be written" in failures[0]
    assert [row["frame"] for row in rows_of(tmp_path / "out")] == ["1", "3"]
    assert predict(tmp_path / "in", tmp_path / "out", settings()) == []
    assert [row["frame"] for row in rows_of(tmp_path / "out")] == ["1", "2", "3"]


def test_no_picture_is_kept(
    images: Path, network: Bright, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Breaks if memory grows with the number of images: overlays wait, but not without end."""
    for number in range(20):
        shutil.copy(images / "d.png", images / f"z{number}.png")
    alive: list[Any] = []

    def read(path: Path) -> np.ndarray:
        import weakref

        alive[:] = [one for one in alive if one() is not None]
        assert len(alive) <= 4
        image = read_image(path)
        alive.append(weakref.ref(image))
        return image

    monkeypatch.setattr(inputs, "read_image", read)
    monkeypatch.setattr(module, "LARGEST", 2 * 96 * 120)
    assert predict(images, tmp_path / "out", settings("write=[overlays]")) == []


def test_lesions_are_those_of_the_contours() -> None:
    """Breaks if the numbers of lesions differ between the table and the contours."""
    mask = still((30, 30), (90, 70)) > 127
    mask[5, 5] = True
    from anatosegnet.prediction.measurements import contours

    assert [one["area"] for one in contours(mask)] == [int(one.mask.sum()) for one in lesions(mask)]
    assert len(list(contours(mask))[-1]["segmentation"][0]) == 6


def test_formulas_in_names_are_harmless(network: Bright, tmp_path: Path) -> None:
    """Breaks if a file's name is computed by a spreadsheet."""
    write_png(tmp_path / "in" / "=1+1.png", still((40, 40)))
    assert predict(tmp_path / "in", tmp_path / "out", settings()) == []
    assert "'=1+1.png" in (tmp_path / "out" / "measurements.csv").read_text()
    with (tmp_path / "out" / "measurements.csv").open() as file:
        assert len(list(csv.reader(file))) == 2


def test_dicom_without_identifiers_has_no_segmentation(network: Bright, tmp_path: Path) -> None:
    """Breaks if a segmentation that refers to nothing is written, or is a traceback."""
    from scripts.fuzzing.dicoms import content_of

    found = dicom([still((40, 40))])
    del found.StudyInstanceUID
    (tmp_path / "a.dcm").write_bytes(content_of(found))
    failures = predict(tmp_path / "a.dcm", tmp_path / "out", settings("write=dicom_seg"))
    assert failures == [f"{tmp_path / 'a.dcm'}: no DICOM segmentation can be made of it"]


def test_the_walk_of_the_docs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks if a simulated lesion, found as it is, is not as many mm as docs/deploy.md says."""
    truth = phantom_still(tmp_path / "still.dcm")

    class Truth(Bright):
        image_size = truth.shape  # type: ignore[assignment]

        def predict(self, images: Sequence[np.ndarray]) -> Prediction:
            """The true lesion."""
            return Prediction.of(truth[None].astype(np.float32))

    monkeypatch.setattr("anatosegnet.prediction.going_on.open_runs", lambda *_: [])
    monkeypatch.setattr(module, "open_predictor", lambda config: Truth())
    assert predict(str(tmp_path / "still.dcm"), tmp_path / "out", settings()) == []
    (row,) = rows_of(tmp_path / "out")
    names = ("long_axis_mm", "short_axis_mm", "area_mm2", "depth_mm", "pixel_width_mm")
    found = [round(float(row[name]), 2) for name in names]
    assert found == [16.49, 9.92, 121.42, 9.72, 0.1]
    page = (Path(__file__).parents[2] / "docs" / "deploy.md").read_text("utf-8")
    assert "16.5 × 9.9 mm, 121 mm²" in page and "9.7 mm deep" in page
    for column in COLUMNS:
        stem = column.removesuffix("_px").removesuffix("_mm")
        assert f"`{column}`" in page or f"`{stem}_px`, `_mm`" in page
