"""Packages on a hub: sent, fetched, kept; only a package's files, under names that are ours."""

from collections.abc import Iterator
from pathlib import Path

import huggingface_hub
import pytest
import torch

from anatosegnet.deployment.exporting import export
from anatosegnet.deployment.hub import push
from anatosegnet.errors import UserError
from anatosegnet.evaluation.evaluate import evaluate
from anatosegnet.files.hub import FILES, Address
from anatosegnet.network import trained_network
from anatosegnet.run import Run
from tests.deployment.hub import FakeHub, running
from tests.deployment.untrained import untrained_run
from tests.running import compose

NAME = "hf://lab/net"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run; read only."""
    return untrained_run(tmp_path_factory.mktemp("hub") / "run")


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """An empty hub."""
    hub = FakeHub()
    with running(hub, tmp_path / "cache", monkeypatch):
        yield hub


@pytest.fixture
def sent(run: Run, hub: FakeHub, tmp_path: Path) -> Run:
    """A run of which a package lies on the hub."""
    config = compose("format=package", f"out={tmp_path / 'net'}", f"push='{NAME}'", name="export")
    export(run, config)
    return run


@pytest.mark.slow
def test_a_package_goes_to_the_hub_and_comes_back(sent: Run, hub: FakeHub, tmp_path: Path) -> None:
    """Breaks if something of it is lost on the way, or a new repository is open to all."""
    package = tmp_path / "net"
    files = {path.relative_to(package).as_posix() for path in package.rglob("*") if path.is_file()}
    assert set(hub.repositories["lab/net"]) - {".gitattributes"} == files
    assert hub.private["lab/net"]
    fetched = Run.open(NAME)
    ours, theirs = (trained_network(one).state_dict() for one in (sent, fetched))
    assert all(torch.equal(theirs[name], tensor) for name, tensor in ours.items())
    assert fetched.directory.is_relative_to(tmp_path / "cache")
    assert Run.open(f"{NAME}@main").directory == fetched.directory


@pytest.mark.slow
def test_only_a_packages_files_are_fetched(sent: Run, hub: FakeHub) -> None:
    """Breaks if a hub may write files of its own choice, or names become paths."""
    files = hub.repositories["lab/net"]
    files |= {"../../evil.py": b"x", "torch.py": b"x", "model.bin": b"x", "evaluation/a.csv": b""}
    hub.asked.clear()
    directory = Run.open(NAME).directory
    assert {path.name for path in directory.iterdir()} <= set(FILES)
    asked = {line.rsplit("/", 1)[1] for line in hub.asked if "/resolve/" in line}
    assert asked <= set(FILES)


@pytest.mark.slow
def test_what_was_fetched_is_there_without_a_network(
    sent: Run, hub: FakeHub, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Breaks if a package in the cache cannot be used where the hub does not answer."""
    directory = Run.open(NAME).directory
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    assert Run.open(NAME).directory == directory
    assert "from the cache, the hub does not answer" in capsys.readouterr().out
    with pytest.raises(UserError, match=r"hf://lab/other: the hub says no .* log in"):
        Run.open("hf://lab/other")


@pytest.mark.slow
def test_scores_do_not_go_into_the_cache(sent: Run, tmp_path: Path) -> None:
    """Breaks if what evaluate found lies where nobody looks, or cannot be had elsewhere."""
    fetched = Run.open(NAME)
    config = compose("data=phantom", "data.count=6", "data.seed=9", "device=cpu", name="evaluate")
    with pytest.raises(UserError, match=r"hf://lab/net would lie in the hub's cache; .* out=DIR"):
        evaluate(fetched, config, own_data=False)
    before = {path.name for path in fetched.directory.rglob("*")}
    summary = evaluate(fetched, config, own_data=False, out=tmp_path / "scores")
    assert summary["conditions"]["data"].endswith("6 images")
    assert summary["predictor"]["members"][0]["run"] == str(fetched.directory.resolve())
    assert (tmp_path / "scores" / "report.html").is_file()
    assert {path.name for path in fetched.directory.rglob("*")} == before
    with pytest.raises(UserError, match="is a run; give another out=DIR"):
        evaluate(fetched, config, own_data=False, out=fetched.directory)


@pytest.mark.slow
def test_too_large_and_no_packages_are_refused(sent: Run, hub: FakeHub) -> None:
    """Breaks if such files are fetched before they are refused."""
    hub.sizes["summary.json"] = 10**10
    hub.asked.clear()
    with pytest.raises(UserError, match=r"its summary.json has more than 134 MB"):
        Run.open(NAME)
    del hub.repositories["lab/net"]["model.safetensors"]
    with pytest.raises(UserError, match=r"is no package of AnatoSegNet: it has no model.safet"):
        Run.open(NAME)
    with pytest.raises(UserError, match="hf://lab/none: the hub says no"):
        Run.open("hf://lab/none")
    assert not any("/resolve/" in line for line in hub.asked)


@pytest.mark.parametrize(
    "text",
    ["hf://", "hf://a", "hf://a/b/c", "hf://../b", "hf://a/..", "hf://a/b@", "hf://a/b@../../x",
     "hf://a/b?x", "hf://a/b\n", "hf://a/" + "b" * 200, "hf://a\x1b/b"],
)  # fmt: skip
def test_addresses_are_names(text: str) -> None:
    """Breaks if an address may hold a path, a question or letters of a terminal."""
    with pytest.raises(UserError, match="must be hf://OWNER/NAME") as caught:
        Address.of(text)
    assert "\x1b" not in str(caught.value)


def test_links_are_not_sent(hub: FakeHub, tmp_path: Path) -> None:
    """Breaks if a file of yours that a stranger's package links to is uploaded."""
    (tmp_path / "net").mkdir()
    (tmp_path / "net" / "secret").symlink_to("/etc/hostname")
    with pytest.raises(UserError, match="holds links, which are not sent: secret"):
        push(tmp_path / "net", NAME)
    assert not hub.repositories


def test_what_is_pushed_is_a_package(run: Run, tmp_path: Path) -> None:
    """Breaks if another format, or a wrong address, is noticed after all is written."""
    for given, said in (("format=onnx", "format=package"), ("format=package", "must be hf://")):
        push_to = f"push='{'hf://a' if 'package' in given else NAME}'"
        config = compose(given, push_to, f"out={tmp_path / 'net'}", name="export")
        with pytest.raises(UserError, match=said):
            export(run, config)
    assert not (tmp_path / "net").exists()
