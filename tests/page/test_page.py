"""The page: what is shown of a file, what is refused, and that a real browser can use it."""

import base64
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
import requests
from pydicom import uid
from pydicom.encaps import encapsulate
from scripts.fuzzing.dicoms import content_of, jpeg
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from anatosegnet.data.simulator import simulate
from anatosegnet.errors import UserError
from anatosegnet.page.look import Look
from anatosegnet.page.serving import is_loopback, listening, name_in, serve
from anatosegnet.page.showing import sentence, shown
from anatosegnet.prediction.measurements import COLUMNS
from anatosegnet.prediction.predictor import Prediction
from tests.browser import Browser
from tests.commands import Shell
from tests.conftest import write_png
from tests.dicoms import SECRETS, dicom, grey_picture, phantom_still, write_dicom
from tests.prediction.test_onnx import model, written
from tests.running import compose

STARTS_IN = 60  # seconds


class Brightness:
    """A network that takes what is bright for lesion, and counts how often it is asked."""

    image_size = (32, 40)
    asked = 0

    def predict(self, images: list[np.ndarray]) -> Prediction:
        self.asked += 1
        return Prediction.of(np.stack([image[..., 0] / np.float32(255) for image in images]))


def gradient(folder: Path) -> Path:
    """A picture (64, 80) that is brighter to the right."""
    return write_png(
        folder / "grey <b>.png", np.tile(np.linspace(0, 255, 80, dtype=np.uint8), (64, 1))
    )


def mask_in(html: str) -> np.ndarray:
    """The mask that a page gives for download."""
    content = re.findall(r'download="[^"]+\.png" href="data:image/png;base64,([^"]+)"', html)
    return cv2.imdecode(np.frombuffer(base64.b64decode(content[0]), np.uint8), -1)


def test_a_threshold_needs_no_second_pass(tmp_path: Path) -> None:
    """Breaks if the slider runs the network again, or cuts another probability."""
    network = Brightness()
    look = Look.at(gradient(tmp_path), network)
    half, high = (mask_in(shown(look, threshold)) for threshold in (0.5, 0.9))
    assert network.asked == 1
    assert half.shape == (64, 80) and set(np.unique(half)) == {0, 255}
    assert half.mean() / 255 == pytest.approx(0.5, abs=0.03)
    assert high.mean() / 255 == pytest.approx(0.1, abs=0.03)


def test_names_are_text_and_the_table_is_that_of_predict(tmp_path: Path) -> None:
    """Breaks if a name becomes markup, or the csv lacks a column of ``measurements.csv``."""
    html = shown(Look.at(gradient(tmp_path), Brightness()), 0.5)
    assert "grey &lt;b&gt;.png" in html and "grey <b>" not in html
    (content,) = re.findall(r'href="data:text/csv;base64,([^"]+)"', html)
    head, row = base64.b64decode(content).decode().splitlines()
    assert head == ",".join(COLUMNS) and row.startswith("grey <b>.png,,1,1,")
    assert not re.search(r'(?:src|href)="(?!data:)', html)


def test_a_still_is_measured_in_mm(tmp_path: Path) -> None:
    """Breaks if the scale of a DICOM is lost, or something of its patient is shown."""
    phantom_still(tmp_path / "still.dcm")
    html = shown(Look.at(tmp_path / "still.dcm", Brightness()), 0.5)
    assert " mm</b>" in html and " mm²</b>" in html
    assert not any(secret in html for secret in SECRETS)


def test_each_frame_of_a_cine_is_shown(tmp_path: Path) -> None:
    """Breaks if it is not said that there are more, or another frame is shown than that asked."""
    frames = [grey_picture(seed) for seed in range(3)]
    path = write_dicom(tmp_path / "cine.dcm", frames, syntax=uid.JPEGBaseline8Bit)
    look = Look.at(path, Brightness())
    path.unlink()  # the page keeps no file
    assert look.frames == 3
    for number in (3, 1, 2):
        look = look.turned(number, Brightness())
        assert f"frame {number} of 3" in shown(look, 0.5)
        assert look.picture.image is not None
        assert np.abs(look.picture.image[..., 0].astype(int) - frames[number - 1]).mean() < 4


def test_a_damaged_frame_is_a_sentence(tmp_path: Path) -> None:
    """Breaks if one bad frame of a cine is a traceback, or tells where the server keeps it."""
    found = dicom([grey_picture()] * 2, syntax=uid.JPEGBaseline8Bit)
    found.PixelData = encapsulate([jpeg(grey_picture()), jpeg(grey_picture())[:200]])
    path = tmp_path / "cine.dcm"
    path.write_bytes(content_of(found))
    look = Look.at(path, Brightness())
    with pytest.raises(UserError, match=r"^cine\.dcm, frame 2: cannot be decoded"):
        look.turned(2, Brightness())


def test_what_cannot_be_read_is_a_sentence_without_folders(tmp_path: Path) -> None:
    """Breaks if a broken file is a traceback, or tells where the server keeps it."""
    for name in ("broken.png", "broken.dcm", "notes.txt", "no_suffix"):
        path = tmp_path / name
        path.write_bytes(b"nothing that is a picture")
        with pytest.raises(UserError) as caught:
            Look.at(path, Brightness())
        line = str(caught.value)
        assert name in line and str(tmp_path) not in line and "\n" not in line
    assert sentence("<script>") == '<p class="sorry" role="alert">&lt;script&gt;</p>'


def test_who_is_let_in() -> None:
    """Breaks if an address of a network passes for this machine."""
    assert all(map(is_loopback, ("127.0.0.1", "127.9.9.9", "::1", "localhost")))
    assert not any(map(is_loopback, ("0.0.0.0", "::", "192.168.0.7", "evil.localhost.com", "")))
    assert [name_in(host) for host in ("a.b:80", "[::1]:7860", "[::1]")] == ["a.b", "::1", "::1"]


def test_an_address_that_cannot_be_had() -> None:
    """Breaks if a port in use, or a host that is none, is more than one line."""
    with (
        listening("127.0.0.1", 0) as taken,
        pytest.raises(UserError, match=r"cannot be had \(Address already in use\); give another"),
        listening("127.0.0.1", taken.getsockname()[1]),
    ):
        pass
    for host, port, message in (
        ("no such host", 0, "no such address"),
        ("127.0.0.1", 70_000, "port=70000"),
    ):
        with pytest.raises(UserError, match=message), listening(host, port):
            pass


def test_without_gradio(monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks if it is not said how to get it."""
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'anatosegnet\[app\]'"):
        serve(compose(name="app"), "run=DIR")


@pytest.mark.slow
def test_mistakes_are_one_line(shell: Shell) -> None:
    """Breaks if a missing network or a wrong limit starts a server, or ends in a traceback."""
    assert "run=DIR or model=FILE.onnx" in shell("app", status=2).errors
    assert "nowhere" in shell("app", "run=nowhere", status=2).errors
    assert "limit_mb=0" in shell("app", "run=nowhere", "limit_mb=0", status=2).errors


@pytest.fixture
def page(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """The page of a network in an ONNX file, without PyTorch: its address, and its folder."""
    folder = tmp_path / "served"
    folder.mkdir()
    network = written(tmp_path, model())
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    code = (
        "import sys\n"
        "class NoTorch:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name in ('torch', 'lightning'): raise ImportError(name)\n"
        "sys.meta_path.insert(0, NoTorch())\n"
        "from pathlib import Path; from anatosegnet.page import serving\n"
        f"serving.IN_MEMORY = Path({str(folder)!r})\n"
        f"sys.argv[1:] = ['model={network}', 'port={port}', 'limit_mb=1']\n"
        "from anatosegnet.app import main; main()"
    )
    home = tmp_path / "home"
    home.mkdir()
    server = subprocess.Popen(
        [sys.executable, "-c", code], cwd=home, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, env={**os.environ, "HOME": str(home), "TMPDIR": str(home),
             "MPLCONFIGDIR": str(tmp_path / "fonts")},
    )  # fmt: skip
    try:
        assert server.stdout is not None
        line = server.stdout.readline()
        assert f"http://127.0.0.1:{port}" in line, line
        yield f"http://127.0.0.1:{port}", folder
        server.send_signal(signal.SIGTERM)
        assert server.wait(STARTS_IN) == 128 + signal.SIGTERM
        assert server.stdout.read() == ""
        assert [*folder.iterdir()] == []
        assert [path for path in home.rglob("*") if path.is_file()] == []
    finally:
        server.kill()
        server.wait()


def files_in(folder: Path) -> list[Path]:
    """The files in a folder and below."""
    return [path for path in folder.rglob("*") if path.is_file()]


@pytest.mark.slow
def test_in_a_browser(page: tuple[str, Path], chromium: Browser, tmp_path: Path) -> None:
    """Breaks if the page loads from elsewhere, cannot be used, or leaves a file of anybody's."""
    address, folder = page
    phantom = simulate(0, 0)
    image = write_png(tmp_path / "phantom.png", phantom.image)
    broken = tmp_path / "broken.png"
    broken.write_bytes(image.read_bytes()[:400])
    chromium.complaints()
    chromium.driver.get(address)
    chromium.wait("document.querySelector('input[type=file]')")

    def give(path: Path) -> None:
        chromium.driver.find_element(By.CSS_SELECTOR, "input[type=file]").send_keys(str(path))

    give(image)
    chromium.wait("document.querySelector('.shown .pictures')")
    assert "phantom.png" in chromium.find(".shown h2").text
    assert chromium.count(".shown table.lesions tbody tr") >= 1
    assert chromium.count(".shown .pictures img") == 4
    wide = chromium.run("arguments[0].naturalWidth", chromium.find(".pictures img"))
    assert wide == phantom.image.shape[1]
    before = chromium.find(".files a").get_attribute("href")
    chromium.run(
        "(arguments[0].value = 0.95, arguments[0].dispatchEvent(new Event('input')))",
        chromium.find("#threshold input[type=range]"),
    )
    chromium.wait(f"document.querySelector('.files a').href !== {before!r}")
    chromium.wait("document.querySelector('input[type=file]')")
    assert files_in(folder) == []
    give(write_dicom(tmp_path / "cine.dcm", [grey_picture(seed) for seed in range(5)]))
    chromium.wait("document.querySelector('#frame input[type=range]')")
    assert "frame 1 of 5" in chromium.find(".shown").text
    chromium.find("#frame input[type=range]").send_keys(Keys.END)
    chromium.wait("document.querySelector('.shown').innerText.includes('frame 5 of 5')")
    give(broken)
    chromium.wait("document.querySelector('.sorry')")
    chromium.wait("!document.querySelector('#frame input[type=range]')")
    assert "broken.png" in chromium.find(".sorry").text
    assert str(folder) not in chromium.driver.page_source
    upload = {"files": ("large.png", bytes(1_100_000))}
    assert requests.post(f"{address}/gradio_api/upload", files=upload).status_code == 413
    assert requests.get(address, headers={"Host": "elsewhere.org"}).status_code == 421
    assert requests.get(f"{address}/gradio_api/info").json()["named_endpoints"] == {}
    end = time.monotonic() + 5
    while files_in(folder) and time.monotonic() < end:
        time.sleep(0.05)
    assert files_in(folder) == []
    # what Chromium refused to load, and what the page left in it
    assert not [line for line in chromium.complaints() if "Content Security" in line]
    loaded = chromium.run("performance.getEntriesByType('resource').map((entry) => entry.name)")
    assert isinstance(loaded, list)
    assert all(name.startswith((address, "data:", "blob:")) for name in loaded)
    assert chromium.run("localStorage.length") == 0  # and the tab stays open as the server ends
