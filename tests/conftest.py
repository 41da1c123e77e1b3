"""Small cases shared by the tests, and the real data where there is some."""

import os
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

pytest_plugins = ["tests.running", "tests.browser", "tests.commands"]


def write_png(path: Path, pixels: np.ndarray) -> Path:
    """Write an image, making its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), pixels)
    return path


def grey_image(seed: int = 0, size: tuple[int, int] = (40, 50)) -> np.ndarray:
    """(H, W) uint8 noise."""
    return np.random.default_rng(seed).integers(0, 256, size, dtype=np.uint8)


def square_mask(size: tuple[int, int] = (40, 50), at: int = 10) -> np.ndarray:
    """(H, W) uint8 in {0, 255}: a square of 10 × 10 pixels."""
    mask = np.zeros(size, np.uint8)
    mask[at : at + 10, at : at + 10] = 255
    return mask


@pytest.fixture(scope="session", autouse=True)
def cache_directory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A cache of resized cases that lives as long as the tests: never the user's own."""
    directory = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ANATOSEGNET_CACHE_DIR", str(directory))
        yield directory


@pytest.fixture(autouse=True)
def fixed_seed() -> None:
    """Weights and inputs of a test do not depend on which tests its process ran before."""
    torch.manual_seed(0)


@pytest.fixture
def no_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    """No model hub answers, and nothing of one lies in the cache."""

    def refuse(*_: object, **__: object) -> None:
        raise OSError("no network")

    pretrained = "anatosegnet.models.pretrained"
    monkeypatch.setattr(f"{pretrained}.urllib.request.urlopen", refuse)
    monkeypatch.setattr(
        f"{pretrained}.huggingface_hub.try_to_load_from_cache", lambda *_, **__: None
    )


@pytest.fixture
def real_data() -> Path:
    """The folder of the real datasets; skips where it is not to be had."""
    folder = os.environ.get("ANATOSEGNET_DATA_DIR")
    if not folder or not Path(folder).is_dir():
        pytest.skip("ANATOSEGNET_DATA_DIR does not point to the real datasets")
    return Path(folder)


@pytest.fixture
def busi_release(tmp_path: Path) -> Path:
    """BUSI's release layout, tiny: 3 benign (one with two masks), 2 malignant, 1 normal."""
    root = tmp_path / "Dataset_BUSI_with_GT"
    for label, count in (("benign", 3), ("malignant", 2), ("normal", 1)):
        for number in range(1, count + 1):
            stem = f"{label} ({number})"
            write_png(root / label / f"{stem}.png", grey_image(number))
            mask = np.zeros((40, 50), np.uint8) if label == "normal" else square_mask()
            write_png(root / label / f"{stem}_mask.png", mask)
    write_png(root / "benign" / "benign (2)_mask_1.png", square_mask(at=25))
    return root


@pytest.fixture
def folder_data(tmp_path: Path) -> Path:
    """Someone's images/ and labels/: 20 cases."""
    root = tmp_path / "folder"
    for number in range(20):
        label = "benign" if number % 3 else "malignant"
        write_png(root / "images" / f"{label}_{number}.png", grey_image(number))
        write_png(root / "labels" / f"{label}_{number}.png", square_mask())
    return root
