"""Checksums of files; light enough for a program's first lines."""

import hashlib
import os
from pathlib import Path

from anatosegnet.files.opening import LARGEST_WEIGHTS, open_file, read_content, require_at_most


def sha256(path: Path, most: int = LARGEST_WEIGHTS) -> str:
    """Hex digest of a file's bytes: times and sizes may lie (copies, archives, network drives).

    Raises:
        OSError: As `open_file`, or the file is larger than ``most``: what could not be read is
            not looked through for hours either.
    """
    with open_file(path) as file:
        require_at_most(most, os.fstat(file.fileno()).st_size, path)
        return hashlib.file_digest(file, "sha256").hexdigest()


def content_sha256(path: Path) -> str:
    """`sha256` of a table, which is the same whether or not it is packed by gzip.

    Raises:
        OSError, ValueError: As `read_content`.
    """
    return hashlib.sha256(read_content(path)).hexdigest()
