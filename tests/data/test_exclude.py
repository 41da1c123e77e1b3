"""data.exclude leaves cases out, with all that is wrong with them."""

from pathlib import Path

import numpy as np
import pytest

from anatosegnet.data.datasets.busi import BUSISource
from anatosegnet.data.datasets.folder import FolderSource
from anatosegnet.data.prepared import FoundData
from anatosegnet.errors import UserError
from anatosegnet.run import Run
from anatosegnet.train import train
from tests.conftest import grey_image, square_mask, write_png
from tests.preparing import found, prepared
from tests.running import compose, compose_small


def folder(root: Path, *patterns: str) -> FoundData:
    """A folder without the cases of the patterns."""
    return found(FolderSource(str(root)), patterns, name="folder")


def test_names_and_patterns(folder_data: Path) -> None:
    """Breaks if a pattern leaves out too much or too little."""
    data = folder(folder_data, "benign_1", "malignant_1?", "*_[45]")
    left = set(data.cases)
    assert sorted(data.excluded) == [
        "benign_1", "benign_4", "benign_5", "malignant_12", "malignant_15", "malignant_18",
    ]  # fmt: skip
    assert len(left) == 14
    assert not left & set(data.excluded)


def test_a_name_with_brackets_is_itself(tmp_path: Path) -> None:
    """Breaks if a name that looks like a pattern cannot be left out."""
    for name in ("a [1]", "a 1"):
        write_png(tmp_path / "images" / f"{name}.png", grey_image())
        write_png(tmp_path / "labels" / f"{name}.png", square_mask())
    write_png(tmp_path / "images" / "b.png", grey_image())
    write_png(tmp_path / "labels" / "b.png", square_mask())
    data = folder(tmp_path, "a [1]")
    assert list(data.cases) == ["a 1", "b"]  # as a pattern it would fit "a 1"
    assert list(data.excluded) == ["a [1]"]


def test_problems_of_excluded_cases_are_silent(busi_release: Path) -> None:
    """Breaks if a broken case must be deleted, because leaving it out does not help."""
    benign = busi_release / "benign"
    (benign / "benign (1).png").write_bytes(b"")
    (benign / "benign (2)_mask.png").unlink()
    (benign / "benign (2)_mask_1.png").unlink()
    write_png(benign / "benign (9)_mask.png", square_mask())
    write_png(benign / "benign (3)_mask.png", np.zeros((40, 50), np.uint8))
    busi = BUSISource(str(busi_release))
    with pytest.raises(UserError, match="4 problems"):
        found(busi)
    with pytest.raises(UserError, match="1 problem") as caught:
        prepared(busi, exclude=["benign (9)", "benign (1)", "benign (2)"])
    assert "benign (3)_mask.png: the mask is empty" in str(caught.value)
    assert list(found(busi, "benign*").cases) == ["malignant (1)", "malignant (2)"]


def test_mistakes(folder_data: Path) -> None:
    """Breaks if a misspelt name, or a pattern for everything, goes unnoticed."""
    with pytest.raises(UserError, match=r"exclude: bening_1 is the name of no case of folder"):
        folder(folder_data, "benign_1", "bening_1")
    with pytest.raises(UserError, match="leaves no case of folder"):
        folder(folder_data, "*")


@pytest.mark.slow
def test_a_run_records_it(
    folder_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Breaks if nobody can tell later which cases a run left out."""
    run = Run(tmp_path / "run")
    overrides = ["data=folder", f"data.root={folder_data}", "data.exclude=[benign_1,malignant_1?]"]
    train(compose_small(run.directory, *overrides, "trainer.max_epochs=1"), run)
    assert "data   folder: 16 cases (12 benign, 4 malignant), 4 excluded" in capsys.readouterr().out
    assert run.config.data.exclude == ["benign_1", "malignant_1?"]
    assert "benign_1," not in run.split_path.read_text()


def test_from_the_command_line() -> None:
    """Breaks if hydra does not take the words of the documentation."""
    config = compose("data=bus_uclm", 'data.exclude=[HESN_*,"benign (4)"]')
    assert config.data.exclude == ["HESN_*", "benign (4)"]
