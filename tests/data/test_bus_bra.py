"""BUS-BRA: its tables, patients and folds, on files of its format."""

from pathlib import Path

import pytest

from anatosegnet.data.build import build_data
from anatosegnet.data.case import count_labels
from anatosegnet.data.datasets.bus_bra import BUSBRASource
from anatosegnet.data.prepared import FoundData
from anatosegnet.errors import UserError
from tests.conftest import grey_image, square_mask, write_png
from tests.preparing import found
from tests.running import compose

HEADER = "ID,Case,Histology,Pathology,BIRADS,Device,Width,Height,Side,BBOX"
ROWS = [
    "bus_0001-l,1,Fibroadenoma,benign,3,Logiq 7,50,40,left,[10 10 10 10]",
    "bus_0001-r,1,Fibroadenoma,benign,2,Logiq 7,50,40,right,[10 10 10 10]",
    "bus_0002-s,2,Carcinoma,malignant,5,Logiq 5,99,77,single,[10 10 10 10]",
    "bus_0003-l,3,Cyst,benign,2,,50,40,left,[10 10 10 10]",
]


@pytest.fixture
def bus_bra(tmp_path: Path) -> Path:
    """Four images of three patients; the size of one is wrong in the table."""
    root = tmp_path / "BUSBRA"
    for number, row in enumerate(ROWS):
        stem = row.split(",")[0]
        write_png(root / "Images" / f"{stem}.png", grey_image(number))
        write_png(root / "Masks" / f"mask_{stem.removeprefix('bus_')}.png", square_mask())
    write_tables(root)
    return root


def write_tables(root: Path, header: str = HEADER, rows: list[str] = ROWS) -> None:
    """Write the data table and both cross-validations; folds count from 1."""
    (root / "bus_data.csv").write_text("\n".join([header, *rows]) + "\n")
    for folds in (5, 10):
        lines = [f"{row.split(',')[0]},x,{1 + int(row.split(',')[1]) % folds}" for row in rows]
        (root / f"{folds}-fold-cv.csv").write_text("ID,Pathology,kFold\n" + "\n".join(lines))


def read(root: Path, official_folds: int = 5) -> FoundData:
    """BUS-BRA, found."""
    return found(BUSBRASource(str(root), official_folds), name="bus_bra")


def test_patients_folds_and_details(bus_bra: Path) -> None:
    """Breaks if the two breasts of a patient are two groups, or folds count from 1."""
    for root in (bus_bra, bus_bra.parent):
        data = read(root)
        cases = data.cases
        assert count_labels(cases.values()) == "4 cases (3 benign, 1 malignant)"
        assert [case.group for case in cases.values()] == [
            "patient 1", "patient 1", "patient 2", "patient 3",
        ]  # fmt: skip
        assert [case.fold for case in cases.values()] == [1, 1, 2, 3]
    first = cases["bus_0001-l"]
    assert first.details == {
        "birads": "3", "device": "Logiq 7", "histology": "Fibroadenoma", "side": "left",
        "listed_size": "50×40",
    }  # fmt: skip
    assert "device" not in cases["bus_0003-l"].details
    assert data.source.counts(cases.values())["patients"] == 3


def test_pixels_count_where_the_table_is_wrong(bus_bra: Path) -> None:
    """Breaks if a wrong size in the table stops the reading, or resizes an image."""
    image, mask = read(bus_bra).read("bus_0002-s")
    assert image.shape == (40, 50, 3)
    assert mask.sum() == 100


def test_ten_folds_or_none(bus_bra: Path) -> None:
    """Breaks if the other cross-validation cannot be had, or its lack stops everything."""
    lines = "\n".join(f"{row.split(',')[0]},x,10" for row in ROWS)
    (bus_bra / "10-fold-cv.csv").write_text(f"ID,Pathology,kFold\n{lines}\n")
    assert {case.fold for case in read(bus_bra, official_folds=10).cases.values()} == {9}
    with pytest.raises(UserError, match="official_folds=7"):
        read(bus_bra, official_folds=7)
    (bus_bra / "5-fold-cv.csv").unlink()
    assert {case.fold for case in read(bus_bra).cases.values()} == {None}


def test_all_problems_are_listed(bus_bra: Path) -> None:
    """Breaks if table and files may disagree in silence."""
    (bus_bra / "Images" / "bus_0001-l.png").unlink()
    (bus_bra / "Masks" / "mask_0001-r.png").unlink()
    write_png(bus_bra / "Images" / "bus_0009-l.png", grey_image())
    write_png(bus_bra / "Masks" / "mask_0008-l.png", square_mask())
    rows = [*ROWS, "bus_0004-l,4,x,Benigne,2,,50,40,left,x"]
    write_tables(bus_bra, rows=rows)
    lines = "\n".join(f"{row.split(',')[0]},x,1" for row in ROWS[1:])
    (bus_bra / "5-fold-cv.csv").write_text(f"ID,Pathology,kFold\nbus_0001-l,x,six\n{lines}\n")
    with pytest.raises(UserError) as caught:
        read(bus_bra)
    message = str(caught.value)
    for words in (
        "bus_0001-l has no image", "bus_0001-r has no mask", "bus_0009-l.png: is not in bus_data",
        "mask_0008-l.png: is a mask without", "Pathology of bus_0004-l is 'benigne'",
        "kFold of bus_0001-l is 'six'", "bus_0004-l is in no fold",
    ):  # fmt: skip
        assert words in message


def test_missing_columns_and_files(bus_bra: Path, tmp_path: Path) -> None:
    """Breaks if a damaged table gives a traceback, or a missing dataset no way out."""
    write_tables(bus_bra, header=HEADER.replace("Pathology", "Diagnosis"))
    with pytest.raises(UserError, match=r"bus_data\.csv has no column Pathology"):
        read(bus_bra)
    (bus_bra / "bus_data.csv").write_bytes(b"ID,Case,Pathology\n\xff\xfe\x00,1,benign\n")
    with pytest.raises(UserError, match="cannot be read as a table"):
        read(bus_bra)
    write_tables(bus_bra, rows=[])
    for path in bus_bra.glob("*/*.png"):
        path.unlink()
    with pytest.raises(UserError, match="lists no case"):
        read(bus_bra)
    (bus_bra / "bus_data.csv").unlink()
    with pytest.raises(UserError, match=r"holds no BUSBRA.*zenodo\.org/records/8231412"):
        read(bus_bra)
    with pytest.raises(UserError, match=r"no folder.*zenodo"):
        read(tmp_path / "none")


def test_ubench_validates_on_the_fold_that_tests(bus_bra: Path) -> None:
    """Breaks if U-Bench's protocol leaves a case out, or a patient on both sides."""
    small = (f"paths.data_dir={bus_bra.parent}", "data.cache=off", "data.image_size=32")
    config = compose("experiment=ubench_bus_bra", "split.fold=1", *small)
    split = build_data(config).prepared.split
    assert split.val == split.test == ("bus_0001-l", "bus_0001-r")
    assert split.train == ("bus_0002-s", "bus_0003-l")
