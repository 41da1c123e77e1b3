"""The page for people's own parts: its examples and commands run as they stand there.

They run in a folder outside the checkout, as those of somebody who edits nothing of this package.
"""

import csv
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

import anatosegnet.evaluation.scoring
import anatosegnet.report.curves
import anatosegnet.training.build  # noqa: F401  (these three: once, and not in every process)
from anatosegnet.config import composition
from anatosegnet.data.simulator import label_of, simulate
from anatosegnet.report.overlay import encode_png
from anatosegnet.run import Run
from tests.commands import Result, Shell

PAGE = Path(__file__).parents[1] / "docs" / "extending.md"
FILE = re.compile(r"```(?:python|yaml)\n((?:# @[^\n]*\n)?# (\S+)\n.*?)```", re.DOTALL)
COMMANDS = re.compile(r"```bash\n(.*?)```", re.DOTALL)
WITHOUT = {"ANATOSEGNET_DATA_DIR": None, "ANATOSEGNET_CACHE_DIR": "cache", "PYTHONPATH": None}


def write_examples(folder: Path) -> dict[str, str]:
    """The files of the page, by name, written."""
    files = {name: text for text, name in FILE.findall(PAGE.read_text("utf-8"))}
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return files


def write_hospital(folder: Path, patients: int = 10) -> None:
    """The data of the page: two scans of each patient."""
    rows = []
    for kind in ("images", "masks"):
        (folder / kind).mkdir(parents=True)
    for number in range(2 * patients):
        phantom = simulate(7, number)
        rows.append((f"scan_{number}", f"patient_{number // 2}", label_of(7, number)))
        (folder / "images" / f"scan_{number}.png").write_bytes(encode_png(phantom.image))
        (folder / "masks" / f"scan_{number}.png").write_bytes(encode_png(phantom.mask * 255))
    with (folder / "scans.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("scan", "patient", "diagnosis"), *rows])


@pytest.fixture
def lab(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> Shell:
    """A folder with what the page shows, from which Python imports."""
    write_examples(shell.folder)
    monkeypatch.syspath_prepend(shell.folder)
    return shell


def give(lab: Shell, command: str, *more: str, status: int = 0) -> Result:
    """A command of the page."""
    program, verb, *arguments = shlex.split(command)
    assert program == "anatosegnet"
    arguments += more
    if verb == "train" and "data=hospital" not in arguments and "--config-dir" in arguments:
        arguments.append("data.count=12")  # of 200 phantoms
    return lab(verb, *arguments, status=status, **WITHOUT)


@pytest.mark.slow
def test_every_example_runs(lab: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks if an example of the page does not run, or has no effect."""
    write_hospital(lab.folder / "data" / "hospital")
    commands = [line for block in COMMANDS.findall(PAGE.read_text("utf-8"))
                for line in block.strip().splitlines()]  # fmt: skip
    for command in commands:
        give(lab, command)
    runs = {path.name: Run(path, trust=["mylab"]) for path in (lab.folder / "runs").iterdir()}
    config = {name: run.config for name, run in runs.items()}
    assert set(runs) == {"network", "hospital", "loss", "augmentation", "callback", "module"}
    assert all(each.model._target_ == "mylab.networks.TwoLayers" for each in config.values())
    assert [config[name].model.width for name in ("network", "loss")] == [12, 8]
    assert config["network"].trainer.max_epochs == 3
    assert config["loss"].loss._target_ == "mylab.losses.LogDice"
    transforms = config["augmentation"].augmentation.transforms
    assert transforms[1]._target_ == "mylab.augmentation.DeadElements"
    assert "train/weight_norm" in runs["callback"].metrics_path.read_text()
    assert "train/flip" in runs["module"].metrics_path.read_text()

    with runs["hospital"].split_path.open() as file:
        rows = list(csv.DictReader(file))
    assert {row["patient"] for row in rows} == {f"patient_{number}" for number in range(10)}
    parts = {(row["patient"], row["part"]) for row in rows}
    assert len(parts) == 10, "a patient lies on two sides"
    assert (lab.folder / "index").is_dir()
    assert len(list((lab.folder / "masks").glob("*.png"))) == 20

    about = "evaluation/phantom/summary.json"
    summary = json.loads((runs["network"].directory / about).read_text())
    assert summary["own_scores"]["centre_distance"]["label"] == "distance of centres"
    assert "centre_distance" in (lab.folder / "comparison" / "comparison.csv").read_text()


@pytest.mark.slow
def test_the_folder_in_which_one_stands_is_enough(tmp_path: Path) -> None:
    """Breaks if `anatosegnet`, unlike `python -m`, does not find the package beside it."""
    write_examples(tmp_path)
    code = "import sys; sys.path.pop(0); import anatosegnet.__main__ as front; front.main()"
    given = ["train", "--config-dir", "conf", "experiment=quick", "data.count=12", "test=false",
             "data.cache=off", "run_dir=run", "callbacks.panels=null"]  # fmt: skip
    result = subprocess.run(
        [sys.executable, "-c", code, *given], cwd=tmp_path, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr


@pytest.mark.slow
def test_a_checkouts_own_folder_needs_no_option(
    lab: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Breaks if configs/local is not where --config-dir would look."""
    monkeypatch.setattr(composition, "local_directory", lambda: lab.folder / "conf")
    quick = ("experiment=quick", "data.count=12", "data.cache=off", "callbacks.panels=null")
    lab("train", *quick, "module=flip_consistent", "run_dir=run", **WITHOUT)
    refused = lab("evaluate", "run=run", status=2, **WITHOUT)
    assert refused.errors.endswith("trust=[mylab]\n")
    refused = lab("train", "resume=run", "trainer.max_epochs=3", status=2, **WITHOUT)
    assert refused.errors.endswith("trust=[mylab]\n")


def breach(lab: Shell, *given: str) -> str:
    """The line that a training ends in before it has written anything."""
    command = "anatosegnet train --config-dir conf experiment=quick data.cache=off run_dir=run"
    said = give(lab, command, *given, status=2).errors
    assert not (lab.folder / "run").exists()
    return said


def change(lab: Shell, name: str, before: str, after: str) -> None:
    """Put something else into a file of the page."""
    text = (lab.folder / name).read_text()
    assert before in text
    (lab.folder / name).write_text(text.replace(before, after))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("file", "before", "after", "given", "expected"),
    [
        ("networks", "nn.Conv2d(width, 1, 1)", "nn.Conv2d(width, 3, 1)", [], (
            "model: TwoLayers gives 2×3×32×32 float32 for images 2×3×32×32",
            "wanted are logits in floating point at the images' size: 2×2×32×32",
        )),
        ("networks", "5, padding=2", "5, padding=2, stride=2", [], ("gives 2×1×16×16",)),
        ("networks", "return self.layers(image)", "return [self.layers(image)]", [],
         ("gives a list of 1",)),
        ("networks", "self.layers(image)", "self.layer(image)", [],
         ("model: TwoLayers fails on 2×3×32×32", "no attribute 'layer'")),
        ("networks", "class TwoLayers", "class OneLayer", [],
         ("model: ", "mylab.networks", "TwoLayers")),
        ("networks", "class TwoLayers(nn.Module)", "class TwoLayers(nn.Modul)", [],
         ("model: ", "nn' has no attribute 'Modul'")),
        ("losses", "-((2 *", "((2 *", ["loss.smooth=abc"],
         ("loss.smooth=abc must be a number",)),
        ("losses", ".mean()", "", ["loss=log_dice"],
         ("loss: LogDice gives 2 float32; wanted is a single number",)),
        ("losses", ".mean()", ".mean().detach()", ["loss=log_dice"], ("without gradient",)),
        ("augmentation", "np.where(dead, np.uint8(0), img)", "img / 255", ["A"],
         ("augmentation (DeadElements) gives images of type float64, where uint8 is needed",)),
        ("augmentation", "np.where(dead, np.uint8(0), img)", "img[::2]", ["A"],
         ("augmentation (DeadElements) makes images of shape (32, 32, 1) into (16, 32, 1)",)),
        ("augmentation", "np.uint8(0), img)", "np.zeros(3, np.uint8), img)", ["A"],
         ("augmentation (DeadElements) makes images of shape (32, 32, 1) into (32, 32, 3)",)),
        ("augmentation", "(1, columns, 1)", "(1, columns + 1, 1)", ["A"],
         ("augmentation (DeadElements) fails on grey images",)),
        ("callbacks", "lightning.Callback", "object", ["callbacks=[default,weight_norm]"],
         ("callbacks.weight_norm: WeightNorm is no lightning.Callback",)),
        ("modules", "class FlipConsistent(SegmentationModule)", "class FlipConsistent(dict)",
         ["module=flip_consistent"], ("module: ", "no lightning.LightningModule")),
    ],
)  # fmt: skip
def test_a_breach_of_a_contract_is_one_line(
    file: str, before: str, after: str, given: Sequence[str], expected: Sequence[str], lab: Shell
) -> None:
    """Breaks if a part that cannot be trained with is found out late, or by a traceback."""
    change(lab, f"mylab/{file}.py", before, after)
    if "A" in given:
        change(lab, "conf/augmentation/dead_elements.yaml", "share: 0.1", "p: 1.0")
        given = ["augmentation=dead_elements"]
    said = breach(lab, *(["loss=log_dice"] if "loss.smooth=abc" in given else []), *given)
    for words in expected:
        assert words in said


def test_an_experiment_without_its_first_line_is_told_of_it(lab: Shell) -> None:
    """Breaks if Hydra's word for a file that lies in a group, and means the whole, is passed on."""
    change(lab, "conf/experiment/quick.yaml", "# @package _global_", "")
    assert "the first line of experiment/quick.yaml must be: # @package _global_" in breach(lab)


@pytest.mark.slow
@pytest.mark.parametrize("target", ["mylb.networks.TwoLayers", "mylab.nets.TwoLayers"])
def test_a_misspelt_module_names_the_way_out(target: str, lab: Shell) -> None:
    """Breaks if a package that Python does not find ends in a riddle."""
    change(lab, "conf/model/two_layers.yaml", "mylab.networks.TwoLayers", target)
    said = breach(lab)
    assert f"No module named '{target.rpartition('.')[0].removesuffix('.networks')}'" in said
    assert ("PYTHONPATH" in said) == (target[:5] == "mylb."), said


WRONG_SOURCES = {
    "a list": ("return Found([self.case(**row) for row in rows])",
               "return [self.case(**row) for row in rows]",
               "data hospital: Hospital.find_cases gives a list; wanted is a Found"),
    "nothing": ("Found([self.case(**row) for row in rows])", "Found([])", "found no case"),
    "no source": ("class Hospital(Source)", "class Hospital", "is no anatosegnet.data.Source"),
    "no method": ("find_cases", "cases", "abstract"),
    "label": ("label=diagnosis", "label='cancer'",
              "the label cancer must be one of benign, malignant, normal, unknown"),
    "argument": ("root: str", "folder: str", "root"),
    # what is wrong with files is a line each
    "no masks": ("(mask,)", "()", "scan_0: the mask is empty, though the case is"),
    "one name": ("Case(scan,", "Case('scan',", "scan: 6 cases have this name"),
    "no file": ('f"{scan}.png"', 'f"{scan}.jpg"', "scan_0.jpg: cannot be read (No such file"),
}  # fmt: skip
OF_FILES = ("no masks", "one name", "no file")


@pytest.mark.slow
@pytest.mark.parametrize("wrong", WRONG_SOURCES)
def test_a_dataset_that_cannot_be_used_is_told_of(wrong: str, lab: Shell) -> None:
    """Breaks if what a source of somebody's own gives is believed without a look."""
    write_hospital(lab.folder / "data" / "hospital", patients=3)
    before, after, expected = WRONG_SOURCES[wrong]
    change(lab, "mylab/data.py", before, after)
    given = ("--config-dir", "conf", "experiment=quick", "data=hospital", "data.cache=off")
    said = lab("train", *given, "run_dir=run", status=2, **WITHOUT)
    assert expected in said.errors
    assert (said.errors.count("\n") == 1) == (wrong not in OF_FILES)
    assert not (lab.folder / "run").exists()
