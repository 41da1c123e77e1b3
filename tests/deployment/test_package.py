"""A run as a package: it opens as a run, its card tells what the run's files say, and no more."""

import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from anatosegnet.deployment.exporting import export
from anatosegnet.errors import UserError
from anatosegnet.evaluation.evaluate import evaluate
from anatosegnet.files.weights import write_weights
from anatosegnet.network import trained_network
from anatosegnet.prediction.inference import Predictor
from anatosegnet.run import Run
from anatosegnet.training.transfer import load_weights
from tests.conftest import grey_image
from tests.deployment.untrained import untrained_run
from tests.running import compose

FACE = "<script>alert(1)</script> [x](javascript:0) | # `a` \x1b[2J"


def packed(run: Run, out: Path, *overrides: str) -> Run:
    """The package of a run."""
    config = compose("format=package", f"out={out}", *overrides, name="export")
    return Run.open(export(run, config))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run with an evaluation; read only."""
    run = untrained_run(tmp_path_factory.mktemp("package") / "run")
    evaluate(run, compose("surface=false", name="evaluate"))
    return run


@pytest.fixture(scope="module")
def package(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Its package; read only."""
    return packed(run, tmp_path_factory.mktemp("packages") / "net", "licence=cc-by-4.0")


def test_a_package_predicts_as_the_run(run: Run, package: Run) -> None:
    """Breaks if a bit of the weights or of what is done to images is lost."""
    images = [np.dstack([grey_image()] * 3)]
    ours, theirs = (Predictor.from_run(one, "cpu").probabilities(images) for one in (run, package))
    assert np.array_equal(ours, theirs)


def test_a_package_holds_what_was_promised(run: Run, package: Run) -> None:
    """Breaks if it names folders of a machine, holds links, or lacks a file."""
    files = {
        path.relative_to(package.directory).as_posix()
        for path in package.directory.rglob("*")
        if not path.is_dir()
    }
    scores = {f"evaluation/phantom/{name}" for name in ("summary.json", "scores.csv.gz")}
    assert files == scores | {
        "README.md", "config.yaml", "model.safetensors", "split.csv.gz", "summary.json"
    }  # fmt: skip
    for name in files:
        content = (package.directory / name).read_bytes()
        assert str(run.directory.parent).encode() not in content


def test_a_package_is_evaluated_and_started_from(run: Run, package: Run, tmp_path: Path) -> None:
    """Breaks if evaluate, compare's check of weights, or init_from do not know a package."""
    from anatosegnet.evaluation.compare import read_evaluation
    from anatosegnet.report.reading import read_summary

    copy = Run(shutil.copytree(package.directory, tmp_path / "net"))
    directory = copy.directory / "evaluation" / "phantom"
    read_evaluation(copy, directory, read_summary(directory / "summary.json"))
    again = evaluate(copy, compose("surface=false", "overwrite=true", name="evaluate"))
    before = json.loads((run.directory / "evaluation" / "phantom" / "summary.json").read_text())
    assert again["iou"] == before["iou"]
    module = torch.nn.Module()
    module.model = torch.nn.Conv2d(3, 2, 3, padding=1)
    transfer = load_weights(module, copy)
    assert transfer.loaded == transfer.parameters and transfer.epoch == 3
    assert torch.equal(module.model.weight, trained_network(run).weight)


def test_the_card_says_what_the_files_say(package: Run) -> None:
    """Breaks if scores stand there without their conditions, or other than in the summary."""
    text = (package.directory / "README.md").read_text("utf-8")
    _, head, body = text.split("---\n", 2)
    front = yaml.safe_load(head)
    scored = package.directory / "evaluation" / "phantom" / "summary.json"
    summary = json.loads(scored.read_text())
    assert front["license"] == "cc-by-4.0" and front["datasets"] == ["phantom"]
    (result,) = front["model-index"][0]["results"]
    values = {metric["type"]: metric["value"] for metric in result["metrics"]}
    assert values["iou"] == round(summary["iou"], 4)
    assert f"| IoU | {summary['iou']:.3f} |" in body
    for condition in summary["conditions"]:
        assert f"\n- {condition}: " in body
    assert "fingerprint" in body and "no image has a near-duplicate in another part" in body
    assert "Weights: cc-by-4.0." in body and "Not a medical device" in body


def test_a_run_that_was_not_evaluated_has_the_scores_of_its_training(tmp_path: Path) -> None:
    """Breaks if such a run cannot be packed, or its card claims more."""
    text = packed(untrained_run(tmp_path / "run"), tmp_path / "net").directory / "README.md"
    body = text.read_text("utf-8")
    assert "| IoU | 0.250 |" in body and "- aggregation: per image" in body
    assert "not given by the author" in body and "license:" not in body


def test_foreign_text_is_no_markup(tmp_path: Path) -> None:
    """Breaks if a name or a condition becomes a tag, a link, a heading or front matter."""
    run = untrained_run(tmp_path / "run")
    summary = {"split_description": FACE, "leakage": f"a\n---\nlicense: mit\n# {FACE}"}
    run.update_summary({**summary, "test_conditions": {"data": FACE}})
    text = (packed(run, tmp_path / "net").directory / "README.md").read_text("utf-8")
    assert "\x1b" not in text and not re.search(r"(?<!\\)<script", text)
    assert not re.search(r"\]\(", text) and "license" not in yaml.safe_load(text.split("---\n")[1])
    headings = [line for line in text.splitlines() if line.startswith("#")]
    assert not any("script" in line for line in headings)


def test_an_unfinished_run_is_not_packed(tmp_path: Path) -> None:
    """Breaks if others get weights that were still to be trained."""
    run = untrained_run(tmp_path / "run")
    run.update_summary({"state": "running"})
    with pytest.raises(UserError, match="is not finished"):
        packed(run, tmp_path / "net")
    assert not (tmp_path / "net").exists()


def other_names(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Names that lead elsewhere."""
    return {f"../../{name}": tensor for name, tensor in weights.items()}


def other_shapes(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Another network's."""
    return {name: tensor[..., :1] for name, tensor in weights.items()}


def no_numbers(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """NaN."""
    return {name: tensor * np.nan for name, tensor in weights.items()}


def too_large(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Infinite."""
    return {name: tensor / 0 for name, tensor in weights.items()}


@pytest.mark.parametrize("change", [other_names, other_shapes, no_numbers, too_large])
def test_weights_of_a_hostile_package(package: Run, tmp_path: Path, change) -> None:
    """Breaks if wrong weights are predicted with, or end in more than one line."""
    copy = Run(shutil.copytree(package.directory, tmp_path / "net"))
    weights = dict(trained_network(package).state_dict())
    write_weights(copy.best_path, change(weights), {})
    with pytest.raises(UserError, match=r"model.safetensors cannot be used") as caught:
        trained_network(copy)
    assert "\n" not in str(caught.value)


def test_a_hostile_config_takes_no_memory(package: Run, tmp_path: Path) -> None:
    """Breaks if a network of terabytes is built before its weights are looked at."""
    copy = Run(shutil.copytree(package.directory, tmp_path / "net"))
    config = copy.config_path.read_text()
    copy.config_path.write_text(config.replace("out_channels: 2", "out_channels: 10000000000"))
    with pytest.raises(UserError, match="tensors have another shape"):
        trained_network(copy)


@pytest.mark.parametrize("target", ["os.system", "anatosegnet.export.main", "builtins.eval"])
def test_a_hostile_config_builds_nothing(package: Run, tmp_path: Path, target: str) -> None:
    """Breaks if a package may name what is executed."""
    copy = Run(shutil.copytree(package.directory, tmp_path / "net"))
    config = yaml.safe_load(copy.config_path.read_text())
    config["model"] = {"_target_": target, "command": f"touch {tmp_path / 'done'}"}
    copy.config_path.write_text(yaml.safe_dump(config))
    with pytest.raises(UserError, match="the recorded config would build"):
        trained_network(copy)
    assert not (tmp_path / "done").exists()


def test_pipes_and_folders_in_the_place_of_weights(package: Run, tmp_path: Path) -> None:
    """Breaks if a package makes a reader wait."""
    copy = Run(shutil.copytree(package.directory, tmp_path / "net"))
    copy.best_path.unlink()
    os.mkfifo(copy.best_path)
    with pytest.raises(UserError, match="it is a pipe"):
        trained_network(Run(copy.directory))
    copy.best_path.unlink()
    copy.best_path.mkdir()
    with pytest.raises(UserError, match="it is a folder"):
        trained_network(Run(copy.directory))


def test_a_package_is_not_trained_on(package: Run) -> None:
    """Breaks if training would write into a package."""
    with pytest.raises(UserError, match="already holds a run"):
        package.require_new()
