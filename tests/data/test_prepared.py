"""From a source, here one of somebody's own, to data that are checked, grouped and split."""

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from anatosegnet.data import Case, Found, HoldoutSplit, KFoldSplit, Source
from anatosegnet.data.datasets.phantom import PhantomSource
from anatosegnet.errors import UserError
from tests.conftest import grey_image, square_mask, write_png
from tests.preparing import found, prepared


class Clinic(Source):
    """Images and masks that a table names, with their patients."""

    def __init__(self, table: str) -> None:
        self.table = Path(table)

    def find_cases(self) -> Found:
        """A case per row."""
        folder, cases, problems = self.table.parent, [], []
        for row in csv.DictReader(self.table.open()):
            image, mask = folder / f"{row['id']}.png", folder / f"{row['id']}_mask.png"
            if not mask.is_file():
                problems.append(f"{image}: has no mask beside it")
                continue
            cases.append(Case(row["id"], image, (mask,), row["class"], group=row["patient"]))
        if not cases and not problems:
            raise UserError(f"{self.table} lists no case; export it again")
        return Found(cases, problems)


def clinic(folder: Path, patients: Sequence[str]) -> Clinic:
    """An image of each patient named, classes in turn."""
    lines = ["id,class,patient"]
    for number, patient in enumerate(patients):
        write_png(folder / f"scan_{number}.png", grey_image(number))
        write_png(folder / f"scan_{number}_mask.png", square_mask())
        lines.append(f"scan_{number},{('benign', 'malignant')[number % 2]},{patient}")
    (folder / "table.csv").write_text("\n".join(lines))
    return Clinic(str(folder / "table.csv"))


def test_a_source_of_ones_own_with_patients(tmp_path: Path) -> None:
    """Breaks if a dataset needs more than finding its cases, or a patient is cut."""
    data = prepared(clinic(tmp_path, [f"p{number // 2}" for number in range(40)]))
    parts = [
        {data.cases[name].patient for name in getattr(data.split, p)} for p in ("train", "test")
    ]
    assert not parts[0] & parts[1]
    assert "20 groups kept together" in data.split.description
    assert data.leakage.text.endswith("another image of the patient in another part")
    image, mask = data.read("scan_3")
    assert (image.shape, mask.max()) == ((40, 50, 3), 1)
    assert (
        data.fingerprint == prepared(Clinic(str(tmp_path / "table.csv")), cache="off").fingerprint
    )


def test_its_complaints_say_whose_they_are(tmp_path: Path) -> None:
    """Breaks if a message of a source does not name the dataset, or gives a traceback."""
    source = clinic(tmp_path, ["a", "b"])
    (tmp_path / "scan_1_mask.png").unlink()
    with pytest.raises(UserError, match=r"^data mine: 1 problem .*\n.*scan_1\.png: has no mask"):
        found(source, name="mine")
    source.table.write_text("id,class,patient\n")
    with pytest.raises(UserError, match=r"^data mine: .*table\.csv lists no case"):
        found(source, name="mine")
    source.table.unlink()
    with pytest.raises(UserError, match=r"^data mine: .*table\.csv cannot be read \(No such file"):
        found(source, name="mine")


@pytest.mark.parametrize("split", [HoldoutSplit(seed=5), KFoldSplit(seed=5)])
def test_too_few_patients_for_the_split(tmp_path: Path, split: HoldoutSplit | KFoldSplit) -> None:
    """Breaks if an empty part is found after an epoch, or what is offered leaves one empty too."""
    source = clinic(tmp_path, list("abcdef") * 2)
    with pytest.raises(UserError) as caught:
        prepared(source, split, name="mine")
    line = str(caught.value)
    assert line.startswith("data mine: the split (")
    assert "12 cases are 6 groups (patients, near-duplicates), which are never cut" in line
    assert "take split=holdout split.fractions=[" in line
    offered = [float(share) for share in line.split("[")[1].rstrip("]").split(",")]
    assert all(len(part) for part in parts_of(source, HoldoutSplit(offered, seed=5)))


def parts_of(source: Source, split: HoldoutSplit) -> tuple[tuple[str, ...], ...]:
    """Train, val and test."""
    done = prepared(source, split).split
    return done.train, done.val, done.test


def test_too_few_patients_for_any_split(tmp_path: Path) -> None:
    """Breaks if something is offered that cannot be."""
    with pytest.raises(UserError, match=r"2 groups .*, too few of each class for three parts"):
        prepared(clinic(tmp_path, ["a", "b"] * 4))


def test_cases_without_files_need_a_content() -> None:
    """Breaks if pixels that no file holds are served from the cache of other ones."""

    class Numbers(PhantomSource):
        content_of = Source.content_of

        def read(self, case: Case) -> tuple[np.ndarray, np.ndarray]:
            return np.zeros((40, 40, 3), np.uint8), np.ones((40, 40), np.uint8)

    with pytest.raises(UserError, match="Numbers needs a content_of: phantom_0000 has no image"):
        prepared(Numbers(20))
