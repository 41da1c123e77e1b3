"""A run, or several as one, scored on a cohort: a folder of tables, pictures and a report."""

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from omegaconf import DictConfig
from pandas import DataFrame

from anatosegnet.config.places import path_part, user_path
from anatosegnet.console import say
from anatosegnet.data.changes import KEY as CHANGED
from anatosegnet.data.checksum import sha256
from anatosegnet.errors import UserError
from anatosegnet.evaluation import tables
from anatosegnet.evaluation.cohort import Cohort, find_cohort
from anatosegnet.evaluation.extremes import write_extremes
from anatosegnet.evaluation.members import Members, about_predictor
from anatosegnet.evaluation.scoring import Scored, Scoring, score_cases
from anatosegnet.files.rows import write_frame
from anatosegnet.files.writing import replacing_directory, write_json
from anatosegnet.metrics.calibration import calibration_summary
from anatosegnet.metrics.scores import MAIN
from anatosegnet.prediction.opening import joined, of_run, seen, views_of
from anatosegnet.prediction.predictor import ImagePredictor, Views
from anatosegnet.report import write_report
from anatosegnet.report.reading import SCORES
from anatosegnet.run import Run, environment


def evaluate(
    run: Run, config: DictConfig, own_data: bool = True, out: str | Path | None = None
) -> dict[str, Any]:
    """Score the best epoch of a run and write ``evaluation/<dataset>/``, or ``out``.

    Args:
        run: The run.
        config: The composed config of the verb: data, tta, at, surface, batch_size, device,
            overwrite.
        own_data: Evaluate on the run's own data; else on ``config.data``.
        out: The folder where it goes; default: of the run.

    Returns:
        What was written to ``summary.json``.

    Raises:
        UserError: The run or the data is at fault, or results would be overwritten or, of a
            package of a hub, lie in its cache.
    """
    scoring, views = asked(config)
    if run.address and out is None:
        raise UserError(
            f"the scores of {run.address} would lie in the hub's cache; say where they go: out=DIR"
        )
    run.require_no_way_out()
    cohort = find_cohort(run, config, own_data)
    inside = evaluation_directory(run, cohort.data.name, scoring.at, views)
    output, mark = (inside, None) if out is None else (outside_runs(out), SCORES)
    with replacing_directory(output, config.overwrite, mark) as temporary:
        predictor = seen(of_run(run, config.device), views)
        conditions = {"views": shown_to(predictor, views)} if views else {}
        about = {
            "run": str(run.directory.resolve()),
            "checkpoint_sha256": sha256(run.best_path),
            **({"predictor": about_predictor([run], views)} if views or out else {}),
        }
        written = score(
            temporary,
            cohort,
            lambda _: predictor,
            predictor.image_size,
            scoring,
            config,
            conditions,
            about,
        )
        write_report(temporary, run, cohort.recorded.rows)
    return shown(written, output)


def evaluate_together(
    runs: Sequence[Run], config: DictConfig, own_data: bool = True
) -> dict[str, Any]:
    """Score runs as one, the mean of their probabilities, and write ``config.out``.

    On the data of their training each image is scored by the members that never saw it, see
    `Members`; on other data by all.

    Args:
        runs: The members.
        config: As of `evaluate`, and out.
        own_data: Evaluate on the members' own data; else on ``config.data``.

    Returns:
        What was written to ``summary.json``.

    Raises:
        UserError: A run or the data is at fault, or results would be overwritten.
    """
    scoring, views = asked(config)
    if config.out is None:
        raise UserError("say where the scores of several runs go: out=DIR")
    output = outside_runs(config.out)
    members = Members.find(runs, config, own_data)
    with replacing_directory(output, config.overwrite, SCORES) as temporary:
        predictors = [seen(of_run(run, config.device), views) for run in runs]
        sizes = {predictor.image_size for predictor in predictors}
        if scoring.at == "model" and len(sizes) > 1:
            raise UserError(
                "at=model: the members see images of different sizes; score at=original"
            )
        of_places = cache(lambda places: joined([predictors[place] for place in places]))
        names = ", ".join(run.directory.name for run in runs)
        conditions = {
            "members": f"mean of the probabilities of {len(runs)} runs: {names}",
            **({"views": shown_to(predictors[0], views)} if views else {}),
        }
        about = {"predictor": about_predictor(runs, views)}
        written = score(
            temporary,
            members,
            lambda name: of_places(members.of(name)),
            max(sizes),
            scoring,
            config,
            conditions,
            about,
        )
        write_report(temporary)
    return shown(written, output)


def outside_runs(out: str | Path) -> Path:
    """A folder for results that is no run; raises UserError where it is one."""
    output = user_path(out)
    if (output / "config.yaml").exists():
        raise UserError(f"{output} is a run; give another out=DIR")
    return output


def asked(config: DictConfig) -> tuple[Scoring, tuple[str, ...]]:
    """What is scored, and the views of each image; raises UserError for impossible settings."""
    if config.extremes < 1:
        raise UserError(f"extremes={config.extremes} must be at least 1")
    return Scoring.from_config(config), views_of(config.tta)


def score(
    directory: Path,
    cohort: Cohort | Members,
    predictor_of: Callable[[str], ImagePredictor],
    size: tuple[int, int],
    scoring: Scoring,
    config: DictConfig,
    conditions: Mapping[str, str],
    about: Mapping[str, Any],
) -> "Written":
    """Score a cohort and write all but the report.

    Args:
        directory: Where it goes.
        cohort: The cases.
        predictor_of: What predicts the case of a name.
        size: (height, width) that it sees.
        scoring: What is scored.
        config: Of the verb.
        conditions: What is said beside the scores of the predictor.
        about: What else the summary holds.
    """
    scored = score_cases(
        cohort.data,
        cohort.names,
        predictor_of,
        scoring,
        directory,
        config.batch_size,
        cohort.notice,
    )
    known = cohort.judge()
    said = {
        "data": f"{cohort.data.title}, {len(scored)} images",
        "split": known.split,
        **known.changes.condition,
        "selection": known.selection,
        **conditions,
        "aggregation": f"per image at {size_scored(scoring, size)}, mean over images",
    }
    changed = {CHANGED: known.changes.summary} if known.changes else {}
    all_about = {**about, **changed, **environment()}
    return write_evaluation(
        directory, scored, scoring, said, all_about, config.extremes, known.leaks
    )


def shown(written: "Written", output: Path) -> dict[str, Any]:
    """Print what was written, all of which is on the disk by now; the summary."""
    tables.print_evaluation(written.summary, written.frame, written.strata)
    say(f"written {output}")
    return written.summary


def evaluation_directory(run: Run, dataset: str, at: str, views: Sequence[str] = ()) -> Path:
    """Where the scores on a dataset lie; raises UserError for a name that leads elsewhere."""
    suffix = "" if at == "original" else "_at_model_size"
    suffix += f"_tta_{'_'.join(views)}" if views else ""
    return run.directory / "evaluation" / f"{path_part(dataset, 'data.name')}{suffix}"


def size_scored(scoring: Scoring, size: tuple[int, int]) -> str:
    """The size of the images that were scored, as said beside the scores."""
    if scoring.at == "original":
        return "original size"
    return "{}×{} px (the network's size)".format(*size)


def shown_to(predictor: ImagePredictor, views: Sequence[str]) -> str:
    """Over how many views of each image a network's answer is averaged, as said beside scores."""
    count = len(predictor.predictors) if isinstance(predictor, Views) else 1
    return f"mean over {count} views of each image (tta={'+'.join(views)})"


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
    write_frame(directory / SCORES, frame)
    write_frame(directory / "tables.csv", strata)
    values = dict(zip(frame["id"], frame[MAIN], strict=True))
    write_extremes(directory / "extremes.png", directory / "overlays", summary["extremes"], values)
    summary |= {"scores_sha256": sha256(directory / SCORES), **about}
    write_json(directory / "summary.json", summary)
    return Written(summary, frame, strata)
