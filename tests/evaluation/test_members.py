"""Ensembles are scored on what their members never saw, and views beside the plain scores."""

import csv
import json
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from omegaconf import DictConfig
from pandas import DataFrame

from anatosegnet.data.duplicates import Pair, write_pairs
from anatosegnet.data.leakage import never_seen, recorded_split
from anatosegnet.data.recorded_split import RecordedSplit
from anatosegnet.errors import UserError
from anatosegnet.evaluation.compare import compare
from anatosegnet.evaluation.evaluate import evaluate, evaluate_together
from anatosegnet.evaluation.members import Members
from anatosegnet.files.rows import write_rows
from anatosegnet.files.writing import write_json
from anatosegnet.report.reading import read_summary
from anatosegnet.run import Run
from tests.data.test_leakage import write_folder
from tests.running import compose

pytestmark = pytest.mark.slow

QUICK = ("surface=false", "device=cpu")


def asked(*overrides: str) -> DictConfig:
    """What the command line of evaluate would give."""
    return compose(*QUICK, *overrides, name="evaluate")


def rows_of(path: Path) -> list[dict[str, str]]:
    """The rows of a csv file."""
    with path.open() as file:
        return list(csv.DictReader(file))


def names_of(run: Run, part: str) -> list[str]:
    """The cases of a part, as recorded."""
    return [row["id"] for row in rows_of(run.split_path) if row["part"] == part]


def put(run: Run, parts: Mapping[str, str]) -> None:
    """Put cases into other parts, as if the run had been trained so."""
    rows = rows_of(run.split_path)
    for row in rows:
        row["part"] = parts.get(row["id"], row["part"])
    with run.split_path.open("w", newline="") as file:
        write_rows(file, list(rows[0]), rows)
    run.update_summary({"split_fingerprint": RecordedSplit(run.split_path).read().fingerprint})


@pytest.fixture
def folds(trained_run: Run, tmp_path: Path) -> list[Run]:
    """Two runs of one network, each with four test cases that the other trained on."""
    one, other = (
        Run(shutil.copytree(trained_run.directory, tmp_path / name)) for name in ("one", "other")
    )
    test, train = names_of(one, "test"), names_of(one, "train")
    put(other, {**dict.fromkeys(test, "train"), **dict.fromkeys(train[:4], "test")})
    return [one, other]


def test_each_image_is_scored_by_those_that_never_saw_it(folds: list[Run], tmp_path: Path) -> None:
    """Breaks if a member scores what it trained on, or an image that one never saw is lost."""
    alone = [evaluate(run, asked()) for run in folds]
    summary = evaluate_together(folds, asked(f"out={tmp_path / 'out'}"))
    rows = {row["id"]: row for row in rows_of(tmp_path / "out" / "scores.csv")}
    for run in folds:
        own = rows_of(run.directory / "evaluation" / "phantom" / "scores.csv")
        assert {row["id"] for row in own} == {*names_of(run, "test")} and len(own) == 4
        assert all(rows[row["id"]] == row for row in own)
    assert summary["images"] == len(rows) == 8
    assert summary["iou"] == pytest.approx((alone[0]["iou"] + alone[1]["iou"]) / 2)
    said = summary["conditions"]
    assert "of 2 members, 8 by 1; 12 images left out that every member saw (" in said["split"]
    assert said["members"] == "mean of the probabilities of 2 runs: one, other"
    assert said["data"] == "phantom, 8 images" and "without_leaks" not in summary
    predictor = summary["predictor"]
    assert [Path(member["run"]).name for member in predictor["members"]] == ["one", "other"]
    assert predictor["name"] == "2 × AnatoSegNet" and "run" not in summary
    page = (tmp_path / "out" / "report.html").read_text()
    assert "2 × AnatoSegNet on phantom" in page and "member 2" in page


def test_duplicates_and_group_mates_of_what_was_seen_are_seen(folds: list[Run]) -> None:
    """Breaks if a member scores an image whose near-duplicate it trained on or validated with."""
    one, other = folds
    test, train, val = (names_of(one, part) for part in ("test", "train", "val"))
    write_pairs(one.duplicates_path, [Pair(test[0], train[5], 1), Pair(test[1], val[0], 1)])
    assert never_seen(one, recorded_split(one)) == {*test[2:]}
    members = Members.find(folds, asked(), True)
    assert {*members.names} == {*test[2:], *train[:4]}
    assert all(members.of(name) == (0,) for name in test[2:])
    one.update_summary({"epoch_chosen": False})
    assert never_seen(one, recorded_split(one)) == {*test[1:]}
    put(other, dict.fromkeys(test, "test"))
    assert Members.find(folds, asked(), True).of(test[2]) == (0, 1)
    assert Members.find(folds, asked(), True).of(test[0]) == (1,)


def test_nothing_left_to_score_is_one_line(folds: list[Run], tmp_path: Path) -> None:
    """Breaks if an ensemble that saw every case gets a score, or an empty table."""
    for run in folds:
        test, train = names_of(run, "test"), names_of(run, "train")
        write_pairs(run.duplicates_path, [Pair(name, train[9], 1) for name in test])
    with pytest.raises(UserError, match="no case of phantom can be scored: each was trained on by"):
        evaluate_together(folds, asked(f"out={tmp_path / 'out'}"))
    assert not (tmp_path / "out").exists()


def test_other_images_are_scored_by_all(folds: list[Run], tmp_path: Path) -> None:
    """Breaks if a member is left out where none of them trained."""
    root = write_folder(tmp_path / "new", [("new", 9, 0), ("also_new", 9, 1)])
    other = ("data=folder", f"data.root={root}")
    alone = evaluate(folds[0], asked(*other), own_data=False)
    out = tmp_path / "out"
    summary = evaluate_together(folds, asked(*other, f"out={out}"), own_data=False)
    assert summary["images"] == 2 and summary["iou"] == alone["iou"]
    assert "out of fold" not in summary["conditions"]["split"]
    scores = "evaluation/folder/scores.csv"
    assert (out / "scores.csv").read_text() == (folds[0].directory / scores).read_text()


def test_impossible_ensembles_are_one_line(folds: list[Run], tmp_path: Path) -> None:
    """Breaks if results are written into a run, over others, or of two datasets as one."""
    with pytest.raises(UserError, match="several runs go: out=DIR"):
        evaluate_together(folds, asked())
    with pytest.raises(UserError, match="one is a run; give another out"):
        evaluate_together(folds, asked(f"out={folds[0].directory}"))
    (tmp_path / "out").mkdir()
    with pytest.raises(UserError, match="overwrite=true"):
        evaluate_together(folds, asked(f"out={tmp_path / 'out'}"))
    text = folds[1].config_path.read_text().replace("name: phantom", "name: others")
    folds[1].config_path.write_text(text)
    with pytest.raises(UserError, match=r"different data \(others, phantom\); say which to score"):
        evaluate_together(folds, asked(f"out={tmp_path / 'new'}"))


def test_views_are_scored_beside_the_plain_images(folds: list[Run]) -> None:
    """Breaks if scores of views take the place of the plain ones, or do not say what they are."""
    run = folds[0]
    plain = evaluate(run, asked())
    flipped = evaluate(run, asked("tta=flip"))
    folder = run.directory / "evaluation" / "phantom_tta_flip"
    assert json.loads((folder / "summary.json").read_text())["iou"] == flipped["iou"]
    assert flipped["conditions"]["views"] == "mean over 2 views of each image (tta=flip)"
    assert flipped["predictor"]["name"] == "AnatoSegNet, tta=flip"
    assert flipped["brier"] != plain["brier"] and "views" not in plain["conditions"]
    assert "predictor" not in plain
    both = evaluate(run, asked("tta=[flip,scales]", "at=model"))
    assert both["conditions"]["aggregation"].startswith("per image at 96×96 px")
    assert (run.directory / "evaluation" / "phantom_at_model_size_tta_flip_scales").is_dir()


def test_a_damaged_record_of_members_is_one_line(folds: list[Run], tmp_path: Path) -> None:
    """Breaks if a summary of others ends in a traceback."""
    out = tmp_path / "out"
    evaluate_together(folds, asked(f"out={out}"))
    summary = json.loads((out / "summary.json").read_text())
    for wrong in ([1], {"members": [3]}, {"name": {}}):
        write_json(out / "summary.json", {**summary, "predictor": wrong})
        with pytest.raises(UserError, match=r"is damaged \(predictor\); evaluate again"):
            read_summary(out / "summary.json")


def test_ensembles_and_views_are_compared_with_runs(folds: list[Run], tmp_path: Path) -> None:
    """Breaks if compare takes another folder for the scores, or repetitions for other settings."""
    root = write_folder(tmp_path / "new", [(f"new{index}", 9, index) for index in range(3)])
    other = ("data=folder", f"data.root={root}")
    places = [str(run.directory) for run in folds]
    evaluate_together(folds, asked(*other, f"out={tmp_path / 'ensemble'}"), own_data=False)
    for run in folds:
        evaluate(run, asked(*other, "tta=flip"), own_data=False)
    flipped = [f"{place}/evaluation/folder_tta_flip" for place in places]

    def compared(*named: str, out: str = "out", views: str = "none") -> DataFrame:
        runs = f"runs=[{','.join(named)}]"
        settings = (*QUICK, *other, runs, f"out={tmp_path / out}", f"tta={views}")
        return compare(compose(*settings, name="compare"), own_data=False)

    table = compared(*places, *flipped, str(tmp_path / "ensemble"))
    assert list(table["setting"])[1:] == ["AnatoSegNet, tta=flip", "2 × AnatoSegNet"]
    assert list(table["runs"]) == [2, 2, 1]
    assert table["iou_difference"].notna().tolist() == [False, True, True]
    said = (tmp_path / "out" / "comparison.md").read_text()
    assert "- views: mean over 2 views of each image (tta=flip)" in said
    assert "- members: mean of the probabilities of 2 runs: one, other" in said
    assert "2 × AnatoSegNet" in (tmp_path / "out" / "comparison.html").read_text()
    again = compared(*places, out="views", views="flip")
    assert again["iou"][0] == table["iou"][1]
    with pytest.raises(UserError, match="is the evaluation of a run; name the run"):
        compared(f"{places[0]}/evaluation/folder", out="no")
    with pytest.raises(UserError, match=r"is named twice in runs="):
        compared(flipped[0], flipped[0], out="no")


@pytest.mark.parametrize(
    ("verb", "expected"),
    [
        ("evaluate", "/nowhere/0 is no run directory"),
        ("predict", "/nowhere/0 is no run directory"),
        ("export", "must be one run: run=DIR"),
    ],
)
def test_the_command_line_takes_lists(verb: str, expected: str) -> None:
    """Breaks if ``run=[A,B]`` or ``tta=[…]`` is refused before the verb sees it."""
    given = {"evaluate": ["tta=[flip,scales]"], "predict": ["input=[a,b]", "output=c", "tta=flip"]}
    named = ["run=[/nowhere/0,/nowhere/1]", *given.get(verb, [])]
    command = [sys.executable, "-m", f"anatosegnet.{verb}", *named]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and expected in done.stderr
