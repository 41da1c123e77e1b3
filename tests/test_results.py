"""What lies under ``results/``: each published run is whole, and tells of no machine."""

from pathlib import Path

import pytest
from scripts import figure_ablation, leakfree_table, predictor_table

from anatosegnet.evaluation.published import faults, faults_of_files
from anatosegnet.report.markdown import computed
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
    holders = {*RUNS, predictor_table.RESULTS}  # whose table is computed again below
    tables = [path for path in RESULTS.rglob("*.gz") if not set(path.parents) & holders]
    assert not tables


@pytest.mark.slow
def test_the_ablation_is_what_its_scores_give() -> None:
    """Breaks if docs/ablation.md says other numbers than the published scores give."""
    again = "\n".join(figure_ablation.lines(figure_ablation.find(RESULTS / "ablation")))
    written = computed(RESULTS.parent / "docs" / "ablation.md")
    assert written.strip() == again.strip(), "python scripts/figure_ablation.py writes it anew"


@pytest.mark.slow
def test_the_leak_free_table_is_what_its_scores_give() -> None:
    """Breaks if docs/benchmark.md says other numbers than the published scores give."""
    again = "\n".join(leakfree_table.lines(leakfree_table.read(RESULTS / "leakfree")))
    written = computed(RESULTS.parent / "docs" / "benchmark.md")
    assert written.strip() == again.strip(), "python scripts/leakfree_table.py writes it anew"


def test_the_table_of_predictors_is_what_its_scores_give() -> None:
    """Breaks if docs/deploy.md says other numbers than the kept scores give."""
    kept = predictor_table.kept_scores(predictor_table.RESULTS / "breast_lesions_usg.csv.gz")
    again = "\n".join(predictor_table.lines(kept))
    written = computed(RESULTS.parent / "docs" / "deploy.md")
    assert written.strip() == again.strip(), "python scripts/predictor_table.py writes it anew"


def test_networks_of_the_leak_free_table_share_their_folds() -> None:
    """Breaks if a network was trained or tested on other cases than the others of its dataset."""
    splits: dict[tuple[str, str], set[str]] = {}
    for directory in RUNS:
        place = directory.relative_to(RESULTS)
        if place.parts[0] == "leakfree":
            fingerprint = Run(directory).summary["split_fingerprint"]
            splits.setdefault((place.parts[1], place.parts[3]), set()).add(fingerprint)
    assert all(len(fingerprints) == 1 for fingerprints in splits.values())
