"""Reading files that others made: as much memory as they have bytes, and no more than allowed."""

import gzip
import tracemalloc
from pathlib import Path

import pytest

from anatosegnet.data.checksum import sha256
from anatosegnet.files.opening import kept, read_bytes, read_content
from anatosegnet.files.rows import read_rows


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
    assert sha256(path, 1000).startswith("44f8354494a5ba03ba1792")
    for size in (1001, 2**40):
        with path.open("r+b") as file:
            file.truncate(size)
        for read in (read_bytes, sha256):
            with pytest.raises(OSError, match="more than"):
                read(path, 1000)


def test_files_without_a_size_are_read(tmp_path: Path) -> None:
    """Breaks if a file of /proc, which says that it has no bytes, is taken for empty."""
    path = Path("/proc/self/status")
    if not path.exists():
        pytest.skip("no /proc here")
    assert b"VmPeak" in read_bytes(path)


def test_a_packed_table_is_read_as_if_it_were_not(tmp_path: Path) -> None:
    """Breaks if the gzip of a table is not found, wins over the table, or reads as another."""
    path, packed = tmp_path / "a.csv", tmp_path / "a.csv.gz"
    assert kept(path) == path
    packed.write_bytes(gzip.compress(b"id,iou\na,0.5\n"))
    assert kept(path) == packed
    assert read_rows(kept(path)) == (["id", "iou"], [{"id": "a", "iou": "0.5"}])
    path.write_text("id\n")
    assert kept(path) == path


def test_a_packed_table_takes_no_more_than_allowed(tmp_path: Path) -> None:
    """Breaks if a gzip bomb takes memory, or a damaged file reads as a shorter one."""
    path = tmp_path / "a.gz"
    path.write_bytes(gzip.compress(b"x" * 1000))
    assert read_content(path, 1000) == b"x" * 1000
    path.write_bytes(gzip.compress(b"x" * 2**26))
    tracemalloc.start()
    try:
        with pytest.raises(OSError, match="unpacked it has more than"):
            read_content(path, 2**20)
        assert tracemalloc.get_traced_memory()[1] < 2**23
    finally:
        tracemalloc.stop()
    whole = bytes(range(256)) * 9
    packed = gzip.compress(whole)
    damaged = bytearray(packed)
    damaged[-5] ^= 1  # of its checksum and length
    for content in (packed[:-9], packed[:40], bytes(damaged), b"id,iou\n", whole):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="no whole gzip file"):
            read_content(path)
    path.write_bytes(b"")
    assert read_content(path) == b""
