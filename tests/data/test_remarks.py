"""What is odd about a dataset as a whole is said where its scores are."""

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from anatosegnet.data.datasets.busi import BUSISource
from anatosegnet.data.datasets.folder import FolderSource
from anatosegnet.data.preparation.audit import audit
from anatosegnet.data.prepared import FoundData
from anatosegnet.errors import UserError
from tests.conftest import grey_image, square_mask, write_png
from tests.preparing import found, prepared

COUNTS = {"images": 6, "benign": 3, "malignant": 2, "normal": 1, "masks": 7}


@pytest.fixture
def published(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tiny BUSI is all there is."""
    monkeypatch.setattr(BUSISource, "published", COUNTS)


def busi(root: Path, include_normal: bool = False, exclude: str = "") -> FoundData:
    """BUSI, found."""
    return found(BUSISource(str(root), include_normal), [exclude] if exclude else [], "busi")


def test_all_of_a_dataset_needs_no_remark(busi_release: Path, published: None) -> None:
    """Breaks if images without a lesion that nobody wanted, or excluded ones, count as missing."""
    assert busi(busi_release).title == "busi"
    assert busi(busi_release, include_normal=True).title == "busi"
    assert busi(busi_release, exclude="benign (1)").title == "busi"


def test_letters_of_other_case_are_the_same_class(busi_release: Path, published: None) -> None:
    """Breaks if half of BUSI trains because a folder is called Malignant."""
    (busi_release / "malignant").rename(busi_release / "Malignant")
    (busi_release / "normal").rename(busi_release / "NORMAL")
    data = busi(busi_release, include_normal=True)
    assert data.source.counts(data.cases.values()) | {"images with several masks": 1} == {
        **COUNTS, "images with several masks": 1,
    }  # fmt: skip
    shutil.copytree(busi_release / "Malignant", busi_release / "malignant")
    with pytest.raises(UserError, match="Malignant is of the same class"):
        busi(busi_release)


@pytest.mark.parametrize("name", ["malignent", "Malignant images", None])
def test_part_of_a_dataset_is_said(busi_release: Path, published: None, name: str | None) -> None:
    """Breaks if a class is missing, or called otherwise, and scores say "BUSI"."""
    if name:
        (busi_release / "malignant").rename(busi_release / name)
    else:
        shutil.rmtree(busi_release / "malignant")
    data = busi(busi_release)
    counts = "not what was published, but 3 of 3 benign, 0 of 2 malignant"
    assert data.remarks == [counts + (f"; not read: {name}" if name else "")]
    assert data.title == f"busi ({data.remarks[0]})"
    result = audit(data, [], str(busi_release))
    assert "0 malignant found, 2 published" in result.problems
    assert not name or f"not read, beside the folders looked for: {name}" in result.problems


def test_it_is_said_when_training_starts(
    busi_release: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Breaks if the line is not printed, or more than once."""
    for number in range(4, 14):
        write_png(busi_release / "benign" / f"benign ({number}).png", grey_image(90 + number))
        write_png(busi_release / "benign" / f"benign ({number})_mask.png", square_mask())
    prepared(BUSISource(str(busi_release)), name="busi")
    (line,) = capsys.readouterr().err.splitlines()
    assert line == (
        "warning: data busi: not what was published, but 13 of 437 benign, 2 of 210 malignant"
    )


@pytest.mark.parametrize("inverted", [20, 12, 8])
@pytest.mark.parametrize("cache", ["memory", "disk"])
def test_inverted_masks_are_said(
    folder_data: Path, tmp_path: Path, inverted: int, cache: str,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """Breaks if training learns the background, and the audit is clean."""
    for path in sorted((folder_data / "labels").iterdir())[:inverted]:
        write_png(path, 255 - cv2.imread(str(path), cv2.IMREAD_GRAYSCALE))
    for _ in range(2):  # written, and found
        source = FolderSource(str(folder_data))
        data = prepared(source, cache=cache, cache_dir=str(tmp_path / "cache"))
        said = capsys.readouterr().err
        line = f"covers more than 80% of the image in {inverted} of 20 cases"
        assert (line in said) == (inverted > 10)
        assert (line in data.title) == (inverted > 10)
    result = audit(data, [], str(folder_data))
    assert any(line in problem for problem in result.problems) == (inverted > 10)


def test_the_audit_lists_the_values_of_masks(folder_data: Path) -> None:
    """Breaks if a person cannot see what masks hold."""
    mask = square_mask()
    write_png(folder_data / "labels" / "benign_1.png", mask // 255)
    write_png(folder_data / "labels" / "benign_2.png", cv2.GaussianBlur(mask, (0, 0), 1))
    write_png(folder_data / "labels" / "benign_4.png", np.dstack([mask * 0, mask, mask * 0]))
    from anatosegnet.data.preparation.audit import mode_counts

    result = audit(found(FolderSource(str(folder_data))), [], str(folder_data))
    assert mode_counts(result.records)["values of masks"] == {
        "0, 255": 17, "0, 1": 1, "0 to 255": 1, "#000000, #00ff00": 1,
    }  # fmt: skip


def test_pictures_in_folders_below_are_not_lost(folder_data: Path) -> None:
    """Breaks if images/more/*.png are passed over in silence."""
    write_png(folder_data / "images" / "more" / "benign_99.png", grey_image(99))
    write_png(folder_data / "images" / "@eaDir" / "benign_1.png", grey_image(1))
    with pytest.raises(UserError, match=r"1 problem .*\n.*more: folders in here are not read"):
        found(FolderSource(str(folder_data)))
