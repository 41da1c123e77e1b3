"""Downloads against a server on this machine: broken, wrong, evil, and without room."""

import errno
import hashlib
import io
import shutil
import stat
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from anatosegnet.data import download
from anatosegnet.data.download import Download, obtain
from anatosegnet.errors import UserError


class Server(ThreadingHTTPServer):
    """Serves one file; the attributes say how badly.

    Attributes:
        content: The file.
        drop_after: Bytes after which each answer breaks off, as long as ``drops`` lasts.
        ranges: Whether Range is understood.
        status: Answered instead of the file, if not 0.
        asked: The Range header of each request.
    """

    def __init__(self, content: bytes) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.content, self.drop_after, self.drops = content, 0, 0
        self.ranges, self.status = True, 0
        self.asked: list[str] = []

    def source(self, **settings: Any) -> Download:
        """The file as a dataset would name it."""
        checksum = f"sha256:{hashlib.sha256(self.content).hexdigest()}"
        given = {"checksum": checksum, "folder": "data_set", "provides": ("data_set",)}
        url = f"http://127.0.0.1:{self.server_port}/data_set.zip"
        return Download(url, **{**given, **settings})


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        server = self.server
        assert isinstance(server, Server)
        wanted = self.headers.get("Range", "")
        server.asked.append(wanted)
        if server.status:
            self.send_error(server.status)
            return
        start = int(wanted[6:-1]) if wanted and server.ranges else 0
        size = len(server.content)
        if start >= size:
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{size}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        body = server.content[start:]
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(body)))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{size - 1}/{size}")
        self.end_headers()
        if server.drops:
            server.drops -= 1
            body = body[: server.drop_after]
            self.close_connection = True
        self.wfile.write(body)

    def log_message(self, *args: Any) -> None:
        pass


def zip_of(members: dict[str, bytes], **attributes: Any) -> bytes:
    """A zip file; ``attributes`` go to the last member's entry."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for number, (name, content) in enumerate(members.items(), start=1):
            entry = zipfile.ZipInfo(name)
            entry.compress_type = zipfile.ZIP_DEFLATED
            for key, value in attributes.items() if number == len(members) else ():
                setattr(entry, key, value)
            archive.writestr(entry, content)
    return buffer.getvalue()


NOISE = np.random.default_rng(0).integers(0, 256, 600_000, dtype=np.uint8).tobytes()
GOOD = zip_of({"data_set/a.bin": NOISE, "data_set/sub/b.txt": b"b", "__MACOSX/x": b"x"})


@pytest.fixture
def serve() -> Iterator[Any]:
    """Starts servers, and ends them after the test."""
    servers: list[Server] = []

    def start(content: bytes = GOOD) -> Server:
        server = Server(content)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        servers.append(server)
        return server

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def get(source: Download, root: Path) -> Path:
    """Obtain without waiting between attempts."""
    return obtain(source, root, lambda done, total: None, pause=0)


def names(root: Path) -> list[str]:
    """Everything in a folder, hidden files included."""
    return sorted(path.name for path in root.iterdir())


def assert_whole(root: Path) -> None:
    """The dataset is there, and nothing else."""
    assert names(root) == ["data_set"]
    assert names(root / "data_set") == ["a.bin", "sub"]
    assert (root / "data_set" / "a.bin").read_bytes() == NOISE


def test_download_and_unpack(serve: Any, tmp_path: Path) -> None:
    """Breaks if a good archive is not unpacked, or leaves something behind; progress lies."""
    server, seen = serve(), []
    root = tmp_path / "new" / "root"
    folder = obtain(server.source(), root, lambda *at: seen.append(at), pause=0)
    assert folder == root / "data_set"
    assert_whole(root)
    assert seen[0] == (0, len(GOOD))
    assert seen[-1] == (len(GOOD), len(GOOD))
    assert not server.source().is_needed(root)


@pytest.mark.parametrize("ranges", [True, False])
def test_a_dropped_connection_goes_on(serve: Any, tmp_path: Path, ranges: bool) -> None:
    """Breaks if a broken download starts anew, doubles bytes, or ends the program."""
    server = serve()
    server.drops, server.drop_after, server.ranges = 2, 196_608, ranges
    get(server.source(), tmp_path)
    assert_whole(tmp_path)
    assert server.asked == ["", "bytes=196608-", "bytes=393216-" if ranges else "bytes=196608-"]


def test_a_second_command_goes_on(serve: Any, tmp_path: Path) -> None:
    """Breaks if what came before the network failed for good is thrown away."""
    server = serve()
    server.drops, server.drop_after = 5, 98_304
    with pytest.raises(UserError, match=r"broke 5 times .*0\.5 MB are kept") as caught:
        get(server.source(), tmp_path)
    assert "\n" not in str(caught.value)
    assert names(tmp_path) == ["data_set.zip.part"]
    server.asked.clear()
    get(server.source(), tmp_path)
    assert server.asked == ["bytes=491520-"]
    assert_whole(tmp_path)


def test_a_part_that_is_already_whole(serve: Any, tmp_path: Path) -> None:
    """Breaks if a download that ended between the last byte and the renaming is stuck."""
    server = serve()
    (tmp_path / "data_set.zip.part").write_bytes(GOOD)
    get(server.source(), tmp_path)
    assert_whole(tmp_path)


def test_a_part_of_another_file(serve: Any, tmp_path: Path) -> None:
    """Breaks if a foreign part is unpacked, or blocks every later command."""
    server = serve()
    (tmp_path / "data_set.zip.part").write_bytes(b"x" * 1000)
    with pytest.raises(UserError, match="not the published file: its sha256"):
        get(server.source(), tmp_path)
    assert names(tmp_path) == []
    (tmp_path / "data_set.zip.part").write_bytes(b"x" * (len(GOOD) + 1))
    get(server.source(), tmp_path)
    assert_whole(tmp_path)


@pytest.mark.parametrize("checksum", ["sha256:" + "0" * 64, "md5:" + "0" * 32])
def test_wrong_checksum(serve: Any, tmp_path: Path, checksum: str) -> None:
    """Breaks if a file that is not the published one is unpacked, or stays."""
    with pytest.raises(UserError, match=r"not the published file.*download it by hand"):
        get(serve().source(checksum=checksum), tmp_path)
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (zip_of({"data_set/a": b"a", "../evil": b"x"}), "would leave the folder"),
        (zip_of({"/etc/evil": b"x"}), "would leave the folder"),
        (zip_of({"data_set/../../evil": b"x"}), "would leave the folder"),
        (zip_of({"..\\evil": b"x"}), "would leave the folder"),
        (zip_of({"C:evil": b"x"}), "would leave the folder"),
        (zip_of({"link": b"/etc"}, external_attr=(stat.S_IFLNK | 0o777) << 16), "is a link"),
        (zip_of({"pipe": b""}, external_attr=(stat.S_IFIFO | 0o777) << 16), "is a link"),
        (zip_of({"data_set/bomb": bytes(30_000_000)}), "zip bomb"),
        (zip_of({}), "it holds no file"),
        (zip_of({"data_set/": b""}), "it holds no file"),
        (GOOD[:-400_000], "no zip file"),
        (GOOD[:1000] + b"\x00" * 50 + GOOD[1050:], "damaged"),
        (b"<html>Please log in</html>", "a web page"),
    ],
    ids=["dots", "absolute", "inner", "backslash", "drive", "link", "pipe", "bomb", "empty",
         "folder", "cut", "crc", "html"],
)  # fmt: skip
def test_archives_not_to_be_trusted(
    serve: Any, tmp_path: Path, content: bytes, complaint: str
) -> None:
    """Breaks if a member is written outside, or a damaged archive is half unpacked.

    No checksum stands in for the check: BrEaST has none, and a file may be put there by hand.
    """
    root = tmp_path / "root"
    with pytest.raises(UserError, match=complaint) as caught:
        get(serve(content).source(checksum=""), root)
    assert "\n" not in str(caught.value)
    assert names(root) == []
    assert names(tmp_path) == ["root"]


def test_a_file_put_there_by_hand(tmp_path: Path) -> None:
    """Breaks if a machine without network cannot use an archive that was carried to it."""
    (tmp_path / "data_set.zip").write_bytes(GOOD)
    source = Download("http://127.0.0.1:9/data_set.zip", ("data_set",), "data_set")
    get(source, tmp_path)
    assert names(tmp_path) == ["data_set", "data_set.zip"]


def test_a_single_file_is_kept(serve: Any, tmp_path: Path) -> None:
    """Breaks if a spreadsheet (itself a zip file) is unpacked."""
    source = serve().source(folder=None, checksum="")
    assert get(source, tmp_path) == tmp_path / "data_set.zip"
    assert names(tmp_path) == ["data_set.zip"]


@pytest.mark.parametrize("top", ["other_name/", ""])
def test_an_archive_with_another_top(serve: Any, tmp_path: Path, top: str) -> None:
    """Breaks if a repacked archive, with another folder on top or none, is put elsewhere."""
    get(serve(zip_of({f"{top}a.bin": b"a", f"{top}b.bin": b"b"})).source(), tmp_path)
    assert names(tmp_path) == ["data_set"]
    assert names(tmp_path / "data_set") == ["a.bin", "b.bin"]


def test_no_network(tmp_path: Path) -> None:
    """Breaks if a machine without network gets a traceback, or a folder half made."""
    source = Download("http://127.0.0.1:9/data_set.zip", ("data_set",), "data_set")
    with pytest.raises(UserError, match=r"cannot be reached.*refused.*by hand") as caught:
        get(source, tmp_path)
    assert "\n" not in str(caught.value)
    assert names(tmp_path) == []


@pytest.mark.parametrize(("status", "asked"), [(404, 1), (403, 1), (503, 5)])
def test_answers_that_are_no_file(serve: Any, tmp_path: Path, status: int, asked: int) -> None:
    """Breaks if an error page is saved, or a lasting error is asked for again and again."""
    server = serve()
    server.status = status
    with pytest.raises(UserError, match=f"{status}.*by hand"):
        get(server.source(), tmp_path)
    assert len(server.asked) == asked
    assert names(tmp_path) == []


def test_disk_full_while_downloading(
    serve: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Breaks if a full disk gives a traceback, or stays full."""
    real = Path.open

    class Full(io.FileIO):
        def write(self, data: Any) -> int:
            if self.tell() > 200_000:
                raise OSError(errno.ENOSPC, "No space left on device")
            return super().write(data)

    def full(self: Path, mode: str = "r", *rest: Any, **more: Any) -> Any:
        return Full(self, mode) if self.suffix == ".part" else real(self, mode, *rest, **more)

    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(UserError, match=r"no space left .*ANATOSEGNET_DATA_DIR"):
        get(serve().source(), tmp_path)
    assert names(tmp_path) == []


def test_disk_full_while_unpacking(
    serve: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Breaks if half a dataset stays where a whole one is expected."""

    def full(self: zipfile.ZipFile, path: Path) -> None:
        (path / "data_set").mkdir(parents=True)
        (path / "data_set" / "a.bin").write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(zipfile.ZipFile, "extractall", full)
    with pytest.raises(UserError, match="no space left"):
        get(serve().source(), tmp_path)
    assert names(tmp_path) == ["data_set.zip"]
    monkeypatch.undo()
    get(serve().source(), tmp_path)  # the archive is there, no network needed
    assert names(tmp_path) == ["data_set", "data_set.zip"]


def test_too_little_space_is_seen_before(
    serve: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Breaks if a disk is filled to the last byte before it is found too small."""
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(download.shutil, "disk_usage", lambda path: usage._replace(free=1000))
    with pytest.raises(UserError, match="no space left"):
        get(serve().source(), tmp_path)
    assert names(tmp_path) == []


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    """Breaks if a data folder below a file gives a traceback."""
    (tmp_path / "file").write_text("x")
    source = Download("http://127.0.0.1:9/data_set.zip", ("data_set",), "data_set")
    with pytest.raises(UserError, match=r"cannot be written .*ANATOSEGNET_DATA_DIR"):
        get(source, tmp_path / "file" / "root")
