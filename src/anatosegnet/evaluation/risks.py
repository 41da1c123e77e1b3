"""What the order by uncertainty is worth, of settings side by side."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from pandas import DataFrame

from anatosegnet.evaluation.tables import UNCERTAINTY
from anatosegnet.metrics.risk import Risk
from anatosegnet.metrics.scores import MAIN
from anatosegnet.metrics.statistics import bootstrap_interval, mean_and_deviation


class RiskOfSetting:
    """One of the `risk.SCORES` of a setting: its mean over the setting's runs.

    Args:
        frames: The scores of the runs, each of its own cases.
        names: All cases, in the order of the weights.
        score: Which of the scores.
    """

    def __init__(self, frames: Sequence[DataFrame], names: Sequence[str], score: str) -> None:
        at = {name: place for place, name in enumerate(names)}
        self.score = score
        self.places = [np.array([at[name] for name in frame["id"]]) for frame in frames]
        self.risks = [Risk(frame[UNCERTAINTY], frame[MAIN]) for frame in frames]

    def __call__(self, weights: np.ndarray) -> np.ndarray:
        """(R, N) how often each case was drawn -> (R,); NaN where no run has a value."""
        with np.errstate(invalid="ignore", divide="ignore"):
            each = np.stack(
                [
                    risk.score(self.score, weights[:, places])
                    for risk, places in zip(self.risks, self.places, strict=True)
                ]
            )
        known = np.isfinite(each)
        total = np.where(known, each, 0).sum(axis=0)
        return np.where(known.any(axis=0), total / np.maximum(known.sum(axis=0), 1), np.nan)

    @property
    def of_runs(self) -> list[float]:
        """The value of each run that has one."""
        values = [float(risk.score(self.score)[0]) for risk in self.risks]
        return [value for value in values if np.isfinite(value)]


def risk_columns(
    settings: Mapping[str, Sequence[DataFrame]], baseline: str, score: str, group: Mapping[str, str]
) -> dict[str, dict[str, Any]]:
    """The cells of a comparison, by setting.

    Args:
        settings: The runs' scores by label, all with uncertainties.
        baseline: Label of the setting that the others are told apart from.
        score: One of the `risk.SCORES`.
        group: What is drawn together, by case.

    Returns:
        ``<score>``, ``_sd`` over runs, ``_low``, ``_high``, ``_difference``, ``_difference_low``,
        ``_difference_high``; intervals are over cases, of differences over the same draws of them.
    """
    names, groups = list(group), list(group.values())
    once = np.ones((1, len(names)))
    reference = RiskOfSetting(settings[baseline], names, score)
    cells: dict[str, dict[str, Any]] = {}
    for name, frames in settings.items():
        own = RiskOfSetting(frames, names, score)
        low, high = bootstrap_interval(own, groups) or (None, None)
        deviation = mean_and_deviation(own.of_runs)[1] if own.of_runs else None
        cells[name] = row = {score: float(own(once)[0]), f"{score}_sd": deviation}
        row |= {f"{score}_low": low, f"{score}_high": high}
        if name == baseline:
            continue

        def apart(weights: np.ndarray, own: RiskOfSetting = own) -> np.ndarray:
            return own(weights) - reference(weights)

        low, high = bootstrap_interval(apart, groups) or (None, None)
        row |= {f"{score}_difference": float(apart(once)[0])}
        row |= {f"{score}_difference_low": low, f"{score}_difference_high": high}
    return cells
