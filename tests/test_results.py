"""What lies under ``results/``: each published run is whole, and tells of no machine."""

from pathlib import Path

import pytest

from anatosegnet.evaluation.published import faults, faults_of_files
from anatosegnet.run import Run
from anatosegnet.run_list import find_runs

RESULTS = Path(__file__).parents[1] / "results"
RUNS = sorted(find_runs(RESULTS))


@pytest.mark.slow
@pytest.mark.parametrize("directory", RUNS, ids=lambda path: str(path.relative_to(RESULTS)))
def test_a_published_run_is_whole(directory: Path) -> None:
    """Breaks if a split is not the recorded one, a test image is missing, or a mean is another."""
    assert not list(faults(Run(directory)))
    assert not list(faults_of_files(directory))


def test_all_that_is_published_is_a_run() -> None:
    """Breaks if tables lie under results/ that no run, and so no check, holds."""
    assert RUNS
    tables = [path for path in RESULTS.rglob("*.gz") if not set(path.parents) & set(RUNS)]
    assert not tables
