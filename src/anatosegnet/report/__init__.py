"""Scores as people read them: a table in the terminal, and self-contained HTML files."""

from anatosegnet.report.comparison import write_comparison
from anatosegnet.report.console import print_scores
from anatosegnet.report.evaluation import write_report

__all__ = ["print_scores", "write_comparison", "write_report"]
