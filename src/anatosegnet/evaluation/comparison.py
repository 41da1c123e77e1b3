"""Settings side by side: means over runs, intervals, tests against a baseline, and tables."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas
from omegaconf import DictConfig
from pandas import DataFrame, Series

from anatosegnet.config.keys import REPEATED, settings_of
from anatosegnet.console import between, p_value, rounded, say_conditions, say_table
from anatosegnet.errors import UserError
from anatosegnet.evaluation.risks import risk_columns
from anatosegnet.evaluation.tables import UNCERTAINTY
from anatosegnet.files.rows import write_frame
from anatosegnet.metrics.risk import FAILED
from anatosegnet.metrics.risk import SCORES as RISKS
from anatosegnet.metrics.scores import NO_SCORES, Score, find, shown_in, title
from anatosegnet.metrics.statistics import (
    PERMUTATIONS,
    holm,
    independent_groups,
    interval,
    mean_and_deviation,
    paired_p,
)
from anatosegnet.report.latex import latex
from anatosegnet.report.markdown import inline, table_lines
from anatosegnet.run import CHANGED_DATA

TABLE = "comparison.csv"  # a row for each setting

Settings = Mapping[str, Sequence[DataFrame]]


def require_same_cases(settings: Settings) -> None:
    """UserError unless every setting was scored on the same cases, by the same masks.

    With folds, the settings must have the same folds.
    """
    (first, frames), *others = settings.items()
    parts = {frozenset(frame["id"]) for frame in frames}
    truth = pandas.concat(frames).drop_duplicates("id").set_index("id")
    for name, other in others:
        other_parts = {frozenset(frame["id"]) for frame in other}
        if other_parts != parts:
            mine, theirs = frozenset().union(*parts), frozenset().union(*other_parts)
            different = sorted(mine ^ theirs)
            detail = (
                f"{len(different)} cases are in one only, such as {different[0]}"
                if different
                else "the same cases in other parts"
            )
            raise UserError(
                f'"{first}" and "{name}" were scored on different cases ({len(mine)} in '
                f"{len(parts)} test parts, {len(theirs)} in {len(other_parts)}): {detail}; "
                "compare runs of the same data, split and folds"
            )
    for name, frames in settings.items():
        for frame in frames:
            known = truth.loc[frame["id"], ["lesion_area", "height", "width"]]
            if (known.to_numpy() != frame[known.columns].to_numpy()).any():
                raise UserError(
                    f'"{first}" and "{name}" were scored at different sizes or by different '
                    "masks of the same cases; compare them at=original, on the same data"
                )


def repetition(configs: Sequence[DictConfig]) -> str:
    """What the runs of one setting differ in: ``seeds``, ``folds``, ``splits``, or ``runs``."""
    varied = [
        repeated
        for repeated in REPEATED
        if len({repr(sorted(settings_of(config, repeated).items())) for config in configs}) > 1
    ]
    return f"{varied[0].name.lower()}s" if len(varied) == 1 else "runs"


def scores_to_compare(settings: Settings, own: Mapping[str, Score]) -> list[str]:
    """The scores that are shown first, as far as every run has them."""
    frames = [frame for frames in settings.values() for frame in frames]
    names = [*shown_in(("first",), frames[0], own), "aurc", "failure_auroc"]
    return [name for name in names if all(has(frame, name) for frame in frames)]


def has(frame: DataFrame, score: str) -> bool:
    """Whether there is a value of a score of any image; of all, where it is of all together."""
    if score in RISKS:
        return UNCERTAINTY in frame and bool(frame[UNCERTAINTY].notna().all())
    return score in frame and bool(frame[score].notna().any())


def compare_settings(
    settings: Settings, repeated: Sequence[str], baseline: str, scores: Sequence[str]
) -> DataFrame:
    """A row per setting.

    A case's score is its mean over the runs that scored it; intervals, differences and tests are
    over cases. Deviations are between the runs' means.

    Args:
        settings: The runs' scores by label.
        repeated: What the runs of each setting differ in.
        baseline: Label of the setting that the others are tested against.
        scores: Columns of ``scores.csv``, or of the `RISKS`, which have no test.

    Returns:
        Columns ``setting``, ``runs``, ``repeated_over``, ``images``, and for each score
        ``<score>``, ``_sd``, ``_low``, ``_high``, ``_difference``, ``_difference_low``,
        ``_difference_high``, ``_p``, ``_p_holm`` (empty where it does not apply).
    """
    for name, frames in settings.items():
        missing = [score for score in scores if not all(has(frame, score) for frame in frames)]
        if missing:
            raise UserError(
                f'"{name}" has no score {", ".join(missing)}; scores=[…] says which columns of '
                "scores.csv to compare"
            )
    rows: list[dict[str, Any]] = [
        {
            "setting": name,
            "runs": len(frames),
            "repeated_over": over if len(frames) > 1 else "",
            "images": len({case for frame in frames for case in frame["id"]}),
        }
        for (name, frames), over in zip(settings.items(), repeated, strict=True)
    ]
    group = independent_group(settings[baseline])
    for score in scores:
        if score in RISKS:
            cells = risk_columns(settings, baseline, score, group.to_dict())
            for row in rows:
                row |= cells[row["setting"]]
            continue
        reference = per_case(settings[baseline], score)
        for row, frames in zip(rows, settings.values(), strict=True):
            values = per_case(frames, score)
            groups = group[values.index].tolist()
            _, deviation = mean_and_deviation([float(frame[score].mean()) for frame in frames])
            low, high = interval(values, groups) or (None, None)
            row |= {score: values.mean(), f"{score}_sd": deviation}
            row |= {f"{score}_low": low, f"{score}_high": high}
            if row["setting"] == baseline:
                continue
            difference = values - reference
            low, high = interval(difference, groups) or (None, None)
            row |= {f"{score}_difference": difference.mean()}
            row |= {f"{score}_difference_low": low, f"{score}_difference_high": high}
            row[f"{score}_p"] = paired_p(values, reference, groups)
        tested = [row for row in rows if f"{score}_p" in row]
        corrected = holm([row[f"{score}_p"] for row in tested])
        for row, p in zip(tested, corrected, strict=True):
            row[f"{score}_p_holm"] = p
    return DataFrame(rows)


def per_case(frames: Sequence[DataFrame], score: str) -> Series:
    """A case's mean score over the runs that scored it, by id in sorted order."""
    return pandas.concat(frames).groupby("id")[score].mean().dropna().sort_index()


def independent_group(frames: Sequence[DataFrame]) -> Series:
    """The independent group of each case that runs scored, by id."""
    known = pandas.concat(frames).drop_duplicates("id").set_index("id")["group"]
    return Series(independent_groups(known.index.tolist(), known.tolist()), known.index)


def notes(
    settings: Settings, baseline: str, summaries: Sequence[Mapping[str, Any]]
) -> dict[str, str]:
    """What a reader must know of the table; conditions that differ between runs are all named."""
    said: dict[str, str] = {}
    for key in ("data", "split", "selection", "members", "views", "aggregation"):
        found = dict.fromkeys(summary.get("conditions", {}).get(key, "") for summary in summaries)
        if any(found) or key not in ("members", "views"):
            said[key] = " | ".join(text for text in found if text)
    changed = [
        f"run {name_of(summary)}: {summary['conditions'][CHANGED_DATA]}"
        for summary in summaries
        if CHANGED_DATA in summary.get("conditions", {})
    ]
    if changed:
        said[CHANGED_DATA] = " | ".join(changed)
    said["runs"] = (
        "a case's score is its mean over the runs that scored it; sd is between runs"
        if any(len(frames) > 1 for frames in settings.values())
        else "one of each setting: another seed might turn a difference round"
    )
    said["intervals"] = "95 %, bootstrap over cases (by group where there are groups)"
    frames = [frame for frames in settings.values() for frame in frames]
    if all(has(frame, "aurc") for frame in frames):
        said["AURC"] = (
            "mean of 1 - IoU of the surest images, over all shares of them kept; AUROC of failure: "
            f"how likely an image of IoU < {FAILED:g} is less sure than another; of each run, then "
            "averaged"
        )
    if len(settings) > 1:
        said["p"] = (
            f"paired permutation test against {baseline} on the same cases, {PERMUTATIONS} "
            f"permutations, Holm over {len(settings) - 1} settings for each score"
        )
    return said


def name_of(summary: Mapping[str, Any]) -> str:
    """What the run, or several as one, of an evaluation is called."""
    return Path(summary.get("run", "")).name or str(summary.get("predictor", {}).get("name", ""))


def write_tables(
    directory: Path, table: DataFrame, said: Mapping[str, str], own: Mapping[str, Score] = NO_SCORES
) -> None:
    """Write ``comparison.csv`` (numbers), ``.md`` and ``.tex`` (booktabs)."""
    write_frame(directory / TABLE, table, "%.6g")
    shown = readable(table, own)
    lines = table_lines(list(shown), shown.to_numpy().tolist())
    lines += ["", *(f"- {name}: {inline(text)}" for name, text in said.items())]
    (directory / "comparison.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    tex = latex(without_differences(shown), said)
    (directory / "comparison.tex").write_text(tex, encoding="utf-8")


def readable(table: DataFrame, own: Mapping[str, Score] = NO_SCORES) -> DataFrame:
    """The table as people read it: text, mean ± sd [interval], difference [interval], p."""
    shown = DataFrame({"setting": table["setting"]})
    if difference := next((name for name in table if name.endswith("_difference")), None):
        shown["setting"] += table[difference].isna().map({True: " (baseline)", False: ""})
    shown["runs"] = [
        f"{row.runs} {row.repeated_over}".strip() for row in table.itertuples(index=False)
    ]
    scores = [
        name.removesuffix("_low")
        for name in table
        if name.endswith("_low") and not name.endswith("_difference_low")
    ]
    for score in scores:
        known, name = find(score, own), title(score, own)
        deviations = table[f"{score}_sd"].notna()
        head = f"{name} ± sd [95 % CI]" if deviations.any() else f"{name} [95 % CI]"
        digits = digits_of(table[score])
        shown[head] = [
            rounded(mean, digits)
            + (f" ± {rounded(sd, digits)}" if pandas.notna(sd) else "")
            + f" {between((low, high), digits)}".rstrip()
            for mean, sd, low, high in zip(
                *(table[f"{score}{end}"] for end in ("", "_sd", "_low", "_high")), strict=True
            )
        ]
        if f"{score}_difference" in table:
            ends = ("_difference", "_difference_low", "_difference_high")
            shown[f"difference in {name}"] = [
                "baseline"
                if pandas.isna(mean)
                else f"{rounded(mean, digits, '+')} {between((low, high), digits)}".rstrip()
                for mean, low, high in zip(*(table[f"{score}{end}"] for end in ends), strict=True)
            ]
        if f"{score}_p" in table:
            shown[f"p ({known.label if known else name})"] = [
                "" if pandas.isna(p) else p_value(p) for p in table[f"{score}_p_holm"]
            ]
    return shown


def without_differences(shown: DataFrame) -> DataFrame:
    """The readable table without the columns that make it too wide to print."""
    return shown[[column for column in shown if not column.startswith("difference")]]


def digits_of(values: Series) -> int:
    """Digits behind the point: three for shares, two below 10 (mm), one for larger distances."""
    largest = values.abs().max()
    return 3 if largest <= 1 else 2 if largest < 10 else 1


def print_table(
    table: DataFrame, said: Mapping[str, str], own: Mapping[str, Score] = NO_SCORES
) -> None:
    """Print the comparison without the differences, and what it holds for."""
    shown = without_differences(readable(table, own))
    say_table(list(shown), shown.to_numpy().tolist(), title="comparison")
    say_conditions(said)
