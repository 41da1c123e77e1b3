"""A run scored on a cohort: ``evaluation/<dataset>/`` with its tables, pictures and report."""

from collections.abc import Collection
from pathlib import Path
from typing import Any, NamedTuple

from omegaconf import DictConfig
from pandas import DataFrame

from anatosegnet.config.places import path_part
from anatosegnet.console import say
from anatosegnet.data.changes import KEY as CHANGED
from anatosegnet.data.checksum import sha256
from anatosegnet.errors import UserError
from anatosegnet.evaluation import tables
from anatosegnet.evaluation.cohort import find_cohort
from anatosegnet.evaluation.extremes import write_extremes
from anatosegnet.evaluation.scoring import Scored, Scoring, score_cases
from anatosegnet.files.rows import write_frame
from anatosegnet.files.writing import replacing_directory, write_json
from anatosegnet.metrics.calibration import calibration_summary
from anatosegnet.metrics.scores import MAIN
from anatosegnet.prediction.inference import Predictor
from anatosegnet.report import write_report
from anatosegnet.run import Run, environment


def evaluate(run: Run, config: DictConfig, own_data: bool = True) -> dict[str, Any]:
    """Score the best epoch of a run and write ``evaluation/<dataset>/``.

    Args:
        run: The run.
        config: The composed config of the verb: data, at, surface, batch_size, device, overwrite.
        own_data: Evaluate on the run's own data; else on ``config.data``.

    Returns:
        What was written to ``summary.json``.

    Raises:
        UserError: The run or the data is at fault, or results would be overwritten.
    """
    scoring = Scoring.from_config(config)
    if config.extremes < 1:
        raise UserError(f"extremes={config.extremes} must be at least 1")
    run.require_no_way_out()
    cohort = find_cohort(run, config, own_data)
    output = evaluation_directory(run, cohort.data.name, scoring.at)
    with replacing_directory(output, config.overwrite) as temporary:
        predictor = Predictor.from_run(run, config.device)
        scored = score_cases(
            cohort.data,
            cohort.names,
            predictor,
            scoring,
            temporary,
            config.batch_size,
            cohort.notice,
        )
        known = cohort.judge()
        conditions = {
            "data": f"{cohort.data.title}, {len(scored)} images",
            "split": known.split,
            **known.changes.condition,
            "selection": known.selection,
            "aggregation": f"per image at {size_scored(scoring, predictor)}, mean over images",
        }
        about = {
            "run": str(run.directory.resolve()),
            "checkpoint_sha256": sha256(run.best_path),
            **({CHANGED: known.changes.summary} if known.changes else {}),
            **environment(),
        }
        written = write_evaluation(
            temporary, scored, scoring, conditions, about, config.extremes, known.leaks
        )
        write_report(temporary, run, cohort.recorded.rows)
    # all is on the disk by now
    tables.print_evaluation(written.summary, written.frame, written.strata)
    say(f"written {output}")
    return written.summary


def evaluation_directory(run: Run, dataset: str, at: str) -> Path:
    """Where the scores on a dataset lie; raises UserError for a name that leads elsewhere."""
    suffix = "" if at == "original" else "_at_model_size"
    return run.directory / "evaluation" / f"{path_part(dataset, 'data.name')}{suffix}"


def size_scored(scoring: Scoring, predictor: Predictor) -> str:
    """The size of the images that were scored, as said beside the scores."""
    if scoring.at == "original":
        return "original size"
    return "{}×{} px (the network's size)".format(*predictor.image_size)


class Written(NamedTuple):
    """What `write_evaluation` wrote: the summary, a row per image, and the strata."""

    summary: dict[str, Any]
    frame: DataFrame
    strata: DataFrame


def write_evaluation(
    directory: Path,
    scored: list[Scored],
    scoring: Scoring,
    conditions: dict[str, str],
    about: dict[str, Any],
    extremes_count: int = 5,
    leaks: Collection[str] = (),
) -> Written:
    """Write ``scores.csv``, ``tables.csv``, ``summary.json`` and ``extremes.png``.

    Args:
        directory: Where the overlays lie already.
        scored: A row for each image, in order.
        scoring: How they were scored.
        conditions: What a reader must know: data, split, selection, aggregation.
        about: What else the summary holds.
        extremes_count: Images in each row of ``extremes.png``.
        leaks: Names of the images with a near-duplicate, or another image of their patient, in
            training; the scores of the others are given too.
    """
    frame = DataFrame([item.row for item in scored])
    strata = tables.stratified(frame, leaks, scoring.own)
    summary = tables.summarise(frame)
    if clean := tables.clean_scores(strata):
        summary["without_leaks"] = clean
    conditions = {**conditions, **tables.conditions(frame, scoring, summary)}
    summary |= {
        "calibration": calibration_summary([item.reliability for item in scored], frame["brier"]),
        "extremes": tables.extremes(frame, extremes_count),
        "conditions": conditions,
    }
    if scoring.own:  # so that reading them needs no code of theirs
        summary["own_scores"] = {name: score.about for name, score in scoring.own.items()}
    write_frame(directory / "scores.csv", frame)
    write_frame(directory / "tables.csv", strata)
    values = dict(zip(frame["id"], frame[MAIN], strict=True))
    write_extremes(directory / "extremes.png", directory / "overlays", summary["extremes"], values)
    summary |= {"scores_sha256": sha256(directory / "scores.csv"), **about}
    write_json(directory / "summary.json", summary)
    return Written(summary, frame, strata)
