"""Data of a source, in one call: found, or prepared."""

from collections.abc import Sequence
from typing import Any

from anatosegnet.data.prepared import (
    DataSettings,
    FoundData,
    PreparedData,
    Splitting,
    find_data,
    prepare_data,
)
from anatosegnet.data.source import Source


def found(source: Source, exclude: str | Sequence[str] = (), name: str = "data") -> FoundData:
    """Its cases."""
    return find_data(source, name, exclude)


def prepared(
    source: Source, split: Splitting | None = None, name: str = "data", **settings: Any
) -> PreparedData:
    """Its cases at 32 px, read and split."""
    return prepare_data(source, DataSettings(name, **{"image_size": 32, **settings}), split)
