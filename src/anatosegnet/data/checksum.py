"""Checksums of files; light enough for a program's first lines."""

import hashlib
from pathlib import Path

from anatosegnet.files.opening import open_file


def sha256(path: Path) -> str:
    """Hex digest of a file's bytes: times and sizes may lie (copies, archives, network drives).

    Raises:
        OSError: As `open_file`.
    """
    with open_file(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
