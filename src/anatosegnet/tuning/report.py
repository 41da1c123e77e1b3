"""What a study found: a table, a csv, pictures, and the best settings as an experiment."""

import re
import shlex
import sys
import warnings
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from anatosegnet.config.keys import shorten
from anatosegnet.config.overrides import is_group, key_of, parse
from anatosegnet.console import say, say_table, without_password
from anatosegnet.errors import UserError
from anatosegnet.files.rows import write_rows
from anatosegnet.files.writing import replacing
from anatosegnet.run import Run
from anatosegnet.tuning.space import Dimension, searchpath
from anatosegnet.tuning.study import count

if TYPE_CHECKING:
    import optuna

SHOWN = 10  # trials in the table
ATTRIBUTES = ("best_epoch", "epochs", "minutes", "failure", "host")


def report(
    study: "optuna.Study",
    space: Sequence[Dimension],
    given: Sequence[str],
    directory: Path,
    training: DictConfig,
) -> None:
    """Write ``trials.csv``, ``experiment/best.yaml`` and the pictures; print the best trials.

    Args:
        study: Perhaps one that goes on in other workers.
        space: What was searched.
        given: Overrides that all trials share.
        directory: Of the study.
        training: The config that the trials share.

    Raises:
        UserError: No trial was completed.
    """
    from optuna.trial import TrialState

    keys = [dimension.key for dimension in space]
    write_trials(study, keys, directory / "trials.csv")
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    counts = ", ".join(f"{number} {name}" for name, number in count(study).items() if number)
    if not complete:
        raise UserError(f"no trial of {directory} was completed ({counts}); see its trials/*.log")
    ranked = sorted(complete, key=lambda trial: (-(trial.value or 0), trial.number))
    best = ranked[0]
    header = [
        f"val/iou {best.value:.4f} at epoch {best.user_attrs['best_epoch']}, trial {best.number}",
        f"best of {counts}; {date.today()}",
        f"from: python -m anatosegnet.tune {without_password(shlex.join(sys.argv[1:]))}",
    ]
    path = directory / "experiment" / "best.yaml"
    overrides = [*given, *best.user_attrs["overrides"]]
    text = experiment(overrides, header, f"{training.name}_best", directory)
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    pictures, remarks = draw(study, keys, directory)
    # all is on the disk by now
    print_table(ranked[:SHOWN], keys, study.study_name)
    for remark in remarks:
        say(f"remark     {remark}")
    say(f"trials     {counts}")
    run = Run(directory / "trials" / f"{best.number:04d}")
    say(f"selection  best val/iou of a trial's epochs; {view_of_test(run)}")
    say(f"written    {directory / 'trials.csv'}, {', '.join(pictures)}")
    say(f"test it    {train_command(directory)}")


def view_of_test(run: Run) -> str:
    """Whether the search could fit the test cases, from the split that a trial recorded."""
    from anatosegnet.data.leakage import recorded_leakage, recorded_split

    if not run.split_path.is_file():
        return f"whether test cases were looked at is unknown: {run.split_path} is not there"
    recorded = recorded_split(run)
    split, crossing = recorded.read(), recorded_leakage(run, recorded).test_in_val
    if shared := set(split.val) & set(split.test):
        return f"warning: {len(shared)} of {len(split.test)} test cases were validated on"
    if crossing:
        return (
            f"warning: {len(crossing)} of {len(split.test)} test images have a near-duplicate or "
            "another image of their patient in validation, so the search may have fitted them"
        )
    return "the test cases were not looked at"


def print_table(
    trials: Sequence["optuna.trial.FrozenTrial"], keys: Sequence[str], name: str
) -> None:
    """The best trials, best first."""
    short = shorten(keys)
    rows = [
        (
            trial.number,
            f"{trial.value:.4f}",
            f"{trial.user_attrs['best_epoch']} of {trial.user_attrs['epochs']}",
            f"{trial.user_attrs['minutes']:.1f}",
            *(in_short(trial.params.get(key)) for key in keys),
        )
        for trial in trials
    ]
    columns = ("trial", "val/iou", "at epoch", "min", *(short[key] for key in keys))
    say_table(columns, rows, title=f"{name}: the best trials", left=0)


def in_short(value: Any) -> str:
    """A value to three digits."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def write_trials(study: "optuna.Study", keys: Sequence[str], path: Path) -> None:
    """One row per trial: number, state, best ``val/iou``, how long, and what it tried."""
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        rows = []
        for trial in study.get_trials(deepcopy=False):
            seen = trial.intermediate_values.values()
            score = trial.value if trial.value is not None else max(seen, default=None)
            about = [trial.user_attrs.get(name) for name in ATTRIBUTES]
            tried = [trial.params.get(key) for key in keys]
            rows.append([trial.number, trial.state.name.lower(), score, *about, *tried])
        write_rows(file, ["trial", "state", "val/iou", *ATTRIBUTES, *keys], rows)


def experiment(overrides: Sequence[str], header: Sequence[str], name: str, directory: Path) -> str:
    """Overrides as an experiment file.

    Args:
        overrides: As on train's command line; later ones win.
        header: Lines of comment.
        name: Of its runs.
        directory: Where ``experiment/best.yaml`` is put, for the command in its header.
    """
    groups: dict[str, Any] = {}
    values = OmegaConf.create()
    base: list[str] = []
    remarks: list[str] = []
    for override in parse(overrides):
        key, value = key_of(override), override.value()
        if key == "experiment":
            base = [str(item) for item in (value if isinstance(value, list) else [value]) if item]
        elif is_group(key) and isinstance(value, str | list | None):
            package = f"@{override.package}" if override.package else ""
            groups[f"override /{override.key_or_group}{package}"] = value
        elif override.is_delete():
            remarks.append(f"add {override.input_line} on the command line")
        elif key != "name":
            OmegaConf.update(values, key, value, merge=True, force_add=True)
    defaults = [*base, "_self_", *({key: value} for key, value in groups.items())]
    comment = [f"Command: {train_command(directory)}", *header, *remarks]
    lines = ["# @package _global_", *(f"# {' '.join(line.split())}" for line in comment)]
    body = OmegaConf.to_yaml(OmegaConf.merge({"defaults": defaults}, values, {"name": name}))
    return "\n".join(lines) + "\n" + body


def train_command(directory: Path) -> str:
    """How to train with the best settings."""
    parts = ["--config-dir", str(directory), "experiment=best"]
    parts += [f"hydra.searchpath=[file://{path}]" for path in searchpath()[1::2]]
    return f"python -m anatosegnet.train {shlex.join(parts)}"


def draw(
    study: "optuna.Study", keys: Sequence[str], directory: Path
) -> tuple[list[str], list[str]]:
    """Draw history, importances and slices.

    Returns:
        The names of the pictures written, and a line on each that needs more, or more different,
        trials than there are.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    from optuna.visualization import matplotlib as plots

    drawings: dict[str, tuple[Any, float, float]] = {  # and width, height in inches
        "history": (plots.plot_optimization_history, 6, 3.2),
        "importances": (plots.plot_param_importances, 6, 0.9 + 0.45 * len(keys)),
        "slices": (plots.plot_slice, 2.6 * len(keys) + 1.2, 3),
    }
    written, remarks = [], []
    for name, (plot, width, height) in drawings.items():
        try:
            with warnings.catch_warnings(), plt.style.context("default"):
                warnings.simplefilter("ignore")
                axes = plot(study, target_name="val/iou")
                figure = axes.flat[0].figure if hasattr(axes, "flat") else axes.figure
                figure.set_size_inches(width, height)
                plain_style(figure)
                with replacing(directory / f"{name}.png") as path:
                    figure.savefig(path, dpi=120, bbox_inches="tight")
            written.append(f"{name}.png")
        except (ValueError, RuntimeError, ZeroDivisionError) as error:
            remarks.append(f"no {name}.png: {' '.join(str(error).split())}")
        finally:
            plt.close("all")
    return written, remarks


def plain_style(figure: Any) -> None:
    """White ground and thin lines in the place of Optuna's style; titles are file names."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    figure.suptitle("")
    for axes in figure.axes:
        axes.set_title("")
        axes.set_title("", loc="left")
        axes.tick_params(colors="0.2", labelsize=8, which="both")
        if axes.get_label() == "<colorbar>":
            axes.set_ylabel("trial", fontsize=9)
            continue
        axes.set_facecolor("white")
        axes.set_axisbelow(True)
        axes.grid(True, which="major", color="0.9", linewidth=0.8)
        axes.grid(False, which="minor")
        for side in ("left", "bottom"):
            axes.spines[side].set(visible=True, color="0.4", linewidth=0.8)
        if axes.get_xscale() == "log":
            axes.xaxis.set_major_locator(LogLocator(subs=(1, 3), numticks=6))
            axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axes.xaxis.set_minor_formatter(NullFormatter())
        labels = [text.get_text().strip("'") for text in axes.get_xticklabels()]
        if any(re.match("[a-z]", label) for label in labels):  # choices
            ticks = axes.get_xticks()
            axes.set_xticks(ticks, labels, rotation=20, ha="right")
            axes.set_xlim(min(ticks) - 0.5, max(ticks) + 0.5)
        axes.set_xlabel(axes.get_xlabel().replace("Hyperparameter Importance", "importance"))
        axes.set_ylabel(axes.get_ylabel().replace("Hyperparameter", ""))
        for label in (axes.xaxis.label, axes.yaxis.label):
            label.set(color="0.1", fontsize=9)
        legend = axes.get_legend()
        if legend is not None and len(legend.get_texts()) < 2:
            legend.remove()
        elif legend is not None:
            axes.legend(frameon=False, fontsize=8, loc="lower right")
