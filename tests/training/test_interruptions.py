"""Trainings that end before their end: said in one line, nothing lost."""

import errno
import json
import multiprocessing
import os
import re
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from anatosegnet.data.build import build_data
from anatosegnet.errors import UserError
from anatosegnet.run import Run
from anatosegnet.train import train
from anatosegnet.training.build import build_module, build_trainer, settle_precision
from anatosegnet.training.callbacks import Divergence
from anatosegnet.training.interruptions import is_out_of_memory, out_of_memory
from anatosegnet.training.module import SegmentationModule
from tests.running import compose, compose_small, compose_tiny

pytestmark = pytest.mark.slow


def failing(directory: Path, message: str, config: DictConfig | None = None) -> Run:
    """Train, expect a one-line failure that is also recorded, and return the run."""
    run = Run(directory)
    with pytest.raises(UserError, match=message) as caught:
        train(config or compose_tiny(directory), run)
    summary = json.loads(run.summary_path.read_text())
    assert summary["state"] == "failed"
    assert summary["error"] == str(caught.value)
    assert "\n" not in str(caught.value)
    return run


def test_a_loss_that_is_no_number_stops_before_anything_is_saved(tmp_path: Path) -> None:
    """Breaks if a diverged network is validated, saved as best, or trained for hours."""
    config = compose_tiny(tmp_path / "run")
    config.model = OmegaConf.create({"_target_": "tests.networks.fill", "value": float("nan")})
    run = failing(tmp_path / "run", "is NaN or infinite .nan. in epoch 1, step 1", config)
    assert not run.best_path.exists() and not run.last_path.exists()


def test_an_exploding_loss_names_its_own_cases(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Breaks if the cases named are not those of the batch whose loss exploded."""
    step, seen = SegmentationModule.training_step, []

    def exploding(self: SegmentationModule, batch: dict[str, Any], index: int) -> Tensor:
        loss = step(self, batch, index)
        if (self.current_epoch, index) == (1, 2):
            seen.extend(batch["index"])
            return loss * 1e9
        return loss

    monkeypatch.setattr(SegmentationModule, "training_step", exploding)
    run = Run(tmp_path / "run")
    with pytest.raises(UserError, match=r"exploded .* in epoch 2, step 3, on the cases") as caught:
        train(compose_tiny(run.directory), run)
    with run.split_path.open() as file:
        train_cases = [line.split(",")[0] for line in file if ",train," in line]
    named = str(caught.value).split("on the cases ")[1].split(";")[0].split(", ")
    assert sorted(named) == sorted(train_cases[index] for index in seen)
    assert torch.load(run.last_path, weights_only=True)["epoch"] == 0  # the sound one


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        RuntimeError("[alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory"),
        MemoryError(),
    ],
)  # fmt: skip
def test_out_of_memory_says_what_helps(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Breaks if running out of memory ends in a traceback, or the advice is not an override."""

    def training_step(*_: Any) -> None:
        raise error

    monkeypatch.setattr(SegmentationModule, "training_step", training_step)
    failing(
        tmp_path / "run",
        r"out of memory with batches of 4; try data.batch_size=2 trainer.accumulate_grad_batches=2",
    )
    assert not is_out_of_memory(RuntimeError("shapes cannot be multiplied"))


def test_a_lone_small_image_is_one_line(tmp_path: Path) -> None:
    """Breaks if BatchNorm's refusal of the last, single image of an epoch is a traceback."""
    config = compose_small(
        tmp_path / "run", "data.image_size=32", "data.batch_size=13", "trainer.max_epochs=1"
    )
    failing(tmp_path / "run", r"data.image_size=32, data.batch_size=13; the last batch", config)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("seed=-1", "seed=-1 must be a whole number from 0"),
        ("data.num_workers=-1", "data.num_workers=-1 must not be negative"),
        ("trainer.accumulate_grad_batches=0", "accumulate_grad_batches=0 must be at least 1"),
        ("callbacks.best.monitor=val/f1", "callbacks.best.monitor=val/f1 is not one of val/loss"),
        (
            "trainer.precision=64-true",
            "trainer.precision=64-true must be one of auto, 32-true, bf16",
        ),
        ("trainer.precision=bf16-true", "trainer.precision=bf16-true must be one of"),
        ("trainer.max_epochs=0", "trainer.max_epochs=0 must be a whole number of at least 1"),
        ("+trainer.limit_train_batches=0", "trainer.limit_train_batches=0 trains nothing"),
        ("+trainer.limit_test_batches=0", "trainer.limit_test_batches=0 tests nothing"),
        ("+trainer.sync_batchnorm=true", "trainer.sync_batchnorm=true is of GPUs alone"),
    ],
)
def test_impossible_settings_are_said_before_a_run_begins(
    setting: str, message: str, tmp_path: Path
) -> None:
    """Breaks if such a setting is found out after an epoch, or by a library's traceback."""
    run = Run(tmp_path / "run")
    with pytest.raises(UserError, match=re.escape(message)):
        train(compose_small(run.directory, setting), run)
    assert not run.exists


def test_a_missing_compiler_is_said_before_a_run_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Breaks if compile=true without a compiler ends in Inductor's traceback."""
    monkeypatch.setenv("CXX", "/nowhere/c++")
    monkeypatch.setattr("torch._inductor.config.cpp.cxx", ("/nowhere/c++",))  # read at import
    run = Run(tmp_path / "run")
    with pytest.raises(UserError, match=r"needs a C\+\+ compiler, and there is none .CXX=/nowhere"):
        train(compose_tiny(run.directory, "compile=true"), run)
    assert not run.exists


@pytest.mark.parametrize(
    "settings",
    [
        ("trainer.check_val_every_n_epoch=5",),
        ("+trainer.limit_val_batches=0",),
        ("+trainer.max_steps=2",),
        ("trainer.check_val_every_n_epoch=null", "+trainer.val_check_interval=500"),
        ("trainer.check_val_every_n_epoch=5", "callbacks=[default,ema]"),
    ],
)  # fmt: skip
def test_a_training_that_never_validates_keeps_its_last_epoch(
    settings: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Breaks if such a training ends failed, or its score claims a choice that there was not."""
    run = Run(tmp_path / "run")
    summary = train(compose_tiny(run.directory, "test=true", *settings), run)
    assert summary["state"] == "finished" and summary["epoch_chosen"] is False
    assert "no epoch was validated: the last one is the result" in capsys.readouterr().out
    assert summary["test_conditions"]["selection"] == "the last epoch, none was chosen"
    best, last = (torch.load(p, weights_only=True) for p in (run.best_path, run.last_path))
    assert best["epoch"] == last["epoch"] == summary["best_epoch"] - 1 == summary["epochs"] - 1
    assert "optimizer_states" not in best
    for name, tensor in last["state_dict"].items():
        assert torch.equal(best["state_dict"][name], tensor)


@pytest.mark.parametrize(
    "settings",
    [
        ("+trainer.fast_dev_run=true",),
        ("trainer.check_val_every_n_epoch=5", "callbacks.last=null"),
    ],
)
def test_a_training_that_keeps_nothing_is_not_tested(
    settings: tuple[str, ...], tmp_path: Path
) -> None:
    """Breaks if a finished training without any checkpoint is called failed."""
    run = Run(tmp_path / "run")
    summary = train(compose_tiny(run.directory, "test=true", *settings), run)
    assert summary["state"] == "finished" and "best_epoch" not in summary


def test_stopping_by_what_is_never_measured_is_one_line(tmp_path: Path) -> None:
    """Breaks if early stopping without a validation ends in Lightning's traceback."""
    settings = ("callbacks=[default,early_stopping]", "+trainer.limit_val_batches=0")
    config = compose_tiny(tmp_path / "run", *settings)
    failing(tmp_path / "run", "monitor=val/iou is never logged; logged are", config)


def test_a_best_checkpoint_removed_before_the_test_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Breaks if files removed by someone else end in a traceback."""

    def remove(self: SegmentationModule) -> None:
        if self.current_epoch == 3:
            (tmp_path / "run" / "checkpoints" / "best.ckpt").unlink()

    monkeypatch.setattr(SegmentationModule, "on_train_epoch_start", remove)
    config = compose_tiny(tmp_path / "run", "optimizer.lr=0")  # the first epoch stays the best
    failing(tmp_path / "run", "has no best.ckpt: it was removed, or .* from_run=", config)


@pytest.mark.parametrize("epoch", [0, 2])
def test_a_run_removed_while_training_is_one_line(
    epoch: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Breaks if a removed run comes back as a folder with a few files."""
    run = Run(tmp_path / "run")

    def remove(self: SegmentationModule) -> None:
        if self.current_epoch == epoch:
            shutil.rmtree(run.directory)

    monkeypatch.setattr(SegmentationModule, "on_train_epoch_start", remove)
    with pytest.raises(UserError, match="run was removed while training"):
        train(compose_tiny(run.directory), run)
    assert not run.directory.exists()


@pytest.mark.parametrize("workers", [0, 2])
def test_an_image_that_vanished_is_one_line(
    workers: int, folder_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Breaks if a file lost while training ends in a traceback, a worker's above all."""
    directory = folder_data.parent / "run"
    settings = ["data=folder", f"data.root={folder_data}", f"data.num_workers={workers}"]
    config = compose_small(directory, *settings, "data.cache=off")

    def remove(*_: Any) -> None:
        for image in (folder_data / "images").iterdir():
            image.unlink()

    monkeypatch.setattr(SegmentationModule, "on_fit_start", remove)
    failing(directory, rf"images/.*\.png: cannot be read .* resume={directory}$", config)


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGBUS])
def test_a_killed_worker_is_one_line(
    signum: signal.Signals, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Breaks if memory that ran out in a worker ends in a traceback without a way on."""
    config = compose_tiny(tmp_path / "run")
    config.data.num_workers = 1

    def kill(*_: Any) -> None:
        for child in multiprocessing.active_children():
            os.kill(child.pid or 0, signum)
        time.sleep(5)  # until its end is noticed

    monkeypatch.setattr(SegmentationModule, "on_train_epoch_start", kill)
    failing(tmp_path / "run", r"batches was killed .* data.num_workers=0$", config)


def test_advice_on_memory_follows_the_config(tmp_path: Path) -> None:
    """Breaks if the advice halves a batch of one, or names the precision already in use."""
    config = compose_tiny(tmp_path, "data.batch_size=1", "trainer.precision=bf16-mixed")
    text = out_of_memory(config)
    assert "batch_size=" not in text and "precision" not in text and "image_size" in text


def test_another_failure_keeps_its_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Breaks if a bug is dressed up as a user's mistake, or the run still says running."""

    def training_step(*_: Any) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(SegmentationModule, "training_step", training_step)
    run = Run(tmp_path / "run")
    with pytest.raises(RuntimeError, match="a bug"):
        train(compose_tiny(run.directory), run)
    assert json.loads(run.summary_path.read_text())["state"] == "failed"


class Counting(TorchDispatchMode):
    """Counts what makes the host wait for a device."""

    def __init__(self) -> None:
        super().__init__()
        self.waits = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func.overloadpacket in (torch.ops.aten._local_scalar_dense, torch.ops.aten.nonzero):
            self.waits += 1
        return func(*args, **(kwargs or {}))


def test_no_step_waits_for_the_device(tmp_path: Path) -> None:
    """Breaks if a number is read from the device at every training step."""
    waits = []
    for count in (20, 60):
        config = compose_tiny(
            tmp_path / str(count), f"data.count={count}", "trainer.max_epochs=1", "optimizer=sgd",
            "+trainer.limit_val_batches=0", "+trainer.enable_checkpointing=false",
        )  # fmt: skip
        config.callbacks = {"divergence": config.callbacks.divergence}
        run = Run(tmp_path / str(count))
        data, module = build_data(config), build_module(config)
        trainer = build_trainer(config, module, run)
        counting = Counting()
        with counting:
            trainer.fit(module, datamodule=data)
        waits.append(counting.waits)
    assert waits[0] == waits[1]


def test_divergence_looks_rarely(monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks if the losses are read one by one."""
    looks: list[int] = []
    callback = Divergence(every=5)

    def look(self: Divergence, _: Any) -> None:
        looks.append(len(self._losses))
        self._losses, self._batches = [], []

    monkeypatch.setattr(Divergence, "_look", look)

    class Trainer:
        is_last_batch = False

    for step in range(12):
        Trainer.is_last_batch = step == 11
        outputs, batch = {"loss": torch.tensor(1.0)}, {"index": [step]}
        callback.on_train_batch_end(Trainer(), None, outputs, batch, step)  # type: ignore[arg-type]
    assert looks == [5, 5, 2]


def test_full_disk_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks if a full disk shows a traceback instead of the way to go on."""

    def no_space(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device", "metrics.csv")

    monkeypatch.setattr("anatosegnet.training.callbacks.write_rows", no_space)
    failing(tmp_path / "run", "No space left on device: metrics.csv; .* resume=")


@pytest.mark.parametrize("name", ["metrics.csv", "last.ckpt", "best.ckpt"])
def test_a_disk_that_fails_is_one_line(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Breaks if a disk that turns read-only while training ends in a traceback."""
    whole = os.replace

    def replace(source: Any, target: Any) -> None:
        if Path(target).name == name:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(source), None, str(target))
        whole(source, target)

    monkeypatch.setattr(os, "replace", replace)
    failing(tmp_path / "run", r"Read-only file system.* resume=")


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Pretends to be another machine."""

    def pretend(cuda: bool, bf16: bool) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda *_: bf16)
        for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
            monkeypatch.setattr(torch.cpu, name, lambda: bf16, raising=False)

    return pretend


@pytest.mark.parametrize(
    ("cuda", "bf16", "expected"),
    [(True, True, "bf16-mixed"), (True, False, "16-mixed"),
     (False, True, "bf16-mixed"), (False, False, "32-true")],
)  # fmt: skip
def test_precision_follows_the_device(
    cuda: bool, bf16: bool, expected: str, machine: Callable[..., None]
) -> None:
    """Breaks if auto picks what the device emulates, or overrules what was asked for."""
    machine(cuda, bf16)
    config = compose("trainer=auto")
    settle_precision(config)
    assert config.trainer.precision == expected
    for fixed in ("trainer=cpu", "trainer.precision=32-true"):
        config = compose(fixed)
        settle_precision(config)
        assert config.trainer.precision == "32-true"
