"""The learning curves of a run as a picture."""

from pathlib import Path

import pytest

from anatosegnet.data.case import read_image
from anatosegnet.report.curves import write_curves
from anatosegnet.run import Run

WHOLE = """epoch,train/loss,train/iou,train/lr,val/loss,val/iou,val/dice
0,1.2,0.1,0.001,1.1,0.2,0.3
1,0.8,0.4,0.0005,0.9,0.5,0.6
"""
GAPS = """epoch,step,train/loss,train/iou,train/lr,val/loss,val/iou,val/dice,test/iou
0,5,,,,1.1,0.2,0.3,
0,5,1.2,0.1,0.001,,,,
1,11,,,,0.9,0.5,0.6,
1,11,0.8,0.4,0.0005,,,,
2,12,,,,,,,0.55
"""


def run_with(directory: Path, metrics: str) -> Run:
    """A directory with nothing but metrics.csv."""
    directory.mkdir()
    run = Run(directory)
    run.metrics_path.write_text(metrics)
    return run


def test_one_epoch_is_enough(tmp_path: Path) -> None:
    """Breaks if a run of one epoch has no picture, or an empty one."""
    run = run_with(tmp_path / "run", "\n".join(WHOLE.splitlines()[:2]) + "\n")
    write_curves(run, best_epoch=1)
    picture = read_image(run.curves_path)
    assert picture.shape[1] > 1000
    for colour in ((0, 114, 178), (213, 94, 0)):  # training and validation
        assert (picture == colour).all(axis=2).sum() > 20


def test_rows_with_gaps_are_the_same_picture(tmp_path: Path) -> None:
    """Breaks if a csv with a row for training and one for validation is drawn otherwise."""
    pictures = []
    for name, metrics in (("whole", WHOLE), ("gaps", GAPS)):
        run = run_with(tmp_path / name, metrics)
        write_curves(run, best_epoch=2)
        pictures.append(run.curves_path.read_bytes())
    assert pictures[0] == pictures[1]


def test_the_best_epoch_is_marked(tmp_path: Path) -> None:
    """Breaks if the mark is left out or does not depend on the epoch."""
    pictures = set()
    for best in (None, 1, 2):
        run = run_with(tmp_path / str(best), WHOLE)
        write_curves(run, best)
        pictures.add(run.curves_path.read_bytes())
    assert len(pictures) == 3


@pytest.mark.parametrize("metrics", [WHOLE + "2,1\n", "nonsense", ""], ids=["cut", "text", "empty"])
def test_a_damaged_table_costs_only_the_picture(
    metrics: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Breaks if a run ends in a traceback because its metrics cannot be drawn."""
    run = run_with(tmp_path / "run", metrics)
    write_curves(run, 1)
    assert [path.name for path in run.directory.iterdir()] == ["metrics.csv"]
    assert ("warning: no curves.png" in capsys.readouterr().err) == (metrics.endswith("2,1\n"))
