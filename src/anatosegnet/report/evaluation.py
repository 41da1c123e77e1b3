"""``report.html``: one evaluation, for those who must believe its scores."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from anatosegnet.config.keys import flatten
from anatosegnet.config.objects import network_name
from anatosegnet.console import rounded, without_password
from anatosegnet.errors import UserError
from anatosegnet.files.opening import read_text
from anatosegnet.files.split_table import SplitRow
from anatosegnet.metrics.calibration import BINS
from anatosegnet.metrics.scores import MAIN, OF_ALL, find, is_fact, shown_in, title
from anatosegnet.report.html import render, write
from anatosegnet.report.reading import (
    PICTURES,
    Evaluation,
    learning_curves,
    split_counts,
)
from anatosegnet.report.tables import table, tables
from anatosegnet.run import Run

LESION_SCORES = {
    "sensitivity": "lesions found",
    "lesion_precision": "predicted lesions that are true",
}
SHOWN_OF_CASES = ("id", "class", "birads", "device")  # beside the scores
SCRIPTS = ("dom.js", "charts.js", "cases.js", "report.js")


def write_report(
    directory: Path, run: Run | None = None, split: Sequence[SplitRow] | None = None
) -> Path:
    """Write ``report.html`` of one evaluation into its directory, from the files there.

    Args:
        directory: ``evaluation/<dataset>/`` with ``scores.csv`` and ``summary.json``; and
            ``tables.csv``, ``thumbnails/`` and ``overlays/`` where they were written.
        run: The run evaluated: learning curves, config, split; None of several.
        split: Its ``split.csv``, where it was read already.

    Returns:
        The file.

    Raises:
        UserError: A file is missing or damaged; nothing is written.
    """
    evaluation = Evaluation.read(directory)
    about, summary = run.summary if run else {}, evaluation.summary
    names = [str(case["id"]) for case in evaluation.cases]
    calibration = summary.get("calibration") or {}
    curves, fingerprint = learning_curves(run) if run else {}, summary.get("split_fingerprint")
    fingerprint = fingerprint or about.get("split_fingerprint")
    data = {
        **cases_of(evaluation),
        "overlays": [evaluation.overlay(name) for name in names],
        "intervals": {k: ends for k, ends in (summary.get("intervals") or {}).items() if ends},
        "extremes": extremes_of(summary, names),
        "calibration": calibration.get("bins"),
        "bins": BINS,
        "risk": risk_series([evaluation], ["by uncertainty"]),
        "curves": curves,
        "best_epoch": about.get("best_epoch"),
    }
    pictures = (
        {kind: text for kind, text in zip(PICTURES, evaluation.pictures(name), strict=True) if text}
        for name in names
    )
    conditions = dict(summary.get("conditions") or {})
    if fingerprint:
        conditions["split fingerprint"] = fingerprint
    page = render(
        "report.html",
        SCRIPTS,
        data,
        pictures,
        kind="Evaluation",
        title=title_of(run, summary, conditions),
        headline=headline(evaluation),
        conditions=list(conditions.items()),
        score_table=score_table(evaluation),
        detection=[
            (title(k), rounded(v, 0 if isinstance(v, int) else 3))
            for k, v in detection(summary).items()
        ],
        tables=tables(evaluation.tables, evaluation.own),
        has_calibration=bool(calibration.get("bins")),
        calibration_numbers=[
            ({"ece": "Expected calibration error"}.get(k, title(k)), rounded(v))
            for k, v in calibration.items()
            if isinstance(v, float)
        ],
        risk_numbers=risk_numbers(summary),
        has_curves=bool(curves),
        best_epoch=about.get("best_epoch"),
        provenance=provenance(evaluation, run, about, split),
        config=without_password(config_text(run)) if run else "",
        versions=list((summary.get("versions") or {}).items()),
    )
    return write(directory / "report.html", page)


def risk_series(evaluations: Sequence[Evaluation], names: Sequence[str]) -> list[dict[str, Any]]:
    """The risk-coverage curves, of the evaluations that have one."""
    return [
        {"label": name, "points": points}
        for evaluation, name in zip(evaluations, names, strict=True)
        if (points := (evaluation.summary.get("risk") or {}).get("risk_coverage"))
    ]


def risk_numbers(summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The scores of the order by uncertainty with their intervals, as far as there are any."""
    risk, intervals = summary.get("risk") or {}, summary.get("intervals") or {}
    return [
        (title(score.name), f"{rounded(value)}{f' ({ends})' if ends else ''}")
        for score in OF_ALL
        if isinstance(value := risk.get(score.name), float)
        for ends in [_ends(intervals.get(score.name))]
    ]


def config_text(run: Run) -> str:
    """The run's config as it stands in its file; "" where that cannot be read."""
    try:
        return read_text(run.config_path)
    except (OSError, ValueError):
        return ""


def cases_of(evaluation: Evaluation) -> dict[str, Any]:
    """Columns and rows for the scripts, and which columns play which part."""
    numeric = [column.name for column in evaluation.columns if column.numeric]
    scores = [name for name in numeric if not is_fact(name)]
    first = {*SHOWN_OF_CASES, *shown_in(("tables", "first"), scores, evaluation.own)}
    main = MAIN if MAIN in scores else next(iter(scores), "id")
    area = next(
        (name for name in ("lesion_area_mm2", "lesion_area") if _known(evaluation, name)), ""
    )
    return {
        "columns": [
            {
                "name": column.name,
                "label": column.label,
                "numeric": column.numeric,
                "shown": column.name in first | {area, main},
            }
            for column in evaluation.columns
        ],
        "cases": [list(case.values()) for case in evaluation.cases],
        "scores": scores,
        "main": main,
        "less_is_better": [
            name
            for name in scores
            if (score := find(name, evaluation.own)) and score.less_is_better
        ],
        "area": area,
    }


def _known(evaluation: Evaluation, name: str) -> bool:
    """Whether every case has a value in the column."""
    return all(case.get(name) is not None for case in evaluation.cases)


def extremes_of(summary: Mapping[str, Any], names: list[str]) -> dict[str, list[str]] | None:
    """Worst, median and best cases as the summary names them, if all of them are there."""
    extremes = summary.get("extremes")
    if not isinstance(extremes, dict) or len(names) < 6:
        return None
    known = set(names)
    return extremes if all(known.issuperset(group) for group in extremes.values()) else None


def headline(evaluation: Evaluation) -> list[dict[str, str]]:
    """The few scores to be seen first: overlap, boundary, and lesions found."""
    summary, cards = evaluation.summary, []
    columns = [column.name for column in evaluation.columns]
    for name in shown_in(("first",), columns, evaluation.own):
        values = sorted(v for case in evaluation.cases if isinstance(v := case.get(name), float))
        if values and (row := score_row(evaluation, name)):
            note = f"mean of {len(values)} images; median {rounded(_quantile(values, 0.5))}"
            cards.append({**row, "mean": rounded(row["mean"]), "note": note})
    found = detection(summary)
    if isinstance(share := found.get("sensitivity"), float):
        ends = (summary.get("intervals") or {}).get("sensitivity")
        note = f"{found['hit']} of {found['lesions']}" if {"hit", "lesions"} <= set(found) else ""
        cards.append(
            {
                "score": "Lesions found",
                "mean": rounded(share),
                "note": note,
                "95 % interval": _ends(ends),
            }
        )
    return cards


def score_table(evaluation: Evaluation) -> Any:
    """Mean, interval, deviation and quantiles of every score, and its pooled variants."""
    summary, rows = evaluation.summary, []
    for column in evaluation.columns:
        name = column.name
        if not column.numeric or is_fact(name) or not (row := score_row(evaluation, name)):
            continue
        values = sorted(v for case in evaluation.cases if isinstance(v := case[name], float))
        low, middle, high = (_quantile(values, q) for q in (0.25, 0.5, 0.75))
        half, whole = _ends((low, high)), _ends((values[0], values[-1]))
        rows.append({**row, "median": middle, "middle half": half, "range": whole})
    blank = {"median": "", "middle half": "", "range": ""}
    pooled = [name for name in summary if name.endswith("_pooled")]
    rows += [{**row, **blank} for name in pooled if (row := score_row(evaluation, name))]
    for name, value in detection(summary).items():
        if isinstance(value, float) and (ends := (summary.get("intervals") or {}).get(name)):
            row = {"score": LESION_SCORES.get(name, title(name)), "mean": value}
            rows.append({**row, "95 % interval": _ends(ends), "sd": "", **blank})
    return table(rows, "Per-image scores, averaged over images, and other aggregations")


def score_row(evaluation: Evaluation, name: str) -> dict[str, Any]:
    """A score of the summary; empty where the summary does not have it."""
    summary = evaluation.summary
    value = summary.get(name)
    if not isinstance(value, int | float):
        return {}
    deviation = summary.get(f"{name}_sd")
    return {
        "score": title(name, evaluation.own),
        "mean": value,
        "95 % interval": _ends((summary.get("intervals") or {}).get(name)),
        "sd": deviation,
    }


def detection(summary: Mapping[str, Any]) -> dict[str, float | int]:
    """Whole lesions found, missed and made up, as the summary counts them."""
    counts = summary.get("detection") or {}
    return {name: v for name, v in counts.items() if isinstance(v, int | float)}


def provenance(
    evaluation: Evaluation,
    run: Run | None,
    about: Mapping[str, Any],
    split: Sequence[SplitRow] | None = None,
) -> list[tuple[str, str]]:
    """Where the scores come from, in the order a reader asks."""
    summary = evaluation.summary
    counts = split_counts(run, split) if run else {}
    facts = {
        "run": summary.get("run") or (run.directory if run else None),
        **{f"member {number}": text for number, text in enumerate(members(summary), start=1)},
        "training command": about.get("command"),
        "cases": ", ".join(f"{count} {part}" for part, count in counts.items()),
        "best epoch": about.get("best_epoch"),
        "training time": f"{about['minutes']} minutes" if "minutes" in about else None,
        "git commit": summary.get("git_commit"),
        "machine": summary.get("machine"),
        "checkpoint sha256": summary.get("checkpoint_sha256"),
        "scores sha256": summary.get("scores_sha256"),
    }
    return [(name, without_password(str(value))) for name, value in facts.items() if value]


def members(summary: Mapping[str, Any]) -> list[str]:
    """The members of an ensemble, a line each; none of a single run."""
    named = (summary.get("predictor") or {}).get("members", [])
    texts = [f"{each.get('run')}, checkpoint {each.get('checkpoint_sha256')}" for each in named]
    return texts if len(texts) > 1 else []


def title_of(run: Run | None, summary: Mapping[str, Any], conditions: Mapping[str, str]) -> str:
    """``AnatoSegNet (resnet50) on busi``, as far as it is known; U-Net without attention."""
    predictor = (summary.get("predictor") or {}).get("name")
    try:
        if run is None:
            network, encoder = str(predictor or "ensemble"), ""
        else:
            settings = flatten(run.config)
            network = network_name(settings).rpartition(".")[2] or run.directory.name
            encoder = f" ({found})" if (found := settings.get("model.encoder")) else ""
    except (AttributeError, UserError):
        network, encoder = run.directory.name if run else "", ""
    data = str(conditions.get("data", "")).split(",")[0]
    return f"{network}{encoder} on {data}" if data else f"{network}{encoder}"


def _ends(ends: Any) -> str:
    return f"{rounded(ends[0])} to {rounded(ends[1])}" if ends else ""


def _quantile(values: list[float], share: float) -> float:
    """Interpolated quantile of sorted values."""
    at = share * (len(values) - 1)
    low = int(at)
    return values[low] + (at - low) * (values[min(low + 1, len(values) - 1)] - values[low])
