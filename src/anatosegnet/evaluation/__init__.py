"""Who is scored, the scores, and comparisons of runs."""
