"""``python -m anatosegnet.evaluate run=DIR``: scores a row per image, tables, and pictures."""

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, open_dict

from anatosegnet.cli import verb
from anatosegnet.config.overrides import given_keys
from anatosegnet.config.places import path_part
from anatosegnet.config.recorded import MARK
from anatosegnet.config.whereabouts import at_home
from anatosegnet.console import say
from anatosegnet.data.changes import KEY as CHANGED
from anatosegnet.data.changes import Changes, find_changes, require_accepted
from anatosegnet.data.checksum import sha256
from anatosegnet.errors import UserError
from anatosegnet.files.writing import replacing_directory, write_json
from anatosegnet.run import Run, environment

if TYPE_CHECKING:
    from pandas import DataFrame

    from anatosegnet.data.prepared import FoundData
    from anatosegnet.evaluation.inference import Predictor
    from anatosegnet.evaluation.scoring import Scored, Scoring


@verb("evaluate")
def main(config: DictConfig) -> None:
    """Evaluate a run on its test cases, or on another dataset."""
    evaluate(Run.open(config.run, trust=config.trust), config, is_own_data())


def is_own_data() -> bool:
    """Whether no other dataset was chosen on the command line."""
    return HydraConfig.get().runtime.choices.get("data") in (None, "null")


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
    from anatosegnet.evaluation.inference import Predictor
    from anatosegnet.evaluation.scoring import Scoring, score_cases
    from anatosegnet.evaluation.tables import print_evaluation
    from anatosegnet.report import write_report

    scoring = Scoring.from_config(config)
    if config.extremes < 1:
        raise UserError(f"extremes={config.extremes} must be at least 1")
    run.require_no_way_out()
    chosen = test_cases(run, config, own_data)
    data, names = chosen.data, chosen.names
    output = evaluation_directory(run, data.name, scoring.at)
    with replacing_directory(output, config.overwrite) as temporary:
        predictor = Predictor.from_run(run, config.device)
        scored = score_cases(data, names, predictor, scoring, temporary, config.batch_size)
        conditions = {
            "data": f"{data.title}, {len(scored)} images",
            "split": chosen.split,
            **chosen.changes.condition,
            "selection": chosen.selection,
            "aggregation": f"per image at {size_scored(scoring, predictor)}, mean over images",
        }
        about = {
            "run": str(run.directory.resolve()),
            "checkpoint_sha256": sha256(run.best_path),
            **({CHANGED: chosen.changes.summary} if chosen.changes else {}),
            **environment(),
        }
        written = write_evaluation(
            temporary, scored, scoring, conditions, about, config.extremes, chosen.leaked
        )
        write_report(temporary, run)
    # all is on the disk by now
    print_evaluation(written.summary, written.frame, written.strata)
    say(f"written {output}")
    return written.summary


def evaluation_directory(run: Run, dataset: str, at: str) -> Path:
    """Where the scores on a dataset lie; raises UserError for a name that leads elsewhere."""
    suffix = "" if at == "original" else "_at_model_size"
    return run.directory / "evaluation" / f"{path_part(dataset, 'data.name')}{suffix}"


def size_scored(scoring: "Scoring", predictor: "Predictor") -> str:
    """The size of the images that were scored, as said beside the scores."""
    if scoring.at == "original":
        return "original size"
    return "{}×{} px (the network's size)".format(*predictor.image_size)


class Written(NamedTuple):
    """What `write_evaluation` wrote: the summary, a row per image, and the strata."""

    summary: dict[str, Any]
    frame: "DataFrame"
    strata: "DataFrame"


def write_evaluation(
    directory: Path,
    scored: "list[Scored]",
    scoring: "Scoring",
    conditions: dict[str, str],
    about: dict[str, Any],
    extremes_count: int = 5,
    copies: Collection[str] = (),
) -> Written:
    """Write ``scores.csv``, ``tables.csv``, ``summary.json`` and ``extremes.png``.

    Args:
        directory: Where the overlays lie already.
        scored: A row for each image, in order.
        scoring: How they were scored.
        conditions: What a reader must know: data, split, selection, aggregation.
        about: What else the summary holds.
        extremes_count: Images in each row of ``extremes.png``.
        copies: Names of the images that have a relative in training; the others' scores are
            given too.
    """
    from pandas import DataFrame

    from anatosegnet.evaluation import tables
    from anatosegnet.evaluation.extremes import write_extremes
    from anatosegnet.files.rows import write_frame
    from anatosegnet.metrics.calibration import calibration_summary
    from anatosegnet.metrics.scores import MAIN

    frame = DataFrame([item.row for item in scored])
    strata = tables.stratified(frame, copies, scoring.own)
    summary = tables.summarise(frame)
    if clean := tables.clean_scores(strata):
        summary["without_relatives"] = clean
    conditions = {**conditions, **tables.conditions(frame, scoring, summary)}
    summary |= {
        "calibration": calibration_summary([item.reliability for item in scored], frame["brier"]),
        "extremes": tables.extremes(frame, extremes_count),
        "conditions": conditions,
    }
    if scoring.own:  # so that reading them needs no code of theirs
        summary["own_scores"] = {name: score.about for name, score in scoring.own.items()}
    tables.write_scores(directory / "scores.csv", frame)
    write_frame(directory / "tables.csv", strata)
    values = dict(zip(frame["id"], frame[MAIN], strict=True))
    write_extremes(directory / "extremes.png", directory / "overlays", summary["extremes"], values)
    summary |= {"scores_sha256": sha256(directory / "scores.csv"), **about}
    write_json(directory / "summary.json", summary)
    return Written(summary, frame, strata)


class Chosen(NamedTuple):
    """What is scored, and what to state beside it.

    Attributes:
        data: The data.
        names: The cases.
        split: Which part of what they are, and what is known of it.
        selection: How the epoch was chosen.
        leaked: Cases that have a near-duplicate, or another image of their patient, in training,
            as far as the run recorded that.
        changes: What of the run's data is not as it was recorded.
    """

    data: "FoundData"
    names: tuple[str, ...]
    split: str
    selection: str
    leaked: frozenset[str]
    changes: Changes


def test_cases(run: Run, config: DictConfig, own_data: bool) -> Chosen:
    """Choose the cases to score.

    On the run's own dataset these are its recorded test cases. On other images (of another
    dataset, or of another root or seed of the same) all cases are, and it is said whether the run
    has seen any of them.

    Raises:
        UserError: The run's split or data were changed since training.
    """
    from anatosegnet.data.build import build_found_data
    from anatosegnet.data.leakage import (
        about_split,
        leaked,
        read_digests,
        recorded_groups,
        recorded_split,
        seen_in_training,
        unchanged_split,
    )
    from anatosegnet.training.build import selection

    settings = run.config
    dataset = settings.data.name
    at_home(settings, config.paths, given_keys())
    if own_data and config.get("data") is not None:  # data.root=… alone
        wrong = [key for key in config.data if key != "root" or key not in settings.data]
        if wrong:
            raise UserError(
                f"data.{wrong[0]} is not for the run's own data; data=NAME evaluates on another "
                "dataset"
            )
        settings.data.root = config.data.root
    if own_data:
        data = build_found_data(settings)
    else:
        external = config.data.copy()
        for key in ("image_size", "in_channels", "normalization", "seed"):
            external[key] = settings.data[key]  # the network's own; never the dataset's
        other = settings.copy()
        with open_dict(other):
            other.data, other.paths = external, config.paths
            other.pop(MARK)  # the dataset is of the user's own command line
        data = build_found_data(other)
    cases, before = data.cases, Changes.recorded(run)
    if data.name == dataset:
        recorded = unchanged_split(run).test
        there = [name for name in recorded if name in cases]
        now = find_changes(run, cases, read_digests(data, there))
        if own_data or 2 * len(now.of("images")) < len(there) == len(recorded):
            split = recorded_split(run, ["test"])(list(cases.values()))
            changes = require_accepted(run, now, config.accept_changed_data, before)
            return Chosen(
                recorded_groups(run, data),
                split.test,
                about_split(run, split),
                selection(settings, split, run.summary.get("epoch_chosen", True)),
                leaked(run) | frozenset(now.of("trained")),
                changes,
            )
    chosen = f"epoch chosen on validation cases of {dataset}"
    try:
        own = build_found_data(settings)
    except UserError:  # the run's data lie elsewhere, or are gone
        own = None
    seen = seen_in_training(run, own, data, cases)
    description = f"none: all cases of {data.name}, trained on {dataset}; {seen}"
    return Chosen(data, tuple(cases), description, chosen, frozenset(), before.of_cases)


if __name__ == "__main__":
    main()
