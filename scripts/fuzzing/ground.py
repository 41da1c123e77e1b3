"""What is attacked: a small dataset and finished runs on it, copied for each trial."""

import os
import shutil
import sys
import tempfile
from pathlib import Path

import cv2
import numpy as np

from fuzzing.attempts import Limits, attempt, watched

CASES = 16
# a network of eight weights: a training takes a second
SMALL = (
    "model=tiny", "augmentation=light", "data.image_size=32", "data.batch_size=4",
    "data.num_workers=0", "trainer=cpu", "trainer.max_epochs=2",
)  # fmt: skip
TINY = "_target_: torch.nn.Conv2d\nin_channels: 3\nout_channels: 2\nkernel_size: 1\n"
KEPT = {"keep.txt": b"mine\n", "sub/index.json": b"{}\n", "sub/image.png": b"not yours\n"}


def train_arguments(ground: Path) -> list[str]:
    """Arguments of a small training, whose network is in a config folder of its own."""
    return ["--config-dir", str(ground / "configs"), *SMALL]


def make_ground(folder: Path) -> Path:
    """Write a dataset and train two runs on it, which are evaluated.

    Raises:
        SystemExit: Something failed though nothing was attacked.
    """
    (folder / "configs" / "model").mkdir(parents=True)
    (folder / "configs" / "model" / "tiny.yaml").write_text(TINY)
    (folder / "tmp").mkdir()
    write_data(folder / "data")
    for name, seed in (("run", 0), ("other", 1)):
        train = [*train_arguments(folder), "data=folder", f"data.root={folder / 'data'}",
                 "split.fractions=[0.5,0.25,0.25]", f"seed={seed}",
                 f"run_dir={folder / name}"]  # fmt: skip
        for arguments in (["train", *train], ["evaluate", f"run={folder / name}"]):
            outcome = attempt(arguments, folder, Limits(seconds=300))
            if outcome.verdict != "accepted":
                sys.exit(f"nothing was attacked, but {arguments} failed:\n{outcome.text}")
    return folder


def write_data(folder: Path) -> None:
    """Grey pictures of noise, each with a dark square that its mask shows."""
    for part in ("images", "labels"):
        (folder / part).mkdir(parents=True)
    for number in range(CASES):
        generator = np.random.default_rng(number)
        image = generator.integers(90, 256, (40, 50), dtype=np.uint8)
        mask = np.zeros((40, 50), np.uint8)
        row, column = generator.integers(2, 26, 2)
        mask[row : row + 10, column : column + 12] = 255
        image[mask > 0] //= 3
        name = f"{('benign', 'malignant')[number % 2]}_{number}.png"
        cv2.imwrite(str(folder / "images" / name), image)
        cv2.imwrite(str(folder / "labels" / name), mask)
    rows = [f"{path.stem},p{index // 2}" for index, path in enumerate(
        sorted((folder / "images").iterdir()))]  # fmt: skip
    (folder / "cases.csv").write_text("\n".join(["id,group", *rows]) + "\n")


class Sandbox:
    """The folders of one trial, removed at its end.

    ``run`` and ``other`` are runs, ``data`` what they were trained on, ``work`` the working
    directory, ``victim`` what nobody may touch.

    Args:
        ground: From `make_ground`.
    """

    def __init__(self, ground: Path) -> None:
        self.ground = ground
        self.folder = Path(tempfile.mkdtemp(dir=ground / "tmp"))
        for name in ("run", "other", "data", "work", "victim", "tmp", "home"):
            setattr(self, name, self.folder / name)
        for name in ("run", "other", "data"):
            shutil.copytree(ground / name, self.folder / name)
        for name in ("work", "victim", "tmp", "home"):
            (self.folder / name).mkdir()
        for name, content in KEPT.items():
            path = self.folder / "victim" / name
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(content)
        for run in ("run", "other"):  # as if the runs had been trained here
            for name in ("config.yaml", "summary.json"):
                path = self.folder / run / name
                text = path.read_text()
                path.write_text(text.replace(str(ground / "data"), str(self.folder / "data")))
        self.canary = self.folder / "executed"

    run: Path
    other: Path
    data: Path
    work: Path
    victim: Path
    tmp: Path
    home: Path

    def limits(self, seconds: float) -> Limits:
        """Where a trial may write, and how long it may take."""
        writable = [self.run, self.other, self.work, self.tmp, self.ground / "cache"]
        return Limits(seconds=seconds, writable=writable, home=self.home, tmp=self.tmp)

    def harm(self) -> list[str]:
        """What a trial did that nobody may do."""
        found = []
        if self.canary.exists():
            found.append("executed: the payload ran")
        kept = {
            str(path.relative_to(self.victim)): path.read_bytes()
            for path in self.victim.rglob("*")
            if path.is_file() and not path.is_symlink()
        }
        if kept != KEPT:
            found.append(f"outside: the other folder now holds {sorted(kept)}")
        return found

    def listing(self) -> set[str]:
        """What lies in the working directory."""
        return {str(path.relative_to(self.work)) for path in self.work.rglob("*")}

    def tells(self, secret: bytes) -> list[str]:
        """Files that a trial wrote and that hold what only the environment knows."""
        found = []
        for folder, _, files in os.walk(self.folder):
            for name in files:
                path = Path(folder, name)
                small = watched(path) and path.stat().st_size < 2**20
                if small and secret in path.read_bytes():
                    found.append(f"secret: of the environment, in {path.name}")
        return found

    def remove(self) -> None:
        """Take everything away."""
        shutil.rmtree(self.folder, ignore_errors=True)
