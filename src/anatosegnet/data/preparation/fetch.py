"""Getting the files of a dataset, and room for what is written of them."""

import os
from pathlib import Path

from anatosegnet.console import Progress, say
from anatosegnet.data.download import obtain
from anatosegnet.data.source import Source
from anatosegnet.errors import UserError


def fetch(source: Source, name: str, root: Path, allowed: bool) -> None:
    """Download what is not there; UserError if that is not possible or not wanted."""
    needed = [download for download in source.downloads if download.is_needed(root)]
    if needed and not allowed:
        names = ", ".join(download.name for download in needed)
        raise UserError(f"data {name}: {names} is not in {root}; {source.how_to_get}")
    for download in needed:
        say(f"fetching {download.url}\n  licence: {download.licence}")
        with Progress(download.name, unit="bytes") as show:
            path = obtain(download, root, show)
        verified = download.checksum.partition(":")[0] or "the archive's own checksums only"
        say(f"  {path} (verified: {verified})")


def require_writable(folder: Path, key: str) -> None:
    """UserError before the long work if the folder could not be written after it."""
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not there.is_dir():
        raise UserError(f"{folder}: {there} is not a folder; give another {key}=DIR")
    if not os.access(there, os.W_OK | os.X_OK):
        raise UserError(f"{folder} cannot be written: {there} is read-only; give {key}=DIR")
