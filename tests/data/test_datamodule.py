"""BUSI, a folder, and what all sources share: what they find, how they complain."""

import pickle
import shutil
from pathlib import Path

import cv2
import lightning
import numpy as np
import pytest
import torch

from anatosegnet.data.case import count_labels, read_mask
from anatosegnet.data.datamodule import SegmentationDataModule
from anatosegnet.data.datasets.breast_lesions_usg import BreastLesionsUSGSource
from anatosegnet.data.datasets.busi import BUSISource
from anatosegnet.data.datasets.folder import FolderSource, class_in_name
from anatosegnet.data.datasets.phantom import PhantomSource
from anatosegnet.data.prepared import DataSettings
from anatosegnet.data.split import FilesSplit
from anatosegnet.errors import UserError
from tests.conftest import grey_image, square_mask, write_png
from tests.preparing import found, prepared

BENIGN_SEVERAL = (4, 25, 54, 58, 83, 92, 93, 98, 100, 163, 173, 181, 195, 315, 346, 424)
SEVERAL_MASKS = {*(f"benign ({number})" for number in BENIGN_SEVERAL), "malignant (53)"}


def busi(root: Path, include_normal: bool = False) -> BUSISource:
    """BUSI in a folder."""
    return BUSISource(str(root), include_normal)


def folder(root: Path, include_normal: bool = False) -> FolderSource:
    """Images and labels in a folder."""
    return FolderSource(str(root), include_normal)


def test_busi_release_layout(busi_release: Path) -> None:
    """Breaks if classes, merged masks or the normal images are mistaken."""
    cases = found(busi(busi_release.parent)).cases
    assert count_labels(cases.values()) == "5 cases (3 benign, 2 malignant)"
    assert list(cases) == [*(f"benign ({n})" for n in (1, 2, 3)), "malignant (1)", "malignant (2)"]
    data = found(busi(busi_release, include_normal=True))
    assert len(data.cases) == 6
    assert data.read("benign (2)")[1].sum() == 200
    assert data.read("normal (1)")[1].sum() == 0


@pytest.mark.parametrize("layout", ["Dataset_BUSI_with_GT/labels", "busi/masks/0"])
def test_busi_layouts_agree(busi_release: Path, tmp_path: Path, layout: str) -> None:
    """Breaks if the same cases differ by the layout they lie in."""
    release = found(busi(busi_release, include_normal=True))
    root, masks = tmp_path / "other", tmp_path / "other" / layout
    images = (root / layout.split("/")[0]) / "images"
    for name, case in release.cases.items():
        write_png(masks / f"{name}.png", release.read(name)[1])
        images.mkdir(parents=True, exist_ok=True)
        shutil.copy(case.image, images / f"{name}.png")
    other = found(busi(root, include_normal=True))
    assert list(other.cases) == list(release.cases)
    for name, case in other.cases.items():
        assert case.label == release.cases[name].label
        for ours, theirs in zip(other.read(name), release.read(name), strict=True):
            assert (ours == theirs).all()


def test_real_busi(real_data: Path) -> None:
    """Breaks if a count of the published dataset is missed, or a mask is not merged."""
    data = found(busi(real_data, include_normal=True))
    assert count_labels(data.cases.values()) == "780 cases (437 benign, 210 malignant, 133 normal)"
    assert sum(len(case.masks) for case in data.cases.values()) == 798
    several = {name: case for name, case in data.cases.items() if len(case.masks) > 1}
    assert set(several) == SEVERAL_MASKS
    assert len(several["benign (195)"].masks) == 3
    gained = {}
    for case in several.values():
        parts = [read_mask(path) for path in case.masks]
        merged = data.read(case.name)[1]
        assert (merged == np.maximum.reduce(parts)).all()
        gained[case.name] = merged.sum() > parts[0].sum()
    # the second mask of benign (58) lies inside its first
    assert [name for name, more in gained.items() if not more] == ["benign (58)"]


@pytest.mark.slow
def test_real_busi_is_read_and_split(real_data: Path) -> None:
    """Breaks if a file of BUSI cannot be read, or a public list stops fitting the cases."""
    lists = [str(real_data / "splits" / f"busi_{part}1.txt") for part in ("train", "val")]
    data = prepared(busi(real_data), FilesSplit(*lists))
    assert count_labels(data.cases.values()) == "647 cases (437 benign, 210 malignant)"
    loading = SegmentationDataModule(data)
    assert [len(loading.dataset(part)) for part in ("train", "val", "test")] == [408, 44, 195]
    assert data.leakage.val == ()  # the tenth is held out by group
    assert data.leakage.text.startswith("45 of 195 test images have a near-duplicate")


def test_folder_classes_and_normal(folder_data: Path) -> None:
    """Breaks if the class in a name is not seen, or an empty mask is never allowed."""
    cases = found(folder(folder_data)).cases
    assert count_labels(cases.values()) == "20 cases (13 benign, 7 malignant)"
    write_png(folder_data / "images" / "x.jpg", grey_image())
    write_png(folder_data / "labels" / "x.png", np.zeros((40, 50), np.uint8))
    with pytest.raises(UserError, match=r"x\.png: the mask is empty"):
        prepared(folder(folder_data))
    data = prepared(folder(folder_data, include_normal=True))
    assert data.cases["x"].label == "normal"


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda root: busi(root / "none"), ["no folder", "scholar.cu.edu.eg"]),
        (lambda root: busi(root), ["no BUSI layout"]),
        (lambda root: BreastLesionsUSGSource(str(root)), ["no folder", "9WKK"]),
        (lambda root: folder(root), ["no folder", "images/"]),
        (lambda root: FolderSource(None), ["data.root=FOLDER"]),
    ],
)
def test_missing_roots_say_how_to_get_the_data(tmp_path: Path, make: object, words: list) -> None:
    """Breaks if a missing dataset ends in a traceback, or without the way out."""
    with pytest.raises(UserError) as caught:
        found(make(tmp_path))  # type: ignore[operator]
    assert all(word in str(caught.value) for word in words)
    assert "\n" not in str(caught.value)


def test_empty_folders(tmp_path: Path) -> None:
    """Breaks if a folder without images passes."""
    for path in ("benign", "images", "labels"):
        (tmp_path / path).mkdir()
    for source in (busi(tmp_path), folder(tmp_path)):
        with pytest.raises(UserError, match=r"data data: .* holds no image"):
            found(source)


def test_every_problem_is_listed_in_one_message(busi_release: Path) -> None:
    """Breaks if checking stops at the first problem, or a bad file is left out in silence."""
    benign, malignant = busi_release / "benign", busi_release / "malignant"
    (benign / "benign (1)_mask.png").unlink()
    write_png(benign / "benign (9)_mask.png", square_mask())
    write_png(benign / "benign (2)_mask.png", square_mask((40, 51)))
    (benign / "benign (3).png").write_bytes(b"")
    write_png(malignant / "malignant (1)_mask.png", np.zeros((40, 50), np.uint8))
    path = malignant / "malignant (2).png"
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(UserError) as caught:
        prepared(busi(busi_release))
    first, *lines = str(caught.value).splitlines()
    assert "6 problems" in first
    expected = [
        ("benign (1).png", "has no mask"),
        ("benign (9)_mask.png", "without its image"),
        ("benign (2)_mask.png", "51×40"),
        ("benign (3).png", "zero bytes"),
        ("malignant (1)_mask.png", "mask is empty"),
        ("malignant (2).png", "decoded"),
    ]
    assert len(lines) == len(expected)
    for name, complaint in expected:
        assert any(name in line and complaint in line for line in lines), name


def test_folder_partners_and_doubles(folder_data: Path) -> None:
    """Breaks if an unpaired file is passed over, or two images share a mask."""
    write_png(folder_data / "images" / "alone.png", grey_image())
    write_png(folder_data / "labels" / "orphan.png", square_mask())
    write_png(folder_data / "images" / "benign_1.bmp", grey_image())
    (folder_data / "images" / ".DS_Store").write_bytes(b"x")
    (folder_data / "images" / "notes.txt").write_text("x")
    with pytest.raises(UserError) as caught:
        prepared(folder(folder_data))
    message = str(caught.value)
    assert "3 problems" in message
    for name in ("alone.png", "orphan.png", "benign_1"):
        assert name in message


def test_too_few_cases_for_the_split() -> None:
    """Breaks if a part may be empty, which ends in a crash after an epoch."""
    with pytest.raises(UserError, match="leaves test empty"):
        prepared(PhantomSource(count=3))


def test_batches_are_the_same_from_disk_memory_and_files(folder_data: Path) -> None:
    """Breaks if the cache changes a pixel, or a batch lacks a part."""
    batches = []
    for cache in ("disk", "memory", "off", True, False):
        ready = prepared(folder(folder_data), image_size=[32, 48], batch_size=3, cache=cache)
        assert ready.settings.cache == {True: "disk", False: "off"}.get(cache, cache)
        data = SegmentationDataModule(ready)
        raw = next(iter(data.test_dataloader()))
        assert raw["pixels"].dtype == torch.uint8
        batches.append(data.on_after_batch_transfer(raw))
    assert batches[0]["image"].shape == (3, 3, 32, 48)
    assert batches[0]["image"].dtype == torch.float32
    assert batches[0]["mask"].shape == (3, 32, 48)
    assert batches[0]["mask"].dtype == torch.int64
    for other in batches[1:]:
        for key, value in batches[0].items():
            assert torch.equal(torch.as_tensor(value), torch.as_tensor(other[key]))


def test_loaders_leave_the_random_numbers_of_the_network_alone(folder_data: Path) -> None:
    """Breaks if dropout depends on the number of workers, which draw seeds at other times."""
    data = SegmentationDataModule(prepared(folder(folder_data), batch_size=3))
    before = torch.get_rng_state()
    loader = data.train_dataloader()
    for _ in range(2):
        list(loader)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.slow
@pytest.mark.parametrize("cache", ["memory", "off"])
def test_a_data_module_goes_to_a_spawned_worker(folder_data: Path, cache: str) -> None:
    """Breaks if cases or readers cannot be sent to workers where fork is not to be had."""
    data = SegmentationDataModule(prepared(folder(folder_data), cache=cache))
    data.trainer = lightning.Trainer(logger=False, accelerator="cpu", barebones=True)
    dataset = data.dataset("test")
    copy = pickle.loads(pickle.dumps(dataset))
    assert len(pickle.dumps(dataset)) < 50_000
    assert torch.equal(copy[0]["image"], dataset[0]["image"])


def test_unicode_and_spaces_in_names(tmp_path: Path) -> None:
    """Breaks if a name outside ASCII cannot be read."""
    for number in range(10):
        for part, pixels in (("images", grey_image(number)), ("labels", square_mask())):
            path = tmp_path / part / f"Läsion é {number}.png"
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(cv2.imencode(".png", pixels)[1].tobytes())
    assert len(prepared(folder(tmp_path)).cases) == 10


def test_names_are_unique(busi_release: Path) -> None:
    """Breaks if one of two cases of the same name is dropped in silence."""
    for part in ("benign", "malignant"):
        write_png(busi_release / part / "extra.PNG", grey_image())
        write_png(busi_release / part / "extra_mask.png", square_mask())
    with pytest.raises(UserError, match=r"^data busi: 1 problem .*:\n  - extra: 2 cases"):
        found(busi(busi_release), name="busi")


def test_accents_taken_apart_pair_all_the_same(folder_data: Path) -> None:
    """Breaks if macOS, which takes accents apart, separates an image from its mask."""
    write_png(folder_data / "images" / "Ma\u0308rz.png", grey_image())
    write_png(folder_data / "labels" / "März.PNG", square_mask())
    assert "März" in found(folder(folder_data)).cases


def test_class_is_the_first_word_of_a_name() -> None:
    """Breaks if "normalized_1" becomes a case without a lesion."""
    names = ["benign (1)", "Malignant_2", "normal3", "normalized_1", "benignant", "x benign", ""]
    expected = ["benign", "malignant", "normal", *["unknown"] * 4]
    assert [class_in_name(name) for name in names] == expected


def test_normal_by_name_or_by_an_empty_mask(folder_data: Path) -> None:
    """Breaks if a normal image trains unasked, or a lesion hides behind the name."""
    write_png(folder_data / "images" / "normal_1.png", grey_image())
    write_png(folder_data / "labels" / "normal_1.png", np.zeros((40, 50), np.uint8))
    assert "normal_1" not in found(folder(folder_data)).cases
    assert "normal_1" in found(folder(folder_data, include_normal=True)).cases
    write_png(folder_data / "labels" / "normal_1.png", square_mask())
    with pytest.raises(UserError, match="shows a lesion, though the case is normal"):
        prepared(folder(folder_data, include_normal=True))


@pytest.mark.parametrize(
    "setting",
    [
        {"normalization": "imagnet"},
        {"in_channels": 2},
        {"batch_size": 0},
        {"image_size": [64]},
        {"cache": "ram"},
    ],
)
def test_wrong_settings_are_named(setting: dict) -> None:
    """Breaks if a misspelt setting falls back to another one, or gives a traceback."""
    with pytest.raises(UserError, match=rf"data\.{next(iter(setting))}="):
        DataSettings("phantom", **setting)
