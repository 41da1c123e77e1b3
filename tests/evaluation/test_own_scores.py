"""A score from outside the package: in every file that shows scores, and refused in one line."""

import json
import shutil
from pathlib import Path

import pandas
import pytest

from anatosegnet.errors import UserError
from anatosegnet.evaluation.compare import compare
from anatosegnet.evaluation.evaluate import evaluate
from anatosegnet.evaluation.scoring import Scoring, own_score
from anatosegnet.report.reading import Evaluation
from anatosegnet.run import Run
from tests.running import compose

MODULE = """
import numpy as np

from anatosegnet.metrics import Score, Segmentation


def border(image: Segmentation) -> float | None:
    edge = np.ones_like(image.truth)
    edge[1:-1, 1:-1] = False
    return None if image.area == 0 else 100 * float((image.prediction & edge).mean())


border_share = Score("border_share", "share <of> the border", border, "%", True, "first")
name_taken = Score("iou", "IoU", border)
name_of_tables = Score("border_sd", "border", border)
nothing = 3


def not_a_number(image: Segmentation) -> float:
    return float("nan")


def failing(image: Segmentation) -> float:
    return image.there_is_no_such_thing
"""


@pytest.fixture(autouse=True)
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package of someone, outside the checkout."""
    (tmp_path / "lab").mkdir()
    (tmp_path / "lab" / "mylab_scores.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path / "lab")


@pytest.mark.slow
def test_a_score_from_outside_is_shown_everywhere(
    trained_run: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Breaks if a file or table needs to be told of a score, or reading it needs its code."""
    for name in "ab":
        shutil.copytree(trained_run.directory, tmp_path / "runs" / name)
        own = "own_scores=[mylab_scores.border_share,mylab_scores.border]"
        summary = evaluate(Run(tmp_path / "runs" / name), compose(own, name="evaluate"))
    printed = capsys.readouterr().out
    assert "border_share" in printed.split("mean [95 % interval]")[1]
    assert summary["border_share"] == pytest.approx(summary["border"])
    about = {"label": "share <of> the border", "unit": "%", "less_is_better": True}
    assert summary["own_scores"]["border_share"] == about | {"shown": "first"}
    assert summary["own_scores"]["border"]["label"] == "border"
    folder = tmp_path / "runs" / "a" / "evaluation" / "phantom"
    frame = pandas.read_csv(folder / "scores.csv")
    assert frame["border_share"].mean() == pytest.approx(summary["border_share"], abs=1e-6)
    assert "border_share_low" in pandas.read_csv(folder / "tables.csv")
    page = (folder / "report.html").read_text()
    assert "share &lt;of&gt; the border (%)" in page
    assert '"less_is_better":["hd95","assd","brier","uncertainty","border_share"]' in page

    monkeypatch.setattr("anatosegnet.evaluation.scoring.own_score", None)  # no code of theirs
    table = compare(compose(f"runs={tmp_path / 'runs'}", name="compare"))
    assert {"iou", "dice", "hd95", "border_share"} <= {*table} and "border" not in table
    out = tmp_path / "runs" / "comparison"
    assert "share <of> the border (%)" in capsys.readouterr().out
    assert r"share \<of> the border (%)" in (out / "comparison.md").read_text()
    assert "share &lt;of&gt; the border (%)" in (out / "comparison.html").read_text()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "expected"),
    [("not_a_number", "is NaN or infinite"), ("failing", "failed .*there_is_no_such_thing")],
)
def test_a_score_that_fails_is_one_line(trained_run: Run, name: str, expected: str) -> None:
    """Breaks if a fault in a function of others is a traceback, or leaves a half evaluation."""
    config = compose(f"own_scores=mylab_scores.{name}", "at=model", name="evaluate")
    config.own_scores = [config.own_scores]  # as the command line does
    before = sorted(trained_run.directory.rglob("*"))
    with pytest.raises(UserError, match=f"own score {name} {expected}"):
        evaluate(trained_run, config)
    assert sorted(trained_run.directory.rglob("*")) == before


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("no_such_lab.score", r"no_such_lab.* PYTHONPATH"),
        ("mylab_scores.missing", "missing"),
        ("mylab_scores.nothing", "must be a Score"),
        ("mylab_scores.name_taken", "'iou' is taken"),
        ("mylab_scores.name_of_tables", "_sd"),
        ("mylab_scores.Segmentation", "small letters"),
    ],
)
def test_what_is_no_score_is_one_line(path: str, expected: str) -> None:
    """Breaks if a spelling mistake is a traceback, or a score may hide one of the package's."""
    with pytest.raises(UserError, match=expected) as caught:
        own_score(path)
    assert path in str(caught.value) and "\n" not in str(caught.value)


def test_settings_hold_own_scores() -> None:
    """Breaks if the scores are not taken from the config of the verb."""
    config = compose("own_scores=[mylab_scores.border]", name="evaluate")
    assert [*Scoring.from_config(config).own] == ["border"]


@pytest.mark.parametrize(
    "about", [[], {"a": {}}, {"a": {"label": "a", "unit": "", "less_is_better": 1, "shown": "all"}}]
)
def test_damaged_descriptions_are_one_line(tmp_path: Path, about: object) -> None:
    """Breaks if a summary of others is believed whatever it says of its scores."""
    (tmp_path / "summary.json").write_text(json.dumps({"own_scores": about}))
    (tmp_path / "scores.csv").write_text("id,a\nx,1\n")
    with pytest.raises(UserError, match="own_scores"):
        Evaluation.read(tmp_path)
