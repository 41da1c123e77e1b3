"""Which run a command means: moved, copied, linked, old and changed ones; and what it refuses."""

import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.commands import PHANTOMS, QUICK, Shell
from tests.conftest import grey_image, square_mask, write_png

# imported before any command is forked
from anatosegnet import evaluate, predict, report, train  # noqa: F401  # isort: skip
from anatosegnet.data import changes, leakage  # noqa: F401  # isort: skip
from anatosegnet.report import curves  # noqa: F401  # isort: skip
from anatosegnet.training import build, interruptions, resume, transfer  # noqa: F401  # isort: skip

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]
RUN = (*QUICK, *PHANTOMS, "augmentation=none", "scheduler=constant", "optimizer.lr=1e-3")
OLD_CONFIG = Path(__file__).parents[1] / "golden" / "config_absolute.yaml"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Shell:
    """A folder with ``a``, a run of two epochs, and ``whole``, the same of four; read only."""
    shell = Shell(tmp_path_factory.mktemp("trained"))
    shell.train(*RUN, "trainer.max_epochs=2", "run_dir=a")
    shell.train(*RUN, "trainer.max_epochs=4", "run_dir=whole")
    return shell


@pytest.fixture
def place(trained: Shell, tmp_path: Path) -> Shell:
    """A folder of its own with a copy of ``a``."""
    shell = Shell(tmp_path)
    shutil.copytree(trained.folder / "a", tmp_path / "a")
    return shell


def content(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def summary(folder: Path) -> dict:
    """What ``summary.json`` holds."""
    return json.loads((folder / "summary.json").read_text())


def linked(place: Shell) -> str:
    """A link to a run that lies elsewhere."""
    (place.folder / "a").rename(place.folder / "elsewhere")
    (place.folder / "a").symlink_to("elsewhere")
    return "a"


def of_another_user(place: Shell) -> str:
    """A run as earlier versions recorded it, on a machine whose folders cannot be made here."""
    text = OLD_CONFIG.read_text().replace("max_epochs: 1", "max_epochs: 2")
    text = text.replace("/home/other", "/proc/nobody")
    text = text.replace("lr: 0.0003", "lr: 0.001")
    (place.folder / "a" / "config.yaml").write_text(text)
    return "a"


WAYS: dict[str, Callable[[Shell], str]] = {
    "copied": lambda place: "a",
    "moved": lambda place: str((place.folder / "a").rename(place.folder / "b").name),
    "linked": linked,
    "absolute": lambda place: str(place.folder / "a"),
    "old": of_another_user,
}


@pytest.mark.parametrize("way", WAYS)
def test_a_run_goes_on_where_it_is(way: str, trained: Shell, place: Shell) -> None:
    """Breaks if anything is written where the run was trained, or the best epoch is forgotten."""
    before = content(trained.folder / "a")
    name = WAYS[way](place)
    run = place.folder / name
    place.train(f"resume={name}", "trainer.max_epochs=4")
    assert content(trained.folder / "a") == before
    whole = trained.folder / "whole"
    assert (run / "metrics.csv").read_text() == (whole / "metrics.csv").read_text()
    for score in ("best_epoch", "val/iou"):
        assert summary(run)[score] == summary(whole)[score]
    best = [torch.load(r / "checkpoints/best.ckpt", weights_only=True) for r in (run, whole)]
    assert best[0]["epoch"] == best[1]["epoch"] == summary(run)["best_epoch"] - 1
    assert all(torch.equal(best[0]["state_dict"][k], v) for k, v in best[1]["state_dict"].items())
    assert str(trained.folder) not in (run / "config.yaml").read_text()
    assert not Path("/proc/nobody").exists()
    place("evaluate", f"run={name}", "surface=false")
    assert (run / "evaluation" / "phantom" / "scores.csv").is_file()


def test_the_run_of_this_very_folder(place: Shell) -> None:
    """Breaks if resume=. writes into the folder above, or is not understood."""
    inside = Shell.__new__(Shell)
    inside.folder = place.folder / "a"
    inside("train", "resume=.", "trainer.max_epochs=3")
    assert len((place.folder / "a" / "metrics.csv").read_text().splitlines()) == 4
    assert {path.name for path in place.folder.iterdir()} == {"a", "configs"}


def test_what_changes_is_recorded_and_stays(place: Shell) -> None:
    """Breaks if a change is lost with the next resume, or config.yaml says what is not true."""
    place.train("resume=a", "trainer.max_epochs=4", "data.batch_size=3", "loss.ce_weight=0.5")
    found = summary(place.folder / "a")["resumptions"][-1]
    assert found["from_epoch"] == 3
    assert found["changed"]["data.batch_size"] == {"from": 4, "to": 3}
    text = (place.folder / "a" / "config.yaml").read_text()
    assert "max_epochs: 4" in text and "batch_size: 3" in text
    assert "- data.batch_size=3 from epoch 3 on" in text
    (place.folder / "a" / "checkpoints" / "last.ckpt").unlink()  # as if it had been interrupted
    place.train("resume=a")
    assert len((place.folder / "a" / "metrics.csv").read_text().splitlines()) == 5
    config = place.folder / "again" / "config.yaml"
    place.train("from_run=a", "run_dir=again", "seed=1")
    assert "batch_size: 3" in config.read_text() and "resumed_with" not in config.read_text()
    place.train("from_run=again", "run_dir=third", "seed=2")  # overrides of overrides


REFUSED = (
    "optimizer.lr=1e-6", "optimizer=sgd", "scheduler=cosine", "model.kernel_size=5", "loss=focal",
    "seed=1", "split.seed=1", "augmentation=light", "data.image_size=64", "data.count=13",
    "callbacks.best.monitor=val/loss",
)  # fmt: skip


def test_what_cannot_change_is_refused_before_anything_is_touched(place: Shell) -> None:
    """Breaks if a finished run becomes a failed one, or a change is without effect in silence."""
    before = content(place.folder / "a")
    for override in REFUSED:
        errors = place.train("resume=a", override, status=2).errors
        assert "cannot be changed when resuming; from_run=a" in errors
        assert override.partition("=")[0] in errors
    for override, expected in (
        ("trainer.max_epochs=1", "has 2 epochs already"),
        ("trainer.max_epoch=9", "did you mean trainer.max_epochs?"),
        ("loss.gamma=1", "loss.gamma is not a setting of a"),
    ):
        assert expected in place.train("resume=a", override, status=2).errors
    assert content(place.folder / "a") == before


@pytest.fixture
def folder(tmp_path: Path) -> Shell:
    """A run on a folder of images, with early stopping: other groups than the defaults."""
    for number in range(12):
        write_png(tmp_path / f"plain/images/c{number}.png", grey_image(number))
        write_png(tmp_path / f"plain/labels/c{number}.png", square_mask(at=5 + number))
    shell = Shell(tmp_path)
    shell.train(*QUICK, "data=folder", "data.root=plain", "data.cache=off", "loss=focal",
                "callbacks=[default,early_stopping]", "trainer.max_epochs=1",
                "augmentation=none", "run_dir=a")  # fmt: skip
    return shell


def test_overrides_are_looked_up_in_the_run(folder: Shell) -> None:
    """Breaks if settings of the run's own groups are unknown, or moved data need a plus sign."""
    (folder.folder / "plain").rename(folder.folder / "moved")
    assert "data.root=" in folder.train("resume=a", status=2).errors
    folder.train("resume=a", "data.root=moved", "trainer.max_epochs=2", "loss.gamma=1.5",
                 "callbacks.early_stopping.patience=50")  # fmt: skip
    last = torch.load(folder.folder / "a/checkpoints/last.ckpt", weights_only=True)
    stopping = [s for key, s in last["callbacks"].items() if key.startswith("EarlyStopping")]
    assert stopping[0]["patience"] == 50
    assert f"root: {folder.folder}/moved" in (folder.folder / "a" / "config.yaml").read_text()
    folder.train("from_run=a", "run_dir=b", "seed=3", "loss.gamma=1")
    errors = folder.train("resume=a", "data.include_normal=true", status=2).errors
    assert "data.include_normal=true cannot be changed" in errors
    (folder.folder / "moved").rename(folder.folder / "third")
    folder("evaluate", "run=a", "data.root=third", "surface=false")
    errors = folder("evaluate", "run=a", "data.image_size=64", status=2).errors
    assert "data.image_size is not for the run's own data" in errors
    folder.train("resume=a", "data.root='~/third'", HOME=str(folder.folder))
    assert not (folder.folder / "~").exists()


def test_a_data_folder_that_was_moved_is_followed(tmp_path: Path) -> None:
    """Breaks if resume= and from_run= do not find data below ANATOSEGNET_DATA_DIR again."""
    for number in range(12):
        for suffix, pixels in (("", grey_image(number)), ("_mask", square_mask(at=5 + number))):
            write_png(tmp_path / f"d/busi/benign/benign ({number}){suffix}.png", pixels)
    shell = Shell(tmp_path)
    shell.train(*QUICK, "data=busi", "data.cache=off", "trainer.max_epochs=1", "run_dir=a",
                ANATOSEGNET_DATA_DIR="d")  # fmt: skip
    (tmp_path / "d").rename(tmp_path / "e")
    for command in (["resume=a", "trainer.max_epochs=2"], ["from_run=a", "run_dir=b"]):
        shell.train(*command, ANATOSEGNET_DATA_DIR=str(tmp_path / "e"))
    shell.train("from_run=a", "run_dir=c", "paths.data_dir=e", ANATOSEGNET_DATA_DIR=None)


@pytest.mark.parametrize(
    "override", ["augmentation=light", "callbacks=[default,ema]", "init_from=whole"]
)
def test_another_experiment_is_no_repetition(override: str, trained: Shell, place: Shell) -> None:
    """Breaks if a changed augmentation or callback is said to make a repetition differ."""
    shutil.copytree(trained.folder / "whole", place.folder / "whole")
    result = place.train("from_run=a", override, "run_dir=b")
    assert "repetition" not in result.output and "repetition" not in summary(place.folder / "b")


@pytest.mark.parametrize(
    "override",
    ["optimizer.lr=${oc.env:SECRET}", "hydra.run.dir=/x", "seed=1,2", "+model=../../x",
     "model=/etc/x"],
)  # fmt: skip
def test_recorded_overrides_look_up_nothing(override: str, place: Shell) -> None:
    """Breaks if a stranger's summary.json reads this machine's environment or files."""
    path = place.folder / "a" / "summary.json"
    path.write_text(json.dumps({**summary(place.folder / "a"), "overrides": [*RUN, override]}))
    errors = place.train("from_run=a", "seed=1", "run_dir=b", status=2, SECRET="x1y2").errors
    assert "may look up things on this machine" in errors and "x1y2" not in errors
    assert not (place.folder / "b").exists()
    place.train("from_run=a", "run_dir=c")  # without overrides there is nothing to compose


def test_a_recorded_place_outside_is_refused(place: Shell) -> None:
    """Breaks if resume= or from_run= write where a stranger's config says."""
    path = place.folder / "a" / "config.yaml"
    text = path.read_text()
    path.write_text(text.replace("path: ${run_dir}/metrics.csv", f"path: {place.folder}/victim"))
    for command in (["resume=a", "trainer.max_epochs=3"], ["from_run=a", "run_dir=b"]):
        assert "points outside the run" in place.train(*command, status=2).errors
    path.write_text(text.replace("\nname: phantom", "\nname: ../../up"))
    assert "name=" in place.train("from_run=a", status=2).errors
    assert {p.name for p in place.folder.iterdir()} == {"a", "configs"}


def test_the_least_loss_is_the_best(place: Shell) -> None:
    """Breaks if a loss is maximised, or a contradiction is not noticed."""
    place.train(*RUN, "trainer.max_epochs=3", "callbacks.best.monitor=val/loss", "run_dir=loss")
    rows = [line.split(",") for line in (place.folder / "loss/metrics.csv").read_text().split()]
    losses = [float(row[rows[0].index("val/loss")]) for row in rows[1:]]
    assert summary(place.folder / "loss")["best_epoch"] == losses.index(min(losses)) + 1
    errors = place.train(*RUN, "callbacks.best.mode=min", "run_dir=b", status=2).errors
    assert "callbacks.best.mode=min contradicts monitor=val/iou" in errors


def test_trainings_that_begin_in_one_second(place: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks if a directory that the user never named is refused, or shared."""
    monkeypatch.setattr(time, "strftime", lambda *_: "now")
    short = [*RUN, "trainer.max_epochs=1", "paths.runs_dir=runs"]
    for _ in range(2):
        place.train(*short, "run_dir=${paths.runs_dir}/x/now", status=None)
        place.train("from_run=a")
    assert {path.name for path in (place.folder / "runs/phantom").iterdir()} == {"now", "now-1"}


MISTAKES = (
    ("split=1", "split is chosen by name"),
    ("augmentation=0", "augmentation is chosen by name"),
    ("model=null", "model is chosen by name"),
    ("callbacks=7", "callbacks is chosen by name"),
    ("data.seed=1.5", "data.seed=1.5 must be a whole number"),
    ("seed=x", "seed=x must be a whole number"),
    ("resume=[]", "resume=[] must be text or null"),
    ('trainer.max_epochs=""', "trainer.max_epochs"),
    ("trainer.max_epochs=-1", "scheduler.T_max=-1 must be a number of epochs"),
    ("trainer.devices=abc", "trainer"),
    ("data.image_size=60000", "too large"),
    ("data.name=a/b", "data.name"),
    ("callbacks.best=5", "callbacks"),
    ("callbacks.best.filename=x", "its dirpath and filename are fixed"),
    ("test=5", "must be true or false"),
    ("optimizer.lr=x", "optimizer"),
    ("data.root=a b (1)", "'data.root=\"a b (1)\"'"),
    ("run_dir=~/x", "'run_dir=\"~/x\"'"),
)


def test_overrides_of_a_wrong_kind_are_one_line(tmp_path: Path) -> None:
    """Breaks if one is a traceback, or leaves something behind."""
    shell = Shell(tmp_path)
    for override, expected in MISTAKES:
        result = shell.train(*QUICK, *PHANTOMS, override, status=2)
        assert [path.name for path in tmp_path.iterdir()] == ["configs"], override
        assert expected in result.errors, (override, result)


def test_a_home_folder_is_meant_by_a_tilde(place: Shell) -> None:
    """Breaks if ~ is a folder; or if a missing home folder is a traceback."""
    home = place.folder / "home"
    home.mkdir()
    write_png(home / "images" / "x.png", grey_image())
    place("predict", "run='~/../a'", "input='~/images'", "output='~/masks'", HOME=str(home))
    assert (home / "masks" / "x.png").is_file()
    place.train(*RUN, "trainer.max_epochs=1", "run_dir='~/r'", HOME=str(home))
    assert (home / "r" / "config.yaml").is_file() and not (place.folder / "~").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody without a name")
def test_somebody_without_home(place: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks if an unknown user without HOME meets a traceback."""
    from anatosegnet.config.places import user_path
    from anatosegnet.errors import UserError

    monkeypatch.delenv("HOME")
    monkeypatch.setattr(os, "getuid", lambda: 54321)
    with pytest.raises(UserError, match="there is no home folder"):
        user_path("~/x")


def test_a_job_that_changed_its_folder_is_refused_in_one_line(tmp_path: Path) -> None:
    """Breaks if what is refused is hidden by the folder that was taken back meanwhile."""
    shell = Shell(tmp_path)
    arguments = ("data=folder", "data.root=nowhere", "hydra.job.chdir=true", "run_dir=z")
    result = shell.train(*arguments, status=2)
    assert "there is no folder" in result.errors
    assert not (tmp_path / "z").exists()
