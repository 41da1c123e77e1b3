"""Scores in the terminal."""

from collections.abc import Mapping

import numpy as np

from anatosegnet.console import say_conditions, say_table


def print_scores(
    title: str, scores: Mapping[str, np.ndarray], conditions: Mapping[str, str]
) -> None:
    """Print a table of per-image scores and the conditions they were taken under.

    Args:
        title: What was scored.
        scores: Per-image values by name, each (N,) in [0, 1].
        conditions: What a reader must know: data, split, selection, aggregation.
    """
    rows = [
        (name, f"{v.mean():.4f} ± {v.std():.4f}", f"{np.median(v):.4f}", f"{v.min():.4f}")
        for name, v in scores.items()
    ]
    say_table(("score", "mean ± sd", "median", "worst"), rows, title=title)
    say_conditions(conditions)
