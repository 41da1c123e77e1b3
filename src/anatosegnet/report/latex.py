"""A readable table for a paper: booktabs, whatever its labels are."""

import re
import unicodedata
from collections.abc import Mapping

from pandas import DataFrame

from anatosegnet.console import plain

COMMANDS = {
    **{mark: f"\\{mark}" for mark in "_%&#${}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": "$<$",
    ">": "$>$",
    "|": "$|$",
    "±": r"$\pm$",
    "×": r"$\times$",
    "≤": r"$\leq$",
    "≥": r"$\geq$",
    "\N{MINUS SIGN}": "$-$",
    "²": "$^2$",
    "°": r"$^\circ$",
    "µ": r"$\mu$",
    "…": r"\ldots{}",
    "\N{EN DASH}": "--",
    '"': r"\textquotedbl{}",
    # after the end of a row a bracket would be read as a distance
    "[": "{[}",
    "]": "{]}",
}
GREEK = re.compile(r"GREEK (SMALL|CAPITAL) LETTER (\w+)$")
LIKE_LATIN = (
    "omicron",
    "Alpha",
    "Beta",
    "Epsilon",
    "Zeta",
    "Eta",
    "Iota",
    "Kappa",
    "Mu",
    "Nu",
    "Omicron",
    "Rho",
    "Tau",
    "Chi",
)
INTERVAL = re.compile(r"(.+) (\[[^\[\]]+\])$")
LAST_LATIN = 0x17F  # the font encoding T1 has the letters up to here
LONG = 28  # letters; longer names of rows are folded


def latex(shown: DataFrame, said: Mapping[str, str]) -> str:
    """The table for booktabs, as wide as a page; intervals stand below their score.

    Args:
        shown: Text; the first column names the rows, the second says how many runs they are
            (left out where each is one), and ``p (…)`` follows its score.
        said: What must be known of the table, by name; stands as comments above it.
    """
    names, runs, *others = shown.columns
    if (shown[runs] != "1").any():
        others.insert(0, runs)
    long = any(len(name) > LONG for name in shown[names])
    columns = [[r"\raggedright " * long + escape(name) for name in shown[names]]]
    columns += [[stacked(text) for text in shown[column]] for column in others]
    # a p stands beside its score
    heads = [escape(names), *("$p$" if c.startswith("p (") else stacked(c) for c in others)]
    layout = (r"p{0.27\linewidth}" if long else "l") + "r" * len(others)
    rows = (" & ".join(cells) + r" \\" for cells in zip(*columns, strict=True))
    table = [
        rf"\begin{{tabular}}{{{layout}}}",
        r"\toprule",
        " & ".join(heads) + r" \\",
        r"\midrule",
        *rows,
        r"\bottomrule",
        r"\end{tabular}",
    ]
    comments = "".join(
        f"% {name}: {plain(' '.join(str(text).split()))}\n" for name, text in said.items()
    )
    needs = "% needs \\usepackage{booktabs} and \\usepackage[T1]{fontenc}\n"
    size = "\\begingroup\\footnotesize\\setlength{\\tabcolsep}{3pt}\\def\\arraystretch{1.1}\n"
    return f"{needs}{comments}{size}" + "\n".join(table) + "\n\\endgroup\n"


def stacked(text: str) -> str:
    """Text for LaTeX; an interval at its end goes below."""
    parts = INTERVAL.match(text)
    if parts is None:
        return escape(text)
    score, ends = (escape(part) for part in parts.groups())
    below = rf"{{\scriptsize {ends}}}"
    return rf"\begin{{tabular}}[t]{{@{{}}r@{{}}}}{score}\\{below}\end{{tabular}}"


def escape(text: str) -> str:
    """Text for LaTeX, in one line."""
    return "".join(map(letter, plain(" ".join(str(text).split()))))


def letter(mark: str) -> str:
    """One letter for LaTeX; Greek ones as mathematics, what its fonts lack by its number."""
    if greek := GREEK.match(unicodedata.name(mark, "")):
        size, name = greek.groups()
        name = name.lower().replace("lamda", "lambda")
        if size == "CAPITAL":
            name = name.capitalize()
        # LaTeX has no command for those that look like Latin letters
        return name if name in LIKE_LATIN else rf"$\{name}$"
    if mark not in COMMANDS and ord(mark) > LAST_LATIN:
        return f"(U+{ord(mark):04X})"
    return COMMANDS.get(mark, mark)
