"""Every YAML composes and builds; mistakes end in one line."""

import os
import subprocess
import sys
from pathlib import Path

import hydra
import pytest
import torch
from omegaconf import DictConfig, OmegaConf

from anatosegnet.config.checks import check_top_level, expand_home
from anatosegnet.config.composition import config_directory, one_line
from anatosegnet.config.keys import is_of_the_run
from anatosegnet.config.objects import instantiate
from anatosegnet.data.build import build_settings, build_source
from anatosegnet.errors import UserError
from anatosegnet.training.build import build_module, settle_precision
from anatosegnet.tuning.space import check, read_space
from tests.commands import PHANTOMS, QUICK, Shell
from tests.running import compose

CONFIGS = config_directory()
SMALL = ["model.encoder=resnet18", "model.pretrained=false", "data.num_workers=0"]
NEEDS = {
    "data/folder": ["data.root=."],
    "split/files": ["split.train=a.txt", "split.test=b.txt"],
    "trainer/gpu": ["trainer.accelerator=cpu"],
    "trainer/ddp": ["trainer.accelerator=cpu", "trainer.devices=1", "trainer.sync_batchnorm=false"],
    "trainer/ddp_slurm": [
        "trainer.accelerator=cpu",
        "trainer.devices=1",
        "trainer.sync_batchnorm=false",
    ],
    "logger/wandb": ["logger.wandb.offline=true"],
}


def options(*groups: str) -> list[str]:
    """All ``group/choice`` of the groups, private ones left out."""
    paths = [path for group in groups for path in (CONFIGS / group).glob("*.yaml")]
    names = sorted(f"{path.parent.name}/{path.stem}" for path in paths)
    return [name for name in names if "/_" not in name]


def test_every_group_is_known_to_these_tests() -> None:
    """Breaks if a new config group is not tested here."""
    groups = {path.name for path in CONFIGS.iterdir() if path.is_dir()} - {"local"}
    tested = {"model", "data", "split", "augmentation", "loss", "optimizer", "scheduler", "module",
              "trainer", "callbacks", "logger", "paths", "hydra", "experiment", "sweep",
              "scale", "search"}  # fmt: skip
    assert groups == tested


@pytest.mark.parametrize("option", options("model", "loss", "optimizer", "scheduler", "module"))
def test_module_parts_build(option: str) -> None:
    """Breaks if a model, loss, optimiser or scheduler YAML does not fit its class."""
    group, choice = option.split("/")
    config = compose(f"{group}={choice}")
    if "encoder" in config.model:
        config.model.encoder = "resnet18"
    if "pretrained" in config.model:
        config.model.pretrained = False
    module = build_module(config)
    configured = module.configure_optimizers()
    optimizer = configured["optimizer"] if isinstance(configured, dict) else configured
    assert isinstance(optimizer, torch.optim.Optimizer)
    assert isinstance(configured, dict) == (option != "scheduler/constant")


@pytest.mark.parametrize("option", options("data", "split", "augmentation"))
def test_data_parts_build(option: str) -> None:
    """Breaks if a data, split or augmentation YAML does not fit its class."""
    group, choice = option.split("/")
    config = compose(f"{group}={choice}", *SMALL, *NEEDS.get(option, []))
    assert build_settings(config).size == (256, 256)
    build_source(config)
    assert callable(instantiate(config, "split"))
    assert (not config.augmentation) == (option == "augmentation/none")
    if config.augmentation:
        instantiate(config, "augmentation")


@pytest.mark.parametrize("option", options("trainer", "callbacks", "logger"))
def test_trainer_parts_build(option: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks if a trainer, callbacks or logger YAML does not fit its class."""
    monkeypatch.setenv("WANDB_MODE", "disabled")
    group, choice = option.split("/")
    overrides = [f"{group}={choice}", f"run_dir={tmp_path}", *NEEDS.get(option, [])]
    config = compose(*overrides)
    for key, value in config[group].items() if group != "trainer" else ():
        if value is not None:
            assert instantiate(config[group], key) is not None
    if group == "trainer":
        settle_precision(config)
        trainer = instantiate(config, "trainer", logger=False)
        assert trainer.max_epochs == 100


@pytest.mark.parametrize("option", options("experiment"))
def test_experiments_compose(option: str) -> None:
    """Breaks if an experiment overrides a setting that is gone, or is longer than it may be."""
    choice = option.split("/")[1]
    config = compose(f"experiment={choice}")
    assert config.name == choice
    build_module(compose(f"experiment={choice}", *SMALL[:2]))
    text = (CONFIGS / f"{option}.yaml").read_text()
    assert len(text.splitlines()) <= 18
    assert f"experiment={choice}" in text  # its header gives the command


def compose_sweep(*overrides: str) -> DictConfig:
    """A sweep's config with Hydra's own part."""
    with hydra.initialize_config_dir(str(CONFIGS), version_base="1.3"):
        return hydra.compose("train", list(overrides), return_hydra_config=True)


@pytest.mark.parametrize("option", [*options("sweep"), *options("scale")])
def test_sweeps_are_multiruns(option: str) -> None:
    """Breaks if a sweep's grid names a setting or network that is gone, or runs once only."""
    group, choice = option.split("/")
    config = compose_sweep(*["sweep=leakfree"] * (group == "scale"), f"{group}={choice}")
    assert config.hydra.mode.name == "MULTIRUN"
    for network in str(config.hydra.sweeper.params.get("model", "unet")).split(","):
        assert (CONFIGS / "model" / f"{network.strip()}.yaml").is_file()
    for key in config.hydra.sweeper.params:
        assert OmegaConf.select(config, key) is not None


def test_networks_of_the_leak_free_table_share_an_encoder() -> None:
    """Breaks if a scale's encoder reaches no network, or a job's folder does not name its own."""
    for network, key, prefix in (
        ("unet", "encoder", ""),
        ("smp_fpn", "encoder_name", "tu-"),
    ):
        config = compose_sweep("sweep=leakfree", "data=busi", f"model={network}", "split.fold=3")
        assert config.model[key] == f"{prefix}tf_efficientnet_lite0"
        assert config.hydra.sweep.subdir == f"{network}/3"
        assert config.scheduler.T_max == config.trainer.max_epochs == 20
    small = compose_sweep("sweep=leakfree", "data=breast_lesions_usg")
    assert small.trainer.max_epochs == 57  # about as many steps: 57 × 23 of 8 images, 20 × 59
    assert is_of_the_run("encoder")  # else a run begun with it could not be repeated
    config = compose_sweep("sweep=leakfree", "scale=full", "model=unet", "seed=2")
    assert config.model.encoder == "resnet50.tv_in1k"
    assert config.hydra.sweep.subdir == "unet/0-seed2"


@pytest.mark.slow
@pytest.mark.parametrize("option", options("search"))
def test_searches_are_of_settings_that_exist(option: str) -> None:
    """Breaks if a search names a setting or choice that is gone, or its sampler does not build."""
    with hydra.initialize_config_dir(str(CONFIGS), version_base="1.3"):
        config = hydra.compose("tune", [f"search={option.split('/')[1]}"])
        check(read_space(config.search.space), [])
    assert type(instantiate(config.search, "sampler")).__name__ == "TPESampler"


@pytest.mark.parametrize("option", options("search/pruner"))
def test_pruners_build(option: str) -> None:
    """Breaks if a pruner's YAML does not fit Optuna's class."""
    choice = option.split("/")[1]
    config = compose(f"search/pruner={choice}", "trainer.max_epochs=30", name="tune")
    assert type(instantiate(config.search, "pruner")).__module__.startswith("optuna.pruners")


def test_released_protocol() -> None:
    """Breaks if the released recipe drifts from what FACTS says of it."""
    config = compose("experiment=released")
    assert config.model.attention.bias == "raster"
    assert config.model.attention.differential == "released"
    assert (config.model.attention.gamma, config.model.attention.beta) == (1.0, 3.5)
    assert config.data.name == "busi"
    assert (config.data.image_size, config.data.batch_size) == (256, 16)
    assert config.data.normalization == "symmetric"
    assert config.optimizer == {
        "_target_": "torch.optim.Adam", "_partial_": True, "lr": 1e-4, "weight_decay": 1e-4,
        "fused": True,
    }  # fmt: skip
    assert (config.scheduler.step_size, config.scheduler.gamma) == (20, 0.1)
    assert (config.trainer.max_epochs, config.seed, config.split.seed) == (50, 42, 42)
    assert config.callbacks.best.monitor is None


def test_channels_follow_the_data() -> None:
    """Breaks if grey data and a colour network could be composed."""
    assert compose("data.in_channels=1").model.in_channels == 1


def test_a_bad_setting_of_a_class_is_one_line() -> None:
    """Breaks if hydra's wrapping of the error reaches the user."""
    with pytest.raises(UserError, match=r"^model: attention heads=7 must divide"):
        instantiate(compose("model.attention.heads=7", *SMALL), "model")


def command(*arguments: str, verb: str = "train") -> subprocess.CompletedProcess[str]:
    """Run a program as a user would."""
    program = [sys.executable, "-m", f"anatosegnet.{verb}", *arguments]
    return subprocess.run(program, capture_output=True, text=True, timeout=120)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["model.encodr=resnet18"], "did you mean model.encoder?"),
        (["modle=unet"], "did you mean model?"),
        (["model=vnet"], "available: anatosegnet, anatosegnet_released"),
        (["data=bus"], "available: breast_lesions_usg, bus_bra"),
        (["callbacks=[default,emma]"], "available: default, early_stopping, ema"),
        (["split=files"], "split.train has no value"),
        (["data=folder"], "data.root=FOLDER"),
        (["data=busi", "data.root=/none"], "ANATOSEGNET_DATA_DIR"),
        (["trainer.devices=2", "hydra.mode=MULTIRUN"], "trainer.devices=1"),
        (["resume=/none"], "is no run directory"),
    ],
)
def test_mistakes_end_in_one_line(
    arguments: list[str], expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Breaks if a mistake shows a traceback, another exit status, or leaves something behind."""
    monkeypatch.chdir(tmp_path)
    result = command(*arguments)
    assert result.returncode == 2
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    assert expected in result.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("choice, expected", [("y", "; available: x"), ("[x,y]", "")])
def test_an_unknown_choice_of_ones_own_group(choice: str, expected: str, tmp_path: Path) -> None:
    """Breaks if the choices of a group outside this project are said to be none at all."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "x.yaml").write_text("a: 1")
    with pytest.raises(Exception, match="Could not") as caught:
        compose(f"hydra.searchpath=[file://{tmp_path}]", f"+mine={choice}")
    assert one_line(caught.value) == f"there is no mine/y{expected}"


@pytest.mark.slow
@pytest.mark.parametrize(
    "verb", ["train", "evaluate", "compare", "predict", "prepare", "tune", "runs", "export", "app"]
)
def test_help_is_quick(verb: str) -> None:
    """Breaks if a heavy import moves to the top of a program.

    Processor time beside that of `import torch`: a slow or busy machine does not count.
    """

    def seconds(*arguments: str) -> float:
        before = os.times()
        result = subprocess.run([sys.executable, *arguments], capture_output=True, text=True)
        after = os.times()
        assert result.returncode == 0, result.stderr
        assert arguments[0] == "-c" or f"anatosegnet.{verb}" in result.stdout
        return sum(after[2:4]) - sum(before[2:4])

    assert seconds("-m", f"anatosegnet.{verb}", "--help") < seconds("-c", "import torch")


def test_a_program_imports_nothing_heavy() -> None:
    """Breaks if torch or lightning is imported before the config is known to be good."""
    code = (
        "import sys, anatosegnet.train, anatosegnet.evaluate, anatosegnet.compare;"
        "import anatosegnet.predict, anatosegnet.prepare, anatosegnet.tune, anatosegnet.runs;"
        "import anatosegnet.training.tracking, anatosegnet.export, anatosegnet.app;"
        "heavy = {'torch', 'lightning', 'timm', 'pandas', 'scipy', 'wandb', 'optuna'};"
        "heavy |= {'matplotlib', 'rich'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout.strip() == "[]", result.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("error", "launcher"),
    [("TrainingFailed", []), ("UserError", ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"])],
)
def test_a_failed_job_does_not_stop_a_sweep(
    error: str, launcher: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Breaks if a job that diverges takes the others with it, here or in a launcher's process."""
    monkeypatch.chdir(tmp_path)
    code = (
        "from anatosegnet.cli import verb\n"
        f"from anatosegnet.errors import {error}\n"
        "@verb('train')\n"
        "def main(config):\n"
        f"    if config.seed == 0: raise {error}('the loss is not finite')\n"
        "    print('trained', config.seed)\n"
        "if __name__ == '__main__': main()"
    )
    given = ["-m", "seed=0,1,2", f"run_dir={tmp_path}/sweep", *launcher]
    result = subprocess.run([sys.executable, "-c", code, *given], capture_output=True, text=True)
    assert result.returncode == 2
    assert sorted(result.stdout.split()) == ["1", "2", "trained", "trained"], result.stderr
    assert "job 0 failed: the loss is not finite" in result.stderr
    assert result.stderr.splitlines()[-1] == "error: the loss is not finite"
    assert "Traceback" not in result.stderr


@pytest.mark.slow
def test_what_is_refused_leaves_no_folder(shell: Shell) -> None:
    """Breaks if the directory that Hydra makes at once outlives a command that was refused."""
    # a text that would be an interpolation in the config that is written
    shell.train(*QUICK, *PHANTOMS, "run_dir=new/run", r"paths.runs_dir=\${x}", status=2)
    assert not (shell.folder / "new").exists()
    for wrong in ("test=null", "seed=[1,2]", "data.cache_dir=${oc.env:NOTHING_OF_THIS_NAME}"):
        shell.train(*QUICK, "run_dir=new/run", wrong, status=2)
        shell("tune", "search.directory=new/study", wrong, status=2)
        assert not (shell.folder / "new").exists(), wrong


@pytest.mark.slow
def test_evaluate_needs_no_data_on_the_command_line(shell: Shell) -> None:
    """Breaks if the plainest command, which Hydra composes without a group data, is refused."""
    shell.train(*QUICK, *PHANTOMS, "trainer.max_epochs=1", "run_dir=run")
    shell("evaluate", "run=run")
    assert (shell.folder / "run" / "evaluation" / "phantom" / "scores.csv").is_file()


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"_partial_": True}, "gives no network"),
        ({"device": "meta"}, "device meta"),
        ({"_target_": "torch.nn.LazyConv2d"}, "the shapes of 2 tensors wait for the first image"),
    ],
)
def test_what_is_no_network_is_refused(settings: dict[str, object], complaint: str) -> None:
    """Breaks if a model that cannot hold weights is a traceback when they are loaded."""
    config = compose("scheduler=constant")
    config.model = {"_target_": "torch.nn.Conv2d", "in_channels": 3, "out_channels": 2,
                    "kernel_size": 1, **settings}  # fmt: skip
    if "Lazy" in config.model._target_:
        del config.model.in_channels
    with pytest.raises(UserError, match=complaint):
        build_module(config)


def test_the_home_folder_in_a_config_with_odd_keys() -> None:
    """Breaks if an empty key, or one with a point, of a recorded config is walked for ever."""
    config = OmegaConf.create(
        {"data": {"root": "~/busi", "": {"root": "~/a"}, "a.b": "~"}, "": {"": {}}, "run": "???"}
    )
    expand_home(config)
    assert config.data.root == str(Path.home() / "busi")
    assert config.data[""].root == "~/a" and config.data["a.b"] == "~"
    assert OmegaConf.is_missing(config, "run")


def test_names_in_a_list() -> None:
    """Breaks if a name that looks like a number is none, or what is no name ends in a traceback."""
    defaults = {"scores": [], "run": None, "tolerances": [2, 5]}
    config = OmegaConf.create({"scores": 2147483648, "run": [0, "a"], "tolerances": [1.5]})
    check_top_level(config, defaults)
    assert config == {"scores": ["2147483648"], "run": ["0", "a"], "tolerances": [1.5]}
    for wrong in ([{"a": 1}], [None], [["iou"]], [True]):
        with pytest.raises(UserError, match=r"^scores=.* must be a list of names$"):
            check_top_level(OmegaConf.create({**config, "scores": wrong}), defaults)
    with pytest.raises(UserError, match=r"^run= is empty; give a path, or leave it out$"):
        check_top_level(OmegaConf.create({**config, "run": ""}), defaults)


def test_numbers_that_no_computer_adds() -> None:
    """Breaks if a whole number beyond 64 bits ends in an OverflowError of a training."""
    with pytest.raises(UserError, match=r"^trainer.accumulate_grad_batches=9+ must be a number of"):
        instantiate(compose("trainer.accumulate_grad_batches=99999999999999999999"), "trainer")
