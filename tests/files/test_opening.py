"""Reading files that others made: as much memory as they have bytes, and no more than allowed."""

import tracemalloc
from pathlib import Path

import pytest

from anatosegnet.files.opening import read_bytes


def test_reading_takes_the_memory_of_the_file(tmp_path: Path) -> None:
    """Breaks if as much as the largest file may have is taken for each small one."""
    path = tmp_path / "small"
    path.write_bytes(b"x" * 1000)
    tracemalloc.start()
    try:
        assert read_bytes(path) == b"x" * 1000
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


def test_a_file_may_be_as_large_as_allowed(tmp_path: Path) -> None:
    """Breaks if the limit is off by one, or an endless file is begun to be read."""
    path = tmp_path / "file"
    path.write_bytes(b"x" * 1000)
    assert len(read_bytes(path, 1000)) == 1000
    for size in (1001, 2**40):
        with path.open("r+b") as file:
            file.truncate(size)
        with pytest.raises(OSError, match="more than"):
            read_bytes(path, 1000)


def test_files_without_a_size_are_read(tmp_path: Path) -> None:
    """Breaks if a file of /proc, which says that it has no bytes, is taken for empty."""
    path = Path("/proc/self/status")
    if not path.exists():
        pytest.skip("no /proc here")
    assert b"VmPeak" in read_bytes(path)
