"""Fetching the published files: resumed, verified, unpacked whole or not at all."""

import errno
import hashlib
import os
import shutil
import stat
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from anatosegnet.errors import UserError
from anatosegnet.files.opening import open_file
from anatosegnet.files.writing import held_directory

CHUNK = 2**14  # bytes; a connection that breaks loses less than one piece
TIMEOUT = (15, 60)  # seconds to connect, and between two pieces
ATTEMPTS = 5
LARGEST_ARCHIVE = 20 * 2**30  # bytes unpacked; the datasets have less than one
LARGEST_RATIO = 100  # of unpacked to packed; images hardly shrink
MOST_MEMBERS = 100_000

Progress = Callable[[int, int | None], object]  # bytes done, bytes in all


@dataclass(frozen=True)
class Download:
    """One file on the network that belongs to a dataset.

    Attributes:
        url: Where it is.
        provides: Patterns under the data folder; one that matches means the file is not needed.
        folder: The folder an archive is unpacked to; None: the file itself is kept.
        checksum: ``sha256:…`` or ``md5:…``; empty where none is published: then a zip file's
            own checksums are all there is to check.
        size: Bytes, if known.
        licence: Said to the user before the download.
    """

    url: str
    provides: tuple[str, ...]
    folder: str | None = None
    checksum: str = ""
    size: int | None = None
    licence: str = ""

    @property
    def name(self) -> str:
        """File name."""
        return self.url.rsplit("/", 1)[-1]

    def is_needed(self, root: Path) -> bool:
        """Whether nothing under ``root`` provides it yet."""
        return not any(any(root.glob(pattern)) for pattern in self.provides)


def obtain(source: Download, root: Path, progress: Progress, pause: float = 1.0) -> Path:
    """Download a file into ``root``, verify it, and unpack it if it is an archive.

    A broken download leaves ``NAME.part``, and goes on from there the next time. A file of the
    right name that lies in ``root`` already is taken instead, and kept.

    Args:
        source: What to get.
        root: The data folder; made if need be.
        progress: Called as the download goes on.
        pause: Seconds before the second attempt; doubled before each further one.

    Returns:
        The file, or the folder it was unpacked to.

    Raises:
        UserError: No network, no space, a wrong checksum, or an archive that is not to be
            trusted. Nothing half-written stays but ``NAME.part``.
    """
    target = root / source.name
    with _space_and_permission(root, source):
        root.mkdir(parents=True, exist_ok=True)
        by_hand = target.is_file()
        if not by_hand:
            part = root / f"{source.name}.part"
            if part.exists() and not part.is_file():  # a pipe would be waited for
                raise UserError(f"{part} is no file; remove it")
            _download(source, part, progress, pause)
            try:
                _verify(source, part)
            except UserError:
                part.unlink()
                raise
            os.replace(part, target)
        elif source.folder is not None:
            _verify(source, target)
        if source.folder is None:
            return target
        folder = _unpack(source, target, root)
        if not by_hand:
            target.unlink()
        return folder


def _download(source: Download, part: Path, progress: Progress, pause: float) -> None:
    """Download to ``part``, going on after what it holds; some attempts if the network breaks."""
    import requests

    for attempt in range(1, ATTEMPTS + 1):
        try:
            _one_attempt(source, part, progress)
            return
        except requests.RequestException as error:
            failure, answer = error, error.response
            if answer is not None and answer.status_code < 500 and answer.status_code != 429:
                raise UserError(
                    f"{source.url} answers {answer.status_code} {answer.reason}; "
                    f"{_by_hand(source, part)}"
                ) from error
        if attempt < ATTEMPTS:
            time.sleep(pause * 2 ** (attempt - 1))
    done = part.stat().st_size if part.is_file() else 0
    if done:
        raise UserError(
            f"{source.url}: the connection broke {ATTEMPTS} times ({_reason(failure)}); "
            f"{_megabytes(done)} are kept, the same command goes on from there"
        ) from failure
    raise UserError(
        f"{source.url} cannot be reached ({_reason(failure)}); {_by_hand(source, part)}"
    ) from failure


def _one_attempt(source: Download, part: Path, progress: Progress) -> None:
    import requests

    done = part.stat().st_size if part.is_file() else 0
    headers = {"Accept-Encoding": "identity"}  # bytes as they are, so that they can be counted
    if done:
        headers["Range"] = f"bytes={done}-"
    with requests.get(source.url, headers=headers, stream=True, timeout=TIMEOUT) as response:
        length = response.headers.get("Content-Length")
        if response.status_code == 416:  # nothing after what we have: whole, or from another file
            if response.headers.get("Content-Range", "").rpartition("/")[2] == str(done):
                return
            part.unlink()
            raise requests.ConnectionError("the part on disk does not fit the file")
        response.raise_for_status()
        resumes = response.headers.get("Content-Range", "").startswith(f"bytes {done}-")
        if response.status_code != 206 or not resumes:
            done = 0  # the server starts over
        total = done + int(length) if length and length.isdecimal() else None
        _require_space(part, (total or source.size or 0) - done)
        with part.open("ab" if done else "wb") as file:
            progress(done, total)
            for piece in response.iter_content(CHUNK):
                file.write(piece)
                done += len(piece)
                progress(done, total)
        if total is not None and done < total:
            raise requests.ConnectionError(f"{_megabytes(done)} of {_megabytes(total)} came")


def _require_space(part: Path, size: int) -> None:
    if shutil.disk_usage(part.parent).free < size:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(part))


def _verify(source: Download, path: Path) -> None:
    """Compare with the published checksum; without one test that a zip file is whole."""
    if source.checksum:
        kind, _, expected = source.checksum.partition(":")
        with open_file(path) as file:
            found = hashlib.file_digest(file, kind).hexdigest()
        if found != expected:
            raise UserError(
                f"{source.name} is not the published file: its {kind} is {found}, not {expected}; "
                f"try again, or if the publisher changed it, {_by_hand(source, path)}"
            )
    if zipfile.is_zipfile(path):
        try:
            with zipfile.ZipFile(path) as archive:
                _refuse_evil(archive, source.name)
                if not any(not member.is_dir() for member in archive.infolist()):
                    raise zipfile.BadZipFile("it holds no file")
                damaged = archive.testzip()
        except (zipfile.BadZipFile, OSError, NotImplementedError, RuntimeError, EOFError) as error:
            raise UserError(
                f"{source.name} is damaged ({error}); {_by_hand(source, path)}"
            ) from error
        if damaged is not None:
            raise UserError(
                f"{source.name} is damaged ({damaged} has a wrong CRC); {_by_hand(source, path)}"
            )
    elif not source.checksum or source.folder is not None:
        raise UserError(
            f"{source.url} gave something that is no zip file (a web page?); "
            f"{_by_hand(source, path)}"
        )


def _refuse_evil(archive: zipfile.ZipFile, name: str) -> None:
    """UserError for members that would leave the folder, links, and archives that explode."""
    members = archive.infolist()
    unpacked = sum(member.file_size for member in members)
    packed = sum(member.compress_size for member in members)
    if len(members) > MOST_MEMBERS or unpacked > min(
        LARGEST_ARCHIVE, max(LARGEST_RATIO * packed, 2**20)
    ):
        raise UserError(
            f"{name} is refused: {len(members)} members of {_megabytes(unpacked)} in "
            f"{_megabytes(packed)} look like a zip bomb; get the dataset elsewhere"
        )
    for member in members:
        path = PurePosixPath(member.filename.replace("\\", "/"))
        mode = member.external_attr >> 16
        if (
            path.is_absolute()
            or ".." in path.parts
            or ":" in member.filename
            or (stat.S_IFMT(mode) and not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)))
        ):
            raise UserError(
                f"{name} is refused: its member {member.filename!r} would leave the folder or is "
                "a link; get the dataset elsewhere"
            )
        if member.flag_bits & 1:
            raise UserError(f"{name} is encrypted; unpack it by hand into the data folder")


def _unpack(source: Download, archive: Path, root: Path) -> Path:
    """Unpack beside the goal, then rename: the dataset's folder is there whole or not at all."""
    assert source.folder is not None
    goal = root / source.folder
    with held_directory(goal) as held, zipfile.ZipFile(archive) as content:
        _require_space(archive, sum(member.file_size for member in content.infolist()))
        work = held / "content"
        content.extractall(work)
        shutil.rmtree(work / "__MACOSX", ignore_errors=True)
        inside = [path for path in work.iterdir() if not path.name.startswith(".")]
        folder = work / source.folder
        if not folder.is_dir():  # another name on top, or none
            folder = inside[0] if len(inside) == 1 and inside[0].is_dir() else work
        os.replace(folder, goal)
    return goal


@contextmanager
def _space_and_permission(root: Path, source: Download) -> Iterator[None]:
    """A full disk and a folder that cannot be written, in one line."""
    part = root / f"{source.name}.part"
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            part.unlink(missing_ok=True)
            raise UserError(
                f"no space left in {root} for {source.name}; free some, or set "
                "ANATOSEGNET_DATA_DIR (or data.root) to a larger disk"
            ) from error
        raise UserError(
            f"{root} cannot be written ({error.strerror or error}); set ANATOSEGNET_DATA_DIR (or "
            "data.root) to a folder of yours"
        ) from error


def _by_hand(source: Download, part: Path) -> str:
    what = "unpack it to" if source.folder else "put it into"
    return f"download it by hand, and {what} {part.parent}"


def _reason(error: BaseException) -> str:
    """The innermost cause, which says what happened without the library's wrapping."""
    while (inner := error.__cause__ or error.__context__) is not None:
        error = inner
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(str(text).split())[:150]


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB"
