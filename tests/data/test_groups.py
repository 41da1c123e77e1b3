"""Patients and near-duplicates become groups; what crosses a split is counted."""

from pathlib import Path

import cv2
import pytest

from anatosegnet.data.case import Case
from anatosegnet.data.datasets.folder import FolderSource
from anatosegnet.data.groups import disagreements, leakage, with_groups, without_duplicates
from anatosegnet.data.prepared import PreparedData
from anatosegnet.data.simulator import simulate
from anatosegnet.data.split import FilesSplit, HoldoutSplit, ReleasedSplit, Split, Splitter
from anatosegnet.errors import UserError
from tests.conftest import square_mask, write_png
from tests.preparing import found, prepared


def test_patients_and_duplicates_are_united() -> None:
    """Breaks if a copy that links two patients leaves them on two sides, or a name collides."""
    cases = [
        Case("a (10)", group="p1"),
        Case("a (2)", group="p1"),
        Case("b", group="p2"),
        Case("c", group="p2"),
        Case("d", group="p3"),
        Case("e"),
        Case("p3"),
    ]
    groups = {c.name: c.group for c in with_groups(cases, {"a (10)": "a (10)", "b": "a (10)"})}
    united = dict.fromkeys(("a (10)", "a (2)", "b", "c"), "a (2)")
    assert groups == {**united, "d": "", "e": "", "p3": ""}
    assert with_groups(reversed(cases), {"a (10)": "b", "b": "b"})[-1].group == "a (2)"
    assert [case.group for case in with_groups(cases[4:], {"d": "gone"})] == ["", "", ""]


def test_one_of_each_group_stays() -> None:
    """Breaks if dropping leaves a copy behind, or drops what has none."""
    split = Split(("b (10)", "x"), ("b (2)", "y"), ("b (3)", "b (2)"), "two parts")
    duplicates = dict.fromkeys(("b (2)", "b (3)", "b (10)"), "b (2)")
    kept = without_duplicates(split, duplicates)
    assert (kept.train, kept.val, kept.test) == (("x",), ("b (2)", "y"), ("b (2)",))
    assert kept.description == "two parts, 2 near-duplicates dropped"


def test_disagreeing_classes_are_listed() -> None:
    """Breaks if a picture that is benign and malignant goes unreported."""
    cases = [Case("m", label="malignant"), Case("b", label="benign"), Case("c", label="benign")]
    assert disagreements(cases, {"m": "b", "b": "b"}) == ["b is benign, m is malignant"]
    assert disagreements(cases, {"c": "b", "b": "b"}) == []


def test_what_crosses_a_split_is_counted() -> None:
    """Breaks if a duplicate in another part is overlooked, or counted where validation is test."""
    cases = with_groups([Case(n) for n in "abcdef"], {"a": "a", "b": "a", "c": "a", "d": "d"})
    found = leakage(Split(("a", "d"), ("b", "e"), ("c", "f"), ""), cases)
    assert (found.test, found.val, found.test_in_val) == (("c",), ("b",), ("c",))
    assert found.leaks
    assert found.text == (
        "1 of 2 test images and 1 of 2 validation images have a near-duplicate in training; "
        "1 of 2 test images have one in validation"
    )
    same = leakage(Split(("a", "d"), ("b", "f"), ("b", "f"), ""), cases, patients=True)
    assert same.text == (
        "1 of 2 test images have a near-duplicate or another image of the patient in training"
    )
    clean = leakage(Split(("a", "b", "c"), ("d",), ("e",), ""), cases)
    assert not clean.leaks
    assert clean.text == "no image has a near-duplicate in another part"


@pytest.fixture
def with_copies(tmp_path: Path) -> Path:
    """Someone's folder: 12 phantoms, 8 of them twice; copy 0 bears another class."""
    root = tmp_path / "duplicates"
    for index in range(12):
        image = cv2.resize(simulate(1, index).image, (160, 120), interpolation=cv2.INTER_AREA)
        versions = {f"benign_{index}": image}
        if index < 8:
            label = "benign" if index else "malignant"
            versions[f"{label}_{index + 100}"] = image[2:, 3:]
        for name, pixels in versions.items():
            write_png(root / "images" / f"{name}.png", pixels)
            write_png(root / "labels" / f"{name}.png", square_mask(pixels.shape[:2]))
    return root


def data_of(root: Path, split: Splitter | None = None, **settings: object) -> PreparedData:
    """The folder's data."""
    return prepared(FolderSource(str(root)), split, **settings)


def test_group_drop_and_keep(with_copies: Path) -> None:
    """Breaks if grouping leaks, dropping keeps a copy, or keeping says nothing."""
    group = data_of(with_copies, split=HoldoutSplit((0.5, 0.25, 0.25)))
    assert (len(group.pairs), len(group.duplicates)) == (8, 16)
    assert not group.leakage.leaks
    assert "8 groups kept together" in group.split.description
    assert group.cases["malignant_100"].group == "benign_0"
    drop = data_of(with_copies, split=HoldoutSplit((0.5, 0.25, 0.25)), duplicates="drop")
    stay = {*drop.split.train, *drop.split.val, *drop.split.test}
    assert stay == {f"benign_{index}" for index in range(12)}
    assert set(drop.split.test) <= set(group.split.test)  # so that the two can be compared
    assert sum(len(getattr(drop.split, part)) for part in ("train", "val", "test")) == 12
    keep = data_of(with_copies, split=HoldoutSplit((0.5, 0.25, 0.25)), duplicates="keep")
    assert keep.leakage.test
    assert f"{len(keep.leakage.test)} of {len(keep.split.test)} test images" in keep.leakage.text


def test_lists_and_the_released_protocol_tell_their_leaks(
    with_copies: Path, tmp_path: Path
) -> None:
    """Breaks if a split that cannot be grouped hides its duplicates, or its tenth leaks too."""
    names = list(found(FolderSource(str(with_copies))).cases)
    originals = [name for name in names if int(name.split("_")[1]) < 100]
    (tmp_path / "train.txt").write_text("\n".join(name for name in names if name in originals))
    (tmp_path / "test.txt").write_text("\n".join(n for n in names if n not in originals))
    lists = FilesSplit(str(tmp_path / "train.txt"), str(tmp_path / "test.txt"))
    data = data_of(with_copies, split=lists)
    duplicates_in_val = [name for name in data.split.val if name in data.duplicates]
    assert len(data.leakage.test) == 8 - len(duplicates_in_val)
    assert data.leakage.val == ()
    released = data_of(with_copies, split=ReleasedSplit())
    expected = ReleasedSplit()(list(released.cases.values()))
    assert released.split == expected
    assert released.leakage.test


def test_groups_do_not_depend_on_the_size_of_the_network(with_copies: Path) -> None:
    """Breaks if duplicates are sought on resized images: then image_size would move the split."""
    small = data_of(with_copies)
    large = data_of(with_copies, image_size=96, cache=False)
    assert large.pairs == small.pairs
    assert large.split == small.split


def test_a_misspelt_handling_is_named(with_copies: Path) -> None:
    """Breaks if data.duplicates=of leaves the copies in."""
    with pytest.raises(UserError, match=r"data\.duplicates=of must be one of group, drop, keep"):
        data_of(with_copies, duplicates="of")
