"""The table for LaTeX: nothing in a label may be taken for a command."""

import re
import string

import pytest
from pandas import DataFrame

from anatosegnet.report.latex import escape, latex

NASTY = r"""a_b 5% γ≤0.5 ±² #1 & $x^2$ {~}|<>"` \input{x} ... […], [4, 5]"""
SPECIAL = set('\\_%&#$^~{}<>|"[]')


def left_over(text: str) -> set[str]:
    """Special letters that remain once escaped ones and commands of ours are taken out."""
    text = re.sub(r"\\[_%&#${}]", "", text)
    text = re.sub(r"\$(\\[a-zA-Z]+|[<>|]|-|\^2|\^\\circ)\$", "", text)
    text = re.sub(r"\\(text[a-z]+|ldots)\{\}", "", text)
    return SPECIAL & set(re.sub(r"\{[\[\]]\}", "", text))


def table(label: str, runs: str = "1") -> DataFrame:
    """Two settings, one of them with this label."""
    return DataFrame({
        "setting": ["plain", label],
        "runs": ["1", runs],
        "IoU ± sd [95 % CI]": ["0.581 ± 0.012 [0.540, 0.612]", "0.590 [0.551, 0.633]"],
        "p (IoU)": ["", "< 0.001"],
    })  # fmt: skip


@pytest.mark.parametrize(
    "mark", [*string.printable.strip(), *"±×≤≥²°µ…", "\N{MINUS SIGN}", "\N{EN DASH}", NASTY]
)
def test_no_letter_is_taken_for_a_command(mark: str) -> None:
    """Breaks if a special letter reaches LaTeX as it is: the paper would not compile."""
    assert not left_over(escape(f"a {mark} b"))
    assert escape(mark).isascii()
    # what is left of it still says the same
    assert all(letter in escape(mark) for letter in mark if letter.isascii() and letter.isalnum())


@pytest.mark.parametrize(
    ("greek", "expected"),
    [
        ("病", "(U+75C5)"), ("\x1b[31m", r"\textbackslash{}x1b{[}31m"),
        ("γ", r"$\gamma$"), ("λ", r"$\lambda$"), ("Σ", r"$\Sigma$"),
        ("\N{GREEK CAPITAL LETTER ALPHA}", "Alpha"), ("\N{GREEK SMALL LETTER OMICRON}", "omicron"),
    ],
)  # fmt: skip
def test_greek_letters_become_commands_that_exist(greek: str, expected: str) -> None:
    """Breaks if a gamma stops pdfLaTeX, or a command is made up for Alpha."""
    assert escape(greek) == expected


def test_a_nasty_label_leaves_the_table_whole() -> None:
    """Breaks if a label adds a column, ends a row, or leaves a brace open."""
    lines = latex(table(NASTY), {}).splitlines()
    rows = lines[lines.index(r"\toprule") + 1 : lines.index(r"\bottomrule")]
    assert rows.pop(1) == r"\midrule" and len(rows) == 3
    for row in rows:
        assert row.endswith(r" \\")
        bare = re.sub(r"\\\\|\\[&{}]", "", row)
        assert bare.count("&") == 2 and bare.count("{") == bare.count("}")
    label = rows[2].split(" & ")[0].removeprefix(r"\raggedright ")
    assert not left_over(label.replace(r"\&", "")) and r"5\%" in label


def test_intervals_stand_below_and_runs_are_left_out_where_each_is_one() -> None:
    """Breaks if a table of three scores is wider than a page."""
    alone, repeated = latex(table("b"), {}), latex(table("b", "3 seeds"), {})
    assert r"0.590\\{\scriptsize {[}0.551, 0.633{]}}" in alone
    assert r"IoU $\pm$ sd\\{\scriptsize {[}95 \% CI{]}}" in alone and "$p$" in alone
    assert r"$<$ 0.001" in alone
    assert r"\begin{tabular}{lrr}" in alone and r"\begin{tabular}{lrrr}" in repeated
    assert "runs" not in alone and "3 seeds" in repeated


def test_notes_stay_comments() -> None:
    """Breaks if a note of two lines puts its second into the paper."""
    lines = latex(table("b"), {"p": "tested\nagainst 100 %"}).splitlines()
    assert "% p: tested against 100 %" in lines
    first = next(i for i, line in enumerate(lines) if not line.startswith("%"))
    assert lines[first].startswith(r"\begingroup") and lines[-1] == r"\endgroup"
