"""Files and directories that are there whole or not at all, and what killed processes leave."""

import errno
import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from anatosegnet.errors import UserError
from anatosegnet.files.locks import is_free, lock

HELD = ".held"  # locked in a temporary directory while its process lives
TEMPORARY = re.compile(r"\.anatosegnet-[0-9a-f]{12}\.\d+\.tmp(\.\w+)?")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside ``path`` that takes its place once it is written whole.

    Raises:
        OSError: It cannot be written; ``filename`` is ``path``.
    """
    temporary = temporary_path(path)
    with naming(path, temporary):
        path.parent.mkdir(parents=True, exist_ok=True)
        # the writer finds an empty file, which is locked as long as this process lives
        held = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
        try:
            lock(held)
            yield temporary
            os.replace(temporary, path)
        finally:
            os.close(held)
            temporary.unlink(missing_ok=True)


@contextmanager
def replacing_directory(
    directory: Path, overwrite: bool = False, mark: str | None = None
) -> Iterator[Path]:
    """A temporary directory that takes its place once everything in it is written.

    Args:
        directory: The directory.
        overwrite: Whether all that is in it may go.
        mark: A file that only such a directory holds: another one, a user's, is not overwritten.

    Raises:
        UserError: There is one already, and it may not be overwritten; or something else is there.
        OSError: It cannot be written; ``filename`` is ``directory`` or lies in it.
    """
    if directory.is_symlink() or (directory.exists() and not directory.is_dir()):
        raise UserError(f"{directory} is not a folder; remove it")  # a pipe would be waited for
    if directory.exists() and not overwrite:
        raise UserError(f"{directory} exists; overwrite=true puts the new results in its place")
    if Path.cwd().is_relative_to(directory.resolve()):
        raise UserError(f"{directory} holds the working directory; give another folder")
    if mark and directory.exists() and any(directory.iterdir()) and not (directory / mark).exists():
        raise UserError(
            f"{directory} holds no {mark}, so overwrite=true does not empty it; give another folder"
        )
    aside = temporary_path(directory, "before")
    with held_directory(directory) as temporary:
        yield temporary
        (temporary / HELD).unlink()
        try:
            if directory.exists():
                directory.replace(aside)
            temporary.replace(directory)
        finally:
            if aside.exists() and not directory.exists():
                aside.replace(directory)
            shutil.rmtree(aside, ignore_errors=True)


@contextmanager
def held_directory(directory: Path) -> Iterator[Path]:
    """A temporary directory beside ``directory``, removed at the end; `HELD` lies in it.

    Those that killed processes left there are removed, and parents that hold nothing at the end.

    Raises:
        OSError: It cannot be written; ``filename`` is ``directory`` or lies in it.
    """
    temporary, held = temporary_path(directory), None
    made = [path for path in directory.parents if not path.exists()]
    with naming(directory, temporary):
        remove_leftovers(directory.parent)
        try:
            temporary.mkdir(parents=True)
            held = os.open(temporary / HELD, os.O_WRONLY | os.O_CREAT, 0o666)
            lock(held)
            yield temporary
        finally:
            if held is not None:
                os.close(held)
            shutil.rmtree(temporary, ignore_errors=True)
            for path in made:  # the deepest first
                with suppress(OSError):  # it holds the result
                    path.rmdir()


def temporary_path(path: Path, what: str = "new") -> Path:
    """A short hidden name beside a path, however long its own is; of this process alone.

    Raises:
        OSError: The path has no name of its own: it is ``.`` or ``/``.
    """
    if path.name in ("", ".."):
        raise IsADirectoryError(errno.EISDIR, "it is a folder", str(path))
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
        raise


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
    held = path / HELD if path.is_dir() else path
    if not held.exists():  # it is just being made, or an old one
        return time.time() - path.lstat().st_mtime > 60
    return is_free(held)


def remove_if_empty(directory: Path, here: Path) -> None:
    """Hydra makes the output directory at once; take it back if nothing came of it.

    Args:
        directory: What Hydra made, with the folders above it.
        here: Where the command was given (a job may have moved into its directory).
    """
    for folder in (directory.resolve(), *directory.resolve().parents):
        content = list(folder.iterdir()) if folder.is_dir() else []
        if [path.name for path in content] == ["multirun.yaml"]:  # a sweep without a run
            content.pop().unlink()
        if content or folder == here:
            return
        with suppress(OSError):
            folder.rmdir()
        if here not in folder.parents:  # folders elsewhere may have been there before
            return


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write JSON whole or not at all."""
    with replacing(path) as temporary:
        text = json.dumps(content, indent=2, ensure_ascii=False)
        temporary.write_text(text + "\n", encoding="utf-8")
