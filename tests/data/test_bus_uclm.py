"""BUS-UCLM: classes from colours, patients from names, and pairs that do not fit."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from anatosegnet.data.case import count_labels
from anatosegnet.data.datasets.bus_uclm import BUSUCLMSource
from anatosegnet.data.prepared import FoundData
from anatosegnet.errors import UserError
from tests.conftest import grey_image, square_mask, write_png
from tests.preparing import found, prepared

GREEN, RED, WHITE = (0, 255, 0), (0, 0, 255), (255, 255, 255)  # BGR, as OpenCV writes


def coloured(*colours: tuple[int, int, int], size: tuple[int, int] = (40, 50)) -> np.ndarray:
    """A square in each colour on black."""
    pixels = np.zeros((*size, 3), np.uint8)
    for number, colour in enumerate(colours):
        pixels[square_mask(size, at=5 + 15 * number) > 0] = colour
    return pixels


@pytest.fixture
def bus_uclm(tmp_path: Path) -> Path:
    """Three patients; HESN's masks are of another size, as in a mirror that was seen."""
    root = tmp_path / "BUS-UCLM"
    masks = {
        "ALWI_000": coloured(GREEN), "ALWI_001": coloured(), "ANAT_000": coloured(RED),
        "ANAT_001": coloured(GREEN, RED), "HESN_000": coloured(GREEN, size=(60, 70)),
        "HESN_001": coloured(size=(60, 70)),
    }  # fmt: skip
    for number, (name, mask) in enumerate(masks.items()):
        write_png(root / "images" / f"{name}.png", grey_image(number))
        write_png(root / "masks" / f"{name}.png", mask)
    lines = ["Image;Doppler;Label", "ALWI_000.png;No;Benign", "ANAT_000.png;Yes;Malignant"]
    (root / "INFO.csv").write_text("\n".join(lines))
    return root


def read(root: Path, exclude: str | Sequence[str] = (), include_normal: bool = False) -> FoundData:
    """BUS-UCLM, found."""
    return found(BUSUCLMSource(str(root), include_normal), exclude, "bus_uclm")


def test_classes_and_patients(bus_uclm: Path) -> None:
    """Breaks if green and red are swapped, or a patient's images are apart."""
    for root in (bus_uclm, bus_uclm.parent):
        data = read(root, exclude=["HESN_*"])
        cases = data.cases
        assert {name: case.label for name, case in cases.items()} == {
            "ALWI_000": "benign", "ANAT_000": "malignant", "ANAT_001": "malignant",
        }  # fmt: skip
    assert [case.group for case in cases.values()] == ["ALWI", "ANAT", "ANAT"]
    assert cases["ANAT_000"].details == {"doppler": "Yes", "label": "Malignant"}
    assert data.read("ANAT_001")[1].sum() == 200
    whole = read(bus_uclm, include_normal=True, exclude="HESN_*").cases
    assert count_labels(whole.values()) == "4 cases (1 benign, 2 malignant, 1 normal)"


def test_pairs_that_do_not_fit_are_named(bus_uclm: Path) -> None:
    """Breaks if a mask of another size is resized, or passed over in silence."""
    with pytest.raises(UserError) as caught:
        prepared(BUSUCLMSource(str(bus_uclm), include_normal=True), name="bus_uclm")
    message = str(caught.value)
    assert message.startswith("data bus_uclm: 2 problems")
    assert "data.exclude=[" in message
    for number in (0, 1):
        assert f"HESN_00{number}.png: the mask is 70×60, but its image" in message


def test_other_colours(bus_uclm: Path) -> None:
    """Breaks if a white mask, which tells no class, is given one."""
    write_png(bus_uclm / "masks" / "ALWI_000.png", coloured(WHITE))
    with pytest.raises(UserError, match=r"ALWI_000\.png: its colours are neither green"):
        read(bus_uclm, exclude="HESN_*")


def test_damaged_and_missing(bus_uclm: Path, tmp_path: Path) -> None:
    """Breaks if a damaged mask is dropped, or a missing dataset gives no way out."""
    (bus_uclm / "masks" / "ALWI_001.png").write_bytes(b"x")
    with pytest.raises(UserError, match=r"ALWI_001\.png: cannot be decoded"):
        prepared(BUSUCLMSource(str(bus_uclm)), exclude="HESN_*")
    (bus_uclm / "INFO.csv").write_text("Bild;Label\n")
    with pytest.raises(UserError, match=r"INFO\.csv has no column Image"):
        read(bus_uclm)
    for root in (tmp_path / "none", bus_uclm / "images"):
        with pytest.raises(UserError, match=r"by hand from https://data\.mendeley") as caught:
            read(root)
        assert "\n" not in str(caught.value)
