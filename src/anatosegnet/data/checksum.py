"""Checksums of files; light enough for a program's first lines."""

import hashlib
from pathlib import Path

from anatosegnet.files.opening import open_file, read_content


def sha256(path: Path) -> str:
    """Hex digest of a file's bytes: times and sizes may lie (copies, archives, network drives).

    Raises:
        OSError: As `open_file`.
    """
    with open_file(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def content_sha256(path: Path) -> str:
    """`sha256` of a table, which is the same whether or not it is packed by gzip.

    Raises:
        OSError, ValueError: As `read_content`.
    """
    return hashlib.sha256(read_content(path)).hexdigest()
