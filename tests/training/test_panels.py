"""Pictures of validation cases while training goes on."""

from pathlib import Path
from typing import Any

import cv2
import lightning
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import EarlyStopping
from lightning.pytorch.loggers import Logger, TensorBoardLogger

from anatosegnet.data.case import read_image
from anatosegnet.data.datamodule import SegmentationDataModule
from anatosegnet.report.overlay import FALSE_ALARM, HIT
from anatosegnet.training.panels import BOX, ValidationPanels, panel
from tests.tiny import fit, tiny_data, tiny_module


@pytest.fixture(scope="module")
def data() -> SegmentationDataModule:
    """Ten phantoms."""
    return tiny_data("split.fractions=[0.5,0.3,0.2]")


class Pictures(Logger):
    """A logger that takes pictures, as wandb's does."""

    name, version = "pictures", "0"

    def __init__(self) -> None:
        self.taken: list[tuple[str, np.ndarray, int, list[str]]] = []

    def log_metrics(self, *args: Any, **kwargs: Any) -> None: ...

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None: ...

    def log_image(self, key: str, images: list, step: int, caption: list[str]) -> None:
        self.taken.append((key, images[0], step, caption))


def test_numbers_are_the_same_with_and_without(
    data: SegmentationDataModule, tmp_path: Path
) -> None:
    """Breaks if drawing takes a random number, changes a mode, or leaves the network changed."""
    losses, states = [], []
    for callbacks in ([], [ValidationPanels(tmp_path / "panels", 1, 2)]):
        module = tiny_module(dropout=0.5)
        trainer = fit(module, data, tmp_path / str(len(callbacks)), callbacks=callbacks)
        losses.append({name: float(value) for name, value in trainer.callback_metrics.items()})
        states.append(module.state_dict())
    assert losses[0] == losses[1]
    assert all(torch.equal(tensor, states[1][name]) for name, tensor in states[0].items())


def test_files_and_loggers(data: SegmentationDataModule, tmp_path: Path) -> None:
    """Breaks if an epoch's picture is missing, comes twice, or does not reach the loggers."""
    taker, board = Pictures(), TensorBoardLogger(tmp_path / "board", name="", version="")
    panels = ValidationPanels(tmp_path / "panels", every_n_epochs=3, cases=2)
    fit(tiny_module(), data, tmp_path, callbacks=[panels], logger=[taker, board])
    names = sorted(path.name for path in (tmp_path / "panels").iterdir())
    assert names == ["epoch_003.png", "epoch_004.png"]
    assert [caption for _, _, _, caption in taker.taken] == [["epoch 3"], ["epoch 4"]]
    np.testing.assert_array_equal(taker.taken[1][1], read_image(tmp_path / "panels" / names[1]))
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path / "board")).Reload()
    assert [image.step for image in events.Images("panels")] == [3, 4]


def test_the_last_epoch_is_drawn_wherever_it_was(
    data: SegmentationDataModule, tmp_path: Path
) -> None:
    """Breaks if early stopping leaves the picture of an earlier epoch as the last."""
    stop = EarlyStopping("val/loss", mode="max", patience=1, min_delta=10)
    panels = ValidationPanels(tmp_path / "panels", every_n_epochs=10, cases=1)
    fit(tiny_module(), data, tmp_path, epochs=9, callbacks=[panels, stop])
    assert [path.name for path in (tmp_path / "panels").iterdir()] == ["epoch_002.png"]


@pytest.mark.parametrize(("channels", "normalization"), [(1, "symmetric"), (3, "imagenet")])
def test_image_and_truth_are_those_of_the_case(
    channels: int, normalization: str, tmp_path: Path
) -> None:
    """Breaks if normalised values are drawn, or a mask that is not the case's."""
    settings = [f"data.in_channels={channels}", f"data.normalization={normalization}"]
    data = tiny_data(*settings, "data.image_size=[32,56]", "data.batch_size=1")
    panels = ValidationPanels(tmp_path, every_n_epochs=1, cases=4)
    fit(tiny_module(in_channels=channels), data, tmp_path, epochs=1, callbacks=[panels])
    sheet = read_image(tmp_path / "epoch_001.png")
    dataset = data.dataset("val")
    assert len(dataset) == 1  # fewer than four cases
    image, mask = data.prepared.resized[dataset.names[0]]
    for picture in (image[..., 0], mask * np.uint8(255)):
        big = np.kron(picture, np.ones((4, 4), np.uint8))  # 32 × 56 -> 128 × 224
        match = cv2.matchTemplate(sheet[..., 0], big, cv2.TM_CCOEFF_NORMED)
        _, score, _, (x, y) = cv2.minMaxLoc(match)
        cell = sheet[y : y + 128, x : x + BOX[1]]
        assert score > 0.97
        assert cell.mean() == pytest.approx(picture.mean(), rel=0.05)


def test_errors_are_tinted_and_scored() -> None:
    """Breaks if hits and false alarms lose their colours, or a long name runs over the score."""
    image = np.full((64, 64, 3), 90, np.uint8)
    truth, prediction = np.zeros((2, 64, 64), bool)
    truth[10:30, 10:30] = prediction[10:30, 10:30] = prediction[40:50, 40:50] = True
    short, long = (
        panel("title", [(name, image, truth, prediction)] * 3) for name in ("a", "a" * 99)
    )
    for colour in (HIT, FALSE_ALARM):
        assert (short == colour).all(axis=2).any()
    assert short.shape == long.shape


def test_a_full_disk_does_not_stop_training(
    data: SegmentationDataModule, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Breaks if a picture that cannot be written ends the run."""
    (tmp_path / "panels").write_text("a file where the folder should be")
    panels = ValidationPanels(tmp_path / "panels", every_n_epochs=1, cases=1)
    trainer = fit(tiny_module(), data, tmp_path / "run", epochs=1, callbacks=[panels])
    assert isinstance(trainer, lightning.Trainer)
    assert "epoch_001.png was not written" in capsys.readouterr().err
