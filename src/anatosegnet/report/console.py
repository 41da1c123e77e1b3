"""Scores in the terminal."""

from collections.abc import Mapping

import numpy as np
from rich.console import Console
from rich.table import Table


def print_scores(
    title: str, scores: Mapping[str, np.ndarray], conditions: Mapping[str, str]
) -> None:
    """Print a table of per-image scores and the conditions they were taken under.

    Args:
        title: What was scored.
        scores: Per-image values by name, each (N,) in [0, 1].
        conditions: What a reader must know: data, split, selection, aggregation.
    """
    # outside a terminal lines must not be folded at 80 columns
    console = Console(highlight=False, soft_wrap=True)
    table = Table("score", "mean ± sd", "median", "worst", title=title, title_justify="left")
    for name, values in scores.items():
        table.add_row(
            name,
            f"{values.mean():.4f} ± {values.std():.4f}",
            f"{np.median(values):.4f}",
            f"{values.min():.4f}",
        )
    console.print(table)
    for name, text in conditions.items():
        console.print(f"{name:12s} {text}")
