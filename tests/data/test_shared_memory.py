"""Shared memory that is too small: said before or during training, never waited for."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from anatosegnet.data import shared_memory
from anatosegnet.data.dataset import EpochSampler, SegmentationDataset, loader
from anatosegnet.errors import UserError
from anatosegnet.run import Run
from anatosegnet.train import train
from tests.running import compose_tiny
from tests.tiny import tiny_data


def test_too_little_room_is_said_before_a_run_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Breaks if a container's small /dev/shm is found out by waiting for ever."""
    monkeypatch.setattr(shared_memory, "free_bytes", lambda: 30_000)
    config = compose_tiny(tmp_path / "run", "data.num_workers=2")
    with pytest.raises(UserError, match=r"0 MB free, .* 2 workers .*--shm-size.*workers=1$"):
        train(config, Run(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_what_is_under_way_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks if too much is asked for, or too little: of grey phantoms, batches of 4, 32 px."""
    data = tiny_data("data.num_workers=4").prepared
    batch = 4 * 2 * 32 * 32
    assert shared_memory.batch_bytes(data) == batch
    needed = 3 * batch  # 7 training cases are two batches; one more is being used
    monkeypatch.setattr(shared_memory, "free_bytes", lambda: needed)
    shared_memory.require_shared_memory(data)
    monkeypatch.setattr(shared_memory, "free_bytes", lambda: needed - 1)
    with pytest.raises(UserError):
        shared_memory.require_shared_memory(data)
    shared_memory.require_shared_memory(tiny_data("data.num_workers=0").prepared)


class Unsendable(SegmentationDataset):
    """Items that no process can give to another."""

    def __getitem__(self, key: Any) -> dict[str, Any]:
        return {**super().__getitem__(key), "index": lambda: 0}


def test_a_batch_that_cannot_be_sent_is_noticed() -> None:
    """Breaks if a worker loses a batch and the training waits for it: as with full memory."""
    sound = tiny_data().dataset("train")
    dataset = Unsendable(sound.names, sound.resized)
    batches = loader(dataset, EpochSampler(len(dataset)), 4, workers=1, seed=0)
    with pytest.raises(RuntimeError, match="worker"):
        next(iter(batches))


@pytest.mark.slow
@pytest.mark.parametrize("known", [True, False])
def test_a_full_shared_memory(known: bool, tmp_path: Path) -> None:
    """Breaks if a training in a container with 4 MB of /dev/shm does not end in one line."""
    mount = "mount -t tmpfs -o size=4m tmpfs /dev/shm"
    if subprocess.run(["unshare", "-m", "sh", "-c", mount], capture_output=True).returncode:
        pytest.skip("only root may mount a smaller /dev/shm")
    program = "from anatosegnet.train import main; main()"
    if not known:  # what takes the room comes later
        program = (
            f"import anatosegnet.data.shared_memory as m; m.free_bytes = lambda: None; {program}"
        )
    settings = [
        "data.count=40", "data.image_size=512", "data.batch_size=8", "data.num_workers=2",
        "augmentation=none", "model.encoder=resnet18", "model.pretrained=false", "trainer=cpu",
        "trainer.max_epochs=1", f"run_dir={tmp_path / 'run'}",
    ]  # fmt: skip
    command = ["unshare", "-m", "sh", "-c", f'{mount} && exec "$@"', "sh", sys.executable, "-c"]
    result = subprocess.run(
        [*command, program, *settings], capture_output=True, text=True, timeout=300
    )
    assert result.returncode == 2, result.stderr
    assert "--shm-size" in result.stderr.splitlines()[-1]
    assert (tmp_path / "run").exists() == (not known)
    assert "Traceback" not in result.stderr
