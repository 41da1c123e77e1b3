"""``ranks.png``: mean ranks of networks, joined where they do not differ (Demšar 2006)."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from anatosegnet.files.writing import replacing
from anatosegnet.metrics.ranks import critical_difference

if TYPE_CHECKING:
    from matplotlib.axes import Axes

INK, BAR, GREY = "#222222", "#0072B2", "#666666"
Ranked = tuple[Sequence[str], Sequence[float], int]


def draw_ranks(path: Path, panels: Mapping[str, Ranked]) -> None:
    """Draw a critical-difference diagram for each title.

    Args:
        path: Of the picture.
        panels: By title: names, their mean ranks (1 the best), and over how many independent
            groups of images these are. Titles with fewer than two names are left out.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    panels = {title: ranked for title, ranked in panels.items() if len(ranked[0]) > 1}
    if not panels:
        return
    most = max(len(names) for names, _, _ in panels.values())
    columns = min(2, len(panels))
    rows = -(-len(panels) // columns)
    size = (5.6 * columns, rows * (1.25 + 0.2 * most))
    figure = Figure(figsize=size, dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = np.atleast_1d(figure.subplots(rows, columns)).ravel()
    for axis in axes[len(panels) :]:
        axis.set_axis_off()
    for axis, (title, ranked) in zip(axes, panels.items(), strict=False):
        panel(axis, title, *ranked)
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png")


def panel(
    axis: "Axes", title: str, names: Sequence[str], places: Sequence[float], groups: int
) -> None:
    """One diagram: an axis of ranks, a name at each, bars over those that do not differ."""
    order = np.argsort(places, kind="stable")
    ordered = np.asarray(places, float)[order]
    count = len(ordered)
    apart = critical_difference(count, groups)
    cliques = joined(ordered.tolist(), apart)
    left, right = np.floor(ordered[0] - 0.2), np.ceil(ordered[-1] + 0.2)
    left, right = max(1.0, left), min(float(count), right)
    wide = right - left
    top = 1 + len(cliques)  # lines of bars between the axis and the first name
    half = (count + 1) // 2
    for place, index in enumerate(order):
        here, first = ordered[place], place < half
        level = top + (place if first else count - 1 - place)
        end = left - 0.04 * wide if first else right + 0.04 * wide
        axis.plot([here, here, end], [0, level, level], color=GREY, linewidth=0.8)
        axis.text(
            end, level, f"{names[index]}  {here:.2f}" if first else f"{here:.2f}  {names[index]}",
            ha="right" if first else "left", va="center", fontsize=8, color=INK,
        )  # fmt: skip
    for level, (low, high) in enumerate(cliques, start=1):
        ends = (ordered[low] - 0.012 * wide, ordered[high] + 0.012 * wide)
        axis.plot(ends, (level, level), color=BAR, linewidth=3, solid_capstyle="butt")
    axis.plot([left, left + apart], [-1.1, -1.1], color=INK, linewidth=1.5)
    axis.text(
        left + apart + 0.02 * wide, -1.1, f"critical difference {apart:.2f}", va="center",
        fontsize=7, color=GREY,
    )  # fmt: skip
    axis.set_title(f"{title}, mean rank over {groups} groups of images", fontsize=9)
    axis.set_xlim(left - 0.75 * wide, right + 0.75 * wide)
    axis.set_ylim(top + half - 0.2, -1.7)
    axis.xaxis.set_ticks_position("top")
    axis.spines["top"].set_position(("data", 0))
    axis.spines["top"].set_bounds(left, right)
    axis.set_xticks(np.arange(np.ceil(left), np.floor(right) + 0.1))
    axis.tick_params(labelsize=8)
    axis.set_yticks([])
    axis.spines[["bottom", "left", "right"]].set_visible(False)


def joined(places: Sequence[float], apart: float) -> list[tuple[int, int]]:
    """Runs of ordered ranks (first, last) within a critical difference, none within another."""
    found: list[tuple[int, int]] = []
    for low, rank in enumerate(places):
        high = max(i for i, other in enumerate(places) if other - rank < apart)
        if high > low and (not found or high > found[-1][1]):
            found.append((low, high))
    return found
