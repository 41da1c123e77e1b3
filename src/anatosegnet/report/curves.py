"""``curves.png``: loss, IoU and learning rate of every epoch of a run."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from anatosegnet.console import say
from anatosegnet.errors import UserError
from anatosegnet.files.writing import replacing
from anatosegnet.report.reading import learning_curves
from anatosegnet.run import Run

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TRAIN, VAL, GREY = "#0072B2", "#D55E00", "#666666"  # Okabe & Ito: told apart by all readers
PARTS = {"train": "training", "val": "validation"}
FEW = 15  # epochs that are marked by points
Curve = Sequence[tuple[float, float]]


def write_curves(run: Run, best_epoch: int | None = None) -> None:
    """Draw ``metrics.csv``; a warning and no picture if that cannot be done.

    Args:
        run: The run; ``curves.png`` is written into it.
        best_epoch: The epoch of ``best.ckpt``, from 1, to be marked.
    """
    try:
        curves = learning_curves(run, least=1)
        if "train/loss" in curves or "val/loss" in curves:
            draw(run, curves, best_epoch)
    except (UserError, OSError) as error:  # no reason to lose the scores of the run
        say(f"warning: no {run.curves_path.name} ({error})", error=True)


def draw(run: Run, curves: Mapping[str, Curve], best_epoch: int | None) -> None:
    """Draw the curves, by name, each a list of (epoch from 1, value)."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(10.5, 3.1), dpi=130, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, 3, width_ratios=(3, 3, 2))
    last = max(curve[-1][0] for curve in curves.values() if curve)
    titles = {"loss": "loss", "iou": "IoU", "lr": "learning rate"}
    for axis, (score, title) in zip(axes, titles.items(), strict=True):
        for part, colour in (("train", TRAIN), ("val", VAL)):
            curve = curves.get(f"{part}/{score}")
            if curve:
                plot(axis, curve, colour if score != "lr" else GREY, PARTS[part], last)
        axis.set_title(title, fontsize=10, loc="left")
        axis.set_xlabel("epoch", fontsize=9)
        axis.set_xlim(1 - max(0.5, last / 60), last + max(0.5, last / 60))
        axis.xaxis.set_major_locator(MaxNLocator(6, integer=True, min_n_ticks=1))
        axis.tick_params(labelsize=8)
        axis.grid(alpha=0.25, linewidth=0.6)
        axis.spines[["top", "right"]].set_visible(False)
    axes[1].set_ylim(0, 1)
    axes[2].set_ylim(bottom=0)
    axes[2].yaxis.set_major_formatter(lambda rate, _: f"{rate:.3g}")
    if best_epoch is not None:
        mark(axes, curves, best_epoch)
    axes[0].legend(fontsize=8, frameon=False)
    with replacing(run.curves_path) as path:
        figure.savefig(path)


def plot(axis: "Axes", curve: Curve, colour: str, label: str, last: float) -> None:
    """One line; points too where there are few."""
    epochs, values = zip(*curve, strict=True)
    marker = "o" if last <= FEW else None
    axis.plot(epochs, values, color=colour, label=label, linewidth=1.4, marker=marker, markersize=3)


def mark(axes: Sequence["Axes"], curves: Mapping[str, Curve], best_epoch: int) -> None:
    """A line at the best epoch, and its validation IoU in words."""
    for axis in axes[:2]:
        axis.axvline(best_epoch, color=GREY, linewidth=0.9, linestyle=(0, (4, 3)), zorder=0)
    best = dict(curves.get("val/iou", ())).get(best_epoch)
    if best is None:
        return
    axes[1].plot([best_epoch], [best], "o", color=VAL, markersize=6, markeredgecolor="white")
    axes[1].text(
        0.98,
        0.04,
        f"best epoch {best_epoch}: validation IoU {best:.3f}",
        transform=axes[1].transAxes,
        ha="right",
        fontsize=8,
        color=VAL,
        bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.85, "pad": 1.5},
    )
