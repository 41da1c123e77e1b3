"""Publishing runs: what is kept and left out, what is refused, and what the checks notice."""

import gzip
import json
import shutil
from pathlib import Path

import pytest

from anatosegnet.config.keys import DECIDES, settings_of
from anatosegnet.data.checksum import content_sha256
from anatosegnet.errors import UserError
from anatosegnet.evaluation.compare import compare
from anatosegnet.evaluation.evaluate import evaluate
from anatosegnet.evaluation.published import (
    faults,
    faults_of_files,
    publish,
    without_folders,
)
from anatosegnet.files.opening import kept, read_content
from anatosegnet.files.writing import write_json
from anatosegnet.run import Run
from anatosegnet.run_list import list_runs
from tests.running import compose

EXAMPLE = Path(__file__).parents[2] / "results" / "ablation" / "plain-fold0"


@pytest.fixture
def example(tmp_path: Path) -> Path:
    """A copy of a published run, to be changed."""
    return Path(shutil.copytree(EXAMPLE, tmp_path / "plain-fold0"))


@pytest.mark.slow
def test_a_run_is_published_whole(trained_run: Run, tmp_path: Path) -> None:
    """Breaks if a score, a row or a setting is another one afterwards, or weights come along."""
    run = Run(shutil.copytree(trained_run.directory, tmp_path / "mine"))
    with pytest.raises(UserError, match="test cases were not scored; evaluate run="):
        publish([str(run.directory)], str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()
    evaluate(run, compose(f"run={run.directory}", name="evaluate"))
    (folder,) = publish([str(run.directory)], str(tmp_path / "out"))
    assert folder == tmp_path / "out" / "mine"
    there = Run(folder)
    scores = Path("evaluation/phantom/scores.csv")
    for name in ("split.csv", "metrics.csv", scores):
        packed = kept(folder / name)
        assert packed.suffix == ".gz"
        assert read_content(packed) == (run.directory / name).read_bytes()
    assert settings_of(there.config, *DECIDES) == settings_of(run.config, *DECIDES)
    assert there.summary["test/iou"] == run.summary["test/iou"]
    assert not list(faults(there)) and not list(faults_of_files(folder))
    assert not {path.suffix for path in folder.rglob("*")} & {".ckpt", ".png", ".jpg", ".html"}
    with pytest.raises(UserError, match="mine exists; published results are not overwritten"):
        publish([str(run.directory)], str(tmp_path / "out"))


@pytest.mark.slow
def test_published_runs_are_listed_and_compared(tmp_path: Path) -> None:
    """Breaks if runs without weights, images and unpacked tables are of no use."""
    for name in ("plain-fold0", "prenorm-fold0"):
        shutil.copytree(EXAMPLE.parent / name, tmp_path / "runs" / name)
    listed = list_runs(tmp_path / "runs")
    assert [(line.state, line.done, line.planned) for line in listed] == [("finished", 20, 20)] * 2
    given = [f"runs={tmp_path / 'runs'}", "baseline=1", "scores=[iou]", "overwrite=true"]
    own = compare(compose(*given, name="compare"))
    there = compare(compose(*given, "data=breast_lesions_usg", name="compare"), own_data=False)
    for table, images in ((own, 129), (there, 252)):
        assert table["images"].tolist() == [images] * 2
        assert table["iou_difference"].isna().tolist() == [False, True]
    assert own["iou"][0] == pytest.approx(0.602231, abs=1e-6)


def test_published_again_it_is_the_same_to_the_byte(tmp_path: Path) -> None:
    """Breaks if the time, the system or the name of a file gets into what is published."""
    (folder,) = publish([str(EXAMPLE)], str(tmp_path))
    files = [path.relative_to(EXAMPLE) for path in EXAMPLE.rglob("*") if path.is_file()]
    assert len(files) == 9
    for name in files:
        assert (folder / name).read_bytes() == (EXAMPLE / name).read_bytes(), name


def test_nothing_tells_of_the_machine(example: Path, tmp_path: Path) -> None:
    """Breaks if a folder, an account or the name of a machine is published."""
    home = "/home/jane doe"
    text = (example / "config.yaml").read_text().replace("root: data", f"root: {home}/data/busi")
    text = text.replace("data_dir: data", f"data_dir: {home}/data")
    text = text.replace("cache_dir: null", "cache_dir: /scratch/jane/cache", 1)
    text = text.replace("encoder_weights: null", "encoder_weights: /mnt/jane/lite0.pth")
    text = text.replace("logger: {}", "logger:\n  wandb:\n    entity: jane")
    (example / "config.yaml").write_text(text)
    run = Run(example)
    run.update_summary(
        {
            "host": "jane-pc",
            "pid": 1,
            "directory": f"{home}/runs/plain-fold0",
            "command": f"python -m anatosegnet.train 'run_dir={home}/runs/plain-fold0' "
            "model.encoder_weights=/mnt/jane/lite0.pth",
        }
    )
    (folder,) = publish([str(example)], str(tmp_path / "out"))
    for path in folder.rglob("*.*"):
        if path.is_file():
            assert "jane" not in read_content(path).decode(), path
    there = Run(folder)
    assert there.config.data.root == "data/busi"
    assert there.config.model.encoder_weights == "lite0.pth"
    assert there.config.callbacks.history.path == f"{folder}/metrics.csv"  # inside the run
    assert there.summary["command"].endswith(
        "train 'run_dir=plain-fold0' model.encoder_weights=lite0.pth"
    )
    assert not list(faults(there)) and not list(faults_of_files(folder))
    assert list(faults_of_files(example))[:2] == [
        "config.yaml names folders of a machine; publish the run again",
        "summary.json names folders of a machine; publish the run again",
    ]


@pytest.mark.parametrize(
    ("text", "published"),
    [
        ("/work/runs/a", "a"),
        ("run_dir=/work/runs/a,/b/c", "run_dir=a,c"),
        ("~/runs/a and ~jane/b", "a and b"),
        (r"C:\Users\jane\a \\server\share\b", "a b"),
        ("${run_dir}/metrics.csv", "${run_dir}/metrics.csv"),
        ("val/iou 1/2 n / a ./a ../b", "val/iou 1/2 n / a ./a ../b"),
        ("https://host/a hf-hub:timm/b", "https://host/a hf-hub:timm/b"),
    ],
)
def test_folders_of_a_machine(text: str, published: str) -> None:
    """Breaks if an absolute path stays, or something that is none is cut."""
    assert without_folders("", text) == published


@pytest.mark.slow
def test_what_does_not_hold_is_noticed(example: Path) -> None:
    """Breaks if changed scores, another split, a missing image or a foreign file pass."""
    assert not list(faults(Run(example))) and not list(faults_of_files(example))
    folder = example / "evaluation" / "busi"
    scores, about = folder / "scores.csv.gz", folder / "summary.json"
    before, said = scores.read_bytes(), json.loads(about.read_text())
    lines = gzip.decompress(before).decode().splitlines(keepends=True)

    def with_scores(rows: list[str]) -> list[str]:
        """The faults with these rows, about which the summary tells the truth."""
        scores.write_bytes(gzip.compress("".join(rows).encode()))
        write_json(about, {**said, "scores_sha256": content_sha256(scores)})
        return list(faults(Run(example)))

    assert "1 test cases have no score, and 0 others" in with_scores(lines[:-1])[0]
    assert "busi: cases are scored twice" in with_scores([*lines, lines[-1]])
    cells = lines[1].split(",")
    cells[lines[0].split(",").index("iou")] = "0.999999"
    (fault,) = with_scores([lines[0], ",".join(cells), *lines[2:]])
    assert fault == "busi: the scores do not give what summary.json says of iou, iou_sd"
    write_json(about, said)
    (fault,) = faults(Run(example))
    assert "scores.csv.gz was changed after it was written" in fault
    scores.write_bytes(before)
    split = example / "split.csv.gz"
    other = gzip.decompress(split.read_bytes()).replace(b"train", b"val", 1)
    split.write_bytes(gzip.compress(other))
    (fault,) = faults(Run(example))
    assert "the fingerprint of its split is" in fault and "a90e2aee69a5 in its summary" in fault
    (example / "best.ckpt").write_bytes(b"x")
    (example / "metrics.csv.gz").write_bytes(b"x" * 1_000_001)
    assert list(faults_of_files(example)) == [
        "best.ckpt is not needed to compare runs",
        "metrics.csv.gz is a link, or has more than 1 MB",
    ]


def test_refusals_are_one_line(example: Path, tmp_path: Path) -> None:
    """Breaks if an unfinished run is published, or one in the place of another."""
    for given, out, expected in [
        (None, "x", "say which runs"),
        ([str(example)], None, "out=DIR"),
        ([str(example), str(EXAMPLE)], "x", "several runs have the name plain-fold0"),
        ([str(tmp_path / "no")], "x", "is no run"),
    ]:
        with pytest.raises(UserError, match=expected):
            publish(given, out)
    Run(example).update_summary({"state": "interrupted"})
    with pytest.raises(UserError, match=r"not finished \(state interrupted\)"):
        publish([str(example)], str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()
