"""Checkpoints of other hands: whatever lies in their place, it is one line or the one before."""

import os
import pickle
import random
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from anatosegnet.errors import UserError
from anatosegnet.files.checkpoint import UnusableCheckpoint, read_checkpoint
from anatosegnet.prediction.inference import Predictor, find_device
from anatosegnet.run import Run
from anatosegnet.train import train
from anatosegnet.training.build import build_module
from anatosegnet.training.checkpoints import usable_checkpoint
from anatosegnet.training.module import SegmentationModule
from anatosegnet.training.transfer import load_weights
from tests.running import compose_tiny


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run of two epochs of a network of two layers; read only."""
    run = Run(tmp_path_factory.mktemp("tiny") / "run", trust=["tests"])
    train(compose_tiny(run.directory, "trainer.max_epochs=2"), run)
    return run


@pytest.fixture
def run(finished: Run, tmp_path: Path) -> Run:
    """A copy to be damaged."""
    shutil.copytree(finished.directory, tmp_path / "run")
    return Run(tmp_path / "run", trust=["tests"])


def module_of(run: Run) -> SegmentationModule:
    """The module that a resumed run would train."""
    return build_module(run.config)


class Hostile:
    """Pickled as a call."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


def changed(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    """Damage: a sound file with changed content."""

    def damage(path: Path) -> None:
        checkpoint = torch.load(path, weights_only=True)
        change(checkpoint)
        torch.save(checkpoint, path)

    return damage


def first_weight(checkpoint: dict[str, Any]) -> Any:
    """A tensor of the network."""
    return checkpoint["state_dict"]["model.layers.0.weight"]


def flip(path: Path) -> None:
    """One bit of the stored numbers."""
    content = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        entry = max(archive.infolist(), key=lambda info: info.file_size)
    content[entry.header_offset + 200] ^= 1
    path.write_bytes(content)


def bomb(path: Path) -> None:
    """A zip of a few kB that unpacks to 64 MB."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({"state_dict": {}}, protocol=2))
        archive.writestr("archive/data/0", bytes(2**26))


def replaced(make: Callable[[Path], Any]) -> Callable[[Path], None]:
    """Damage: something else in the file's place."""

    def damage(path: Path) -> None:
        path.unlink()
        make(path)

    return damage


def nest(checkpoint: dict[str, Any]) -> None:
    """Lists of one another: 2^40 of them to who walks through."""
    node: list[Any] = []
    for _ in range(40):
        node = [node, node]
    checkpoint["callbacks"] = node


DAMAGE: dict[str, Callable[[Path], Any]] = {
    "empty": lambda path: path.write_bytes(b""),
    "random bytes": lambda path: path.write_bytes(random.Random(0).randbytes(5000)),
    "a page": lambda path: path.write_text("<!DOCTYPE html><html><body>404</body></html>"),
    "a pickle's text": lambda path: path.write_bytes(b"cos\nsystem\n(S'true'\ntR."),
    "a bare pickle": lambda path: path.write_bytes(pickle.dumps({"state_dict": {}})),
    "a tensor of old": lambda path: torch.save(
        {"state_dict": {}}, path, _use_new_zipfile_serialization=False
    ),
    "cut": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "flipped": flip,
    "another zip": lambda path: zipfile.ZipFile(path, "w").writestr("a.txt", "x"),
    "a bomb": bomb,
    "a folder": replaced(Path.mkdir),
    "a pipe": replaced(os.mkfifo),
    "a dead link": replaced(lambda path: path.symlink_to("nowhere")),
    "a device": replaced(lambda path: path.symlink_to("/dev/zero")),
    "a list": lambda path: torch.save([1, 2], path),
    "a tensor": lambda path: torch.save(torch.zeros(3), path),
    "no weights": changed(lambda checkpoint: checkpoint.pop("state_dict")),
    "weights of text": changed(lambda c: c["state_dict"].update({"model.layers.0.weight": "x"})),
    "not a number": changed(lambda c: first_weight(c)[0, 0, 0, 0].fill_(float("nan"))),
    "infinite": changed(lambda c: first_weight(c)[0, 0, 0, 0].fill_(float("inf"))),
    "other names": changed(lambda c: c["state_dict"].update({"model.x": torch.zeros(1)})),
    "fewer names": changed(lambda c: c["state_dict"].pop("model.layers.0.weight")),
    "another shape": changed(
        lambda c: c["state_dict"].update({"model.layers.0.weight": torch.zeros(6, 1, 5, 5)})
    ),
    "spread out": changed(
        lambda c: c.update({"x": torch.zeros(9).as_strided((10**7, 2), (0, 1))})
        or c.update({"y": torch.zeros(10**4).as_strided((5000, 5000), (1, 1))})
    ),
    "an object": changed(lambda c: c.update({"x": Hostile(os.getcwd)})),
    "much memory": changed(lambda c: c.update({"x": Hostile(bytearray, 10**12)})),
}  # fmt: skip
STATE: dict[str, Callable[[Path], Any]] = {  # harmless for who only wants the weights
    "no optimiser": changed(lambda checkpoint: checkpoint.pop("optimizer_states")),
    "an empty optimiser": changed(lambda c: c.update({"optimizer_states": []})),
    "another optimiser": changed(lambda c: c["optimizer_states"][0]["param_groups"].clear()),
    "other moments": changed(
        lambda c: c["optimizer_states"][0]["state"][0].update({"exp_avg": torch.zeros(2)})
    ),
    "no schedule": changed(lambda checkpoint: checkpoint.update({"lr_schedulers": []})),
    "no loops": changed(lambda checkpoint: checkpoint.update({"loops": {}})),
    "no epoch": changed(lambda checkpoint: checkpoint.pop("global_step")),
    "nested": changed(nest),
    "the best": lambda path: shutil.copyfile(path.with_name("best.ckpt"), path),
}


@pytest.mark.parametrize("damage", [*DAMAGE, *STATE])
def test_a_checkpoint_that_cannot_be_used_gives_way_to_the_one_before(
    damage: str, run: Run
) -> None:
    """Breaks if any of this in the place of last.ckpt is loaded, waited for, or a traceback."""
    {**DAMAGE, **STATE}[damage](run.last_path)
    found, remarks = usable_checkpoint(run, module_of(run))
    assert found == run.previous_path
    (remark,) = remarks
    assert remark.startswith(f"{run.last_path} cannot be used (") and "\n" not in remark
    assert len(remark) < 400 and "weights_only" not in remark and "Error(" not in remark


@pytest.mark.parametrize("damage", DAMAGE)
def test_weights_that_cannot_be_used_are_one_line(damage: str, run: Run) -> None:
    """Breaks if a damaged best.ckpt predicts, is evaluated, or starts another training."""
    DAMAGE[damage](run.best_path)
    with pytest.raises(UserError) as caught:
        Predictor.from_run(run, "cpu")
    assert str(run.best_path) in str(caught.value) and "\n" not in str(caught.value)
    if damage in ("other names", "fewer names", "another shape"):
        return  # what does not fit stays behind there, and it is said
    with pytest.raises(UserError) as caught:
        load_weights(module_of(run), run)
    assert str(run.best_path) in str(caught.value)


def test_no_checkpoint_that_can_be_used(run: Run) -> None:
    """Breaks if a run whose checkpoints are all damaged begins anew over what there was."""
    module = module_of(run)
    for path in (run.last_path, run.previous_path):
        path.write_bytes(b"nothing")
    with pytest.raises(UserError, match=r"last.ckpt .*; .*previous.ckpt .* from_run="):
        usable_checkpoint(run, module)
    for path in (run.last_path, run.previous_path):
        path.unlink()
    assert usable_checkpoint(run, module) == (None, [])


def test_a_checkpoint_of_another_network(run: Run, tmp_path: Path) -> None:
    """Breaks if another run's last.ckpt is met by a traceback of torch."""
    other = compose_tiny(tmp_path / "other", "trainer.max_epochs=1")
    other.model = {"_target_": "tests.networks.Plain"}
    train(other, Run(tmp_path / "other"))
    shutil.copyfile(Run(tmp_path / "other").last_path, run.last_path)
    found, (remark,) = usable_checkpoint(run, module_of(run))
    assert found == run.previous_path and "not in this network" in remark


def test_what_is_checked_is_what_was_written(run: Run) -> None:
    """Breaks if the checks refuse a sound file, or one with a repeated or a masked buffer."""
    checkpoint = read_checkpoint(run.last_path)
    assert torch.equal(first_weight(checkpoint), first_weight(torch.load(run.last_path)))
    checkpoint["state_dict"]["mask"] = torch.full((4,), -torch.inf).expand(3, 4)
    torch.save(checkpoint, run.last_path)
    assert read_checkpoint(run.last_path)["state_dict"]["mask"].shape == (3, 4)


def test_a_missing_best_checkpoint_says_why(run: Run) -> None:
    """Breaks if a removed best.ckpt is told as an unfinished epoch, or the reverse."""
    run.best_path.unlink()
    with pytest.raises(UserError, match="it was removed"):
        Predictor.from_run(run)
    run.last_path.unlink()
    with pytest.raises(UserError, match="it was removed, or published without"):
        Predictor.from_run(run)
    run.update_summary({"state": "interrupted"})
    with pytest.raises(UserError, match="no epoch was finished"):
        Predictor.from_run(run)


def test_a_run_that_was_published_is_not_trained_over(run: Run) -> None:
    """Breaks if resuming a finished run without checkpoints begins it anew, over its results."""
    module = module_of(run)
    shutil.rmtree(run.last_path.parent)
    with pytest.raises(UserError, match=r"finished, and has no checkpoints .* from_run="):
        usable_checkpoint(run, module)
    run.update_summary({"state": "interrupted"})
    assert usable_checkpoint(run, module) == (None, [])


def test_the_reader_of_weights_builds_nothing_else(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Breaks if predicting needs the loss or the optimiser that the run was trained with."""
    config = run.config_path.read_text().replace("anatosegnet.losses.DiceCELoss", "nowhere.Loss")
    run.config_path.write_text(config)
    Predictor.from_run(run, "cpu")


def test_unusable_is_a_users_error() -> None:
    """Breaks if a bad checkpoint is no longer one line on stderr."""
    assert issubclass(UnusableCheckpoint, UserError)


@pytest.mark.parametrize("device", ["", "0", 1.5, "gpu", "meta", "cuda:99"])
def test_a_device_that_is_not_there_is_one_line(device: object) -> None:
    """Breaks if a misspelt or missing device is torch's traceback."""
    with pytest.raises(UserError, match=r"^device=.* cannot be used .*give cpu, cuda or auto$"):
        find_device(device)
    assert find_device("cpu") == "cpu"
