"""`anatosegnet`, its verbs and their help, completion, and folders of one's own configs."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from anatosegnet import __main__ as front
from anatosegnet import cli
from anatosegnet.config import composition
from anatosegnet.help import list_of_verbs, verbs
from tests.commands import Shell

VERBS = [
    "app", "compare", "evaluate", "export", "models", "predict", "prepare", "publish", "runs",
    "train", "tune",
]  # fmt: skip


def call(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    """The console script with these arguments."""
    monkeypatch.setattr(sys, "argv", ["/somewhere/bin/anatosegnet", *arguments])
    monkeypatch.setattr(sys, "path", [*sys.path])
    front.main()


@pytest.mark.parametrize("arguments", [[], ["--help"]])
def test_the_verbs_are_listed(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Breaks if the front door fails without a verb, or a verb's file does not say what it does."""
    call(monkeypatch, *arguments)
    said = capsys.readouterr().out
    assert said == list_of_verbs() + "\n"
    assert set(VERBS) <= set(verbs())
    programs = Path(front.__file__).parent.rglob("*.py")
    with_verb = {
        path.stem if path.stem != "__main__" else path.parent.name
        for path in programs
        if "\n@verb(" in path.read_text("utf-8")
    }
    assert with_verb == set(verbs())
    for verb, (_, what) in verbs().items():
        assert sum(f"  {verb}" in line and what in line for line in said.splitlines()) == 1


@pytest.mark.slow
def test_the_list_is_quick() -> None:
    """Breaks if the list, or a verb's help, imports what training needs."""
    code = (
        "import sys; from anatosegnet.__main__ import main; sys.argv[1:] = ARGUMENTS\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print(sorted({'torch', 'lightning', 'pandas', 'rich'} & set(sys.modules)))"
    )
    for arguments in ([], ["train", "--help"]):
        program = code.replace("ARGUMENTS", repr(arguments))
        result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
        assert result.stdout.splitlines()[-1] == "[]", result.stderr


@pytest.mark.parametrize(
    ("verb", "way_out"), [("trian", "did you mean train?"), ("xyz", "there are app, compare")]
)
def test_an_unknown_verb_is_one_line(
    verb: str, way_out: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Breaks if a misspelt verb is a traceback, or does not name the nearest."""
    with pytest.raises(SystemExit) as stop:
        call(monkeypatch, verb)
    said = capsys.readouterr().err
    assert stop.value.code == 2
    assert said.startswith(f"error: there is no verb {verb}; {way_out}")
    assert said.count("\n") == 1


def test_a_verb_runs_as_the_program_that_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Breaks if a verb behind the front door could not start further processes of itself.

    Lightning starts the others of several devices as ``python -m <spec of __main__> <arguments>``.
    """
    seen: list[Any] = []

    def verb(name: str) -> Any:
        def note() -> None:
            spec = sys.modules["__main__"].__spec__
            assert spec is not None
            seen.extend([name, spec.name, sys.argv[1:], str(tmp_path) in sys.path])

        return lambda task: note

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cli, "verb", verb)
    call(monkeypatch, "runs", "dir=x", "--help")
    assert seen == ["runs", "anatosegnet.runs", ["dir=x", "--help"], True]


@pytest.mark.parametrize("verb", VERBS)
def test_help_says_what_each_group_is(verb: str, shell: Shell) -> None:
    """Breaks if a group has no line, a private file is offered, or a setting is left out."""
    said = shell(verb, "--help").output
    assert said.startswith(f"python -m anatosegnet.{verb}")
    groups, _, settings = said.partition("\nSettings")
    assert "_shared" not in said
    assert "hydra/" not in said
    lines = groups.splitlines()[4:]
    heads = [line for line in lines if line.startswith("  ") and line[2] != " "]
    assert all(len(head.split()) > 2 for head in heads), heads
    assert [head.split()[0] for head in heads] == sorted(head.split()[0] for head in heads)
    for setting in composition.top_level(verb):
        assert f"\n  {setting}:" in settings, setting
    used = {"train": ["callbacks", "sweep"], "tune": ["search/pruner"], "evaluate": ["data"]}
    for group in used.get(verb, []):
        assert f"\n  {group} " in groups
    assert ("optimizer" in groups) == (verb in ("train", "tune"))


@pytest.fixture
def local(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in the place of the checkout's configs/local."""
    folder = tmp_path / "local"
    (folder / "experiment").mkdir(parents=True)
    (folder / "experiment" / "short.yaml").write_text(
        "# @package _global_\ntrainer: {max_epochs: 7}\n"
    )
    (folder / "mine").mkdir()
    (folder / "mine" / "x.yaml").write_text("a: 1\n")
    monkeypatch.setattr(composition, "local_directory", lambda: folder)
    return folder


@pytest.mark.slow
def test_own_configs_are_found(shell: Shell, local: Path) -> None:
    """Breaks if configs/local is not searched, or only without --config-dir."""
    said = shell.train("--help").output
    assert "\n  mine\n" in said
    assert {"short", "released", "convolution"} <= set(said.replace(",", " ").split())
    assert "max_epochs: 7" in shell.train("experiment=short", "--cfg", "job").output
    assert "max_epochs: 7" in shell("train", "experiment=short", "--cfg", "job").output
    wrong = shell.train("experiment=shrt", status=2)
    assert "available: ablation_residual" in wrong.errors
    assert ", short" in wrong.errors
    (local / "callbacks").mkdir()
    (local / "callbacks" / "bell.yaml").touch()
    wrong = shell.train("callbacks=[default,bel]", status=2)
    assert "available: bell, default, early_stopping, ema" in wrong.errors
    wrong = shell.train("experiment=short", "trainer.max_epohcs=1", status=2)
    assert "did you mean trainer.max_epochs?" in wrong.errors


@pytest.mark.parametrize("place", ["local", "configs"])
def test_a_config_that_would_not_be_read_is_refused(place: str, shell: Shell, local: Path) -> None:
    """Breaks if a user's own model/unet is passed over for this project's without a word."""
    assert local.parent == shell.folder
    (shell.folder / place / "model").mkdir(exist_ok=True)
    (shell.folder / place / "model" / "unet.yaml").write_text("_target_: mylab.UNet\n")
    result = shell.train("model=unet", status=2)
    assert f"{place}/model/unet.yaml would not be read" in result.errors
    assert "give yours another name" in result.errors
    assert not (shell.folder / "runs").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("anatosegnet ", " ".join(VERBS)),
        ("anatosegnet tra", " ".join(VERBS)),  # the shell takes those that fit
        ("anatosegnet train optimizer=ada", "optimizer=adam optimizer=adamw"),
        ("anatosegnet evaluate surf", "surface="),
    ],
)
def test_completion(line: str, expected: str) -> None:
    """Breaks if Hydra's completion is not asked about the verb that stands in the line."""
    code = "import sys; sys.argv[0] = '/bin/anatosegnet'; import anatosegnet.__main__ as front"
    program = [sys.executable, "-c", f"{code}; front.main()", "-sc"]
    environment = {**os.environ, "COMP_LINE": line}
    asked = subprocess.run(
        [*program, "query=bash"], env=environment, capture_output=True, text=True
    )
    assert asked.stdout.strip() == expected, asked.stderr
    script = subprocess.run([*program, "install=bash"], capture_output=True, text=True)
    assert script.stdout.endswith("hydra_bash_completion anatosegnet\n"), script.stderr
