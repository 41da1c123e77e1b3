"""What ensembles, views and precisions do to IoU, on the same cases: a table of docs/deploy.md.

    python scripts/predictor_table.py --runs A B C D E [--data breast_lesions_usg]
    python scripts/predictor_table.py            # the table anew, from the scores that are kept

Of each run: as `predict` runs it, with views, and as ONNX files of each precision, made here as
`export` makes them; and the ensemble of the runs. All see each image in turn, and are scored at its
original size. Writes the IoU of each image into results/predictors/<data>.csv.gz.
"""

import argparse
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import hydra
import numpy as np
from omegaconf import DictConfig
from pandas import DataFrame

from anatosegnet.cli import errors_in_one_line
from anatosegnet.config.composition import config_directory
from anatosegnet.deployment.agreement import TOLERANCE, ious
from anatosegnet.deployment.conversion import to_onnx, with_metadata
from anatosegnet.deployment.onnx import in_precision
from anatosegnet.deployment.original import Original
from anatosegnet.evaluation.cohort import find_cohort
from anatosegnet.evaluation.published import pack
from anatosegnet.files.rows import read_rows, write_frame
from anatosegnet.metrics.statistics import interval
from anatosegnet.prediction.onnx import OnnxPredictor
from anatosegnet.prediction.opening import SCALES, joined, of_run, seen
from anatosegnet.prediction.predictor import ImagePredictor
from anatosegnet.report.markdown import table_lines, write_computed
from anatosegnet.run import Run

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "results" / "predictors"
SINGLE = "single"
VIEWS = {"tta=flip": ("flip",), "tta=scales": ("scales",), "tta=[flip,scales]": ("flip", "scales")}
HEAD = ["predictor", "IoU", "difference, paired", "passes"]


def main() -> None:
    """Score the runs, if any are named, and write the table into docs/deploy.md."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", nargs="*", default=[])
    parser.add_argument("--data", default="breast_lesions_usg")
    given = parser.parse_args()
    name = f"{given.data}.csv"
    with errors_in_one_line("predictor_table"):
        if given.runs:
            RESULTS.mkdir(exist_ok=True)
            runs = [Run.open(run, "--runs") for run in given.runs]
            with tempfile.TemporaryDirectory() as folder:
                write_frame(Path(folder) / name, scores(runs, given.data))
                pack(Path(folder) / name, RESULTS)
        write_computed(ROOT / "docs" / "deploy.md", lines(kept_scores(RESULTS / f"{name}.gz")))
    print("written docs/deploy.md")


def scores(runs: Sequence[Run], data: str) -> DataFrame:
    """IoU of each image of a dataset, a column for each predictor: ``<kind>:<run>``."""
    with hydra.initialize_config_dir(str(config_directory()), version_base="1.3"):
        of_evaluate = hydra.compose("evaluate", [f"data={data}"])
        of_export = hydra.compose("export", [f"data={data}"])
    cohort = find_cohort(runs[0], of_evaluate, own_data=False)
    cases, values = ious(cohort, dict(named(runs, of_export)))
    about = {"id": [case.name for case in cases], "group": [case.group for case in cases]}
    return DataFrame({**about, **values})


def kept_scores(path: Path) -> DataFrame:
    """What `scores` gave."""
    columns, rows = read_rows(path)
    frame = DataFrame(rows, columns=columns)
    return frame.astype(dict.fromkeys(columns[2:], float))


def named(runs: Sequence[Run], config: DictConfig) -> Iterator[tuple[str, ImagePredictor]]:
    """Every predictor of the table by its name."""
    singles = [of_run(run, "cpu") for run in runs]
    for number, (run, single) in enumerate(zip(runs, singles, strict=True)):
        yield f"{SINGLE}:{number}", single
        for kind, views in VIEWS.items():
            yield f"single, {kind}:{number}", seen(single, views)
        for precision, predictor in exported(run, config).items():
            yield f"ONNX, {precision}:{number}", predictor
    yield f"ensemble of {len(runs)}:", joined(singles)
    for kind, views in VIEWS.items():
        yield f"ensemble, {kind}:", joined([seen(single, views) for single in singles])


def exported(run: Run, config: DictConfig) -> dict[str, ImagePredictor]:
    """A run's network as ONNX files of each precision."""
    original = Original(run)
    model = to_onnx(original.network, original.example)
    found: dict[str, ImagePredictor] = {}
    with tempfile.TemporaryDirectory() as folder:
        for precision in TOLERANCE:
            path = Path(folder) / f"{precision}.onnx"
            kind = in_precision(precision, model, run, config, original)
            path.write_bytes(with_metadata(kind, original.described))
            found[precision] = OnnxPredictor(path)
    return found


def lines(frame: DataFrame) -> Iterator[str]:
    """The table: each kind of predictor, the mean over its runs, beside the single runs."""
    groups = [str(group) for group in frame["group"].where(frame["group"] != "", frame["id"])]
    kinds: dict[str, list[str]] = {}
    for column in frame.columns[2:]:
        kinds.setdefault(column.rpartition(":")[0], []).append(column)
    means = {kind: frame[columns].to_numpy().mean(axis=1) for kind, columns in kinds.items()}
    runs = len(kinds[SINGLE])
    yield ""
    yield from table_lines(HEAD, rows(means, groups, runs))


def rows(
    means: Mapping[str, np.ndarray], groups: Sequence[str], runs: int
) -> Iterator[Sequence[str]]:
    """A row for each kind of predictor."""
    for kind, values in means.items():
        low, high = interval(values, groups) or (np.nan, np.nan)
        row = [kind, f"{values.mean():.3f} [{low:.3f}, {high:.3f}]", "", passes(kind, runs)]
        if kind != SINGLE:
            apart = values - means[SINGLE]
            low, high = interval(apart, groups) or (np.nan, np.nan)
            row[2] = f"{apart.mean():+.3f} [{low:+.3f}, {high:+.3f}]"
        yield row


def passes(kind: str, runs: int) -> str:
    """How often a network sees each image."""
    views = VIEWS.get(kind.rpartition(", ")[2], ())
    times = (2 if "flip" in views else 1) * (1 + len(SCALES) if "scales" in views else 1)
    return str(times * (runs if kind.startswith("ensemble") else 1))


if __name__ == "__main__":
    main()
