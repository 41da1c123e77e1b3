"""Scores of masks, probabilities and samples; knows nothing of networks or runs."""
