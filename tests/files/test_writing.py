"""Folders that take the place of others, and those that must not."""

from pathlib import Path

import pytest

from anatosegnet.errors import UserError
from anatosegnet.files.writing import replacing, replacing_directory


def test_a_users_folder_is_not_emptied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks if overwrite=true empties a folder that holds other things, or the one one is in."""
    folder = tmp_path / "documents"
    folder.mkdir()
    for name in ("scores.csv", "thesis.tex"):
        with replacing_directory(folder, overwrite=True, mark="scores.csv") as temporary:
            (temporary / name).write_text("1")
    with (
        pytest.raises(UserError, match=r"documents holds no scores\.csv, so overwrite=true does"),
        replacing_directory(folder, overwrite=True, mark="scores.csv"),
    ):
        raise AssertionError
    (folder / "here").mkdir()
    monkeypatch.chdir(folder / "here")
    for inside in (folder, Path(".."), Path(), tmp_path):
        with (
            pytest.raises(UserError, match="holds the working directory"),
            replacing_directory(inside, overwrite=True),
        ):
            raise AssertionError
    assert sorted(path.name for path in folder.iterdir()) == ["here", "thesis.tex"]


@pytest.mark.parametrize("path", [Path(), Path("/"), Path("a/..")])
def test_a_path_without_a_name_is_a_folder(path: Path) -> None:
    """Breaks if an empty setting of a path ends in a ValueError of pathlib."""
    with pytest.raises(IsADirectoryError, match="it is a folder"), replacing(path):
        raise AssertionError
