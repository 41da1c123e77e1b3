"""What the config of a run may name, and where it may point."""

import importlib
import inspect
import pkgutil
import re
from functools import cache
from pathlib import Path

import pytest
import yaml
from omegaconf import OmegaConf

from anatosegnet.config.composition import config_directory
from anatosegnet.config.objects import instantiate
from anatosegnet.config.recorded import (
    MARK,
    admitted,
    confine,
    read_config,
    targets,
    written_config,
)
from anatosegnet.errors import UserError
from tests.running import compose

ONE_FLOOR = Path(__file__).parents[1] / "golden" / "config_one_floor.yaml"  # of commit 7343334

HOSTILE = (
    "os.system", "subprocess.Popen", "torch.hub.load", "torch.load", "pandas.read_pickle",
    "numpy.load", "joblib.load", "hydra.utils.instantiate", "hydra.utils.get_method",
    "pathlib.Path.write_text", "shutil.copyfile", "builtins.exec", "builtins.eval",
    "lightning.Trainer.test", "torch.nn.Module.apply", "torch.nn.functional.relu",
    "torch.nn.modules.module.torch.load", "lightning.pytorch.trainer.trainer.os.system",
    "anatosegnet.run.shutil.rmtree", "anatosegnet.run.subprocess.Popen",
    "anatosegnet.config.objects.instantiate", "anatosegnet.run.Run", "albumentations.load",
    "albumentations.core.serialization.load", "monai.losses.dice.torch.load",
    "anatosegnet.data.split.hashlib.sha256", "lightning_evil.Trainer", "torch.nnx.Module",
    "timm.create_model", "anatosegnet", "torch.nn", ".torch.nn.ReLU", "torch..nn.ReLU",
    "torch.nn.ReLU.__init__", "torch.nn.ReLU.__call__.__globals__",
    "lightning.pytorch.cli.LightningCLI", "lightning.pytorch.cli.SaveConfigCallback",
    "lightning.pytorch.loggers.NeptuneLogger", "lightning.pytorch.loggers.MLFlowLogger",
    "lightning.pytorch.serve.ServableModuleValidator", "monai.losses.PerceptualLoss",
    "monai.losses.perceptual.RadImageNetPerceptualSimilarity",
    "torch.nn.modules.module.torch.jit.ScriptModule", "anatosegnet.models.libraries.library",
    "segmentation_models_pytorch.Unet", "monai.networks.nets.UNet",
)  # fmt: skip


@pytest.mark.parametrize("target", HOSTILE)
def test_what_executes_is_not_admitted(target: str) -> None:
    """A callable that is no class of a known kind is let through."""
    assert not admitted(target)


@pytest.mark.parametrize(
    "package", ["monai.losses", "lightning.pytorch.callbacks", "lightning.pytorch.loggers"]
)
def test_no_class_on_the_list_runs_code_that_it_loads(package: str) -> None:
    """A class of a known kind takes code from a folder that its settings name, as torch.hub does.

    MONAI's PerceptualLoss does; a new edition of a library may bring another.
    """
    top = importlib.import_module(package)
    names = [name for _, name, _ in pkgutil.walk_packages(top.__path__, f"{package}.")]
    runs_code = re.compile(r"torch\.hub|load_url|\bexec\(|import_module|subprocess|urlopen|runpy")
    found = []
    for module in (importlib.import_module(name) for name in names):
        classes = [name for name, value in vars(module).items() if isinstance(value, type)
                   and value.__module__ == module.__name__]  # fmt: skip
        found += [
            f"{module.__name__}.{name}"
            for name in classes
            if admitted(f"{module.__name__}.{name}")
            and runs_code.search(inspect.getsource(getattr(module, name)))
        ]
    assert found == []


@pytest.mark.parametrize("target", [None, 3, ["torch.nn.ReLU"], {"a": 1}])
def test_a_target_is_a_name(target: object) -> None:
    """Something else in its place is let through, or ends in a traceback."""
    assert not admitted(target)


def test_all_that_the_shipped_configs_name_is_admitted() -> None:
    """A run of a shipped config cannot be opened."""
    named = [
        target
        for path in config_directory().rglob("*.yaml")
        if path.parent.name not in ("search", "pruner")  # of tune, composed by the user
        and "local" not in path.relative_to(config_directory()).parts
        for _, target in targets(OmegaConf.to_container(OmegaConf.load(path)), path.stem)
    ]
    assert len(named) > 40
    assert [target for target in named if not admitted(target)] == []


@pytest.mark.parametrize(
    "target",
    ["torch.nn.CrossEntropyLoss", "torch.optim.RAdam", "torch.optim.lr_scheduler.OneCycleLR",
     "lightning.pytorch.callbacks.StochasticWeightAveraging", "monai.losses.DiceFocalLoss",
     "lightning.pytorch.loggers.CSVLogger", "albumentations.ElasticTransform",
     "albumentations.OneOf", "anatosegnet.models.anatosegnet.AnatoSegNet"],
)  # fmt: skip
def test_the_usual_classes_are_admitted(target: str) -> None:
    """The list is too short for a run of everyday settings."""
    assert admitted(target)


def test_nested_and_partial_targets_are_seen(tmp_path: Path) -> None:
    """A payload hides below an admitted class, in a list, or behind _partial_."""
    for hidden in (
        {"_target_": "torch.nn.ReLU", "x": {"_target_": "os.system", "_partial_": True}},
        {"_target_": "torch.nn.ReLU", "x": [[{"_target_": "os.system"}]]},
        {"_target_": "torch.nn.ReLU", "_args_": [{"a": {"_target_": "os.system"}}]},
    ):
        config = OmegaConf.create({"model": hidden, MARK: []})
        with pytest.raises(UserError, match=r"os\.system.*trust=\[os\]"):
            instantiate(config, "model")


def test_trust_admits_what_is_defined_in_the_package() -> None:
    """`trust` does nothing, or opens what the package merely imported."""
    assert not admitted("json.JSONDecoder")
    assert admitted("json.JSONDecoder", ["json"])
    assert admitted("json.loads", ["json"])
    assert not admitted("json.codecs.open", ["json"])


def test_a_composed_config_is_free() -> None:
    """The user's own command line is restricted."""
    config = OmegaConf.create({"model": {"_target_": "collections.Counter"}})
    assert instantiate(config, "model") == {}


def recorded(folder: Path, text: str) -> Path:
    """A file as a run keeps its config in."""
    path = folder / "config.yaml"
    path.write_text(text, encoding="utf-8")
    return path


@cache
def whole_config() -> str:
    """A config as a run records it."""
    return written_config(compose("data=busi", "run_dir=/somewhere"))


def changed(folder: Path, **changes: object) -> Path:
    """A run's config with other values of dotted keys (``__`` for the dots)."""
    config = OmegaConf.create(yaml.safe_load(whole_config()))
    for key, value in changes.items():
        OmegaConf.update(config, key.replace("__", "."), value, merge=False, force_add=True)
    content = OmegaConf.to_container(config)
    return recorded(folder, yaml.safe_dump(content))


def test_what_could_not_be_read_again_is_not_written() -> None:
    """Breaks if a run of a config beyond all measure cannot be opened once it is trained."""
    config = OmegaConf.create({"data": {"exclude": [f"case {i}" for i in range(10_000)]}})
    with pytest.raises(UserError, match=r"could not be read again.*10,000"):
        written_config(config)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("a: 1\na: 2\n", "duplicate"),
        ("name: a\n", "no config of a run: model is missing"),
        ("a: &x [1]\nb: *x\n", "alias"),
        ("a: !!python/object/apply:os.system [id]\n", "tag"),
        ("a: " + "[" * 5000, "nest"),
        ("".join(f"a{i}: 1\n" for i in range(5001)), "more than 10,000 keys and values"),
        ("3\n", "is no config"),
        ("- 1\n", "is no config of a run"),
        ("", "is no config of a run"),
        ("a: [\n", "cannot be read"),
    ],
)
def test_a_config_that_was_not_written_by_a_run(tmp_path: Path, text: str, complaint: str) -> None:
    """A resolver is run, memory is taken, or a damaged file is a traceback."""
    with pytest.raises(UserError, match=complaint) as caught:
        read_config(recorded(tmp_path, text), tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("name", "${oc.env:HOME}"),
        ("data__list", ["${oc.env:HOME}"]),
        ("callbacks__best__dirpath", "${run_dir}/${oc.env:HOME}"),
        ("data__root", "${now:%Y}"),
        ("data", "${oc.env:HOME}"),
    ],
)
def test_resolvers_are_not_run(tmp_path: Path, key: str, value: object) -> None:
    """The opener's environment gets into a message, a file or a path."""
    with pytest.raises(UserError, match="without interpolations"):
        read_config(changed(tmp_path, **{key: value}), tmp_path)


@pytest.mark.parametrize(
    ("key", "value"),
    [("data", 3), ("paths", "x"), ("split", None), ("data__root", {"a": 1}), ("model", []),
     ("data__image_size", "big"), ("seed", True), ("data__name", None), ("callbacks", [1]),
     ("callbacks__best", "x"), ("trainer", None), ("model___target_", {"a": 1})],
)  # fmt: skip
def test_a_config_of_another_shape_is_one_line(tmp_path: Path, key: str, value: object) -> None:
    """A group that is no group is a traceback in some verb."""
    with pytest.raises(UserError, match="is no config of a run: ") as caught:
        read_config(changed(tmp_path, **{key: value}), tmp_path)
    assert "\n" not in str(caught.value)


def test_a_pipe_in_the_place_of_a_config(tmp_path: Path) -> None:
    """Opening a run waits for ever."""
    import os

    os.mkfifo(tmp_path / "config.yaml")
    with pytest.raises(UserError, match="pipe"):
        read_config(tmp_path / "config.yaml", tmp_path)


@pytest.mark.parametrize("before", ["/home/other/runs/a", "runs/a", "runs/a/", "."])
def test_paths_inside_a_run_follow_it(tmp_path: Path, before: str) -> None:
    """A copied run writes where the original lies (paths as runs of before recorded them)."""
    prefix = before.rstrip("/")
    path = changed(
        tmp_path,
        run_dir=before,
        data__root=f"{prefix}/x",
        callbacks__best__dirpath=f"{prefix}/checkpoints",
        trainer__default_root_dir=before,
    )
    config = read_config(path, tmp_path)
    assert config.run_dir == str(tmp_path)
    assert config.callbacks.best.dirpath == f"{tmp_path}/checkpoints"
    assert config.callbacks.best.filename == "best"
    assert Path(config.trainer.default_root_dir) == tmp_path
    assert config.data.root == f"{prefix}/x"  # data is not part of a run


@pytest.mark.parametrize(("residual", "placement"), [(True, "residual"), (False, "replace")])
def test_settings_of_before_have_their_present_names(
    tmp_path: Path, residual: bool, placement: str
) -> None:
    """A run of before cannot be opened because a setting has another name since."""
    path = changed(tmp_path, model__attention={"heads": 8, "residual": residual})
    attention = read_config(path, tmp_path).model.attention
    assert attention == {"heads": 8, "placement": placement}


def test_a_written_config_names_no_place_of_its_run(tmp_path: Path) -> None:
    """The path of the run is recorded, so that a copy would point to it."""
    run = tmp_path / "somewhere"
    config = compose("data=busi", f"run_dir={run}", "trust=[x]")
    text = written_config(config)
    assert "somewhere" not in text
    assert not {"trust", MARK} & set(yaml.safe_load(text))
    again = read_config(recorded(tmp_path, text), tmp_path / "elsewhere")
    assert again.callbacks.best.dirpath == f"{tmp_path}/elsewhere/checkpoints"
    with pytest.raises(UserError, match=r"name=\$"):
        written_config(OmegaConf.create({"name": r"\${x}"}))


@pytest.mark.parametrize(
    "value",
    ["/tmp/victim", "../victim", "a/../../victim", "~/victim", "C:\\victim", "..\\victim",
     "https://collector.example", "file:///tmp/victim"],
)  # fmt: skip
@pytest.mark.parametrize("key", ["dirpath", "anything", "nested"])
def test_a_recorded_config_writes_inside_its_run(tmp_path: Path, value: str, key: str) -> None:
    """The opener's files elsewhere are overwritten."""
    content = {key: [{"x": value}]} if key == "nested" else {key: value}
    config = OmegaConf.create({"run_dir": str(tmp_path), "callbacks": {"c": content}})
    with pytest.raises(UserError, match="points outside the run; give callbacks"):
        confine(config)
    confine(config, given=["callbacks.c"])  # the user's own decision


def test_a_recorded_logger_keeps_to_itself(tmp_path: Path) -> None:
    """A stranger's settings of wandb send the opener's key to a server of theirs."""
    for nested in ({"base_url": "example.org"}, [{"base_url": "example.org"}]):
        config = OmegaConf.create({
            "run_dir": str(tmp_path), "logger": {"wandb": {"name": "a", "settings": nested}},
        })  # fmt: skip
        with pytest.raises(UserError, match=r"logger\.wandb\.settings"):
            confine(config)


def test_relative_places_are_inside_the_run(tmp_path: Path) -> None:
    """A relative path is taken from the opener's working directory."""
    config = OmegaConf.create({
        "run_dir": str(tmp_path),
        "callbacks": {
            "c": {"dirpath": "x", "filename": "best", "monitor": "val/iou"},
            "h": {"_args_": ["metrics.csv"]},
        },
        "logger": {"t": {"save_dir": f"{tmp_path}/t", "name": ""}},
    })  # fmt: skip
    confine(config)
    assert config.callbacks.c == {
        "dirpath": f"{tmp_path}/x", "filename": "best", "monitor": "val/iou",
    }  # fmt: skip
    assert config.callbacks.h == {"_args_": [f"{tmp_path}/metrics.csv"]}
    assert config.logger.t.save_dir == f"{tmp_path}/t"
