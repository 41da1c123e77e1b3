"""Runs side by side: found, evaluated where they are not yet, compared, written."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, ListConfig
from pandas import DataFrame

from anatosegnet.console import say
from anatosegnet.data.checksum import content_sha256, sha256
from anatosegnet.data.duplicates import natural_key
from anatosegnet.data.leakage import leaked, recorded_split
from anatosegnet.errors import UserError
from anatosegnet.evaluation import across_tables, comparison
from anatosegnet.evaluation.across import Member, across
from anatosegnet.evaluation.evaluate import evaluate, evaluation_directory
from anatosegnet.evaluation.settings import group_settings, labels, setting_of
from anatosegnet.evaluation.tables import read_scores
from anatosegnet.files.opening import kept
from anatosegnet.files.writing import replacing_directory
from anatosegnet.metrics.scores import read_about
from anatosegnet.report import write_comparison
from anatosegnet.report.reading import read_summary
from anatosegnet.run import CHANGED_DATA, Run, runs_below

USAGE = "runs=[A,B,…], or runs=DIR, a folder of runs such as a sweep's"


def compare(config: DictConfig, own_data: bool = True) -> DataFrame:
    """Compare runs scored on the same cases, and write the tables.

    Runs whose evaluation is missing are evaluated first.

    Args:
        config: The composed config of the verb: runs, baseline, scores, out, and evaluate's.
        own_data: Compare on the runs' own test cases; else on ``config.data``.

    Returns:
        What was written to ``comparison.csv``.

    Raises:
        UserError: Runs or settings are at fault, or were not scored on the same cases.
    """
    runs = find_runs(config.runs, config.trust)
    output = output_directory(config)
    if own_data and len({run.config.data.name for run in runs}) > 1:
        return compare_across(runs, output, config)
    groups = group_settings([run.config for run in runs])
    names = labels([setting_of(runs[group[0]].config) for group in groups])
    baseline = find_baseline(config.baseline, names)
    for run in runs:
        require_finished(run)
    folders = evaluated(runs, config, own_data)
    summaries = [read_summary(folder / "summary.json") for folder in folders]
    own = {
        name: score
        for each in summaries
        for name, score in read_about(each.get("own_scores", {})).items()
    }
    scored = [
        read_evaluation(run, folder, summary)
        for run, folder, summary in zip(runs, folders, summaries, strict=True)
    ]
    settings = {
        name: [scored[index] for index in group] for name, group in zip(names, groups, strict=True)
    }
    comparison.require_same_cases(settings)
    repeated = [comparison.repetition([runs[index].config for index in group]) for group in groups]
    scores = list(config.scores or comparison.scores_to_compare(settings, own))
    table = comparison.compare_settings(settings, repeated, names[baseline], scores)
    notes = comparison.notes(settings, names[baseline], summaries)
    cases = set(scored[0]["id"])  # pictures of one fold: of the same one for all
    shown = {
        name: next(folders[index] for index in group if set(scored[index]["id"]) == cases)
        for name, group in zip(names, groups, strict=True)
    }
    with replacing_directory(output, config.overwrite) as temporary:
        comparison.write_tables(temporary, table, notes, own)
        write_comparison(temporary, table, shown, notes.get(CHANGED_DATA, ""))
    comparison.print_table(table, notes, own)
    say(f"written {output}")
    return table


def compare_across(runs: Sequence[Run], output: Path, config: DictConfig) -> DataFrame:
    """Compare runs of several datasets, and write the tables; see `across`.

    Returns:
        What was written to ``comparison.csv``.
    """
    for run in runs:
        require_finished(run)
    evaluated(runs, config, own_data=True)
    datasets = dict.fromkeys(run.config.data.name for run in runs)
    members = [read_member(run, datasets, config.at) for run in runs]
    networks = sorted({member.network for member in members}, key=natural_key)
    baseline = networks[find_baseline(config.baseline, networks)]
    found = across(members, baseline, list(config.scores))
    with replacing_directory(output, config.overwrite) as temporary:
        across_tables.write_tables(temporary, found)
    across_tables.print_tables(found)
    say(f"written {output}")
    return across_tables.numbers(found)


def read_member(run: Run, datasets: Collection[str], at: str) -> Member:
    """A run with its evaluations.

    Args:
        run: Finished and evaluated on its own test cases.
        datasets: Whose scores are read, where it has them.
        at: See `evaluation_directory`.
    """
    scores, conditions = {}, {}
    for dataset in datasets:
        folder = evaluation_directory(run, dataset, at)
        if folder.is_dir():
            summary = read_summary(folder / "summary.json")
            scores[dataset] = read_evaluation(run, folder, summary)
            conditions[dataset] = summary.get("conditions", {})
    return Member(
        run.directory.absolute().parent.name,
        run.config.data.name,
        run,
        run.config,
        leaked(run, recorded_split(run, ["test"])),
        scores,
        conditions,
    )


def find_runs(
    given: str | Sequence[str] | ListConfig | None, trust: Sequence[str] = ()
) -> list[Run]:
    """The runs, in the order given; a folder of runs stands for all of them.

    Raises:
        UserError: A directory is no run and holds none, or a run is named twice.
    """
    if given is None or len(given) == 0:
        raise UserError(f"say which runs: {USAGE}")
    directories = [Path(given)] if isinstance(given, str) else [Path(str(name)) for name in given]
    runs: list[Run] = []
    for directory in directories:
        if (directory / "config.yaml").is_file():
            runs.append(Run.open(directory, trust=trust))
            continue
        inside = sorted(
            runs_below(directory), key=lambda path: natural_key(str(path.relative_to(directory)))
        )
        if not inside:
            raise UserError(f"{directory} is no run and holds none; say which: {USAGE}")
        runs += [Run.open(path, trust=trust) for path in inside]
    resolved = [run.directory.resolve() for run in runs]
    for place in resolved:
        if resolved.count(place) > 1:
            raise UserError(f"{place} is named twice in runs=…")
    return runs


def output_directory(config: DictConfig) -> Path:
    """Where the comparison goes; raises UserError if that is unknown or taken."""
    if config.out is not None:
        output = Path(config.out)
    elif isinstance(config.runs, str) and not (Path(config.runs) / "config.yaml").is_file():
        output = Path(config.runs) / "comparison"
    else:
        raise UserError("say where the comparison goes: out=DIR")
    if output.exists() and not config.overwrite:
        raise UserError(f"{output} exists; give another out=DIR, or overwrite=true")
    if (output / "config.yaml").exists():
        raise UserError(f"{output} is a run; give another out=DIR")
    return output


def find_baseline(given: str | int, names: Sequence[str]) -> int:
    """The number of the baseline, from its number or label."""
    if given in names:
        return names.index(str(given))
    if isinstance(given, int) and 0 <= given < len(names):
        return given
    known = "; ".join(f"{index} = {name}" for index, name in enumerate(names))
    raise UserError(f"baseline={given} is not among the settings: {known}")


def require_finished(run: Run) -> None:
    """UserError if a run is still training, or was interrupted."""
    state = run.summary.get("state")
    if state != "finished":
        raise UserError(
            f"{run.directory} is not finished (state {state}); finish it (train resume=…) or "
            "leave it out of runs=[…]"
        )


def evaluated(runs: Sequence[Run], config: DictConfig, own_data: bool) -> list[Path]:
    """The evaluation directories of runs; those that are missing are made."""
    names = [run.config.data.name if own_data else config.data.name for run in runs]
    directories = [
        evaluation_directory(run, name, config.at) for run, name in zip(runs, names, strict=True)
    ]
    missing = [place for place, directory in enumerate(directories) if not directory.exists()]
    for number, place in enumerate(missing, start=1):
        say(f"evaluate {runs[place].directory} ({number} of {len(missing)})")
        evaluate(runs[place], config, own_data)
    return directories


def read_evaluation(run: Run, directory: Path, summary: Mapping[str, Any]) -> DataFrame:
    """The scores of a run; raises UserError if they are not what evaluate wrote."""
    path, again = kept(directory / "scores.csv"), "; evaluate the run again with overwrite=true"
    frame = read_scores(path)
    if content_sha256(path) != summary.get("scores_sha256"):
        raise UserError(f"{path} was changed after it was written{again}")
    if run.best_path.is_file() and sha256(run.best_path) != summary.get("checkpoint_sha256"):
        raise UserError(f"{directory} scores another epoch than {run.best_path} holds{again}")
    return frame
