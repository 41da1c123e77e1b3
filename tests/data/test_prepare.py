"""prepare: the index, the audit, the contact sheet and the export."""

import csv
import hashlib
import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from anatosegnet.data.case import Case
from anatosegnet.data.datamodule import SegmentationDataModule
from anatosegnet.data.datasets.breast_lesions_usg import BreastLesionsUSGSource
from anatosegnet.data.datasets.bus_uclm import BUSUCLMSource
from anatosegnet.data.datasets.busi import BUSISource
from anatosegnet.data.datasets.folder import FolderSource
from anatosegnet.data.download import Download
from anatosegnet.data.duplicates import Pair, natural_key
from anatosegnet.data.preparation import fetch
from anatosegnet.data.preparation.audit import merged_groups
from anatosegnet.data.split import HoldoutSplit
from anatosegnet.errors import UserError
from anatosegnet.prepare import prepare
from anatosegnet.run import Run
from anatosegnet.train import train
from tests.conftest import square_mask, write_png
from tests.data.test_bus_uclm import bus_uclm  # noqa: F401 (a fixture)
from tests.preparing import found, prepared
from tests.running import compose, compose_small
from tests.test_config import command

FILES = ["audit.json", "audit.md", "cases.csv", "contact_sheet.png", "duplicates.csv"]


def texture(seed: int, size: tuple[int, int] = (90, 120)) -> np.ndarray:
    """(H, W) uint8: a smooth picture, unlike that of any other seed."""
    noise = np.random.default_rng(seed).integers(0, 256, (9, 12), dtype=np.uint8)
    return cv2.resize(noise, size[::-1], interpolation=cv2.INTER_CUBIC)


@pytest.fixture
def busi_like(tmp_path: Path) -> Path:
    """24 tumours and a normal image in BUSI's release layout, of several sizes and modes.

    benign (2) is a brighter copy of malignant (1); benign (3) has two masks.
    """
    root = tmp_path / "data" / "Dataset_BUSI_with_GT"
    for label, count in (("benign", 14), ("malignant", 10), ("normal", 1)):
        for number in range(1, count + 1):
            stem, size = f"{label} ({number})", (90 + number, 130 - 2 * number)
            seed = 10 * number + 1000 * len(set(label))
            pixels = texture(seed, size)
            if number % 4 == 0:
                pixels = cv2.merge([pixels, texture(seed + 1, size), texture(seed + 2, size)])
            if stem == "benign (2)":
                size = (91, 128)
                pixels = np.minimum(texture(10 + 1000 * 7, size).astype(int) + 9, 255).astype(
                    np.uint8
                )
            mask = square_mask(size, at=10 + number)
            write_png(root / label / f"{stem}.png", pixels)
            write_png(root / label / f"{stem}_mask.png", mask * (label != "normal"))
    write_png(root / "benign" / "benign (3)_mask_1.png", square_mask((93, 124), at=60))
    return root.parent


def settings(root: Path, out: Path, *overrides: str, data: str = "busi") -> object:
    """The config of a command."""
    return compose(
        f"data={data}", f"data.root={root}", f"paths.data_dir={root}", f"out={out}", *overrides,
        name="prepare",
    )  # fmt: skip


def rows(path: Path) -> list[dict[str, str]]:
    """A csv file."""
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_index_of_a_dataset(
    busi_like: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Breaks if a column is wrong, normal images are forgotten, or a twin is not found."""
    published = {"images": 25, "benign": 14, "malignant": 10, "normal": 1, "masks": 26}
    monkeypatch.setattr(BUSISource, "published", published)
    out = tmp_path / "index"
    assert prepare(settings(busi_like, out))
    assert sorted(path.name for path in out.iterdir()) == FILES
    cases = {row["id"]: row for row in rows(out / "cases.csv")}
    assert list(cases) == sorted(cases, key=natural_key)
    assert len(cases) == 25
    row = cases["benign (3)"]
    image = busi_like / row["image"]
    assert row["image"] == "Dataset_BUSI_with_GT/benign/benign (3).png"
    assert [Path(path).name for path in row["masks"].split("|")] == [
        "benign (3)_mask.png", "benign (3)_mask_1.png",
    ]  # fmt: skip
    assert (row["class"], row["height"], row["width"]) == ("benign", "93", "124")
    assert row["sha256"] == hashlib.sha256(image.read_bytes()).hexdigest()
    assert row["pixel_size_mm"] == row["fold"] == row["group"] == ""
    assert cases["benign (2)"]["group"] == cases["malignant (1)"]["group"] == "benign (2)"
    (pair,) = rows(out / "duplicates.csv")
    assert (pair["id_a"], pair["id_b"]) == ("benign (2)", "malignant (1)")
    assert 0.9 < float(pair["similarity"]) <= 1
    found = json.loads((out / "audit.json").read_text())
    assert found["clean"]
    assert found["counts"]["normal"] == {"published": 1, "found": 1}
    assert found["several_masks"] == {"benign (3)": 2}
    assert found["duplicate_groups_of_different_class"] == {
        "benign (2)": ["benign (2)", "malignant (1)"]
    }
    assert found["modes"]["images"] == {"PNG L": 20, "PNG RGB": 5}
    text = (out / "audit.md").read_text()
    assert "# Audit of busi: clean" in text
    assert "- benign (2), malignant (1) **(classes differ)**" in text
    assert "classes differ in 1" in capsys.readouterr().out
    sheet = Image.open(out / "contact_sheet.png").convert("RGB")
    colours = {colour for _, colour in sheet.getcolors(2**24)}
    assert {(0, 158, 115), (213, 94, 0)} <= colours  # outlines of both classes


@pytest.mark.slow
def test_the_same_data_gives_the_same_files(busi_like: Path, tmp_path: Path) -> None:
    """Breaks if an index cannot be compared with that of another machine or day."""
    for out in ("one", "two", "two"):
        prepare(settings(busi_like, tmp_path / out))
    for name in FILES:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_counts_that_differ_are_problems(busi_like: Path, tmp_path: Path) -> None:
    """Breaks if an incomplete download passes for the published dataset."""
    assert not prepare(settings(busi_like, tmp_path / "out", "data.exclude=[benign*]"))
    found = json.loads((tmp_path / "out" / "audit.json").read_text())
    assert "14 benign found, 437 published" in found["problems"]  # excluded ones are counted
    assert len(found["excluded"]) == 14
    assert "| differs |" in (tmp_path / "out" / "audit.md").read_text()


def test_all_problems_are_in_the_audit(
    busi_like: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Breaks if the audit ends at the first bad file, or leaves it out of its list."""
    monkeypatch.setattr(BUSISource, "published", {})
    benign = busi_like / "Dataset_BUSI_with_GT" / "benign"
    (benign / "benign (1).png").write_bytes(b"x")
    (benign / "benign (4)_mask.png").unlink()
    write_png(benign / "benign (5)_mask.png", square_mask((9, 9)))
    assert not prepare(settings(busi_like, tmp_path / "out"))
    found = json.loads((tmp_path / "out" / "audit.json").read_text())
    assert len(found["problems"]) == 3
    for number, words in ((1, "decoded"), (4, "no mask"), (5, "the mask is 9×9")):
        assert any(f"benign ({number})" in p and words in p for p in found["problems"])
    assert len(rows(tmp_path / "out" / "cases.csv")) == 22 - 1  # the normal one is not published


def test_pairs_that_do_not_fit_are_named_and_can_be_left_out(
    bus_uclm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch  # noqa: F811
) -> None:  # fmt: skip
    """Breaks if HESN's masks are resized, or leaving HESN out does not help."""
    monkeypatch.setattr(BUSUCLMSource, "published", {"images": 6, "patients": 3})
    out = tmp_path / "out"
    assert not prepare(settings(bus_uclm, out, data="bus_uclm"))
    assert len(json.loads((out / "audit.json").read_text())["problems"]) == 2
    assert prepare(settings(bus_uclm, out, "data.exclude=[HESN_*]", data="bus_uclm"))
    assert [row["group"] for row in rows(out / "cases.csv")] == ["ALWI", "ALWI", "ANAT", "ANAT"]


def test_groups_join_patients_and_twins() -> None:
    """Breaks if patients that share an image are kept apart, or a lone case gets a group."""
    patients = {"a": "p", "b": "p", "c": "q", "d": "", "e": "", "f": "", "g": "r"}
    cases = [Case(name, group=group) for name, group in patients.items()]
    pairs = [Pair("b", "c", 0.9), Pair("d", "e", 0.9)]
    assert merged_groups(cases, pairs) == {
        "a": "a", "b": "a", "c": "a", "d": "d", "e": "d", "g": "r",
    }  # fmt: skip
    assert merged_groups(cases, [Pair("c", "d", 0.9)]) == {
        "a": "p", "b": "p", "c": "q", "d": "q", "g": "r",
    }  # fmt: skip


def exported(root: Path, tmp_path: Path, *overrides: str, data: str = "busi") -> Path:
    """Export a dataset."""
    folder = tmp_path / "export"
    prepare(settings(root, tmp_path / "out", f"export={folder}", *overrides, data=data))
    return folder


@pytest.mark.slow
def test_export_trains_on_the_same_tensors(
    busi_like: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Breaks if resizing, classes, order, groups or names of a copy differ in anything."""
    monkeypatch.setattr(BUSISource, "published", {"images": 25})
    folder = exported(busi_like, tmp_path, "size=[48,64]")
    sources = (BUSISource(str(busi_like)), FolderSource(str(folder)))
    original, copy = (prepared(s, HoldoutSplit(seed=3), image_size=[48, 64]) for s in sources)
    assert original.split == copy.split
    assert list(original.cases) == list(copy.cases)
    assert [case.label for case in original.cases.values()] == [
        case.label for case in copy.cases.values()
    ]
    for part in ("train", "val", "test"):
        for ours, theirs in zip(
            *(SegmentationDataModule(d).dataset(part) for d in (original, copy)), strict=True
        ):
            assert torch.equal(ours["image"], theirs["image"])
            assert torch.equal(ours["mask"], theirs["mask"])
    assert original.pairs == copy.pairs
    assert len(copy.pairs) == 1
    assert copy.cases["malignant (1)"].group == "benign (2)"
    assert "normal (1)" not in copy.cases
    shutil.rmtree(folder)
    folder = exported(busi_like, tmp_path, "size=[48,64]", "data.include_normal=true")
    whole = found(FolderSource(str(folder), include_normal=True))
    assert whole.cases["normal (1)"].label == "normal"


@pytest.mark.slow
def test_export_gives_the_same_scores(
    busi_like: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Breaks if a training on the copy ends in other numbers than on the original."""
    monkeypatch.setattr(BUSISource, "published", {"images": 25})
    folder = exported(busi_like, tmp_path, "size=64")
    scores = []
    for data, root in (("busi", busi_like), ("folder", folder)):
        run = Run(tmp_path / data)
        given = [f"data={data}", f"data.root={root}", "data.image_size=64", "trainer.max_epochs=2"]
        summary = train(compose_small(run.directory, *given), run)
        scores.append({k: v for k, v in summary.items() if k.startswith(("test/", "val/"))})
    assert scores[0] == scores[1]
    assert len(scores[0]) > 5


def test_export_of_folds_and_pixel_sizes(tmp_path: Path) -> None:
    """Breaks if the table of a copy is not read back, or a pixel size is no longer true."""
    root = tmp_path / "data"
    for number in range(4):
        write_png(root / "images" / f"x{number}.png", texture(number, (80, 120)))
        write_png(root / "labels" / f"x{number}.png", square_mask((80, 120)))
    table = "id,class,group,fold,pixel_size_mm,device\n" + "".join(
        f"x{n},{'benign' if n else 'malignant'},p{n // 2},{n // 2},0.1,Logiq\n" for n in range(4)
    )
    (root / "cases.csv").write_text(table)
    given = {"data": "folder"}
    copy = exported(root, tmp_path, "size=[40,60]", **given)
    cases = found(FolderSource(str(copy))).cases
    assert [case.fold for case in cases.values()] == [0, 0, 1, 1]
    assert [case.group for case in cases.values()] == ["p0", "p0", "p1", "p1"]
    assert cases["x0"].label == "malignant"
    assert cases["x0"].pixel_size_mm == pytest.approx(0.2)
    assert cases["x0"].details == {"original_height": "80", "original_width": "120"}
    shutil.rmtree(copy)
    square = exported(root, tmp_path, "size=40", **given)
    cases = found(FolderSource(str(square))).cases
    assert cases["x0"].pixel_size_mm is None  # pixels are no longer square


@pytest.mark.slow
def test_export_refuses(busi_like: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks if a copy is made of broken data, of vanished lesions, or over something else."""
    with pytest.raises(UserError, match="problems of busi to put right first"):
        exported(busi_like, tmp_path)
    assert not (tmp_path / "export").exists()
    monkeypatch.setattr(BUSISource, "published", {"images": 25})
    tiny = np.zeros((91, 128), np.uint8)
    tiny[11, 11] = 255
    write_png(busi_like / "Dataset_BUSI_with_GT" / "benign" / "benign (2)_mask.png", tiny)
    with pytest.raises(UserError, match=r"vanishes in 1 cases: benign \(2\);"):
        exported(busi_like, tmp_path, "size=32")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "out"]
    (tmp_path / "export").mkdir()
    (tmp_path / "export" / "mine.txt").write_text("x")
    with pytest.raises(UserError, match="exists and is not empty"):
        exported(busi_like, tmp_path)


def test_download_false_and_by_hand(tmp_path: Path) -> None:
    """Breaks if a dataset that is not there gives no way out."""
    for data, words in (
        ("busi", "Dataset_BUSI.zip is not in .*scholar.cu.edu.eg"),
        ("breast_lesions_usg", r"images_and_masks-Dec-15-2023.zip, .*\.xlsx is not in .*9WKK"),
        ("bus_bra", "BUSBRA.zip is not in .*zenodo.org/records/8231412"),
        ("bus_uclm", "by hand from https://data.mendeley.com/datasets/7fvgj4jsp7"),
    ):
        with pytest.raises(UserError, match=words) as caught:
            prepare(settings(tmp_path, tmp_path / "out", "download=false", data=data))
        assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_only_what_is_missing_is_fetched(
    busi_like: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Breaks if data that is there is fetched again, or a missing file is not asked for."""
    asked: list[str] = []
    monkeypatch.setattr(
        "anatosegnet.data.preparation.fetch.obtain",
        lambda source, root, progress: asked.append(source.name) or root,
    )
    prepare(settings(busi_like, tmp_path / "out"))
    assert asked == []
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / "BrEaST-Lesions-USG-clinical-data-Dec-15-2023.xlsx").write_bytes(b"x")
    with pytest.raises(UserError, match="no folder"):
        prepare(settings(empty, tmp_path / "out", data="breast_lesions_usg"))
    assert asked == ["BrEaST-Lesions_USG-images_and_masks-Dec-15-2023.zip"]


def test_downloads_are_complete() -> None:
    """Breaks if a download names a checksum that is none, or a pattern its own folder misses."""
    for source in (BUSISource, BreastLesionsUSGSource):
        for file in source.downloads:
            assert isinstance(file, Download)
            assert file.url.startswith("https://")
            assert file.folder is None or file.folder in file.provides
            kind, _, digits = file.checksum.partition(":")
            assert not file.checksum or len(digits) == {"sha256": 64, "md5": 32}[kind]


def test_out_that_cannot_be_written(
    busi_like: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Breaks if a read-only data folder gives a traceback, or is found so after the work."""
    monkeypatch.setattr(fetch.os, "access", lambda path, mode: False)
    with pytest.raises(UserError, match=r"is read-only; give out=DIR"):
        prepare(settings(busi_like, busi_like / "index"))
    monkeypatch.undo()
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match=r"file is not a folder; give another out=DIR"):
        prepare(settings(busi_like, tmp_path / "file" / "out"))

    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("anatosegnet.data.preparation.index.contact_sheet", full)
    with pytest.raises(UserError, match=r"No space left on device.*out=DIR"):
        prepare(settings(busi_like, tmp_path / "new" / "out"))
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], "say which dataset: data=breast_lesions_usg|bus_bra|"),
        (["data=phantom"], "no files to prepare"),
        (["data=folder"], "data.root=FOLDER"),
        (["data=busi", "sheet=many"], "sheet=many"),
        (["data=busi"], "Dataset_BUSI.zip cannot be reached"),
    ],
)
def test_mistakes_end_in_one_line(
    arguments: list[str], expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Breaks if a mistake, or no network, shows a traceback or leaves something behind."""
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # no network, on any machine
    monkeypatch.setattr("anatosegnet.data.download.ATTEMPTS", 1)
    with pytest.raises(UserError) as caught:
        prepare(compose(*arguments, f"paths.data_dir={tmp_path}", name="prepare"))
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_exit_status_tells_of_problems(folder_data: Path, tmp_path: Path) -> None:
    """Breaks if a script cannot tell clean data (0) from data with problems (1)."""
    (folder_data / "labels" / "benign_1.png").unlink()
    out = tmp_path / "out"
    result = command("data=folder", f"data.root={folder_data}", f"out={out}", verb="prepare")
    assert result.returncode == 1
    assert "benign_1.png: has no mask" in result.stdout
    assert result.stderr == ""
    assert sorted(path.name for path in out.iterdir()) == FILES
    assert prepare(settings(folder_data, out, "data.exclude=[benign_1]", data="folder"))


@pytest.mark.slow
def test_real_busi(real_data: Path, tmp_path: Path) -> None:
    """Breaks if a count of the published BUSI, or its known twin, is missed."""
    assert prepare(settings(real_data, tmp_path))
    found = json.loads((tmp_path / "audit.json").read_text())
    assert {what: count["found"] for what, count in found["counts"].items()} == {
        "images": 780, "benign": 437, "malignant": 210, "normal": 133, "masks": 798,
        "images with several masks": 17,
    }  # fmt: skip
    assert (found["height"], found["width"]) == ([310, 719], [190, 1048])
    assert found["modes"]["masks"] == {"PNG 1": 663, "PNG RGBA": 2}
    assert ["benign (433)", "malignant (145)"] in list(
        found["duplicate_groups_of_different_class"].values()
    )


@pytest.mark.slow
def test_real_breast_lesions(real_data: Path, tmp_path: Path) -> None:
    """Breaks if a count of the published BrEaST is missed."""
    assert prepare(settings(real_data, tmp_path, data="breast_lesions_usg"))
    found = json.loads((tmp_path / "audit.json").read_text())
    assert {what: count["found"] for what, count in found["counts"].items()} == {
        "images": 256, "benign": 154, "malignant": 98, "normal": 4, "masks": 252,
        "masks of other lesions, not used": 14, "images with several masks": 0,
    }  # fmt: skip
    assert found["modes"]["images"] == {"PNG RGBA": 256}
    assert found["duplicate_pairs"] == 0
