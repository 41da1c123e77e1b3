"""The tables and the picture of docs/ablation.md, from the scores under results/ablation.

    python scripts/figure_ablation.py [--runs results/ablation] [--docs docs]

Folders are named FORM-foldK, with -seedS and -Npx behind it where the seed is not 0 or the images
are not of 128 px; networks of the leak-free table, whose recipe is the same, lie in
leakfree/busi/NETWORK/K beside it. Each form is compared with ``unet`` on the folds that both have,
with ``compare``'s own statistics: a bootstrap over groups, a paired permutation test, and Holm's
correction over the forms.
"""

import argparse
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import pandas
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from pandas import DataFrame
from scipy import stats

from anatosegnet.cli import errors_in_one_line
from anatosegnet.config.keys import Role, role
from anatosegnet.config.overrides import key_of, parse
from anatosegnet.console import between, p_value, rounded
from anatosegnet.errors import UserError
from anatosegnet.evaluation.compare import read_evaluation
from anatosegnet.evaluation.comparison import compare_settings, readable, require_same_cases
from anatosegnet.evaluation.evaluate import evaluation_directory
from anatosegnet.files.writing import replacing
from anatosegnet.metrics.statistics import holm, mean_and_deviation
from anatosegnet.report.markdown import table_lines, write_computed
from anatosegnet.report.reading import read_summary
from anatosegnet.run import Run

ROOT = Path(__file__).resolve().parents[1]
FOLDER = re.compile(r"(?P<form>\w+)-fold(?P<fold>\d+)(?:-seed(?P<seed>\d+))?(?:-(?P<size>\d+)px)?")
DATASETS = {"busi": "BUSI", "breast_lesions_usg": "BrEaST"}
BASELINE = "unet"
# in the order of the rows; others follow under their own name
FORMS = {
    BASELINE: "no attention",
    "replace": "features replaced, as described",
    "released": "features replaced, as the released code",
    "residual": "x + attention(x)",
    "prenorm": "x + proj(attention(norm x)), proj from 0",
    "plain": "prenorm, neither bias nor differences",
    "again": "no attention, trained again: the noise",
    "learned": "prenorm, learned γ",
    "spread": "prenorm, learned γ from 0.25 to 4",
    "height": "prenorm, γ by image height",
    "local": "prenorm, position-aware V",
    "mlp": "prenorm, MLP behind it",
    "levels345": "prenorm, levels 3 to 5",
    "unet_enc01": "no attention, encoder at a tenth of the rate",
    "unet_lr2e3_enc025": "no attention, rate 2e-3, encoder at a quarter of it",
    "unet_ema": "no attention, mean of the weights (EMA)",
}
OF_LEAKFREE = {"unet": BASELINE, "anatosegnet": "replace", "anatosegnet_released": "released"}
OF_ONE_RUN = (Role.COMMAND, Role.SEED, Role.FOLD)  # settings that are no part of a form
BLUE, ORANGE, GREY = "#0072B2", "#D55E00", "#666666"  # Okabe & Ito: told apart by all readers


class Published(NamedTuple):
    """A published run, by its folder's name; seed and size (px) are None where it says none."""

    form: str
    fold: int
    seed: int | None
    size: int | None
    run: Run


def main() -> None:
    """Write the tables into docs/ablation.md, and the picture beside it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=Path, default=ROOT / "results" / "ablation")
    parser.add_argument("--docs", type=Path, default=ROOT / "docs")
    given = parser.parse_args()
    with errors_in_one_line():
        runs = find(given.runs)
        page = given.docs / "ablation.md"
        write_computed(page, lines(runs))
        of_folds = [run for run in of_one_seed(runs) if not is_recipe(run)]
        tables = {name: compared(of_folds, name, "folds") for name in DATASETS}
        small = [run for run in runs if run.size is None]
        gains = {
            name: {form: gains_of(small, form, name) for form in table["setting"]}
            for name, table in tables.items()
        }
        draw(tables, gains, given.docs)
    print(f"written {page} and {page.with_suffix('.png')}, from {len(runs)} runs")


def find(folder: Path) -> list[Published]:
    """The published runs in a folder, their forms in the order of `FORMS`."""
    found = []
    for path in sorted(path.parent for path in folder.glob("*/config.yaml")):
        named = FOLDER.fullmatch(path.name)
        if named:
            seed, size = (int(n) if n else None for n in (named["seed"], named["size"]))
            found.append(Published(named["form"], int(named["fold"]), seed, size, Run.open(path)))
    for path in folder.parent.glob("leakfree/busi/*/*/config.yaml"):
        if form := OF_LEAKFREE.get(path.parents[1].name):
            found.append(Published(form, int(path.parent.name), None, None, Run.open(path.parent)))
    order = [*FORMS, *sorted({run.form for run in found} - set(FORMS))]
    return sorted(found, key=lambda run: (order.index(run.form), run.fold, run.seed or 0))


def of_one_seed(runs: list[Published]) -> list[Published]:
    """Those of the folds: of seed 0, at 128 px."""
    return [run for run in runs if run.seed is None and run.size is None]


def is_recipe(run: Published) -> bool:
    """Whether it tries another training of the baseline, which is another family of tests."""
    return run.form.startswith(f"{BASELINE}_")


def lines(runs: list[Published]) -> list[str]:
    """What stands between the marks: tables of folds, of recipes, of seeds, and of sizes."""
    of_folds = of_one_seed(runs)
    text = ["", *table([run for run in of_folds if not is_recipe(run)], "folds")]
    if any(is_recipe(run) for run in runs):
        recipes = [run for run in of_folds if is_recipe(run) or run.form == BASELINE]
        text += ["", "The recipe, without attention:", "", *table(recipes, "folds")]
    text += [
        "",
        "Training by training, all folds and seeds that a form and `unet` both have:",
        "",
        *by_training([run for run in runs if run.size is None]),
    ]
    for size in sorted({run.size for run in runs if run.size}):
        text += [
            "",
            f"At {size} px:",
            "",
            *table([run for run in runs if run.size == size], "runs"),
        ]
    text += [
        "",
        "What each form was given beyond the command below, and the commits that trained it:",
    ]
    return [*text, "", *given_to(runs)]


def table(runs: list[Published], repeated: str) -> list[str]:
    """A table in markdown, a row for each form and columns for each dataset."""
    whole = DataFrame()
    for dataset, title in DATASETS.items():
        numbers = compared(runs, dataset, repeated).set_index("setting")
        shown = readable(numbers.reset_index()).set_index(numbers.index)
        if whole.empty:
            whole = numbers[["units", "images"]].rename(columns={"units": repeated})
        shown = shown.drop(columns=["setting", "runs"]).add_prefix(f"{title}: ")
        whole = whole.join(shown)
    columns = ["form", *whole.columns]
    return table_lines(columns, whole.fillna("").reset_index().to_numpy().tolist())


def by_training(runs: list[Published]) -> list[str]:
    """A table of differences between trainings, each one number: another training is another draw.

    p is of Student's paired t-test over them, and not corrected for the number of forms.
    """
    rows = []
    for form in dict.fromkeys(run.form for run in runs if run.form != BASELINE):
        row: list[object] = [form]
        for dataset in DATASETS:
            gains = gains_of(runs, form, dataset)
            if len(gains) < 2:
                break
            test = stats.ttest_1samp(gains, 0)
            low, high = test.confidence_interval()
            row += [] if len(row) > 1 else [len(gains)]
            mean, deviation = mean_and_deviation(gains)
            row += [
                f"{rounded(mean, 3, '+')} ± {rounded(deviation)} {between((low, high))}",
                f"{sum(gain > 0 for gain in gains)} of {len(gains)}",
                p_value(float(test.pvalue)),
            ]
        else:
            rows.append(row)
    heads = [
        f"{title}: {head}"
        for title in DATASETS.values()
        for head in ("difference ± sd [95 % CI]", "positive", "p")
    ]
    return table_lines(["form", "pairs of trainings", *heads], rows)


def gains_of(runs: Iterable[Published], form: str, dataset: str) -> list[float]:
    """Mean IoU of each training of a form minus that of ``unet`` on the same fold and seed."""
    means: dict[str, dict[tuple[int, int], float]] = {form: {}, BASELINE: {}}
    for run in runs:
        if run.form in means and (scores := scores_of(run, dataset)) is not None:
            means[run.form][run.fold, run.seed or 0] = float(scores["iou"].mean())
    both = sorted(means[form].keys() & means[BASELINE].keys())
    return [means[form][unit] - means[BASELINE][unit] for unit in both]


def scores_of(run: Published, dataset: str) -> DataFrame | None:
    """The scores of a run on a dataset; None where it was not scored on it."""
    folder = evaluation_directory(run.run, dataset, "original")
    if not folder.exists():
        return None
    return read_evaluation(run.run, folder, read_summary(folder / "summary.json"))


def compared(runs: Iterable[Published], dataset: str, repeated: str) -> DataFrame:
    """`compare_settings` of each form beside the baseline, on the folds and seeds both have.

    Args:
        runs: The runs of all forms; of each form one for a fold and seed.
        dataset: Whose scores are compared.
        repeated: What the runs of a form differ in.

    Returns:
        A row for each form, with its folds or seeds as ``units``, and Holm's correction over all.
    """
    units: dict[str, dict[tuple[int, int], DataFrame]] = {}
    for run in runs:
        if (scores := scores_of(run, dataset)) is not None:
            units.setdefault(run.form, {})[run.fold, run.seed or 0] = scores
    if BASELINE not in units:
        raise UserError(f"{dataset}: no {BASELINE} is there to compare {', '.join(units)} with")
    rows = []
    for form, mine in units.items():
        shared = sorted(mine.keys() & units[BASELINE].keys())
        if shared:
            both = {name: [units[name][unit] for unit in shared] for name in (BASELINE, form)}
            require_same_cases(both)
            row = compare_settings(both, [repeated] * len(both), BASELINE, ["iou"]).iloc[[-1]]
            rows.append(row.assign(units=", ".join(str(fold) for fold, _ in shared)))
    whole = pandas.concat(rows, ignore_index=True)
    if "iou_p" in whole:
        tested = whole["iou_p"].notna()
        whole.loc[tested, "iou_p_holm"] = holm(whole.loc[tested, "iou_p"].tolist())
    return whole


def given_to(runs: list[Published]) -> list[str]:
    """A table of the overrides of each form that not all forms were given, and of commits."""
    overrides: dict[str, dict[str, None]] = {}
    commits: dict[str, dict[str, None]] = {}
    for run in runs:
        summary = run.run.summary
        given = parse(summary.get("overrides", ()))
        own = [str(o.input_line) for o in given if role(key_of(o)) not in OF_ONE_RUN]
        overrides.setdefault(run.form, {}).update(dict.fromkeys(own))
        commits.setdefault(run.form, {})[str(summary.get("git_commit"))[:7]] = None
    common = set.intersection(*(set(own) for own in overrides.values()))
    rows = [
        [
            form, FORMS.get(form, ""), " ".join(o for o in own if o not in common),
            " ".join(commits[form]),
        ]
        for form, own in overrides.items()
    ]  # fmt: skip
    return table_lines(["form", "in words", "given", "commits"], rows)


def draw(
    tables: Mapping[str, DataFrame],
    gains: Mapping[str, Mapping[str, list[float]]],
    folder: Path,
) -> None:
    """Draw ``ablation.png``: the differences to the baseline, a panel for each dataset.

    Args:
        tables: As `compared` gives them, by dataset.
        gains: As `gains_of` gives them, by dataset and form.
        folder: That gets the picture.
    """
    busi, others = (tables[name].set_index("setting") for name in DATASETS)
    forms = [form for form in busi.index if form != BASELINE]
    figure = Figure(figsize=(12, 1.3 + 0.46 * len(forms)), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2, sharex=True)
    here, there = (gains[name] for name in DATASETS)
    panel(left, busi, forms, here, "in domain: BUSI, the folds named")
    panel(right, others, forms, there, f"zero-shot: BrEaST, {others['images'].max()} images")
    beside = {"transform": left.get_yaxis_transform(), "ha": "right", "va": "center"}
    for place, form in enumerate(forms):
        folds, images = busi.loc[form, ["units", "images"]]
        left.text(-0.03, place - 0.17, form, fontsize=9, weight="bold", **beside)
        about = f"{FORMS[form]}; " if form in FORMS else ""
        about += f"folds {folds}; {images} images"
        left.text(-0.03, place + 0.2, about, fontsize=7, color=GREY, **beside)
    with replacing(folder / "ablation.png") as path:
        figure.savefig(path)


def panel(
    axis: Axes, rows: DataFrame, forms: list[str], gains: Mapping[str, list[float]], title: str
) -> None:
    """A forest plot: a dot and its 95 % interval for each form, filled where p < 0.05.

    Below it a small stroke for each training.
    """
    axis.axvline(0, color=GREY, linewidth=1)
    for place, form in enumerate(forms):
        if form not in rows.index:
            continue
        row = rows.loc[form]
        mean, p = row["iou_difference"], row["iou_p_holm"]
        colour = GREY if p >= 0.05 else BLUE if mean > 0 else ORANGE
        ends = (row["iou_difference_low"], row["iou_difference_high"])
        axis.plot(ends, (place, place), color=colour, linewidth=2.2, solid_capstyle="butt")
        inside = "white" if p >= 0.05 else colour
        axis.plot(mean, place, "o", color=colour, markersize=7, markerfacecolor=inside)
        strokes = [place + 0.3] * len(gains[form])
        axis.plot(gains[form], strokes, "|", color=GREY, markersize=6, markeredgewidth=1.2)
        beside = {"transform": axis.get_yaxis_transform(), "va": "center", "fontsize": 8}
        axis.text(1.02, place, rounded(mean, 3, "+"), **beside)
        axis.text(1.18, place, p_value(p), **beside)
    for place, head in ((1.02, "diff."), (1.18, "p")):
        axis.text(place, 1.01, head, transform=axis.transAxes, fontsize=8, color=GREY)
    axis.set_title(title, fontsize=9.5, loc="left")
    axis.set_xlabel("IoU per image minus that of unet, 95 % interval", fontsize=8.5)
    axis.set_ylim(len(forms) - 0.4, -0.6)
    axis.set_yticks([])
    axis.xaxis.set_major_locator(MaxNLocator(6))
    axis.tick_params(labelsize=8)
    axis.grid(axis="x", alpha=0.25, linewidth=0.6)
    axis.spines[["top", "right", "left"]].set_visible(False)


if __name__ == "__main__":
    main()
