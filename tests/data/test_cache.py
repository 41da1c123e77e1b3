"""Cases on disk: never stale, never half, safe among processes, kept below a limit."""

import math
import multiprocessing
import os
import pickle
import resource
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from anatosegnet.data import cache
from anatosegnet.data.cache import CaseCache, default_cache_directory
from anatosegnet.data.datasets.folder import FolderSource
from anatosegnet.data.datasets.phantom import PhantomSource
from anatosegnet.data.duplicates import Digests
from anatosegnet.data.prepared import PreparedData
from anatosegnet.data.records import CachedCase, CacheError, CaseWriter, StoredCases
from anatosegnet.data.source import Source
from anatosegnet.errors import UserError
from tests.conftest import grey_image, square_mask, write_png
from tests.preparing import prepared

SIZE = (32, 48)
FORK = multiprocessing.get_context("fork")


def folder(root: Path, directory: Path, **settings: Any) -> PreparedData:
    """The folder's cases through a cache of their own."""
    return cached(FolderSource(str(root)), directory, **settings)


def cached(source: Source, directory: Path, **settings: Any) -> PreparedData:
    """The cases of a source through a cache of their own."""
    settings = {"cache": "disk", "image_size": SIZE, "cache_dir": str(directory)} | settings
    return prepared(source, **settings)


def folders(directory: Path) -> list[Path]:
    """The caches in a directory."""
    return sorted(path for path in directory.iterdir() if not path.name.startswith("."))


def digests(number: int) -> Digests:
    """Those of a case."""
    return Digests(f"image {number}", f"mask {number}")


def fill(value: int, count: int = 3) -> Callable[[CaseWriter], bool]:
    """Writes cases whose pixels all have one value."""

    def write(writer: CaseWriter) -> bool:
        for number in range(count):
            image, mask = np.full((*SIZE, 1), value, np.uint8), np.zeros(SIZE, np.uint8)
            small = np.full((8, 8), number, np.uint8)
            writer.add(CachedCase(f"case {number}", image, mask, small, digests(number), 0.1))
        return True

    return write


def open_or_write(store: CaseCache, key: str, write: Callable[[CaseWriter], bool]) -> StoredCases:
    """A cache of three small cases."""
    stored = store.open_or_write("data", key, SIZE, 3, write)
    assert stored is not None
    return stored


def unreadable(case: Any) -> Any:
    """Stands where nothing may be read."""
    raise AssertionError(f"{case.name} was read")


def test_cached_cases_are_those_read(folder_data: Path, tmp_path: Path) -> None:
    """Breaks if a pixel, a mask, a name or colour changes on the way through the disk."""
    colour = np.dstack([grey_image(number) for number in (1, 2, 3)])
    write_png(folder_data / "images" / "benign_1.png", colour)
    in_memory = folder(folder_data, tmp_path, cache="memory")
    on_disk = [folder(folder_data, tmp_path / "cache") for _ in range(2)]  # written, and found
    for data in on_disk:
        assert data.digests == in_memory.digests
        assert data.pairs == in_memory.pairs
    kept, stored = in_memory.resized, on_disk[1].resized
    assert isinstance(stored, StoredCases)
    assert list(stored) == list(kept)
    assert len(stored) == 20
    for name in kept:
        for ours, theirs in zip(stored[name], kept[name], strict=True):
            assert ours.shape == theirs.shape
            assert (ours == theirs).all()
            assert not ours.flags.writeable
    assert stored["benign_1"][0].shape == (*SIZE, 3)
    assert stored["benign_2"][0].shape == (*SIZE, 1)


def test_a_second_start_reads_nothing(folder_data: Path, tmp_path: Path) -> None:
    """Breaks if a cache that fits is not used."""
    first = folder(folder_data, tmp_path / "cache")
    source = FolderSource(str(folder_data))
    source.read = unreadable  # type: ignore[method-assign]
    source.read.__module__ = first.source.read.__module__
    assert list(cached(source, tmp_path / "cache").resized) == list(first.resized)
    cached(PhantomSource(10), tmp_path / "cache")
    phantom = PhantomSource(10)
    phantom.read = unreadable  # type: ignore[method-assign]
    phantom.read.__module__ = PhantomSource.__module__
    cached(phantom, tmp_path / "cache")


def test_a_changed_file_is_never_served_stale(folder_data: Path, tmp_path: Path) -> None:
    """Breaks if the key trusts sizes, times or names instead of the content."""
    for part, changed in (("images", 255 - grey_image(3)), ("labels", square_mask(at=20))):
        path = folder_data / part / "malignant_3.png"
        before = folder(folder_data, tmp_path / "cache").resized["malignant_3"]
        times = path.stat()
        write_png(path, changed)
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
        after = folder(folder_data, tmp_path / "cache").resized["malignant_3"]
        fresh = folder(folder_data, tmp_path / "cache", cache="off").resized["malignant_3"]
        place = ("images", "labels").index(part)
        assert (before[place] != after[place]).any()
        assert all((one == two).all() for one, two in zip(after, fresh, strict=True))


@pytest.mark.slow
def test_settings_and_code_have_caches_of_their_own(
    folder_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Breaks if another size, phantom seed, resizing or library is served from the same cache."""
    folder(folder_data, tmp_path / "cache")
    folder(folder_data, tmp_path / "cache", image_size=64)
    assert len(folders(tmp_path / "cache")) == 2
    for seed in (0, 1):
        cached(PhantomSource(10, seed), tmp_path / "cache")
    assert len(folders(tmp_path / "cache")) == 4
    monkeypatch.setattr(cache.cv2, "__version__", "other")
    folder(folder_data, tmp_path / "cache")
    assert len(folders(tmp_path / "cache")) == 5
    monkeypatch.undo()
    folder(folder_data, tmp_path / "cache", batch_size=3, seed=7)  # no part in the pixels
    assert len(folders(tmp_path / "cache")) == 5


def test_damaged_data_is_reported_and_not_cached(folder_data: Path, tmp_path: Path) -> None:
    """Breaks if a problem is passed over because of the cache, or half a cache stays."""
    folder(folder_data, tmp_path / "cache")
    write_png(folder_data / "labels" / "malignant_3.png", np.zeros((40, 50), np.uint8))
    path = folder_data / "images" / "benign_1.png"
    path.write_bytes(path.read_bytes()[:50])
    for _ in range(2):
        with pytest.raises(UserError, match="2 problems") as caught:
            folder(folder_data, tmp_path / "cache")
        assert "malignant_3.png: the mask is empty" in str(caught.value)
        assert "benign_1.png" in str(caught.value)
    assert len(folders(tmp_path / "cache")) == 1
    assert not list((tmp_path / "cache").glob("*.tmp*"))


def test_a_file_that_changes_while_it_is_read_is_a_problem(
    folder_data: Path, tmp_path: Path
) -> None:
    """Breaks if new content is stored under the key of the old."""
    source = FolderSource(str(folder_data))
    whole = source.read

    def read(case: Any) -> Any:
        result = whole(case)
        if case.name == "benign_2":
            write_png(case.image, grey_image(99))
        return result

    read.__module__ = whole.__module__
    source.read = read  # type: ignore[method-assign]
    with pytest.raises(UserError, match=r"benign_2\.png: changed while it was read"):
        cached(source, tmp_path / "cache")


@pytest.mark.parametrize("damage", ["truncated", "no index", "garbage", "empty"])
def test_a_damaged_cache_is_made_anew(tmp_path: Path, damage: str) -> None:
    """Breaks if a damaged folder stops training, or is believed."""
    store = CaseCache(tmp_path, 1)
    open_or_write(store, "a", fill(1))
    path = folders(tmp_path)[0]
    content = path.read_bytes()
    damaged = {"truncated": content[:100], "no index": content[:-50], "empty": b""}
    path.write_bytes(damaged.get(damage, content[:-12] + b"x" * 12))
    assert (open_or_write(store, "a", fill(7))["case 2"][0] == 7).all()
    assert len(folders(tmp_path)) == 1


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "zeroed": lambda content: bytes(len(content)),
    "overwritten in part": lambda content: content[:-900] + bytes(900),
    "a bit flipped": lambda content: content[:-5] + bytes([content[-5] ^ 1]) + content[-4:],
    "cut": lambda content: content[: len(content) // 2],
}
PIXELS = 20 * 2 * SIZE[0] * SIZE[1]  # bytes of the folder's cases, which are grey
PARTS = {
    "pixels": (0, PIXELS),
    "thumbnails": (PIXELS, 20 * 96**2),
    "index": (PIXELS + 20 * 96**2, 0),
}


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("damage", DAMAGES)
def test_nothing_damaged_is_trained_on(
    folder_data: Path, tmp_path: Path, damage: str, part: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """Breaks if a cache that was overwritten gives other pixels, or other near-duplicates."""
    good = folder(folder_data, tmp_path, cache="memory")
    for data in (folder(folder_data, tmp_path / "cache") for _ in range(2)):
        assert data.pairs == good.pairs
    del data
    path = folders(tmp_path / "cache")[0]
    times, content = path.stat(), path.read_bytes()
    start, length = PARTS[part]
    end = start + length if length else len(content)
    path.write_bytes(content[:start] + DAMAGES[damage](content[start:end]) + content[end:])
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    for start in range(2):
        data = folder(folder_data, tmp_path / "cache")
        assert data.digests == good.digests
        assert data.pairs == good.pairs
        assert data.shares == good.shares
        for name, expected in good.resized.items():
            for ours, theirs in zip(data.resized[name], expected, strict=True):
                assert (ours == theirs).all()
        lines = capfd.readouterr().err.splitlines()
        noticed = part == "pixels" and damage != "cut" and start == 0
        assert len(lines) == noticed
        if noticed:
            assert "is damaged" in lines[0]
            assert "the next start writes it anew" in lines[0]


def test_a_file_cut_while_it_is_read_ends_nothing(
    folder_data: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Breaks if a file that shrinks under a running training kills it, or says it twice."""
    data = folder(folder_data, tmp_path / "cache")
    expected = {name: (image.copy(), mask.copy()) for name, (image, mask) in data.resized.items()}
    os.truncate(folders(tmp_path / "cache")[0], 100)
    for resized in (data.resized, data.resized):
        for name, parts in expected.items():
            for ours, theirs in zip(resized[name], parts, strict=True):
                assert (ours == theirs).all()
    assert len(capfd.readouterr().err.splitlines()) == 1


def test_a_copy_in_another_process_reads_damaged_cases_too(
    folder_data: Path, tmp_path: Path
) -> None:
    """Breaks if a spawned worker cannot read a damaged case from its files."""
    data = folder(folder_data, tmp_path / "cache")
    expected = data.resized["benign_1"][0].copy()
    path = folders(tmp_path / "cache")[0]
    path.write_bytes(bytes(path.stat().st_size))
    copy = pickle.loads(pickle.dumps(data.resized))
    assert (copy["benign_1"][0] == expected).all()


def build_and_report(directory: Path, barrier: Any, answers: Any) -> None:
    """In a process of its own: what the cache holds, and whether this process wrote it."""
    wrote = []
    write = fill(os.getpid() % 200)
    barrier.wait(20)
    stored = open_or_write(
        CaseCache(directory, 1), "a", lambda writer: wrote.append(1) or write(writer)
    )
    answers.put((len(wrote), int(stored["case 1"][0].max())))


@pytest.mark.slow
def test_processes_that_start_together_share_one_cache(tmp_path: Path) -> None:
    """Breaks if two processes write the same folder, or one sees the other's half."""
    barrier, answers = FORK.Barrier(4), FORK.Queue()
    processes = [
        FORK.Process(target=build_and_report, args=(tmp_path, barrier, answers)) for _ in range(4)
    ]
    for process in processes:
        process.start()
    results = [answers.get(timeout=60) for _ in processes]
    for process in processes:
        process.join(20)
    assert sum(wrote for wrote, _ in results) == 1
    assert len({value for _, value in results}) == 1
    assert len(folders(tmp_path)) == 1


def die_half_way(directory: Path) -> None:
    """In a process of its own: end as if killed, with a case written."""

    def write(writer: CaseWriter) -> bool:
        fill(9, count=1)(writer)
        os._exit(9)

    open_or_write(CaseCache(directory, 1), "a", write)


@pytest.mark.slow
def test_a_process_that_dies_leaves_no_trap(tmp_path: Path) -> None:
    """Breaks if its lock blocks others, its half is used, or its remains stay for ever."""
    process = FORK.Process(target=die_half_way, args=(tmp_path,))
    process.start()
    process.join(60)
    assert process.exitcode == 9
    assert folders(tmp_path) == []
    remains = list(tmp_path.glob(".*.tmp*"))
    assert len(remains) == 1
    os.utime(remains[0], (0, 0))  # some time later
    assert (open_or_write(CaseCache(tmp_path, 1), "a", fill(3))["case 0"][0] == 3).all()
    assert not list(tmp_path.glob(".*.tmp*"))


def test_least_recently_used_caches_go_first(tmp_path: Path) -> None:
    """Breaks if the limit is not kept, the newest goes, or one that is in use."""
    each = 3 * SIZE[0] * SIZE[1] * 2
    store = CaseCache(tmp_path, 3.5 * each / 1e9)
    held = open_or_write(store, "held", fill(1))
    for age, key in ((300, "old"), (200, "older but used")):
        stored = open_or_write(store, key, fill(2))
        os.utime(stored.path, (age, age))
        del stored
    os.utime(held.path, (100, 100))
    open_or_write(store, "older but used", unreadable)  # which makes it the newest
    open_or_write(store, "new", fill(3))
    assert [path.stem[5:] for path in folders(tmp_path)] == ["held", "new", "older but used"]
    assert (held["case 1"][0] == 1).all()


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Files may not grow beyond this: the system refuses to write, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("trouble", ["full", "nearly full", "unwritable", "limit"])
def test_without_room_training_goes_on(
    trouble: str,
    folder_data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Breaks if a cache that cannot be written stops training, or falls back in silence."""
    directory, settings = tmp_path / "cache", {}
    if trouble == "nearly full":
        usage = shutil.disk_usage(tmp_path)._replace(free=1000)
        monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    elif trouble == "unwritable":
        directory = tmp_path / "file" / "cache"
        (tmp_path / "file").write_text("no folder")
    elif trouble == "limit":
        settings = {"cache_limit_gb": 1e-6}
    if trouble == "full":
        with largest_file(20_000):
            data = folder(folder_data, directory, **settings)
    else:
        data = folder(folder_data, directory, **settings)
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith(f"warning: no cache: {directory}")
    assert lines[0].endswith("the cases are kept in memory")
    assert isinstance(data.resized, dict)
    assert len(data.resized) == 20
    assert not directory.is_dir() or folders(directory) == []
    assert not directory.is_dir() or not list(directory.glob(".*.tmp*"))


def test_too_many_cases_for_memory_are_read_anew(
    folder_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Breaks if falling back fills the memory."""
    monkeypatch.setattr("anatosegnet.data.reading.MOST_IN_MEMORY", 1000)
    data = folder(folder_data, tmp_path, cache_limit_gb=0)
    assert not isinstance(data.resized, dict)
    assert data.resized["benign_1"][0].shape == (*SIZE, 1)


def test_a_cache_without_limit(folder_data: Path, tmp_path: Path) -> None:
    """Breaks if an infinite limit is none."""
    data = folder(folder_data, tmp_path / "cache", cache_limit_gb=math.inf)
    assert not isinstance(data.resized, dict) and len(folders(tmp_path / "cache")) == 1


def test_thumbnails_and_digests_are_kept(tmp_path: Path) -> None:
    """Breaks if a second start would search for near-duplicates among other images."""
    open_or_write(CaseCache(tmp_path, 1), "a", fill(5))
    stored = open_or_write(CaseCache(tmp_path, 1), "a", unreadable)
    assert stored.digests == {f"case {number}": digests(number) for number in range(3)}
    for number, thumbnail in enumerate(stored.thumbnails().values()):
        assert thumbnail.shape == (8, 8)
        assert (thumbnail == number).all()


def test_a_copy_in_another_process_opens_the_file_anew(tmp_path: Path) -> None:
    """Breaks if a spawned worker gets pixels through a pipe, or no file."""
    stored = open_or_write(CaseCache(tmp_path, 1), "a", fill(5))
    pickled = pickle.dumps(stored)
    assert len(pickled) < 500
    assert (pickle.loads(pickled)["case 0"][0] == 5).all()


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="no /proc to measure with")
def test_reading_every_case_takes_no_memory(tmp_path: Path) -> None:
    """Breaks if mapped or copied records stay: memory must not follow the number of cases."""

    def write(writer: CaseWriter) -> bool:
        for number in range(400):
            ones = np.ones((256, 256), np.uint8)
            writer.add(CachedCase(str(number), ones[..., None], ones, ones[:8, :8], digests(0), 1))
        return True

    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()

    stored = CaseCache(tmp_path, 1).open_or_write("data", "a", (256, 256), 400, write)
    assert stored is not None
    before = resident()
    assert sum(int(image.sum()) for image, _ in stored.values()) == 400 * 256 * 256
    assert resident() - before < 8e6  # of 52 MB


def test_where_it_lies(monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks if the system's own rule for caches is not followed."""
    monkeypatch.setenv("ANATOSEGNET_CACHE_DIR", "~/mine")
    assert default_cache_directory() == Path.home() / "mine"
    monkeypatch.delenv("ANATOSEGNET_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    assert default_cache_directory() == Path("/xdg/anatosegnet")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert default_cache_directory() == Path.home() / ".cache" / "anatosegnet"


def test_an_error_names_no_traceback(tmp_path: Path) -> None:
    """Breaks if a missing cache is anything but a CacheError."""
    with pytest.raises(CacheError, match="cannot be read"):
        StoredCases(tmp_path / "none")
