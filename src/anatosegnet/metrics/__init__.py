"""Scores of masks, probabilities and samples; knows nothing of networks or runs."""

from anatosegnet.metrics.scores import Score, Segmentation

__all__ = ["Score", "Segmentation"]
