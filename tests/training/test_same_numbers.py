"""Every recipe gives the numbers that it gave when they were stored."""

import json
from pathlib import Path

import pytest
from scripts.same_numbers import RECIPES, stored_numbers

from anatosegnet.run import Run
from anatosegnet.train import train
from tests.running import compose

TOLERANCE = 1e-4  # SSE and AVX-512 differ by 7e-6 here
STORED = json.loads((Path(__file__).parents[1] / "golden" / "recipes.json").read_text())


@pytest.mark.slow
@pytest.mark.parametrize("recipe", RECIPES)
def test_seeded_numbers_are_the_stored_ones(recipe: str, tmp_path: Path) -> None:
    """Breaks if a change alters what a recipe computes: its data, network, loss, steps or scores.

    The tolerance is for the rounding of other processors; ``scripts/same_numbers.py`` compares two
    checkouts on one machine to the bit, and ``--store`` makes the file anew.
    """
    run = Run(tmp_path / "run")
    train(compose(*RECIPES[recipe], f"run_dir={run.directory}"), run)
    numbers, stored = stored_numbers(run.directory), STORED[recipe]
    assert len(numbers["epochs"]) == len(stored["epochs"])
    for epoch, expected in zip(numbers["epochs"], stored["epochs"], strict=True):
        assert epoch == pytest.approx(expected, rel=TOLERANCE)
    for key in ("test/loss", "weights"):
        assert numbers[key] == pytest.approx(stored[key], rel=TOLERANCE), key
