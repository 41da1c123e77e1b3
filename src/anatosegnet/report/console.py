"""Scores in the terminal."""

from collections.abc import Mapping

import numpy as np

from anatosegnet.console import rounded, say_conditions, say_table


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
        (
            name,
            f"{rounded(v.mean(), 4)} ± {rounded(v.std(), 4)}",
            rounded(np.median(v), 4),
            rounded(v.min(), 4),
        )
        for name, v in scores.items()
    ]
    say_table(("score", "mean ± sd", "median", "worst"), rows, title=title)
    say_conditions(conditions)
