"""Every loss, optimiser and schedule trains and resumes; settings that must go together."""

from operator import mul
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from anatosegnet.config.composition import config_directory
from anatosegnet.data.datamodule import SegmentationDataModule
from anatosegnet.errors import UserError
from anatosegnet.evaluation.evaluate import evaluate
from anatosegnet.evaluation.settings import group_settings, setting_of
from anatosegnet.files.rows import read_rows
from anatosegnet.run import Run
from anatosegnet.train import train
from anatosegnet.training.recipes import settle
from tests.running import compose, compose_tiny
from tests.tiny import EPOCHS, fit, tiny_config, tiny_data, tiny_module

pytestmark = pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")
EXTRA = {
    "scheduler=cosine_warmup": ["scheduler.warmup=2"],
    "scheduler=step": ["scheduler.step_size=1"],
}


@pytest.fixture(scope="module")
def data() -> SegmentationDataModule:
    """Ten phantoms."""
    return tiny_data()


def choices() -> list[str]:
    """Every loss, optimiser and schedule that there is."""
    return sorted(
        f"{group}={path.stem}"
        for group in ("loss", "optimizer", "scheduler")
        for path in (config_directory() / group).glob("*.yaml")
    )


@pytest.mark.parametrize("choice", choices())
def test_trains_and_resumes(choice: str, data: SegmentationDataModule, tmp_path: Path) -> None:
    """Breaks if a part does not train, or keeps a state that a checkpoint loses or must pickle."""
    settings = [choice, *EXTRA.get(choice, [])]
    whole, first, second = (tiny_module(*settings, "optimizer.lr=0.01") for _ in range(3))
    start = {name: tensor.clone() for name, tensor in whole.state_dict().items()}
    fit(whole, data, tmp_path / "whole")
    fit(first, data, tmp_path / "parts", epochs=1)
    trainer = fit(second, data, tmp_path / "parts", resume=tmp_path / "parts" / "last.ckpt")
    assert trainer.global_step == 2 * EPOCHS
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, second.state_dict()[name]), name
        assert torch.isfinite(tensor).all(), name
    weights = [name for name in start if name.endswith("weight")]
    assert all(not torch.equal(start[name], whole.state_dict()[name]) for name in weights)


def test_warmup_of_the_whole_training_is_refused() -> None:
    """Breaks if a schedule that never reaches the full rate is taken."""
    module = tiny_module("scheduler=cosine_warmup", "scheduler.warmup=4")
    with pytest.raises(UserError, match=r"scheduler.warmup=4 .* less than trainer.max_epochs=4"):
        module.configure_optimizers()


@pytest.mark.parametrize("precision", ["16-mixed", "bf16-mixed"])
@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd"])
def test_clipping_in_mixed_precision_needs_unfused_steps(optimizer: str, precision: str) -> None:
    """Breaks if the combination that Lightning refuses reaches it, or others lose the speed."""
    choice = f"optimizer={optimizer}"
    mixed = f"trainer.precision={precision}"
    config = tiny_config(choice, mixed, "trainer.gradient_clip_val=1.0")
    (line,) = settle(config)
    assert line.startswith("optimizer.fused=false")
    assert config.optimizer.fused is False
    for settings in ([mixed], ["trainer.gradient_clip_val=1.0"], []):
        config = tiny_config(choice, *settings)
        assert settle(config) == []
        assert config.optimizer.fused is True


def test_lightning_refuses_fused_steps_with_clipping(
    data: SegmentationDataModule, tmp_path: Path
) -> None:
    """Breaks if Lightning has learned it (then `settle` can go), or unfused steps do not train."""
    settings = {"precision": "bf16-mixed", "gradient_clip_val": 1.0}
    with pytest.raises(RuntimeError, match="does not allow for gradient clipping"):
        fit(tiny_module(), data, tmp_path, 1, **settings)
    assert fit(tiny_module("optimizer.fused=false"), data, tmp_path, 1, **settings).global_step == 2


def test_callbacks_without_checkpoints_are_refused() -> None:
    """Breaks if a run could leave nothing to test or to go on from."""
    with pytest.raises(UserError, match=r"no best and no last; choose callbacks=\[default,…\]"):
        settle(compose("callbacks=early_stopping"))
    chosen = compose("callbacks=[default,ema,early_stopping]", "callbacks.best=null")
    assert settle(chosen) == []
    assert {"last", "progress", "ema", "early_stopping"} <= set(chosen.callbacks)


def test_what_counts_as_another_setting() -> None:
    """Breaks if compare takes runs with and without EMA or early stopping for one setting."""
    plain = tiny_config("split=benchmark")
    folds = [tiny_config("split=benchmark", f"split.fold={fold}") for fold in (2, 3)]
    unfused = tiny_config("split=benchmark", "optimizer.fused=false")
    assert group_settings([plain, *folds, unfused]) == [[0, 1, 2, 3]]
    ema, stopping = plain.copy(), plain.copy()
    ema.callbacks.merge_with(OmegaConf.load(config_directory() / "callbacks/ema.yaml"))
    stopping.callbacks.merge_with(
        OmegaConf.load(config_directory() / "callbacks/early_stopping.yaml")
    )
    pretrained = tiny_config("split=benchmark")
    pretrained.init_from = "runs/other"
    assert len(group_settings([plain, ema, stopping, pretrained])) == 4
    assert setting_of(ema)["callbacks.ema.decay"] == 0.999


def test_benchmark_protocol() -> None:
    """Breaks if the benchmark's recipe drifts from what is published of it."""
    config = compose("experiment=benchmark_busi", "split.fold=3", "paths.data_dir=/data")
    assert (config.data.name, config.data.image_size, config.data.batch_size) == ("busi", 256, 8)
    assert config.data.normalization == "benchmark"
    assert (config.seed, config.data.seed) == (41, 41)
    assert (config.split.directory, config.split.fold) == ("/data/splits", 3)
    assert config.optimizer == {
        "_target_": "torch.optim.SGD", "_partial_": True, "lr": 0.01, "momentum": 0.9,
        "weight_decay": 1e-4, "nesterov": False, "fused": True,
    }  # fmt: skip
    assert config.scheduler._target_ == "anatosegnet.training.PolyStepLR"
    assert (config.scheduler.power, config.scheduler.epochs) == (0.9, 300)
    assert (config.loss.dice_weight, config.loss.ce_weight) == (1.0, 0.5)
    assert config.trainer.max_epochs == 300
    assert config.callbacks.best.monitor == "val/iou_batch_pooled"


def test_the_batch_pooled_score_is_rebuilt_from_the_list(tmp_path: Path) -> None:
    """Breaks if the score that stands beside the benchmark's is pooled in another order or batch.

    Eight images in the order of the published list, then the three that are left.
    """
    run = Run(tmp_path / "run", trust=["tests"])
    names = list(tiny_data("data.count=24").prepared.cases)
    order = [*names[20:12:-1], *names[4:7]]
    (tmp_path / "busi_val1.txt").write_text("\n".join(order))
    rest = [name for name in names if name not in order]
    (tmp_path / "busi_train1.txt").write_text("\n".join(rest))
    lists = ("split=benchmark", f"split.directory={tmp_path}", "data.batch_size=3")
    train(compose_tiny(run.directory, *lists, "trainer.max_epochs=1", "test=true"), run)
    settings = ("at=model", "surface=false", "extremes=1", "device=cpu")
    scores = evaluate(run, compose(*settings, name="evaluate"))
    (table,) = run.directory.glob("evaluation/*/scores.csv")
    columns = ("lesion_area", "predicted_area", "iou")
    rows = read_rows(table)[1]
    assert [row["id"] for row in rows] == order
    both, iou = [], []
    for row in rows:
        truth, prediction, score = (float(row[column]) for column in columns)
        both.append((truth + prediction) / (1 + score))  # pixels of the union
        iou.append(score)
    pooled = [
        sum(map(mul, iou[part], both[part])) / sum(both[part]) for part in (slice(8), slice(8, 11))
    ]
    expected = (8 * pooled[0] + 3 * pooled[1]) / 11
    assert scores["iou_batch_pooled"] == pytest.approx(expected, abs=1e-6)
    assert run.summary["test/iou_batch_pooled"] == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("model", [path.stem for path in config_directory().glob("model/*.yaml")])
def test_the_benchmark_trains_from_random_weights(model: str) -> None:
    """Breaks if a network that comes with ImageNet weights keeps them under that protocol."""
    pretrained = compose(f"model={model}").model.get("pretrained")
    config = compose("experiment=benchmark_busi", f"model={model}")
    assert config.model.get("pretrained") == (None if pretrained is None else False)
    given = compose("experiment=benchmark_busi", f"model={model}", "pretrained=true")
    assert given.model.get("pretrained") == pretrained


@pytest.mark.parametrize("data", ["busi", "bus_bra"])
def test_ubench_protocol(data: str) -> None:
    """Breaks if U-Bench's recipe is another than the benchmark's in more than it says."""
    ours, theirs = compose(f"experiment=ubench_{data}"), compose("experiment=benchmark_busi")
    assert ours.callbacks.best.monitor == "val/iou"
    assert (ours.data.name, ours.seed, ours.model.pretrained) == (data, 41, True)
    assert ours.trainer.max_epochs == 300
    for part in ("augmentation", "loss", "optimizer", "scheduler"):
        assert ours[part] == theirs[part]
    same = ("image_size", "batch_size", "normalization")
    assert all(ours.data[key] == theirs.data[key] for key in same)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("callbacks.best=3", "callbacks.best=3 must be settings of its own, or null"),
        ("callbacks.best.dirpath=1", "callbacks.best: its dirpath and filename are fixed"),
        ("++callbacks.last.dirpath={}", "callbacks.last: its dirpath and filename are fixed"),
        ("~callbacks.last.filename", "callbacks.last: its dirpath and filename are fixed"),
    ],
)
def test_checkpoints_of_another_kind(given: str, said: str) -> None:
    """Breaks if such a callback ends in the line of a library."""
    with pytest.raises(UserError, match=said):
        settle(compose(given))
