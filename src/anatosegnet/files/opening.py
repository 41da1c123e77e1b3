"""Opening files that data or runs name: none is trusted to be a file, to be small, or to end.

A pipe, a device or a socket in the place of a file would be waited for, and a file that claims to
be huge would take all memory. Every file whose name or content comes from a dataset or from a run
directory is opened here.
"""

import errno
import gzip
import io
import json
import os
import stat
import zlib
from pathlib import Path
from typing import Any

import yaml

LARGEST = 2**30  # bytes of a file that is read at once
LARGEST_WEIGHTS = 2**33  # bytes of a file that holds a network
LARGEST_TEXT = 2**27  # bytes of a table, a summary or a config; unpacked, where it is packed
MOST_SCALARS = 10_000  # keys and values of a YAML file; more take seconds to become a config
DEEPEST = 64  # nested lists and mappings of a YAML or JSON file

# several times as fast as yaml's own
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def open_file(path: str | Path) -> io.BufferedReader:
    """Open a regular file for reading, without ever waiting for it.

    Raises:
        OSError: There is none, it may not be read, or it is a folder, pipe, device or socket;
            ``strerror`` says which in a few words.
    """
    _require_file(os.stat(path), path)
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    descriptor = os.open(path, flags | getattr(os, "O_CLOEXEC", 0))
    try:
        _require_file(os.fstat(descriptor), path)  # it may have been put there just now
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def read_bytes(path: str | Path, most: int = LARGEST) -> bytes:
    """The content of a regular file.

    Args:
        path: The file.
        most: Bytes; a larger file is refused before it takes memory.

    Raises:
        OSError: As `open_file`, or the file is larger than ``most``.
    """
    with open_file(path) as file:
        size = os.fstat(file.fileno()).st_size  # read(n) takes n bytes at once, there or not
        data = file.read(size + 1) if size <= most else b""
        while size <= most and len(data) > size:  # it grows, or is one of /proc, which say 0
            size = len(data)
            data += file.read(2**20)
    require_at_most(most, size, path)
    return data


def require_at_most(most: int, size: int, path: str | Path) -> None:
    """OSError if a file has more bytes than are read of its kind."""
    if size > most:
        raise OSError(errno.EFBIG, f"it has more than {most / 1e6:.0f} MB", str(path))


def kept(path: Path) -> Path:
    """Where a table is kept: the file itself or, in a published run, its gzip beside that name."""
    packed = path.with_name(f"{path.name}.gz")
    return packed if packed.exists() and not path.exists() else path


def read_content(path: str | Path, most: int = LARGEST_TEXT) -> bytes:
    """The content of a regular file; what is packed in it, where its name ends in ``.gz``.

    Args:
        path: The file.
        most: Bytes of the content; more is refused before it takes memory.

    Raises:
        OSError: As `read_bytes`.
        ValueError: It is no whole gzip file.
    """
    data = read_bytes(path, most)
    if Path(path).suffix != ".gz":
        return data
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(data)) as file:
            content = file.read(most + 1)
    except (EOFError, OSError, zlib.error) as error:
        raise ValueError(f"no whole gzip file ({error})") from error
    if len(content) > most:
        raise OSError(errno.EFBIG, f"unpacked it has more than {most / 1e6:.0f} MB", str(path))
    return content


def read_text(path: str | Path) -> str:
    """The text of a regular file in UTF-8, with or without a byte-order mark.

    Raises:
        OSError: As `read_bytes`.
        ValueError: As `read_content`; or it is no text in UTF-8.
    """
    try:
        return read_content(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"no text in UTF-8 (byte {error.start})") from error


def read_json(path: str | Path) -> dict[str, Any]:
    """The object that a JSON file holds.

    Raises:
        OSError: As `read_bytes`.
        ValueError: It is no JSON, holds no object, or is nested beyond all measure.
    """
    try:
        content = json.loads(read_text(path))
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    if not isinstance(content, dict):
        raise ValueError("it holds no object")
    return content


def read_yaml(path: str | Path) -> dict[str, Any]:
    """The mapping that a YAML file holds; of plain values only.

    Raises:
        OSError, ValueError: As `read_yaml_text`; or it holds no mapping.
    """
    content = yaml.load(read_yaml_text(path), _Loader)
    if not isinstance(content, dict):
        raise ValueError("it holds no mapping")
    return content


def read_yaml_text(path: str | Path) -> str:
    """The text of a YAML file that can be parsed without harm.

    Raises:
        OSError: As `read_bytes`.
        ValueError: As `require_harmless`.
    """
    text = read_text(path)
    require_harmless(text)
    return text


def require_harmless(text: str) -> None:
    """Refuse YAML that takes more time or memory than a config needs, or that may execute.

    Aliases are refused: a few lines of them can stand for more than fits into memory, and what is
    written here never has any.

    Raises:
        ValueError: It is no YAML, has aliases or tags, or is large or nested beyond all measure.
    """
    depth = scalars = 0
    try:
        for event in yaml.parse(text, Loader=_Loader):
            if isinstance(event, yaml.AliasEvent):
                raise ValueError(f"it has an alias, *{event.anchor}")
            if getattr(event, "tag", None) not in (None, "!"):
                raise ValueError(f"it has a tag, {event.tag}")
            scalars += isinstance(event, yaml.ScalarEvent)
            depth += isinstance(event, yaml.CollectionStartEvent)
            depth -= isinstance(event, yaml.CollectionEndEvent)
            if depth > DEEPEST:
                raise ValueError("nested too deeply")
            if scalars > MOST_SCALARS:
                raise ValueError(f"it has more than {MOST_SCALARS:,} keys and values")
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())[:200]) from error


def _require_file(status: os.stat_result, path: str | Path) -> None:
    if stat.S_ISREG(status.st_mode):
        return
    kinds = {
        stat.S_IFDIR: "it is a folder",
        stat.S_IFIFO: "it is a pipe",
        stat.S_IFSOCK: "it is a socket",
        stat.S_IFCHR: "it is a device",
        stat.S_IFBLK: "it is a device",
    }
    kind = kinds.get(stat.S_IFMT(status.st_mode), "it is not a file")
    raise OSError(errno.EINVAL, kind, str(path))
