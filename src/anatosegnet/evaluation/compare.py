"""Runs side by side: found, evaluated where they are not yet, compared, written."""

from collections.abc import Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, ListConfig
from pandas import DataFrame

from anatosegnet.console import say
from anatosegnet.data.checksum import content_sha256, sha256
from anatosegnet.data.duplicates import natural_key
from anatosegnet.data.leakage import leaked, recorded_split
from anatosegnet.errors import UserError, reason
from anatosegnet.evaluation import across_tables, comparison
from anatosegnet.evaluation.across import Member, across
from anatosegnet.evaluation.evaluate import evaluate, evaluation_directory, outside_runs
from anatosegnet.evaluation.settings import group_settings, labels, setting_of
from anatosegnet.evaluation.tables import read_scores
from anatosegnet.files.opening import kept
from anatosegnet.files.writing import replacing_directory
from anatosegnet.metrics.scores import read_about
from anatosegnet.prediction.opening import views_of
from anatosegnet.report import write_comparison
from anatosegnet.report.reading import SCORES, read_summary
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
    given = directories(config.runs)
    made = [directory for directory in given if is_evaluation(directory)]
    named = [str(directory) for directory in given if directory not in made]
    runs = find_runs(named, config.trust) if named or not made else []
    output = output_directory(config)
    if own_data and not made and is_across(runs):
        return compare_across(runs, output, config)
    groups = group_settings([run.config for run in runs])
    names = labels([setting_of(runs[group[0]].config) for group in groups])
    repeated = [comparison.repetition([runs[index].config for index in group]) for group in groups]
    for group in group_predictors(made):
        groups.append([len(runs) + index for index in group])
        names.append(name_of(made[group[0]], names))
        repeated.append("runs")
    baseline = find_baseline(config.baseline, names)
    for run in runs:
        require_finished(run)
    folders = evaluated(runs, config, own_data) + made
    summaries = [read_summary(folder / "summary.json") for folder in folders]
    own = {
        name: score
        for each in summaries
        for name, score in read_about(each.get("own_scores", {})).items()
    }
    scored = [
        read_evaluation(run, folder, summary)
        for run, folder, summary in zip_longest(runs, folders, summaries)
    ]
    settings = {
        name: [scored[index] for index in group] for name, group in zip(names, groups, strict=True)
    }
    comparison.require_same_cases(settings)
    scores = list(config.scores or comparison.scores_to_compare(settings, own))
    table = comparison.compare_settings(settings, repeated, names[baseline], scores)
    notes = comparison.notes(settings, names[baseline], summaries)
    cases = set(scored[0]["id"])  # pictures of one fold: of the same one for all
    shown = {
        name: next(folders[index] for index in group if set(scored[index]["id"]) == cases)
        for name, group in zip(names, groups, strict=True)
    }
    with replacing_directory(output, config.overwrite, comparison.TABLE) as temporary:
        comparison.write_tables(temporary, table, notes, own)
        write_comparison(temporary, table, shown, notes.get(CHANGED_DATA, ""))
    comparison.print_table(table, notes, own)
    say(f"written {output}")
    return table


def is_across(runs: Sequence[Run]) -> bool:
    """Whether they are of several datasets, or lie in ``<dataset>…/<network>/<fold>``."""
    names = [str(run.config.data.name) for run in runs]
    folders = [run.directory.absolute().parents[1].name for run in runs]
    in_place = all(folder.startswith(name) for folder, name in zip(folders, names, strict=True))
    return in_place or len(set(names)) > 1


def compare_across(runs: Sequence[Run], output: Path, config: DictConfig) -> DataFrame:
    """Compare runs of several datasets, and write the tables; see `across`.

    Returns:
        What was written to ``comparison.csv``.
    """
    for run in runs:
        require_finished(run)
    evaluated(runs, config, own_data=True)
    members = read_members(runs, config.at, config.tta)
    networks = sorted({member.network for member in members}, key=natural_key)
    baseline = networks[find_baseline(config.baseline, networks)]
    found = across(members, baseline, list(config.scores))
    with replacing_directory(output, config.overwrite, comparison.TABLE) as temporary:
        across_tables.write_tables(temporary, found)
    across_tables.print_tables(found)
    say(f"written {output}")
    return across_tables.numbers(found)


def read_members(runs: Sequence[Run], at: str, tta: object = None) -> list[Member]:
    """Runs with all of their evaluations at a size.

    Args:
        runs: Finished and evaluated on their own test cases.
        at: See `evaluation_directory`.
        tta: As in configs/evaluate.yaml.
    """
    return [read_member(run, at, views_of(tta)) for run in runs]


def read_member(run: Run, at: str, views: Sequence[str]) -> Member:
    """One of `read_members`."""
    config = run.config
    scores, conditions = {}, {}
    for path in sorted(run.directory.glob("evaluation/[!.]*/summary.json")):
        summary = read_summary(path)
        said = summary.get("conditions", {})
        dataset = str(said.get("data", "")).partition(",")[0]
        if dataset and evaluation_directory(run, dataset, at, views) == path.parent:
            scores[dataset] = read_evaluation(run, path.parent, summary)
            conditions[dataset] = said
    return Member(
        run.directory.absolute().parent.name,
        config.data.name,
        run,
        config,
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
    runs: list[Run] = []
    for directory in directories(given):
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


def directories(given: str | Sequence[str] | ListConfig | None) -> list[Path]:
    """The folders of ``runs=…``; raises UserError where there is none."""
    if given is None or len(given) == 0:
        raise UserError(f"say which runs: {USAGE}")
    return [Path(given)] if isinstance(given, str) else [Path(str(name)) for name in given]


def is_evaluation(directory: Path) -> bool:
    """Whether a folder is what evaluate wrote, not a run or a folder of runs."""
    return (directory / "summary.json").is_file() and kept(directory / SCORES).is_file()


def group_predictors(folders: Sequence[Path]) -> list[list[int]]:
    """Indices of the evaluations of each ensemble, or of each setting seen in the same views.

    Raises:
        UserError: One is of a run as it is, or was named twice.
    """
    groups: dict[str, list[int]] = {}
    for index, folder in enumerate(folders):
        setting = (read_summary(folder / "summary.json").get("predictor") or {}).get("setting")
        if setting is None:
            raise UserError(f"{folder} is the evaluation of a run; name the run: runs=[DIR,…]")
        if folder.resolve() in [other.resolve() for other in folders[:index]]:
            raise UserError(f"{folder} is named twice in runs=…")
        groups.setdefault(setting, []).append(index)
    return list(groups.values())


def name_of(folder: Path, taken: Sequence[str]) -> str:
    """What the predictor of an evaluation is called, unlike those before."""
    name = str(read_summary(folder / "summary.json")["predictor"].get("name", folder.name))
    alike = sum(other == name or other.startswith(f"{name} (") for other in taken)
    return f"{name} ({alike})" if alike else name


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
    return outside_runs(output)


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
    views = views_of(config.tta)
    folders = [
        evaluation_directory(run, name, config.at, views)
        for run, name in zip(runs, names, strict=True)
    ]
    missing = [place for place, folder in enumerate(folders) if not folder.exists()]
    for number, place in enumerate(missing, start=1):
        say(f"evaluate {runs[place].directory} ({number} of {len(missing)})")
        evaluate(runs[place], config, own_data)
    return folders


def read_evaluation(run: Run | None, directory: Path, summary: Mapping[str, Any]) -> DataFrame:
    """The scores of a run, or of several; raises UserError if they are not what evaluate wrote."""
    path, again = kept(directory / SCORES), "; evaluate the run again with overwrite=true"
    frame = read_scores(path)
    if content_sha256(path) != summary.get("scores_sha256"):
        raise UserError(f"{path} was changed after it was written{again}")
    best = run.best_path if run else None
    try:
        other = best and best.is_file() and sha256(best) != summary.get("checkpoint_sha256")
    except OSError as error:
        raise UserError(f"{best} cannot be read ({reason(error)})") from error
    if other:
        raise UserError(f"{directory} scores another epoch than {best} holds{again}")
    return frame
