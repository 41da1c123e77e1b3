"""Networks on several datasets: in domain, zero-shot, ranks, leaks, and what is refused."""

import csv
import shutil
from pathlib import Path

import numpy as np
import pandas
import pytest

from anatosegnet.errors import UserError
from anatosegnet.evaluation.compare import compare
from anatosegnet.evaluation.published import place_of
from anatosegnet.run import Run, write_json
from tests.evaluations import write_scores
from tests.running import compose

LEVEL = {"unet": 0.6, "worse": 0.5, "better": 0.7}
MODELS = {"unet": "unet", "worse": "unext", "better": "anatosegnet_released"}
CASES = {"busi": 30, "bus_uclm": 20}


def write_run(
    root: Path, dataset: str, network: str, fold: int, *overrides: str, leak: str = ""
) -> Path:
    """A finished run in its place, scored on the fold and on all of the other datasets."""
    directory = root / dataset / network / str(fold)
    given = [f"data={dataset}", f"model={MODELS[network]}", "split=kfold", "split.folds=2",
             f"split.fold={fold}", *overrides]  # fmt: skip
    run = Run(directory)
    directory.mkdir(parents=True)
    run.write_config(compose(*given, f"run_dir={directory}"))
    write_json(run.summary_path, {"state": "finished", "overrides": given})
    names = [f"c{index:02d}" for index in range(CASES[dataset])]
    with run.split_path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["id", "class", "part", "group"])
        for index, name in enumerate(names):
            part = "test" if index % 2 == fold else "train"
            rows.writerow([name, "benign", part, "g" if name in leak.split() else ""])
    random = np.random.default_rng([fold, bool(leak), *network.encode()])
    for other, count in CASES.items():
        scored = [name for name in (f"c{i:02d}" for i in range(count))
                  if other != dataset or int(name[1:]) % 2 == fold]  # fmt: skip
        level = LEVEL[network] - 0.1 * (other != dataset) + 0.2 * bool(leak)
        iou = np.clip(level + random.normal(0, 0.02, len(scored)), 0, 1)
        write_scores(directory / "evaluation" / other, scored, iou)
    return directory


def run_compare(*overrides: str) -> pandas.DataFrame:
    """Compare as the command line would."""
    return compare(compose(*overrides, name="compare"))


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three networks on two datasets, two folds each."""
    root = tmp_path_factory.mktemp("results")
    for dataset in CASES:
        for network in LEVEL:
            for fold in (0, 1):
                write_run(root, dataset, network, fold)
    return root


def test_in_domain_zero_shot_and_ranks(
    results: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """Breaks if a cell, the order of the networks, or a file is lost."""
    table = run_compare(f"runs={results}", f"out={tmp_path}/out", "baseline=unet")
    cells = table.groupby(["trained_on", "tested_on"], sort=False)
    assert [key for key, _ in cells] == [
        ("bus_uclm", "bus_uclm"), ("busi", "busi"), ("bus_uclm", "busi"), ("busi", "bus_uclm")
    ]  # fmt: skip
    for (trained, tested), part in cells:
        rows = part.set_index("setting")
        assert list(rows.index) == ["better", "unet", "worse"]
        assert set(rows["images"]) == {CASES[tested]}
        lower = 0.1 * (trained != tested)
        assert rows.loc["better", "iou"] == pytest.approx(0.7 - lower, abs=0.02)
        assert rows.loc["worse", "iou_difference"] == pytest.approx(-0.1, abs=0.02)
        assert rows.loc["worse", "iou_p_holm"] < 0.01
    command = table["command"][0]
    assert command.startswith(
        "python -m anatosegnet.train -m data=bus_uclm model=anatosegnet_released"
    )
    assert command.endswith("split.fold=0,1")
    ranks = pandas.read_csv(tmp_path / "out" / "ranks.csv").set_index(["trained_on", "setting"])
    assert ranks.loc[("busi", "better"), "rank"].tolist() == [1, 1]
    assert ranks.loc[("busi", "worse"), "among_best"].tolist() == [1, 1]  # of three, all
    said = capsys.readouterr().out
    assert "0 of 50 test images" in said
    assert "the same for all networks" in said
    for name in ("comparison.md", "comparison.tex", "comparison.html", "ranks.png"):
        assert (tmp_path / "out" / name).stat().st_size > 500
    assert not (tmp_path / "out" / "leaks.csv").exists()


def test_one_dataset_in_its_place_is_enough(results: Path, tmp_path: Path) -> None:
    """Breaks if networks lose their names, or zero-shot scores, where one dataset is there."""
    table = run_compare(f"runs={results}/busi", f"out={tmp_path}/out", "baseline=unet")
    assert set(table["setting"]) == set(LEVEL)
    assert table["tested_on"].unique().tolist() == ["busi", "bus_uclm"]


def test_a_leaky_split_is_kept_apart(results: Path, tmp_path: Path) -> None:
    """Breaks if leaked scores come into the table, or their worth is taken of other images."""
    write_run(tmp_path / "leaky", "busi", "unet", 0, "seed=9", leak="c00 c01 c02")
    table = run_compare(
        f"runs=[{results},{tmp_path}/leaky]", f"out={tmp_path}/out", "baseline=unet"
    )
    alone = run_compare(f"runs={results}", f"out={tmp_path}/alone", "baseline=unet")
    pandas.testing.assert_frame_equal(table, alone)
    leaks = pandas.read_csv(tmp_path / "out" / "leaks.csv").set_index("of")
    assert leaks["images"].to_dict() == {"all": 15, "leaked": 2, "the rest": 13}
    assert leaks.loc["all", "difference"] == pytest.approx(0.2, abs=0.02)
    assert leaks.loc["all", "difference_low"] < 0.2 < leaks.loc["all", "difference_high"]


def test_an_image_may_leak_in_one_of_several_splits(results: Path, tmp_path: Path) -> None:
    """Breaks if an image that leaks in one split counts as leaked where it does not."""
    for seed, leak in ((8, "c00 c01 c02"), (9, "c02 c03 c04")):
        place = write_run(tmp_path / str(seed), "busi", "unet", 0, f"seed={seed}", leak=leak)
        shutil.rmtree(place / "evaluation")
        scored = [f"c{index:02d}" for index in range(0, CASES["busi"], 2)]
        iou = [0.9 if name in leak.split() else 0.6 for name in scored]
        write_scores(place / "evaluation" / "busi", scored, np.array(iou))
    run_compare(
        f"runs=[{results},{tmp_path}/8,{tmp_path}/9]", f"out={tmp_path}/out", "baseline=unet"
    )
    leaks = pandas.read_csv(tmp_path / "out" / "leaks.csv").set_index("of")
    assert leaks["images"].to_dict() == {"all": 15, "leaked": 3, "the rest": 14}
    assert leaks["leaky"].to_dict() == pytest.approx(
        {"all": (12 * 0.6 + 2 * 0.75 + 0.9) / 15, "leaked": 0.9, "the rest": 0.6}
    )


def test_what_is_not_whole_is_said(
    results: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """Breaks if a network with fewer folds is compared, or left out in silence."""
    write_run(tmp_path / "more", "busi", "better", 0, "model.attention.heads=4")
    (tmp_path / "more" / "busi" / "better").rename(tmp_path / "more" / "busi" / "mine")
    table = run_compare(f"runs=[{results},{tmp_path}/more]", f"out={tmp_path}/out", "baseline=unet")
    assert "mine" not in set(table["setting"])
    assert "busi: mine (1 of 2 runs)" in capsys.readouterr().out


def test_refusals(results: Path, tmp_path: Path) -> None:
    """Breaks if runs that do not belong together become one row."""
    write_run(tmp_path / "other", "busi", "unet", 1, "optimizer.lr=1e-5")
    with pytest.raises(UserError, match=r"runs of unet, by their folders, but differ in optimizer"):
        run_compare(f"runs=[{results},{tmp_path}/other]", f"out={tmp_path}/out", "baseline=unet")
    write_run(tmp_path / "again", "busi", "unet", 1)
    with pytest.raises(UserError, match="unet has another run of this fold"):
        run_compare(f"runs=[{results},{tmp_path}/again]", f"out={tmp_path}/out", "baseline=unet")
    with pytest.raises(UserError, match="baseline=none is not among the settings: 0 = better"):
        run_compare(f"runs={results}", f"out={tmp_path}/out", "baseline=none")
    assert not (tmp_path / "out").exists()


def test_a_published_run_keeps_its_place(results: Path) -> None:
    """Breaks if publish forgets which dataset and network a run is of."""
    run = Run(results / "busi" / "unet" / "0")
    assert place_of(run, str(results)) == Path("busi/unet/0")
    assert place_of(run, [str(run.directory)]) == Path("0")
