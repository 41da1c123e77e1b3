"""The parts of tune: space, experiment file, following a training."""

import json
import signal
import sys
from pathlib import Path
from typing import Any

import hydra
import optuna
import pytest
from omegaconf import DictConfig, OmegaConf

from anatosegnet.config.composition import config_directory
from anatosegnet.errors import UserError
from anatosegnet.tuning import trial as trial_module
from anatosegnet.tuning.report import experiment
from anatosegnet.tuning.space import parse, read_space
from anatosegnet.tuning.study import conditions_of, open_storage, open_study
from anatosegnet.tuning.trial import Training, val_iou
from tests.running import compose, wait_for


def space(content: dict[str, Any]) -> DictConfig:
    """A space as a YAML would give it."""
    return OmegaConf.create(content)


def test_nested_and_dotted_keys_are_the_same_setting() -> None:
    """Breaks if a key of the space is cut, joined or typed otherwise than an override's."""
    dimensions = read_space(
        space(
            {
                "optimizer": {"lr": {"low": 1e-5, "high": 1e-2, "log": True}, "weight_decay": None},
                "model.attention.heads": {"low": 2, "high": 8, "step": 2},
                "loss": {"choices": ["dice_ce", "cross_entropy"]},
            }
        )
    )
    assert [d.key for d in dimensions] == ["optimizer.lr", "model.attention.heads", "loss"]
    fixed = {"optimizer.lr": 3e-4, "model.attention.heads": 6, "loss": "cross_entropy"}
    trial = optuna.trial.FixedTrial(fixed)
    suggested = [dimension.suggest(trial) for dimension in dimensions]  # type: ignore[arg-type]
    assert suggested == ["optimizer.lr=0.0003", "model.attention.heads=6", "loss=cross_entropy"]
    assert isinstance(
        trial.distributions["model.attention.heads"], optuna.distributions.IntDistribution
    )
    assert trial.distributions["optimizer.lr"].log  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "value",
    [None, True, 3, 0.5, "resnet18", "resnet50.tv_in1k", "a b", "it's", "1e3", [4, 5], [],
     {"bias": "none", "levels": [5]}],
)  # fmt: skip
def test_a_choice_survives_the_command_line(value: Any) -> None:
    """Breaks if a choice means something else to hydra than it did in the YAML."""
    (dimension,) = read_space(space({"key": {"choices": [value, "other"]}}))
    (override,) = parse([f"key={dimension.choices[0]}"])
    found = override.value()
    if isinstance(found, dict):
        found = {str(key): item for key, item in found.items()}
    assert found == value or str(found) == value
    assert type(value) in (dict, list, str) or type(found) is type(value)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (None, "is empty"),
        ({}, "is empty"),
        ({"loss": None}, "is empty"),
        ({"a": 3}, "a is 3"),
        ({"a": {"low": 1}}, "number as high"),
        ({"a": {"low": "x", "high": 2}}, "number as low"),
        ({"a": {"low": 2, "high": 2}}, "not below"),
        ({"a": {"low": 0, "high": 2, "log": True}}, "above 0"),
        ({"a": {"low": 1, "high": 2, "steps": 1}}, "steps; known are"),
        ({"a": {"low": 0, "high": 2, "step": 0}}, "step above 0"),
        ({"a": {"choices": []}}, "list of choices"),
        ({"a": {"choices": [1, 1]}}, "a choice twice"),
        ({"a": {"b": {"choices": [1]}}, "a.b": {"choices": [2]}}, "a.b twice"),
    ],
)
def test_a_wrong_space_is_one_line(content: Any, expected: str) -> None:
    """Breaks if a mistake in the space reaches Optuna or hydra."""
    with pytest.raises(UserError, match=expected) as caught:
        read_space(None if content is None else space(content))
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("search.space")


@pytest.mark.slow
@pytest.mark.parametrize(
    "overrides",
    [
        ["data=busi", "trainer.max_epochs=30", "loss=cross_entropy", "optimizer.lr=0.000123"],
        ["experiment=released", "loss=dice_ce", "data.image_size=128", "scheduler=cosine"],
        [
            "experiment=demo",
            "model.attention={bias:none}",
            "+trainer.limit_val_batches=2",
            "callbacks=[default,ema]",
        ],
        ["scheduler=constant", "model=unet", "model.encoder='resnet18'", "data.exclude=['a b*']"],
        ["model.attention.levels=[]", "optimizer=sgd", "optimizer.lr=1e-05", "name=mine"],
    ],
)
def test_the_best_experiment_composes_to_the_same_config(
    overrides: list[str], tmp_path: Path
) -> None:
    """Breaks if ``experiment=best`` trains with other settings than the trial did."""
    path = tmp_path / "experiment" / "best.yaml"
    path.parent.mkdir()
    directory = str(config_directory())
    with hydra.initialize_config_dir(directory, version_base="1.3"):
        path.write_text(experiment(overrides, ["val/iou 0.5"], "x_best", tmp_path))
        trained = hydra.compose("train", overrides)
        searchpath = f"hydra.searchpath=[file://{tmp_path}]"
        again = hydra.compose("train", [searchpath, "experiment=best"])
    assert again.name == "x_best"
    for config in (trained, again):
        config.name, config.run_dir = "x", "x"
    assert OmegaConf.to_container(again, resolve=True) == OmegaConf.to_container(
        trained, resolve=True
    )
    assert path.read_text().startswith(
        "# @package _global_\n# Command: python -m anatosegnet.train"
    )


@pytest.mark.slow
def test_conditions_are_settings_not_circumstances() -> None:
    """Breaks if workers on two machines cannot share a study, or two seeds can."""
    dimensions = read_space(space({"optimizer.lr": {"low": 1e-4, "high": 1e-2}}))

    def conditions(*overrides: str) -> dict[str, Any]:
        return conditions_of(compose(*overrides), dimensions)

    usual = conditions()
    assert usual == conditions(
        "data.num_workers=7", "trainer.accelerator=cpu", "data.cache=off", "paths.data_dir=/x",
        "optimizer.lr=0.5",  # searched: any value
    )  # fmt: skip
    assert usual != conditions("seed=1")
    other = read_space(space({"optimizer.lr": {"low": 1e-4, "high": 1e-1}}))
    assert usual != conditions_of(compose(), other)


@pytest.mark.slow
def test_a_study_of_before_goes_on(tmp_path: Path) -> None:
    """Breaks if a study is refused because what it fixes has other names, or other roles, now."""
    stored = json.loads((Path(__file__).parents[1] / "golden/study_conditions.json").read_text())
    given = ["trainer.max_epochs=6", "data=folder", "data.root=/x", "data.name=mine", "split=kfold",
             "callbacks=[default,ema,early_stopping]", "scheduler=cosine_warmup"]  # fmt: skip
    searched = read_space(space({"optimizer.lr": {"low": 1e-5, "high": 3e-3, "log": True}}))
    storage = open_storage("sqlite", tmp_path)
    begun = optuna.create_study(study_name=tmp_path.name, storage=storage, direction="maximize")
    begun.set_user_attr("conditions", stored)  # by commit 7343334
    study = open_study(storage, tmp_path, conditions_of(compose(*given), searched))
    assert study.study_name == tmp_path.name
    with pytest.raises(UserError, match=r"seed was 0, now 1; go on with those"):
        open_study(storage, tmp_path, conditions_of(compose(*given, "seed=1"), searched))


def test_scores_of_a_half_filled_table(tmp_path: Path) -> None:
    """Breaks if an epoch without validation, or with a score that is no number, stops a study."""
    path = tmp_path / "metrics.csv"
    assert val_iou(path) == {}
    path.write_text("epoch,train/loss,val/iou\n0,1,0.25\n1,0.9,\n2,nan,nan\n,3,0.9\n3,0.5,0.5\n")
    assert val_iou(path) == {0: 0.25, 3: 0.5}
    path.write_text("epoch,train/loss\n0,1\n")
    assert val_iou(path) == {}


def follow(code: str, directory: Path, **ends: Any) -> Training:
    """A training of Python code that is followed to its end."""
    training = Training([sys.executable, "-c", code], directory / "m.csv", directory / "0.log")
    with training:
        assert list(training.epochs()) == []
    return training


def test_a_failure_is_its_last_error_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks if the table of a study does not say why a trial failed."""
    monkeypatch.setattr(trial_module, "INTERVAL", 0.02)
    assert (
        "ValueError: no such thing (exit status 1)"
        in follow("print('epoch 1'); raise ValueError('no such thing')", tmp_path).failure()
    )
    text = follow("import sys; sys.stderr.write('error: out of memory\\n'); print('bye'); "
                  "sys.exit(2)", tmp_path).failure()  # fmt: skip
    assert text == "error: out of memory (exit status 2)"
    assert (
        "SIGKILL (out of memory?)"
        in follow("import os; os.kill(os.getpid(), 9)", tmp_path).failure()
    )


@pytest.mark.skipif(sys.platform != "linux", reason="looks at /proc")
def test_a_stopped_training_leaves_no_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Breaks if a pruned trial, or a loader worker of it, goes on computing."""
    monkeypatch.setattr(trial_module, "INTERVAL", 0.02)
    monkeypatch.setattr(trial_module, "PATIENCE", 0.2)
    code = (
        "import os, signal, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "child = os.fork()\n"
        "if child: print(child, flush=True); open('m.csv', 'w').write('epoch,val/iou\\n0,0.5\\n')\n"
        "time.sleep(60)\n"
    )
    monkeypatch.chdir(tmp_path)
    log = tmp_path / "0.log"
    with Training([sys.executable, "-c", code], tmp_path / "m.csv", log) as training:
        assert next(training.epochs()) == (0, 0.5)
    assert training.process.returncode == -signal.SIGKILL
    child = Path(f"/proc/{int(log.read_text())}/stat")

    def lives() -> bool:
        try:
            return child.read_text().rpartition(")")[2].split()[0] not in "ZX"
        except OSError:
            return False

    wait_for(lambda: not lives(), seconds=20)  # a kill takes effect a little later
