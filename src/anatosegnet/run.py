"""A run directory: what is in it, written once, read everywhere.

``config.yaml`` (resolved), ``summary.json``, ``split.csv``, ``duplicates.csv``, ``metrics.csv``,
``curves.png``, ``panels/``, ``checkpoints/best.ckpt`` (weights of the best epoch),
``checkpoints/last.ckpt`` (to go on) and ``checkpoints/previous.ckpt`` (the one before). A published
run has no more than config, summary and tables, these packed: ``split.csv.gz``; a package has
``model.safetensors`` and a model card beside them.
"""

import os
import platform
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from anatosegnet.config.places import user_path
from anatosegnet.config.recorded import read_config, written_config
from anatosegnet.errors import UserError, reason
from anatosegnet.files.hub import SCHEME, fetch
from anatosegnet.files.locks import Claim, Holder, holder
from anatosegnet.files.opening import kept, read_json
from anatosegnet.files.weights import NAME as PACKED
from anatosegnet.files.writing import remove_leftovers, replacing, write_json

CHANGED_DATA = "changed data"  # among the conditions of a score
PACKAGES = (
    "anatosegnet", "torch", "torchvision", "lightning", "hydra-core", "timm", "monai",
    "albumentations", "opencv-python-headless", "numpy", "torchmetrics",
)  # fmt: skip


class Run:
    """Paths and files of one run directory.

    Args:
        directory: The directory; it need not exist yet.
        trust: Packages whose objects its recorded config may build, beside the known kinds.
    """

    def __init__(self, directory: str | Path, trust: Sequence[str] = ()) -> None:
        self.directory = user_path(directory)
        self.address: str | None = None  # that it was fetched from
        self.trust = tuple(trust)
        self.config_path = self.directory / "config.yaml"
        self.summary_path = self.directory / "summary.json"
        self.split_path = kept(self.directory / "split.csv")
        self.duplicates_path = kept(self.directory / "duplicates.csv")
        self.metrics_path = kept(self.directory / "metrics.csv")
        self.curves_path = self.directory / "curves.png"
        self.best_path = weights_of(self.directory)
        self.last_path = self.directory / "checkpoints" / "last.ckpt"
        self.previous_path = self.directory / "checkpoints" / "previous.ckpt"
        self.claim = Claim(self.directory / ".lock")

    @classmethod
    def open(
        cls, directory: str | Path | None, usage: str = "run=DIR", trust: Sequence[str] = ()
    ) -> "Run":
        """A run that exists, or a package of a hub (``hf://…``); UserError where there is none."""
        if directory is None:
            raise UserError(f"say which run: {usage}, a directory that training wrote")
        if not isinstance(directory, str | Path):
            raise UserError(f"run={directory} must be one run: {usage}")
        address = str(directory) if str(directory).startswith(SCHEME) else None
        run = cls(fetch(address) if address else directory, trust)
        run.address = address
        if not run.exists:
            raise UserError(f"{directory} is no run directory: it has no config.yaml")
        return run

    def require_new(self) -> None:
        """UserError if the directory already holds a run: nothing is ever overwritten."""
        if self.config_path.exists() or self.best_path.parent.exists():
            raise UserError(
                f"{self.directory} already holds a run; give another run_dir=DIR, or go on with "
                f"it: resume={self.directory}"
            )

    @property
    def holder(self) -> Holder | None:
        """The process that trains here."""
        return holder(self.claim.path)

    @property
    def state(self) -> str:
        """How far it is: waiting, running, interrupted, preempted, failed, finished.

        Stopped is one that says that it runs, but whose process is gone.
        """
        said = str(self.summary.get("state")) if self.exists else "waiting"
        if said not in ("running", "waiting"):
            return said
        return "running" if self.holder else "stopped" if said == "running" else said

    @property
    def exists(self) -> bool:
        """Whether a run began here: its config was written."""
        return self.config_path.is_file()

    def require_no_way_out(self) -> None:
        """UserError if what is going to be written here would be written elsewhere.

        A run that was handed over may hold a link to a folder of yours.
        """
        for folder, names, files in os.walk(self.directory):
            for path in (Path(folder, name) for name in [*names, *files]):
                # a link in the place of a file that is there is replaced, not written through
                if path.is_symlink() and path.is_file() and path.name != ".lock":
                    continue
                if path.is_symlink() and not below(path, self.directory):
                    raise UserError(
                        f"{path} is a link out of the run, so that something would be written "
                        "elsewhere; remove it, or link the whole run instead"
                    )
        if self.claim.path.exists() and not self.claim.path.is_file():
            raise UserError(f"{self.claim.path} is not a file; remove it")

    def take_new(self) -> bool:
        """Take a new directory for this process, until the end of `locked`.

        Returns:
            Whether it is ours now: it held no run and is taken by no other process.
        """
        if not self.claim.take():
            return False
        if self.exists or self.best_path.parent.exists():
            self.claim.release()
            return False
        return True

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes from training in this directory; a kill opens it again.

        Raises:
            UserError: Another process trains here, or a link leads out of the run.
        """
        self.require_no_way_out()
        if not (self.claim.is_taken or self.claim.take()):
            raise UserError(f"{self.directory} is being trained by {self.holder}")
        remove_leftovers(self.directory, deep=True)
        try:
            yield
        finally:
            self.claim.release()
            with suppress(OSError):
                self.directory.rmdir()  # where nothing came of it, it is empty

    @property
    def config(self) -> DictConfig:
        """The run's config, as resolved when it started; see `recorded.read_config`."""
        return read_config(self.config_path, self.directory, self.trust)

    def write_config(self, config: DictConfig) -> None:
        """Write the config with every interpolation resolved."""
        text = written_config(config)
        with replacing(self.config_path) as path:
            path.write_text(text, encoding="utf-8")

    @property
    def summary(self) -> dict[str, Any]:
        """What ``summary.json`` holds; empty if there is none yet."""
        if not self.summary_path.is_file():
            return {}
        try:
            return read_json(self.summary_path)
        except (OSError, ValueError) as error:
            raise UserError(f"{self.summary_path} cannot be read ({reason(error)})") from error

    def update_summary(self, entries: Mapping[str, Any]) -> dict[str, Any]:
        """Add entries to ``summary.json`` and return all of them."""
        summary = {**self.summary, **entries}
        write_json(self.summary_path, summary)
        return summary


def runs_below(directory: Path) -> Iterator[Path]:
    """Directories with a ``config.yaml``, in no order; nothing below them is a run."""
    seen = set[Path]()  # links may lead in a circle
    for place, folders, files in os.walk(directory, followlinks=True):
        if "config.yaml" in files:
            folders.clear()
            yield Path(place)
        folders[:] = [name for name in folders if not name.startswith(".")]
        real = Path(place).resolve()
        if real in seen:
            folders.clear()
        seen.add(real)


def weights_of(directory: Path) -> Path:
    """Where the weights of the best epoch are: as training saves them or, in a package, alone."""
    saved, packed = directory / "checkpoints" / "best.ckpt", directory / PACKED
    return packed if os.path.lexists(packed) and not os.path.lexists(saved) else saved


def below(path: Path, directory: Path) -> bool:
    """Whether a path leads to a place inside a directory."""
    with suppress(OSError, RuntimeError):  # RuntimeError: a link to itself
        return path.resolve().is_relative_to(directory.resolve())
    return False


def environment() -> dict[str, Any]:
    """What is needed to repeat a run: versions, git commit, machine."""
    import torch

    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "not installed"
    machine = f"{platform.machine()}, {os.cpu_count()} cores"
    if torch.cuda.is_available():
        machine += f", {torch.cuda.device_count()} × {torch.cuda.get_device_name()}"
    return {"versions": versions, "git_commit": git_commit(), "machine": machine}


def git_commit() -> str | None:
    """Commit of the checkout this package runs from (``-dirty`` if changed), None in a wheel."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None
    try:
        result = subprocess.run(
            [
                "git",
                "-C",
                str(root),
                "describe",
                "--always",
                "--dirty",
                "--abbrev=40",
                "--exclude=*",
            ],
            capture_output=True,
            text=True,
            check=True,
            timeout=10,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return result.stdout.strip()
