"""A score of cases that were trained on is never called a test score."""

import csv
import json
import shutil
from pathlib import Path

import pytest

from anatosegnet.data.case import Case
from anatosegnet.data.duplicates import Pair, write_pairs
from anatosegnet.data.leakage import leaked, recorded_split
from anatosegnet.data.recorded_split import write_split
from anatosegnet.data.simulator import simulate
from anatosegnet.data.split import Split
from anatosegnet.errors import UserError
from anatosegnet.evaluation.cohort import find_cohort
from anatosegnet.evaluation.evaluate import evaluate
from anatosegnet.files.split_table import COLUMNS
from anatosegnet.report.overlay import encode_png
from anatosegnet.run import Run
from anatosegnet.train import train
from tests.running import compose, compose_small

pytestmark = pytest.mark.slow


@pytest.fixture
def run(trained_run: Run, tmp_path: Path) -> Run:
    """A copy of the trained run that a test may write into."""
    shutil.copytree(trained_run.directory, tmp_path / "run")
    return Run(tmp_path / "run")


def write_folder(root: Path, phantoms: list[tuple[str, int, int]], crop: int = 0) -> Path:
    """``images/`` and ``labels/`` of phantoms (name, seed, index)."""
    for part in ("images", "labels"):
        (root / part).mkdir(parents=True)
    for name, seed, index in phantoms:
        phantom = simulate(seed, index)
        for part, pixels in (("images", phantom.image), ("labels", phantom.mask * 255)):
            (root / part / f"{name}.png").write_bytes(encode_png(pixels[crop:, crop:]))
    return root


def stated(run: Run, *overrides: str) -> tuple[tuple[str, ...], str]:
    """The names that evaluate would score, and what it says of the split."""
    own = not any(override.startswith("data=") for override in overrides)
    cohort = find_cohort(run, compose(*overrides, name="evaluate"), own)
    for name in cohort.names:
        assert cohort.notice(name, *cohort.data.read(name))
    return cohort.names, cohort.judge().split


def test_a_run_records_its_split(run: Run) -> None:
    """Breaks if the fingerprint, the leakage or the digests are not stored or not printed."""
    summary = json.loads(run.summary_path.read_text())
    fingerprint = summary["split_fingerprint"]
    assert len(fingerprint) == 12
    assert fingerprint in summary["test_conditions"]["split"]
    assert summary["test_conditions"]["leakage"] == summary["leakage"]
    with run.split_path.open() as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == COLUMNS
    assert len({row["pixels"] for row in rows}) == len({row["mask"] for row in rows}) == 20
    assert summary["split_description"] == "holdout 70/10/20, stratified by class, seed 0"
    names, split = stated(run)
    assert fingerprint in split
    assert set(names) == {row["id"] for row in rows if row["part"] == "test"}


def test_a_changed_split_is_refused(run: Run) -> None:
    """Breaks if training cases can be moved into the test part and be called a test."""
    text = run.split_path.read_text()
    run.split_path.write_text(text.replace(",train,", ",test,", 1))
    with pytest.raises(UserError, match=r"not the split this run trained with.*put the file back"):
        evaluate(run, compose(name="evaluate"))
    assert not (run.directory / "evaluation").exists()
    with pytest.raises(UserError, match="not the split this run trained with"):
        train(compose_small(run.directory, f"resume={run.directory}"), run)


def test_a_run_without_a_fingerprint_says_so(run: Run) -> None:
    """Breaks if a split that cannot be checked passes for one that was."""
    summary = json.loads(run.summary_path.read_text())
    del summary["split_fingerprint"]
    run.summary_path.write_text(json.dumps(summary))
    assert "recorded no fingerprint" in stated(run)[1]


def test_the_leaks_of_a_run_are_known_from_its_files(tmp_path: Path) -> None:
    """Breaks if copies that were not kept together pass for clean, or a group is forgotten."""
    run = Run(tmp_path)
    cases = [Case(name, group="patient" if name in "ae" else "") for name in "abcdefgh"]
    write_split(run.split_path, Split(("a", "b"), ("c", "d"), ("e", "f", "g", "h"), ""), cases)
    assert leaked(run, recorded_split(run)) == {"e"}
    # f is a copy of a training case's copy, which is in no part; g of a validation case
    pairs = [("a0", "b"), ("a0", "f"), ("c", "g"), ("h", "y")]
    write_pairs(run.duplicates_path, [Pair(a, b, 0.98) for a, b in pairs])
    assert leaked(run, recorded_split(run)) == {"e", "f"}
    write_split(run.split_path, Split(("a", "b"), ("f", "g"), ("f", "g"), ""), cases)
    assert leaked(run, recorded_split(run)) == {"f"}
    run.duplicates_path.write_text("id_a,id_b\nb,f\n")
    with pytest.raises(UserError, match="no list of near-duplicates"):
        leaked(run, recorded_split(run))


def test_another_seed_is_other_data(run: Run) -> None:
    """Breaks if images that only share the names are scored as the run's test part."""
    names, split = stated(run, "data=phantom", "data.count=6", "data.phantom_seed=7")
    assert len(names) == 6
    assert "none: all cases of phantom" in split
    assert "none of them is a near-duplicate" in split
    same = stated(run, "data=phantom", "data.count=20")
    assert same == stated(run)


def test_training_images_under_other_names_are_told(run: Run, tmp_path: Path) -> None:
    """Breaks if the run's own training images, renamed, are called an external test."""
    with run.split_path.open() as file:
        rows = list(csv.DictReader(file))
    trained = [int(row["id"][-4:]) for row in rows if row["part"] == "train"]
    phantoms = [("seen", 0, trained[0]), ("new", 9, 0), ("also_new", 9, 1)]
    root = write_folder(tmp_path / "other", phantoms)
    names, split = stated(run, "data=folder", f"data.root={root}")
    assert len(names) == 3
    assert "NOT A TEST SCORE: 1 of 3 images" in split
    assert split.endswith("images: seen")


def test_near_duplicates_of_training_images_are_told(tmp_path: Path) -> None:
    """Breaks if a cropped copy of a training image counts as external, or lost data as checked."""
    names = [(f"benign_{index}", 4, index) for index in range(12)]
    root = write_folder(tmp_path / "mine", names)
    run = Run(tmp_path / "run")
    small = ("data=folder", f"data.root={root}", "trainer.max_epochs=1")
    train(compose_small(run.directory, *small), run)
    with run.split_path.open() as file:
        part = {row["id"]: row["part"] for row in csv.DictReader(file)}
    copied = [name for name in names if part[name[0]] == "train"][:2]
    renamed = [(f"copy {n}", seed, index) for n, (_, seed, index) in enumerate(copied)]
    other = write_folder(tmp_path / "other", [*renamed, ("new", 9, 0)], crop=9)
    external = ("data=folder", f"data.root={other}", "data.name=other")
    assert "NOT A TEST SCORE: 2 of 3 images" in stated(run, *external)[1]
    shutil.rmtree(root)
    lost = stated(run, *external)[1]
    assert "could not be read again; of these only identical pixels" in lost
