"""Which runs tried the same, and what the rows of a comparison are called."""

from pathlib import Path

import pytest
from omegaconf import DictConfig, OmegaConf

from anatosegnet.config.composition import yaml_of
from anatosegnet.config.recorded import read_config, written_config
from anatosegnet.evaluation.settings import group_settings, labels, setting_of
from tests.running import compose

ONE_FLOOR = Path(__file__).parents[1] / "golden" / "config_one_floor.yaml"
SWEEP = yaml_of("sweep/ablation")["hydra"]["sweeper"]["params"]["model.attention"]


def composed(overrides: str) -> DictConfig:
    """The config of a run that these overrides began."""
    return OmegaConf.create(OmegaConf.to_container(compose(*overrides.split()), resolve=True))


def named(*runs: str) -> list[str]:
    """The labels of runs that were begun with these overrides, in the order of their settings."""
    configs = [composed(overrides) for overrides in runs]
    return labels([setting_of(configs[group[0]]) for group in group_settings(configs)])


LABELS = [
    # the same class without and with attention, beside another class
    (
        ("model=unet", "model=anatosegnet", "model=unet_classic"),
        ["U-Net, levels=[]", "AnatoSegNet, levels=[4, 5]", "UNet"],
    ),
    (
        ("model=unet", "model=anatosegnet", "model=anatosegnet_released"),
        [
            "levels=[]",
            "levels=[4, 5], bias=rows, differential=spatial, beta=0.0",
            "bias=raster, differential=released, beta=3.5",
        ],
    ),
    (
        tuple(f"model.attention={value}" for value in SWEEP.replace("},{", "} {").split()),
        [
            "levels=[4, 5], bias=rows, differential=spatial",
            "bias=none",
            "bias=raster",
            "differential=none",
            "bias=none, differential=none",
            "levels=[]",
        ],
    ),
    # two networks at two rates: no value is the usual one
    (
        tuple(
            f"model={model} optimizer.lr={rate}"
            for model in ("unet", "medt")
            for rate in (0.1, 0.01)
        ),
        ["U-Net, lr=0.1", "U-Net, lr=0.01", "MedT, lr=0.1", "MedT, lr=0.01"],
    ),
    (
        ("data=busi", "data=bus_bra", "data=folder data.name=mine"),
        ["data=busi", "data=bus_bra", "data=mine"],
    ),
    (("seed=1", "seed=2 split.seed=3"), ["AnatoSegNet"]),
    (("loss=dice_ce", "loss=cross_entropy"), ["loss=DiceCELoss", "loss=CrossEntropyLoss"]),
    (("optimizer.lr=0.1", "optimizer.lr=0.01 data.num_workers=7"), ["lr=0.1", "lr=0.01"]),
    (
        ("", "callbacks=[default,ema]", "callbacks=[default,ema] callbacks.ema.decay=0.9"),
        ["ema=none", "decay=0.999", "decay=0.9"],
    ),
    # what the objects of a list are given
    (
        ("augmentation=light", "augmentation=light augmentation.transforms.0.p=0.3"),
        ["HorizontalFlip p=0.5", "HorizontalFlip p=0.3"],
    ),
    (
        ("augmentation=light", "augmentation=strong"),
        [
            "transforms=[HorizontalFlip, Affine, Gain]",
            "transforms=[HorizontalFlip, Affine, TissueDeforma…]",
        ],
    ),
]


@pytest.mark.parametrize(("runs", "expected"), LABELS, ids=lambda value: value[0])
def test_labels_are_what_differs(runs: tuple[str, ...], expected: list[str]) -> None:
    """Breaks if a row cannot be told from another by its label, or says what it need not."""
    assert named(*runs) == expected


def test_labels_that_would_be_equal_are_numbered() -> None:
    """Breaks if two settings become one because their values are cut to the same text."""
    long = [{"model._target_": "a.B", "x": ["y" * 60, number]} for number in (1, 2)]
    assert [label[-4:] for label in labels(long)] == [" (0)", " (1)"]


def test_circumstances_do_not_make_a_setting() -> None:
    """Breaks if where or on what a run ran makes it another setting."""
    other = "data.num_workers=4 trainer.accelerator=cpu compile=true paths.data_dir=/x run_dir=b"
    assert len(named("data.num_workers=0 run_dir=a", other)) == 1
    assert len(named("", "data.image_size=128")) == 2


def test_a_run_of_before_is_a_repetition(tmp_path: Path) -> None:
    """Breaks if a run of earlier names and one of today, of the same settings, are two rows."""
    today = compose(
        "data=phantom", "data.count=30", "data.image_size=32", "data.batch_size=4", "seed=1",
        "split=kfold", "model.encoder=resnet18", "model.pretrained=false",
        "model.attention.levels=[5]", "model.attention.heads=2", "trainer=cpu",
        "trainer.max_epochs=2", "scheduler=cosine_warmup", "scheduler.warmup=1",
        "callbacks=[default,ema]",
    )  # fmt: skip
    path = tmp_path / "config.yaml"
    path.write_text(written_config(today))
    before, after = (read_config(file, tmp_path) for file in (ONE_FLOOR, path))
    assert setting_of(after) == setting_of(before)
    assert group_settings([before, after]) == [[0, 1]]
