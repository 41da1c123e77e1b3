"""The risk-coverage picture of docs/deploy.md, from folders that evaluate wrote.

    python scripts/figure_risk.py docs/risk_coverage.png "LABEL=FOLDER[,FOLDER…]" …

Several folders of one label, such as the folds of one setting, are averaged at each coverage. Grey:
the ideal order of the last one, in which a worse mask is less sure.
"""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from pandas import DataFrame

from anatosegnet.cli import errors_in_one_line
from anatosegnet.errors import UserError
from anatosegnet.evaluation.tables import UNCERTAINTY, read_scores
from anatosegnet.files.opening import kept
from anatosegnet.files.writing import replacing
from anatosegnet.metrics.risk import Risk
from anatosegnet.metrics.scores import MAIN

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")  # Okabe & Ito: told apart by all readers
GREY = "#666666"
LEAST = 0.1  # coverage below which a few images decide


def curve(frames: Sequence[DataFrame], ideal: bool = False) -> np.ndarray:
    """(P, 2) coverage and mean IoU, the mean over frames of as many cases."""
    curves = [
        Risk(1 - frame[MAIN] if ideal else frame[UNCERTAINTY], frame[MAIN]).curve()
        for frame in frames
    ]
    return np.mean(np.array(curves), axis=0)


def draw(path: Path, settings: Mapping[str, Sequence[DataFrame]]) -> None:
    """Write the picture.

    Args:
        path: The PNG.
        settings: The scores of the runs, by label.
    """
    figure = Figure(figsize=(7.2, 4.2), dpi=130, layout="constrained")
    FigureCanvasAgg(figure)
    axis = figure.subplots()
    for (label, frames), colour in zip(settings.items(), COLOURS, strict=False):
        points = curve(frames)
        points = points[points[:, 0] >= LEAST]
        area = np.mean([Risk(f[UNCERTAINTY], f[MAIN]).score("aurc")[0] for f in frames])
        text = f"{label} (AURC {area:.3f})"
        axis.plot(100 * points[:, 0], points[:, 1], color=colour, label=text, linewidth=1.6)
        axis.axhline(points[-1, 1], color=colour, linewidth=0.8, linestyle=(0, (4, 3)))
    points = curve(frames, ideal=True)
    points = points[points[:, 0] >= LEAST]
    axis.plot(100 * points[:, 0], points[:, 1], color=GREY, label="ideal order", linewidth=1)
    axis.set_xlabel("coverage: images kept, the surest first (%); a person sees the others")
    axis.set_ylabel("mean IoU of those kept")
    axis.set_xlim(100 * LEAST, 100)
    axis.grid(alpha=0.25, linewidth=0.6)
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(fontsize=9, frameon=False)
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png")


def main() -> None:
    """Read the folders and draw."""
    with errors_in_one_line("figure_risk"):
        if len(sys.argv) < 3 or any("=" not in given for given in sys.argv[2:]):
            raise UserError('python scripts/figure_risk.py OUT.png "LABEL=FOLDER[,FOLDER…]" …')
        named = (given.split("=", 1) for given in sys.argv[2:])
        settings = {
            label: [read_scores(kept(Path(folder) / "scores.csv")) for folder in folders.split(",")]
            for label, folders in named
        }
        draw(Path(sys.argv[1]), settings)


if __name__ == "__main__":
    main()
