"""``comparison.html``: several settings, and the cases on which two models disagree."""

import math
from collections.abc import Mapping
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anatosegnet.errors import UserError
from anatosegnet.report.evaluation import cases_of, members, risk_series
from anatosegnet.report.html import render, write
from anatosegnet.report.reading import Evaluation
from anatosegnet.report.tables import table as shown
from anatosegnet.run import CHANGED_DATA

if TYPE_CHECKING:
    from pandas import DataFrame

SCRIPTS = ("dom.js", "charts.js", "cases.js", "comparison.js")
PICTURE_BUDGET = 18_000_000  # characters of pictures in the file
CASE = ("class", "group", "birads", "device", "lesion_area_mm2", "lesion_area")


def write_comparison(
    output: Path, table: "DataFrame", runs: Mapping[str, Path], changed: str = ""
) -> Path:
    """Write ``comparison.html``: the table, paired differences, and where two models disagree.

    Args:
        output: The folder it is written to.
        table: One row per setting; ``<score>_low`` and ``<score>_high`` are shown as
            the interval of ``<score>``, ``<score>_sd`` as its deviation.
        runs: A label and an evaluation directory for each model; cases that not all of them
            scored are left out.
        changed: What had changed in the data of any run of the table.

    Returns:
        The file.

    Raises:
        UserError: The directories share no case, or cannot be read.
    """
    evaluations = {name: Evaluation.read(path) for name, path in runs.items()}
    if not evaluations:
        raise UserError("there is nothing to compare; name runs: runs=[DIR,DIR]")
    scored = {
        name: {str(case["id"]): case for case in evaluation.cases}
        for name, evaluation in evaluations.items()
    }
    first = next(iter(evaluations.values()))
    ids = [name for name in next(iter(scored.values())) if all(name in c for c in scored.values())]
    if not ids:
        raise UserError(
            f"{', '.join(str(path) for path in runs.values())} share no case; compare models "
            "scored on the same data"
        )
    shared = cases_of(first)
    scores = [
        score
        for score in shared["scores"]
        if all(score in case for cases in scored.values() for case in cases.values())
    ]
    known = [column for column in shared["columns"] if column["name"] in CASE]
    pictures, without = choose_pictures(evaluations, scored, ids, shared["main"])
    data = {
        "runs": list(evaluations),
        "risk": risk_series(list(evaluations.values()), list(evaluations)),
        "columns": known,
        "area": shared["area"],
        "main": shared["main"],
        "less_is_better": shared["less_is_better"],
        "scores": [column for column in shared["columns"] if column["name"] in scores],
        "cases": [
            {
                "id": name,
                **{
                    column["name"]: scored[next(iter(scored))][name][column["name"]]
                    for column in known
                },
                "values": [[cases[name][score] for score in scores] for cases in scored.values()],
            }
            for name in ids
        ],
    }
    own = {name: score for item in evaluations.values() for name, score in item.own.items()}
    rows = table
    if rows.index.name or rows.index.names[0]:
        rows = rows.reset_index()
    page = render(
        "comparison.html",
        SCRIPTS,
        data,
        pictures,
        kind="Comparison",
        title=f"{len(evaluations)} {'models' if len(evaluations) > 1 else 'model'} on the same "
        f"{len(ids)} cases",
        settings=shown(rows_to_show(rows), deviations=True, own=own),
        notes=[*notes(rows, scored, ids), *([f"{CHANGED_DATA}: {changed}"] if changed else [])],
        conditions=shared_conditions(evaluations),
        has_risk=bool(data["risk"]),
        left_out=f"{without} cases have no pictures here, to keep the file small: those on which "
        "the models agree most. Their reports have them."
        if without
        else "",
        provenance=shown([provenance(name, item) for name, item in evaluations.items()]),
    )
    return write(output / "comparison.html", page)


def rows_to_show(rows: "DataFrame") -> list[dict[str, Any]]:
    """The rows without columns that say nothing, the baseline named as such.

    Left out are p-values of which the corrected ones are there, and what is the same for all.
    """
    names = [str(name) for name in rows.columns]
    left_out = {name for name in names if name.endswith("_p") and f"{name}_holm" in names}
    left_out |= {
        name for name in ("images", "repeated_over") if name in names and rows[name].nunique() == 1
    }
    difference = next((name for name in names if name.endswith("_difference")), None)
    shown_rows = []
    for row in rows.to_dict("records"):
        kept = {str(name): value for name, value in row.items() if name not in left_out}
        if difference is not None and math.isnan(row[difference]):
            kept[names[0]] = f"{row[names[0]]} (baseline)"
        shown_rows.append(kept)
    return shown_rows


def choose_pictures(
    evaluations: Mapping[str, Evaluation],
    scored: Mapping[str, Mapping[str, Mapping[str, Any]]],
    ids: list[str],
    main: str,
    budget: int = PICTURE_BUDGET,
) -> tuple[list[dict[str, str]], int]:
    """Pictures of the cases on which any two models differ most, until the budget is spent.

    Returns:
        A dict of base64 texts for each case, in order: ``image``, ``truth``, and ``prediction n``
        and ``error n`` for run n; and the number of cases that remained without.
    """
    ranks = dict.fromkeys(ids, len(ids))
    for one, other in combinations(scored.values(), 2):
        gaps = {name: abs((one[name][main] or 0) - (other[name][main] or 0)) for name in ids}
        for rank, name in enumerate(sorted(ids, key=lambda name: -gaps[name])):
            ranks[name] = min(ranks[name], rank)
    chosen: dict[str, dict[str, str]] = {}
    spent = 0
    for name in sorted(ids, key=lambda name: ranks[name]):
        image, truth = next(iter(evaluations.values())).pictures(name, ("image", "truth"))
        texts = {"image": image, "truth": truth}
        for number, evaluation in enumerate(evaluations.values()):
            prediction, error = evaluation.pictures(name, ("prediction", "error"))
            texts |= {f"prediction {number}": prediction, f"error {number}": error}
        texts = {kind: text for kind, text in texts.items() if text}
        spent += sum(map(len, texts.values()))
        if spent > budget:
            break
        chosen[name] = texts
    return [chosen.get(name, {}) for name in ids], len(ids) - len(chosen)


def notes(rows: "DataFrame", scored: Mapping[str, Mapping[str, Any]], ids: list[str]) -> list[str]:
    """What the reader of the page must know of the models shown in it."""
    said = []
    if "runs" in rows and rows["runs"].max() > 1:
        said.append(
            "The table is over all runs of a setting, its ± the deviation between them; what "
            "follows shows the first run of each."
        )
    if "runs" in rows and rows["runs"].max() == 1 and len(rows) > 1:
        said.append("One run of each setting: another seed might turn a difference round.")
    if most := max(len(cases) for cases in scored.values()) - len(ids):
        said.append(f"{most} cases that not all of the models scored are left out below.")
    return said


def shared_conditions(evaluations: Mapping[str, Evaluation]) -> list[tuple[str, str]]:
    """Conditions that hold for all of the evaluations; the table names the others."""
    first, *others = [item.summary.get("conditions") or {} for item in evaluations.values()]
    return [
        (name, text) for name, text in first.items() if all(o.get(name) == text for o in others)
    ]


def provenance(name: str, evaluation: Evaluation) -> dict[str, Any]:
    """Where the scores of one model come from."""
    summary = evaluation.summary
    conditions = summary.get("conditions") or {}
    return {
        "model": name,
        "run": summary.get("run") or " | ".join(members(summary)),
        "split": conditions.get("split", ""),
        "fingerprint": summary.get("split_fingerprint", ""),
        "selection": conditions.get("selection", ""),
        "commit": str(summary.get("git_commit") or "")[:12],
    }
