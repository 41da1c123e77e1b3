"""Data that changed since training are noticed, and where that is accepted every score says so."""

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import pytest
from omegaconf import OmegaConf

from anatosegnet.config.recorded import read_config, written_config
from anatosegnet.data.changes import Changes
from anatosegnet.data.leakage import leaked, recorded_split
from anatosegnet.data.recorded_split import RecordedSplit
from anatosegnet.errors import UserError
from anatosegnet.evaluation.comparison import notes
from anatosegnet.evaluation.evaluate import evaluate
from anatosegnet.files.rows import read_rows, write_rows
from anatosegnet.files.split_table import COLUMNS
from anatosegnet.run import Run
from anatosegnet.train import train
from anatosegnet.training.command import open_run
from tests.data.test_leakage import write_folder
from tests.running import compose

pytestmark = pytest.mark.slow
SETTINGS = ("data=folder", "data.image_size=32", "data.batch_size=4", "data.num_workers=0",
            "trainer=cpu", "trainer.max_epochs=1", "augmentation=none",
            "split.fractions=[0.6,0.2,0.2]")  # fmt: skip


def train_on(root: Path, directory: Path, **settings: Any) -> Run:
    """A run of one epoch of a tiny network."""
    config = compose(*SETTINGS, f"data.root={root}", f"run_dir={directory}")
    config.model = OmegaConf.create({"_target_": "tests.networks.Tiny"})
    run = Run(directory, trust=["tests"])
    train(OmegaConf.merge(config, settings), run)  # type: ignore[arg-type]
    return run


@dataclass
class Trained:
    """A run, its images and masks, and some of its cases by part."""

    run: Run
    root: Path
    train: list[str]
    test: list[str]

    def resume(self, accept: bool = False, epochs: int = 2) -> dict[str, Any]:
        """Go on for another epoch."""
        config = self.run.config
        config.resume, config.accept_changed_data = str(self.run.directory), accept
        config.trainer.max_epochs = epochs
        return train(config, self.run)

    def repeat(self, accept: bool = False, **changed: Any) -> dict[str, Any]:
        """Repeat it in a directory of its own."""
        again = self.run.directory.with_name("again")
        config = read_config(self.run.config_path, again, ["tests"])
        config.from_run, config.accept_changed_data = str(self.run.directory), accept
        for key, value in changed.items():
            OmegaConf.update(config, key.replace("__", "."), value)
        return train(config, Run(again, trust=["tests"]))

    def evaluate(self, accept: bool = False) -> dict[str, Any]:
        """Score its test cases."""
        accepted = f"accept_changed_data={str(accept).lower()}"
        return evaluate(self.run, compose(accepted, "overwrite=true", name="evaluate"))

    def file(self, name: str, part: str = "images") -> Path:
        """The image or mask of a case."""
        return self.root / part / f"{name}.png"


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run and its data."""
    folder = tmp_path_factory.mktemp("original")
    names = [(f"{'benign' if n % 2 else 'malignant'}_{n}", 4, n) for n in range(16)]
    train_on(write_folder(folder / "data", names), folder / "run")
    return folder


@pytest.fixture
def trained(original: Path, tmp_path: Path) -> Trained:
    """A copy of it that a test may change."""
    shutil.copytree(original, tmp_path, dirs_exist_ok=True)
    run = Run(tmp_path / "run", trust=["tests"])
    text = run.config_path.read_text()
    run.config_path.write_text(text.replace(str(original / "data"), str(tmp_path / "data")))
    split = RecordedSplit(run.split_path).read()
    return Trained(run, tmp_path / "data", list(split.train), list(split.test))


def swap_names(it: Trained) -> None:
    """Two cases of the training part change names."""
    for part in ("images", "labels"):
        a, b, between = it.file(it.train[0], part), it.file(it.train[1], part), it.root / "c.png"
        a.rename(between), b.rename(a), between.rename(b)


def invert(path: Path) -> None:
    """Lesion becomes background."""
    cv2.imwrite(str(path), 255 - cv2.imread(str(path), cv2.IMREAD_GRAYSCALE))


def copy_over_test(it: Trained) -> None:
    """A test case becomes the copy of a training case, mask and all."""
    for part in ("images", "labels"):
        shutil.copy(it.file(it.train[0], part), it.file(it.test[0], part))


def add(it: Trained) -> None:
    """A case that was not there before."""
    write_folder(it.root.with_name("more"), [("benign_99", 77, 0)])
    shutil.copytree(it.root.with_name("more"), it.root, dirs_exist_ok=True)


def remove(it: Trained) -> None:
    """A test case is no longer there."""
    for part in ("images", "labels"):
        it.file(it.test[0], part).unlink()


def other_class(it: Trained) -> None:
    """The dataset's table takes a benign test case for a malignant one, or the reverse."""
    label = "malignant" if it.test[0].startswith("benign") else "benign"
    names = sorted(path.stem for path in (it.root / "images").iterdir())
    classes = {name: name.partition("_")[0] for name in names} | {it.test[0]: label}
    rows = "".join(f"{name},{its}\n" for name, its in classes.items())
    (it.root / "cases.csv").write_text("id,class\n" + rows)


CHANGES: dict[str, tuple[Callable[[Trained], None], str]] = {
    "swapped names": (swap_names, r"2 other images \(\w+, \w+\), 2 other masks"),
    "training mask": (lambda it: invert(it.file(it.train[0], "labels")), r"1 other mask \(\w+\)"),
    "test mask": (lambda it: invert(it.file(it.test[0], "labels")), r"1 other mask \(\w+\)"),
    "copy": (copy_over_test, r"1 test image seen in training \(\w+\), 1 other image"),
    "class": (other_class, r"1 other class \(\w+\)"),
    "added": (add, r"1 case added \(benign_99\)"),
    "gone": (remove, r"1 case gone \(\w+\)"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_changed_data_are_refused(trained: Trained, change: str) -> None:
    """Breaks if a run goes on, is repeated or is scored on other data in silence."""
    apply, said = CHANGES[change]
    apply(trained)
    before = {path: path.read_bytes() for path in trained.run.directory.rglob("*.[cj]s*")}
    for verb in (trained.resume, trained.repeat, trained.evaluate):
        if verb == trained.evaluate and change in ("swapped names", "training mask"):
            continue  # scores look at the test cases alone
        with pytest.raises(UserError, match=rf"are not those that .*{said}.*accept_changed_data"):
            verb()
    assert {p: p.read_bytes() for p in trained.run.directory.rglob("*.[cj]s*")} == before
    assert not trained.run.directory.with_name("again").exists()


@pytest.mark.parametrize("change", CHANGES)
def test_accepted_changes_are_said(
    trained: Trained, change: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Breaks if scores on changed data hide it, or the evidence of the change is overwritten."""
    apply, said = CHANGES[change]
    apply(trained)
    split, before = trained.run.split_path.read_bytes(), trained.run.summary
    summary = trained.resume(accept=True)
    condition = summary["test_conditions"]["changed data"]
    assert re.search(said, condition)
    assert condition.startswith("NOT A TEST SCORE: ") == (change == "copy")
    assert f"warning: changed since {trained.run.directory}: {condition}" in capsys.readouterr().out
    assert trained.run.split_path.read_bytes() == split
    for key in ("data_fingerprint", "split_fingerprint", "split_description"):
        assert summary[key] == before[key]
    # once accepted, it need not be accepted again; and it is never forgotten
    assert trained.resume(epochs=3)["test_conditions"]["changed data"] == condition
    scores = trained.evaluate()
    assert scores["conditions"]["changed data"] == condition
    assert scores["changed_data"] == summary["changed_data"]
    assert notes({"a": []}, "a", [scores])["changed data"] == f"run run: {condition}"
    again = trained.repeat(accept=True)
    cases_alone = said.split("training")[-1] if change == "copy" else said  # its split is its own
    assert re.search(cases_alone.split("), ")[-1], again["test_conditions"]["changed data"])
    assert "NOT A TEST SCORE" not in again["test_conditions"]["changed data"]
    assert again["data_fingerprint"] != before["data_fingerprint"]  # its own


def test_scores_of_changed_test_cases(trained: Trained) -> None:
    """Breaks if evaluate alone forgets what was accepted, or calls a copy clean."""
    copy_over_test(trained)
    scores = trained.evaluate(accept=True)
    assert scores["conditions"]["changed data"].startswith("NOT A TEST SCORE: accepted, 1 test")
    assert scores["changed_data"]["trained"].keys() == {trained.test[0]}
    assert "changed_data" not in trained.run.summary  # the run was trained on the right ones
    with pytest.raises(UserError, match="1 test image seen in training"):
        trained.evaluate()


def test_a_test_image_that_is_trained_on_from_now(trained: Trained) -> None:
    """Breaks if resuming with a test image in the place of a training image leaves no trace."""
    for part in ("images", "labels"):
        shutil.copy(trained.file(trained.test[0], part), trained.file(trained.train[0], part))
    with pytest.raises(UserError, match=r"1 training image taken from the test part \(\w+\)"):
        trained.resume()
    summary = trained.resume(accept=True)
    assert "NOT A TEST SCORE" in summary["test_conditions"]["changed data"]
    assert "when resumed: 1 of" in summary["test_conditions"]["leakage"]
    assert "NOT A TEST SCORE" in trained.evaluate()["conditions"]["changed data"]


def test_a_further_change_is_refused_again(trained: Trained) -> None:
    """Breaks if accepting one change accepts all that come."""
    invert(trained.file(trained.test[0], "labels"))
    trained.resume(accept=True)
    invert(trained.file(trained.test[1], "labels"))
    with pytest.raises(UserError, match="2 other masks"):
        trained.resume(epochs=3)
    with pytest.raises(UserError, match="2 other masks"):
        trained.evaluate()
    with pytest.raises(UserError, match="accept_changed_data=maybe must be true or false"):
        trained.resume(accept="maybe")  # type: ignore[arg-type]


def test_the_same_pixels_are_the_same_data(trained: Trained) -> None:
    """Breaks if a picture that was saved anew, without loss, counts as another."""
    path = trained.file(trained.test[0])
    cv2.imwrite(str(path), cv2.imread(str(path)), [cv2.IMWRITE_PNG_COMPRESSION, 1])
    for summary in (trained.resume(), trained.evaluate(), trained.repeat()):
        assert "changed_data" not in summary


def test_runs_without_digests(trained: Trained) -> None:
    """Breaks if older runs do not open, or what they cannot tell passes for checked."""
    _, rows = read_rows(trained.run.split_path)
    with trained.run.split_path.open("w", newline="") as file:
        write_rows(file, COLUMNS[:4], [[row[name] for name in COLUMNS[:4]] for row in rows])
    summary = trained.run.summary
    del summary["split_description"]
    trained.run.summary_path.write_text(json.dumps(summary))
    split = trained.evaluate()["conditions"]["split"]
    assert "(HoldoutSplit)" in split
    assert split.endswith("whether the images and masks are those of training is unknown")
    assert "changed_data" not in trained.resume()
    invert(trained.file(trained.test[0], "labels"))
    for verb in (trained.resume, trained.repeat):
        with pytest.raises(UserError, match="1 other fingerprint of the files"):
            verb()


def test_other_settings_of_a_repetition(trained: Trained) -> None:
    """Breaks if another seed lets changed data pass, or other data asked for are refused."""
    invert(trained.file(trained.train[0], "labels"))
    with pytest.raises(UserError, match="1 other mask"):
        trained.repeat(data__seed=1, split__seed=1)
    assert "changed_data" not in trained.repeat(data__exclude=[trained.train[0]])


def test_a_resumed_run_knows_its_split(trained: Trained) -> None:
    """Breaks if resuming forgets what the split was, or evaluate does not say it."""
    described = "holdout 60/20/20, stratified by class, seed 0"
    assert trained.resume()["test_conditions"]["split"].startswith(described)
    assert f"({described})" in trained.evaluate()["conditions"]["split"]


def test_dropped_copies_are_recorded(original: Path, tmp_path: Path) -> None:
    """Breaks if a case in no part counts as added, or resuming drops others or says so twice."""
    root = shutil.copytree(original / "data", tmp_path / "data")
    for part in ("images", "labels"):
        shutil.copy(root / part / "benign_1.png", root / part / "benign_100.png")
    run = train_on(root, tmp_path / "run", data={"duplicates": "drop"})
    rows = {row.id: row for row in RecordedSplit(run.split_path).rows}
    assert (rows["benign_100"].part, rows["benign_1"].part != "none") == ("none", True)
    assert rows["benign_100"].duplicates == rows["benign_1"].duplicates == "benign_1"
    summary = Trained(run, root, [], []).resume()
    assert "changed_data" not in summary
    assert summary["test_conditions"]["split"].count("dropped") == 1


def test_patients_stay_known(original: Path, tmp_path: Path) -> None:
    """Breaks if the patient disappears behind the group of a near-duplicate."""
    root = shutil.copytree(original / "data", tmp_path / "data")
    names = sorted(path.stem for path in (root / "images").iterdir())
    patients = {name: f"p{number // 2}" for number, name in enumerate(names)}
    rows = "".join(f"{name},{patient}\n" for name, patient in patients.items())
    (root / "cases.csv").write_text("id,group\n" + rows)
    for part in ("images", "labels"):
        shutil.copy(root / part / f"{names[0]}.png", root / part / f"{names[5]}.png")
    run = train_on(root, tmp_path / "run")
    recorded = {row.id: row for row in RecordedSplit(run.split_path).rows}
    assert {name: row.patient for name, row in recorded.items()} == patients
    united = {name: row.group for name, row in recorded.items() if row.duplicates}
    assert len(united) == 2 and len(set(united.values())) == 1
    assert leaked(run, recorded_split(run)) == set()


def test_accepting_is_of_the_command(trained: Trained, in_hydra_job: Callable[..., Any]) -> None:
    """Breaks if the command line cannot accept, or a run once accepted accepts all its life."""
    for verb in ("resume", "from_run"):
        given = [f"{verb}={trained.run.directory}", "accept_changed_data=true", "trust=[tests]"]
        config, _ = in_hydra_job(compose(*given), given, open_run)
        assert config.accept_changed_data is True
        assert "accept_changed_data" not in written_config(config)


def test_a_damaged_record_of_changes(tmp_path: Path) -> None:
    """Breaks if a summary that somebody edited ends in a traceback."""
    run = Run(tmp_path)
    for damage in (5, [], {"masks": 5}, {"unknown": {}}, {"masks": {}}):
        run.summary_path.write_text(json.dumps({"changed_data": damage}))
        assert not Changes.recorded(run)
