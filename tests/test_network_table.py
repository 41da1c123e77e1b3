"""``models``: the table of networks, and the sweeps over them."""

import csv
import sys
from pathlib import Path

import hydra
import pytest
from omegaconf import OmegaConf

from anatosegnet import network_table
from anatosegnet.config.composition import choices_of, config_directory
from anatosegnet.errors import UserError
from anatosegnet.files.rows import read_rows
from anatosegnet.network_table import print_networks
from tests.commands import Shell
from tests.models.test_networks import COUNTS

SMALL = 5.0
"""Multiply-adds (1e9) of an image of 256 px, below which a network is for a CPU."""


@pytest.mark.slow
def test_own_networks_are_in_the_table_as_csv(shell: Shell) -> None:
    """Breaks if a user's own network is left out, or anything but the table is printed."""
    own = ["--config-dir", str(shell.configs), "only=[unext,convolution]"]
    said = shell("models", *own, "image_size=32", "speed=false", "--csv").output
    rows = {row["name"]: row for row in csv.DictReader(said.splitlines())}
    assert list(rows) == ["unext", "convolution"]
    assert int(rows["convolution"]["parameters"]) == 3 * 2 * 9 + 2
    assert rows["unext"]["source"] == "UNeXt (Valanarasu and Patel, MICCAI 2022)"


def print_table(*overrides: str) -> None:
    """What the verb does, in this process."""
    with hydra.initialize_config_dir(str(config_directory()), version_base="1.3"):
        print_networks(hydra.compose("models", list(overrides)))


def test_the_table_counts_and_quotes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Breaks if a count or a published score is another, or a network without its extra fails."""
    monkeypatch.setattr(network_table, "SECONDS", 0.01)
    monkeypatch.setitem(sys.modules, "segmentation_models_pytorch", None)
    print_table("only=[unext,smp]", "image_size=64")
    said = capsys.readouterr().out
    assert "65.04 ± 2.71, 74.16 ± 2.84 [1]" in said
    assert "published: [1] BUSI, in %, public 2-D benchmark: 256 px, three splits" in said
    assert "remark: smp: this network needs the package segmentation_models_pytorch: pip" in said
    print_table("only=[unext,smp]", "image_size=64", f"csv={tmp_path}/table.csv", "batch_size=1")
    unext, smp = read_rows(tmp_path / "table.csv")[1]
    assert int(unext["parameters"]) == COUNTS["unext"][0]
    assert float(unext["gmac"]) == pytest.approx(COUNTS["unext"][1] / 16, rel=0.01)
    assert float(unext["training"]) > 0 and float(unext["inference"]) > 0
    assert smp["parameters"] == "" and smp["pretrained"] == "True"
    with pytest.raises(UserError, match="only=unexd: there is no model/unexd; available: anato"):
        print_table("only=[unexd]")


def test_the_sweeps_over_networks_leave_none_out() -> None:
    """Breaks if a new network is not in them, or one in the wrong list."""
    random = []
    for name in choices_of("model"):
        config = OmegaConf.load(config_directory() / "model" / f"{name}.yaml")
        if "defaults" not in config and "pretrained" not in config:
            random.append(name)
    assert set(random) <= set(COUNTS)  # whose counts are tested where they stand

    def swept(choice: str) -> list[str]:
        sweep = OmegaConf.load(config_directory() / "sweep" / f"{choice}.yaml")
        return [name.strip() for name in sweep.hydra.sweeper.params.model.split(",")]

    assert swept("networks") == random
    assert swept("networks_small") == [name for name in random if COUNTS[name][1] < SMALL]


@pytest.mark.parametrize("wrong", ["image_size=0", "image_size=large", "batch_size=0"])
def test_sizes_that_cannot_be(wrong: str) -> None:
    """Breaks if a wrong size is a remark behind each network, or nothing at all."""
    with pytest.raises(UserError, match=f"{wrong} must be a whole number from"):
        print_table("only=[unext]", wrong)


def test_a_table_that_cannot_be_written_is_not_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Breaks if minutes are spent on a table before its place is looked at."""
    monkeypatch.setattr(network_table, "read_row", pytest.fail)
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError):
        print_table("only=[unext]", f"csv={tmp_path}/file/table.csv")
