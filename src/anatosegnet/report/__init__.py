"""Scores as people read them: a table in the terminal, and self-contained HTML files."""

from anatosegnet.face import face

__getattr__, __dir__, __all__ = face(
    __name__,
    {
        "across": "write_across",
        "comparison": "write_comparison",
        "console": "print_scores",
        "evaluation": "write_report",
    },
)
