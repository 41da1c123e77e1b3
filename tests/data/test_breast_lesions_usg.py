"""BrEaST: its spreadsheet, its folder, and what happens when they differ."""

from pathlib import Path

import numpy as np
import pandas
import pytest

from anatosegnet.data.case import count_labels
from anatosegnet.data.datasets.breast_lesions_usg import IMAGES, BreastLesionsUSGSource
from anatosegnet.errors import UserError
from tests.conftest import grey_image, square_mask, write_png
from tests.preparing import found, prepared


@pytest.mark.slow
def test_real_breast_lesions(real_data: Path) -> None:
    """Breaks if classes, tumour masks or pixel sizes of BrEaST are misread."""
    data = prepared(BreastLesionsUSGSource(str(real_data)))
    assert count_labels(data.cases.values()) == "252 cases (154 benign, 98 malignant)"
    assert all(0.04 < case.pixel_size_mm < 0.14 for case in data.cases.values())
    whole = found(BreastLesionsUSGSource(str(real_data), include_normal=True))
    labels = count_labels(whole.cases.values())
    assert labels == "256 cases (154 benign, 98 malignant, 4 normal)"
    assert not any("other" in path.name for c in whole.cases.values() for path in c.masks)


@pytest.fixture
def breast(tmp_path: Path) -> Path:
    """BrEaST's layout, tiny: two masks joined by &, an other-lesion mask, a normal case."""
    folder = tmp_path / IMAGES
    rows = []
    for number, label in ((1, "benign"), (2, "malignant"), (3, "normal")):
        name = f"case00{number}"
        write_png(folder / f"{name}.png", grey_image(number))
        masks = [] if label == "normal" else [f"{name}_tumor.png"]
        if number == 2:
            masks.append(f"{name}_tumor2.png")
        for at, mask in zip((5, 20), masks, strict=False):
            write_png(folder / mask, square_mask(at=at))
        rows.append((number, f"{name}.png", "&".join(masks) or None, None, 0.008, label))
    write_png(folder / "case001_other1.png", square_mask(at=25))
    write_sheet(tmp_path, rows)
    return tmp_path


def write_sheet(root: Path, rows: list, drop: str | None = None) -> None:
    """Write the spreadsheet."""
    columns = ["CaseID", "Image_filename", "Mask_tumor_filename", "Mask_other_filename",
               "Pixel_size", "Classification"]  # fmt: skip
    table = pandas.DataFrame(rows, columns=columns)
    table = table.drop(columns=[drop] if drop else [])
    table.to_excel(root / "BrEaST-Lesions-USG-clinical-data-x.xlsx", index=False)


def test_breast_lesions_spreadsheet(breast: Path) -> None:
    """Breaks if joined names, pixel sizes (cm), other lesions or normal cases are mistaken."""
    data = found(BreastLesionsUSGSource(str(breast), include_normal=True))
    cases = data.cases
    assert [case.label for case in cases.values()] == ["benign", "malignant", "normal"]
    assert cases["case001"].pixel_size_mm == pytest.approx(0.08)
    areas = [data.read(name)[1].sum() for name in cases]
    assert areas == [100, 200, 0]


def test_breast_lesions_problems(breast: Path) -> None:
    """Breaks if spreadsheet and folder may disagree in silence."""
    write_png(breast / IMAGES / "case009.png", grey_image())
    (breast / IMAGES / "case001_tumor.png").unlink()
    with pytest.raises(UserError) as caught:
        found(BreastLesionsUSGSource(str(breast)))
    assert "2 problems" in str(caught.value)
    assert "case009.png: is in the folder but not in the spreadsheet" in str(caught.value)
    assert "case001_tumor.png: is in the spreadsheet but not in the folder" in str(caught.value)
    write_sheet(breast, [], drop="Classification")
    with pytest.raises(UserError, match="no column Classification"):
        found(BreastLesionsUSGSource(str(breast)))
    next(breast.glob("*.xlsx")).write_bytes(b"not a spreadsheet")
    with pytest.raises(UserError, match="cannot be read"):
        found(BreastLesionsUSGSource(str(breast)))
    next(breast.glob("*.xlsx")).unlink()
    with pytest.raises(UserError, match=r"holds no .*\.xlsx"):
        found(BreastLesionsUSGSource(str(breast)))


def test_untidy_spreadsheet_and_folder(breast: Path) -> None:
    """Breaks if blank rows, a missing pixel size or hidden files stop the user."""
    rows = [
        (None, None, None, None, None, None),
        (1, "case001.png", " case001_tumor.png ", None, None, "benign"),
        (2, "case002.png", "case002_tumor.png & case002_tumor2.png", None, "0.01", "malignant"),
        (None, None, None, None, None, None),
        (3, "case003.png", None, None, 0.01, "normal"),
    ]
    write_sheet(breast, rows)
    (breast / IMAGES / "._case001.png").write_bytes(b"macOS leaves these behind")
    (breast / IMAGES / "Thumbs.db").write_bytes(b"Windows leaves these behind")
    cases = found(BreastLesionsUSGSource(str(breast))).cases
    assert [case.pixel_size_mm for case in cases.values()] == [None, pytest.approx(0.1)]
    assert len(cases["case002"].masks) == 2


def test_wrong_rows_are_all_listed(breast: Path) -> None:
    """Breaks if a wrong cell gives a traceback, or only the first one is named."""
    rows = [
        (1, "case001.png", "case001_tumor.png", None, "0,8 cm", "benign"),
        (2, "case002.png", "case002_tumor.png&case002_tumor2.png", None, 0.01, "malignant"),
        (2, "case002.png", "case002_tumor.png", None, 0.01, "malignant"),
        (3, "case003.png", None, None, 0.01, "malignant"),
    ]
    write_sheet(breast, rows)
    write_png(breast / IMAGES / "case002_tumor2.png", np.zeros((9, 9), np.uint8))
    write_png(breast / IMAGES / "case004.PNG", grey_image())
    with pytest.raises(UserError) as caught:
        found(BreastLesionsUSGSource(str(breast)))
    message = str(caught.value)
    assert "5 problems" in message
    for words in (
        "case001.png: the spreadsheet gives its Pixel_size as '0,8 cm'",
        "case003.png: the spreadsheet names no tumour mask",
        "case004.PNG: is in the folder but not",
        "case002: 2 cases have this name",
        "case002_tumor2.png: the mask is 9×9, but its image case002.png is 50×40",
    ):
        assert words in message
