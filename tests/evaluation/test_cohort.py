"""What evaluate reads, and how often."""

import csv
import shutil
import sys
import weakref
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from anatosegnet.data.case import Case
from anatosegnet.data.prepared import FoundData
from anatosegnet.errors import UserError
from anatosegnet.evaluation.evaluate import evaluate
from anatosegnet.evaluation.scoring import Scoring, score_cases
from anatosegnet.prediction.inference import Predictor
from anatosegnet.prediction.predictor import Prediction
from anatosegnet.run import Run
from tests.data.test_leakage import write_folder
from tests.running import compose, wait_for

opened: Counter[str] = Counter()  # by the name of the file; audit hooks cannot be removed
sys.addaudithook(lambda event, args: event == "open" and opened.update([Path(str(args[0])).name]))


@pytest.fixture
def run(trained_run: Run, tmp_path: Path) -> Run:
    """A copy of the trained run that a test may write into."""
    return Run(shutil.copytree(trained_run.directory, tmp_path / "run"))


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> Iterator[Counter[str]]:
    """How often each case was decoded."""
    counts: Counter[str] = Counter()
    whole = FoundData.read

    def read(self: FoundData, name: str) -> tuple[np.ndarray, np.ndarray]:
        counts[f"{self.name} {name}"] += 1
        return whole(self, name)

    monkeypatch.setattr(FoundData, "read", read)
    yield counts


@pytest.mark.slow
def test_files_are_read_once(run: Run, decoded: Counter[str], tmp_path: Path) -> None:
    """Breaks if split.csv is read again for another question, or an image for its digest."""
    opened.clear()
    evaluate(run, compose("surface=false", name="evaluate"))
    assert opened["split.csv"] == 1
    assert len(decoded) == 4 and set(decoded.values()) == {1}
    decoded.clear()
    opened.clear()
    root = write_folder(tmp_path / "other", [("new", 9, 0), ("also_new", 9, 1)])
    other = ("data=folder", f"data.root={root}", "surface=false")
    evaluate(run, compose(*other, name="evaluate"), own_data=False)
    assert opened["split.csv"] == 1
    assert decoded == {"folder new": 1, "folder also_new": 1}


@pytest.mark.slow
def test_changed_images_are_not_predicted(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks if images that will be refused go through the network, or only the first is named."""
    with run.split_path.open() as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        row["pixels"] = "0" * 16 if row["part"] == "test" else row["pixels"]
    with run.split_path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    monkeypatch.setattr(Predictor, "probabilities", lambda *_: pytest.fail("it was predicted"))
    with pytest.raises(UserError, match="4 other images"):
        evaluate(run, compose("batch_size=1", name="evaluate"))
    assert not list((run.directory / "evaluation").glob("*"))


def test_originals_go_once_they_are_scored(tmp_path: Path) -> None:
    """Breaks if a batch at its original size is kept until the next one was read and predicted."""
    kept: list[weakref.ref[np.ndarray]] = []

    class Cases:
        name, cases = "cases", {str(index): Case(str(index)) for index in range(4)}

        def read(self, name: str) -> tuple[np.ndarray, np.ndarray]:
            if int(name) >= 2:
                wait_for(lambda: all(one() is None for one in kept[:2]), 20)
            image, mask = np.zeros((40, 50, 3), np.uint8), np.zeros((40, 50), np.uint8)
            mask[5:20, 5:20] = 1
            kept.append(weakref.ref(image))
            return image, mask

    class Network:
        def predict(self, images: list[np.ndarray]) -> Prediction:
            return Prediction.of(np.full((len(images), 20, 25), 0.6, np.float32))

    network, scoring = Network(), Scoring(surface=False)
    scored = score_cases(Cases(), "0123", lambda _: network, scoring, tmp_path, 2)  # type: ignore[arg-type]
    assert [item.row["id"] for item in scored] == ["0", "1", "2", "3"]
