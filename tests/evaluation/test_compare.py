"""Runs side by side: grouping, labels, tests, refusals, and the files."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas
import pytest

from anatosegnet.data.checksum import sha256
from anatosegnet.errors import UserError
from anatosegnet.evaluation import tables
from anatosegnet.evaluation.compare import compare
from anatosegnet.files.rows import write_frame
from anatosegnet.metrics.risk import Risk
from anatosegnet.run import Run, write_json
from tests.evaluations import write_scores
from tests.running import compose

NAMES = [f"c{i:02d}" for i in range(40)]
LEVEL = {"rows": 0.8, "none": 0.7}


def write_run(directory: Path, *overrides: str, names: list[str] = NAMES, **about: object) -> Path:
    """A finished run with an evaluation, but without a network; better with bias=rows."""
    config = compose("data=busi", *overrides, f"run_dir={directory}")
    run = Run(directory)
    run.write_config(config)
    write_json(run.summary_path, {"state": "finished", **about})
    random = np.random.default_rng([config.seed, *config.model.attention.bias.encode()])
    level = LEVEL.get(config.model.attention.bias, 0.75)
    iou = np.clip(level + random.normal(0, 0.05, len(names)), 0, 1)
    write_scores(directory / "evaluation" / "busi", names, iou)
    return directory


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> dict:
    """Stands in for the HTML report, which has tests of its own; keeps what it was given."""
    given: dict = {}

    def write_comparison(output: Path, table: pandas.DataFrame, runs: dict, changed: str) -> Path:
        given.update(table=table, runs=runs, changed=changed)
        return output / "comparison.html"

    monkeypatch.setattr("anatosegnet.evaluation.compare.write_comparison", write_comparison)
    return given


def run_compare(*overrides: str) -> pandas.DataFrame:
    """Compare as the command line would."""
    return compare(compose(*overrides, name="compare"))


@pytest.mark.slow
def test_changed_data_of_one_run_are_said_of_the_table(tmp_path: Path, written: dict) -> None:
    """Breaks if a comparison hides that one of its runs was scored, or trained, on other data."""
    for seed in "01":
        write_run(tmp_path / "sweep" / seed, f"seed={seed}")
    summary = next((tmp_path / "sweep" / "1" / "evaluation").glob("*/summary.json"))
    content = json.loads(summary.read_text())
    content["conditions"]["changed data"], content["run"] = "accepted, 1 other mask (a)", "runs/1"
    summary.write_text(json.dumps(content))
    run_compare(f"runs={tmp_path / 'sweep'}")
    assert written["changed"] == "run 1: accepted, 1 other mask (a)"
    said = (tmp_path / "sweep" / "comparison" / "comparison.md").read_text()
    assert "- changed data: run 1: accepted, 1 other mask (a)" in said


@pytest.mark.slow
def test_ablation_with_seeds(tmp_path: Path, written: dict, capsys: pytest.CaptureFixture) -> None:
    """Breaks if seeds become rows, means or deviations are wrong, or the files differ."""
    for index, (bias, seed) in enumerate((b, s) for b in ("rows", "none", "raster") for s in "012"):
        write_run(tmp_path / "sweep" / str(index), f"model.attention.bias={bias}", f"seed={seed}")
    table = run_compare(f"runs={tmp_path / 'sweep'}")
    assert table["setting"].tolist() == ["bias=rows", "bias=none", "bias=raster"]
    assert table["runs"].tolist() == [3, 3, 3]
    assert set(table["repeated_over"]) == {"seeds"}
    frames = [
        tables.read_scores(tmp_path / "sweep" / str(i) / "evaluation/busi/scores.csv")
        for i in range(3)
    ]
    means = [frame["iou"].mean() for frame in frames]
    first = table.iloc[0]
    assert first["iou"] == pytest.approx(np.mean(means))
    assert first["iou_sd"] == pytest.approx(np.std(means, ddof=1))
    assert first["iou_low"] < first["iou"] < first["iou_high"]
    assert table["iou_difference"].isna().tolist() == [True, False, False]
    assert table["iou_difference"][1] == pytest.approx(-0.1, abs=0.02)
    assert table["iou_p"][1] < 0.001
    assert table["iou_p_holm"][1] == pytest.approx(2 * min(table["iou_p"][1:]))
    output = tmp_path / "sweep" / "comparison"
    assert pandas.read_csv(output / "comparison.csv")["iou"].tolist() == pytest.approx(
        table["iou"].tolist(), abs=1e-5
    )
    markdown = (output / "comparison.md").read_text()
    assert "| bias=none | 3 seeds | 0.7" in markdown
    assert "| bias=rows (baseline) | 3 seeds | 0." in markdown and "sd is between runs" in markdown
    assert "Holm over 2 settings" in markdown
    latex = (output / "comparison.tex").read_text()
    assert all(rule in latex for rule in (r"\toprule", r"\midrule", r"\bottomrule", r"$\pm$"))
    assert "bias=none" in capsys.readouterr().out
    assert written["runs"]["bias=none"] == tmp_path / "sweep" / "3" / "evaluation" / "busi"
    assert written["table"] is table


@pytest.mark.slow
def test_folds_are_united(tmp_path: Path, written: dict) -> None:
    """Breaks if folds of one setting become settings, or a missing fold goes unnoticed."""
    for fold in range(2):
        names = NAMES[fold::2]
        for bias in ("rows", "none"):
            write_run(tmp_path / f"{bias}{fold}", f"model.attention.bias={bias}",
                      f"+split.fold={fold}", names=names)  # fmt: skip
    runs = [f"{tmp_path}/{bias}{fold}" for bias in ("rows", "none") for fold in (0, 1)]
    table = run_compare(
        f"runs=[{','.join(runs)}]", f"out={tmp_path / 'out'}", "baseline='bias=none'"
    )
    assert table["images"].tolist() == [40, 40]
    assert table["repeated_over"].tolist() == ["folds", "folds"]
    assert table["iou_difference"].isna().tolist() == [False, True]
    with pytest.raises(UserError, match=r"different cases .*20 cases are in one only"):
        run_compare(f"runs=[{','.join(runs[:3])}]", f"out={tmp_path / 'other'}")


@pytest.mark.slow
def test_risk_of_settings(tmp_path: Path, written: dict) -> None:
    """Breaks if folds are pooled, draws of two differ, or earlier runs are refused."""
    for bias in ("rows", "none"):
        for fold in range(2):
            write_run(tmp_path / f"{bias}{fold}", f"model.attention.bias={bias}",
                      f"+split.fold={fold}", names=NAMES[fold::2])  # fmt: skip
    runs = (
        f"runs=[{','.join(f'{tmp_path}/{bias}{n}' for bias in ('rows', 'none') for n in (0, 1))}]"
    )
    assert "aurc" not in run_compare(runs, f"out={tmp_path / 'before'}")
    expected: dict[str, list[float]] = {}
    for folder in sorted(tmp_path.glob("*/evaluation/busi")):
        frame = pandas.read_csv(folder / "scores.csv")
        rng = np.random.default_rng(len(expected))
        frame["iou"] -= 0.4 * (rng.random(len(frame)) < 0.3)
        sure = folder.parts[-3].startswith("rows")
        frame["uncertainty"] = (1 - frame["iou"] if sure else rng.random(len(frame))).round(6)
        write_frame(folder / "scores.csv", frame)
        about = json.loads((folder / "summary.json").read_text())
        about["scores_sha256"] = sha256(folder / "scores.csv")
        write_json(folder / "summary.json", about)
        risk = Risk(frame["uncertainty"], frame["iou"])
        expected.setdefault(folder.parts[-3][:4], []).append(float(risk.score("aurc")[0]))
    table = run_compare(runs, f"out={tmp_path / 'out'}").set_index("setting")
    rows, none = table.loc["bias=rows"], table.loc["bias=none"]
    assert rows["aurc"] == pytest.approx(np.mean(expected["rows"]), abs=1e-6)
    assert none["aurc"] == pytest.approx(np.mean(expected["none"]), abs=1e-6)
    assert rows["failure_auroc"] == 1 and pandas.isna(rows["aurc_difference"])
    assert none["aurc_difference"] == pytest.approx(none["aurc"] - rows["aurc"])
    assert 0 < none["aurc_difference_low"] < none["aurc_difference"] < none["aurc_difference_high"]
    said = (tmp_path / "out" / "comparison.md").read_text()
    assert "difference in AURC" in said and "- AURC: mean of 1 - IoU of the surest" in said
    alone = run_compare(runs, "scores=[excess_aurc]", f"out={tmp_path / 'excess'}")
    assert alone["excess_aurc"][0] == pytest.approx(0, abs=1e-6)


def test_same_cases_at_other_sizes_are_refused(tmp_path: Path, written: dict) -> None:
    """Breaks if scores by other masks, or at another size, are tested against each other."""
    write_run(tmp_path / "a")
    path = write_run(tmp_path / "b", "model.attention.bias=none") / "evaluation" / "busi"
    frame = tables.read_scores(path / "scores.csv").assign(lesion_area=7)
    write_frame(path / "scores.csv", frame)
    write_json(path / "summary.json", {"scores_sha256": sha256(path / "scores.csv")})
    with pytest.raises(UserError, match="different sizes or by different masks"):
        run_compare(f"runs={tmp_path}")


@pytest.mark.slow
def test_edited_scores_are_refused(tmp_path: Path, written: dict) -> None:
    """Breaks if a csv that was edited by hand is compared in silence."""
    write_run(tmp_path / "a")
    path = write_run(tmp_path / "b", "seed=1") / "evaluation" / "busi" / "scores.csv"
    path.write_text(path.read_text().replace("0.8", "0.9"))
    with pytest.raises(UserError, match=r"scores\.csv was changed after it was written") as caught:
        run_compare(f"runs={tmp_path}")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "comparison").exists()


@pytest.mark.slow
def test_refusals_are_one_line(tmp_path: Path, written: dict) -> None:
    """Breaks if a mistake in the command or an unfinished run ends in a traceback."""
    write_run(tmp_path / "runs" / "a")
    folder, run = tmp_path / "runs", tmp_path / "runs" / "a"
    cases = [
        ([], "say which runs"),
        ([f"runs={tmp_path / 'none'}"], "is no run and holds none"),
        ([f"runs=[{run},{folder}]", "out=x"], "named twice"),
        ([f"runs=[{run}]"], "out=DIR"),
        ([f"runs={folder}", f"out={run}"], "exists"),
        ([f"runs={folder}", f"out={run}", "overwrite=true"], "is a run"),
        ([f"runs={folder}", "baseline=3"], "0 = "),
        ([f"runs={folder}", "baseline='bias=none'"], "is not among the settings"),
        ([f"runs={folder}", "scores=[iou,nsd_9px]"], "no score nsd_9px"),
    ]
    for overrides, expected in cases:
        with pytest.raises(UserError, match=expected) as caught:
            run_compare(*overrides)
        assert "\n" not in str(caught.value)
    write_run(folder / "b", "seed=1", state="running")
    with pytest.raises(UserError, match=r"is not finished \(state running\)"):
        run_compare(f"runs={folder}")
    assert run_compare(f"runs=[{run}]", f"out={tmp_path / 'one'}")["runs"].tolist() == [1]
    with pytest.raises(UserError, match="overwrite=true"):
        run_compare(f"runs=[{run}]", f"out={tmp_path / 'one'}")


@pytest.mark.slow
def test_a_sweep_alone_gives_its_table(trained_run: Run, tmp_path: Path) -> None:
    """Breaks if runs that were never evaluated need another command, or a changed network passes.

    Two copies of one run stand for the sweep; equal networks must not differ.
    """
    for index, bias in enumerate(("rows", "none")):
        run = Run(tmp_path / "sweep" / str(index))
        shutil.copytree(trained_run.directory, run.directory)
        config = run.config
        config.model.attention.bias = bias
        run.write_config(config)
    table = run_compare(f"runs={tmp_path / 'sweep'}", "scores=[iou]")
    assert len(table) == 2
    assert table["runs"].tolist() == [1, 1]
    output = tmp_path / "sweep" / "comparison"
    assert {path.suffix for path in output.iterdir()} == {".csv", ".md", ".tex", ".html"}
    summary = tmp_path / "sweep/1/evaluation/phantom/summary.json"
    content = json.loads(summary.read_text())
    assert content["iou"] == pytest.approx(table["iou"][1])
    write_json(summary, {**content, "checkpoint_sha256": "of an earlier epoch"})
    with pytest.raises(UserError, match=r"another epoch than .*best\.ckpt"):
        run_compare(f"runs={tmp_path / 'sweep'}", "scores=[iou]", "overwrite=true")
