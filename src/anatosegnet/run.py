"""A run directory: what is in it, written once, read everywhere.

``config.yaml`` (resolved), ``summary.json``, ``split.csv``, ``duplicates.csv``, ``metrics.csv``,
``curves.png``, ``panels/``, ``checkpoints/best.ckpt`` (weights of the best epoch),
``checkpoints/last.ckpt`` (to go on) and ``checkpoints/previous.ckpt`` (the one before).
"""

import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from omegaconf import DictConfig

from anatosegnet.errors import UserError, reason
from anatosegnet.opening import read_json
from anatosegnet.places import user_path
from anatosegnet.recorded import read_config, written_config

PACKAGES = (
    "anatosegnet", "torch", "torchvision", "lightning", "hydra-core", "timm", "monai",
    "albumentations", "opencv-python-headless", "numpy", "torchmetrics",
)  # fmt: skip

HELD = ".held"  # locked in a temporary directory while its process lives
TEMPORARY = re.compile(r"\.anatosegnet-[0-9a-f]{12}\.\d+\.tmp(\.\w+)?")


class Run:
    """Paths and files of one run directory.

    Args:
        directory: The directory; it need not exist yet.
        trust: Packages whose objects its recorded config may build, beside the known kinds.
    """

    def __init__(self, directory: str | Path, trust: Sequence[str] = ()) -> None:
        self.directory = user_path(directory)
        self.trust = tuple(trust)
        self.config_path = self.directory / "config.yaml"
        self.summary_path = self.directory / "summary.json"
        self.split_path = self.directory / "split.csv"
        self.duplicates_path = self.directory / "duplicates.csv"
        self.metrics_path = self.directory / "metrics.csv"
        self.curves_path = self.directory / "curves.png"
        self.best_path = self.directory / "checkpoints" / "best.ckpt"
        self.last_path = self.directory / "checkpoints" / "last.ckpt"
        self.previous_path = self.directory / "checkpoints" / "previous.ckpt"

    @classmethod
    def open(
        cls, directory: str | Path | None, usage: str = "run=DIR", trust: Sequence[str] = ()
    ) -> "Run":
        """A run that exists; UserError if the directory holds none."""
        if directory is None:
            raise UserError(f"say which run: {usage}, a directory that training wrote")
        run = cls(directory, trust)
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
    def exists(self) -> bool:
        """Whether a run began here: its config was written."""
        return self.config_path.is_file()

    def require_no_way_out(self) -> None:
        """UserError if what is going to be written here would be written elsewhere.

        A run that was handed over may hold a link to a folder of yours.
        """
        for folder, names, files in os.walk(self.directory):
            for name in [*names, *(name for name in files if name == ".lock")]:
                path = Path(folder, name)
                if path.is_symlink() and not below(path, self.directory):
                    raise UserError(
                        f"{path} is a link out of the run, so that something would be written "
                        "elsewhere; remove it, or link the whole run instead"
                    )
        lock = self.directory / ".lock"
        if lock.exists() and not lock.is_file():
            raise UserError(f"{lock} is not a file; remove it")

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes from training in this directory; a kill opens it again.

        Raises:
            UserError: Another process trains here, or a link leads out of the run.
        """
        self.require_no_way_out()
        self.directory.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.directory / ".lock")
        try:
            lock.acquire(timeout=0)
        except Timeout as error:
            raise UserError(f"{self.directory} is being trained by another process") from error
        remove_leftovers(self.directory, deep=True)
        try:
            yield
        finally:
            lock.release()
            with suppress(OSError):
                (self.directory / ".lock").unlink()
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


def below(path: Path, directory: Path) -> bool:
    """Whether a path leads to a place inside a directory."""
    with suppress(OSError, RuntimeError):  # RuntimeError: a link to itself
        return path.resolve().is_relative_to(directory.resolve())
    return False


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside ``path`` that takes its place once it is written whole.

    Raises:
        OSError: It cannot be written; ``filename`` is ``path``.
    """
    temporary = temporary_path(path)
    with naming(path, temporary):
        path.parent.mkdir(parents=True, exist_ok=True)
        # the writer finds an empty file, which is held as long as this process lives
        held = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
        try:
            hold(held)
            yield temporary
            os.replace(temporary, path)
        finally:
            os.close(held)
            temporary.unlink(missing_ok=True)


@contextmanager
def replacing_directory(directory: Path, overwrite: bool = False) -> Iterator[Path]:
    """A temporary directory that takes its place once everything in it is written.

    Raises:
        UserError: There is one already, and it may not be overwritten.
        OSError: It cannot be written; ``filename`` is ``directory`` or lies in it.
    """
    if directory.exists() and not overwrite:
        raise UserError(f"{directory} exists; overwrite=true puts the new results in its place")
    temporary, aside = temporary_path(directory), temporary_path(directory, "before")
    parent_is_new = not directory.parent.exists()
    with naming(directory, temporary):
        remove_leftovers(directory.parent)
        held = None
        try:
            temporary.mkdir(parents=True)
            held = os.open(temporary / HELD, os.O_WRONLY | os.O_CREAT, 0o666)
            hold(held)
            yield temporary
            (temporary / HELD).unlink()
            if directory.exists():
                directory.replace(aside)
            temporary.replace(directory)
        finally:
            if held is not None:
                os.close(held)
            if aside.exists() and not directory.exists():
                aside.replace(directory)
            for path in (temporary, aside):
                shutil.rmtree(path, ignore_errors=True)
            if parent_is_new:
                with suppress(OSError):  # it holds the result
                    directory.parent.rmdir()


def temporary_path(path: Path, what: str = "new") -> Path:
    """A short hidden name beside a path, however long its own is; of this process alone."""
    name = hashlib.sha256(f"{what} {path.name}".encode(errors="surrogateescape")).hexdigest()[:12]
    suffix = path.suffix if len(path.suffix) < 8 else ""  # by which some tell what to write
    return path.with_name(f".anatosegnet-{name}.{os.getpid()}.tmp{suffix}")


@contextmanager
def naming(path: Path, temporary: Path) -> Iterator[None]:
    """Say ``path`` in an OSError in the place of its temporary name, or of none."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = str(path)
        elif str(error.filename).startswith(str(temporary)):
            error.filename = str(path) + str(error.filename)[len(str(temporary)) :]
        error.filename2 = None
        raise


def hold(descriptor: int) -> None:
    """Show other processes that this one still writes; a kill ends it."""
    with suppress(ImportError, OSError):  # a system or a file system without such locks
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def remove_leftovers(folder: Path, deep: bool = False) -> None:
    """Remove what killed processes were writing in a folder; not what a live one writes.

    Args:
        folder: It need not exist.
        deep: In all folders below it too.
    """
    with suppress(OSError):
        pattern = ".anatosegnet-*.tmp*"
        for path in folder.rglob(pattern) if deep else folder.glob(pattern):
            if TEMPORARY.fullmatch(path.name) and is_left_over(path):
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    path.unlink(missing_ok=True)


def is_left_over(path: Path) -> bool:
    """Whether no process holds a temporary file or directory."""
    try:
        import fcntl

        held = path / HELD if path.is_dir() else path
        if not held.exists():  # it is just being made, or an old one
            return time.time() - path.lstat().st_mtime > 60
        descriptor = os.open(held, os.O_RDONLY | os.O_NONBLOCK)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        finally:
            os.close(descriptor)
    except (ImportError, OSError):  # held, or that cannot be known
        return False
    return True


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write JSON whole or not at all."""
    with replacing(path) as temporary:
        text = json.dumps(content, indent=2, ensure_ascii=False)
        temporary.write_text(text + "\n", encoding="utf-8")


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
