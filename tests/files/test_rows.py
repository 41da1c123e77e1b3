"""Tables that people open in a spreadsheet: no cell computes, and all is read back unchanged."""

from pathlib import Path

import pandas
import pytest
from pandas import DataFrame

from anatosegnet.files.rows import read_rows, write_frame, write_rows
from anatosegnet.report.markdown import inline, table_lines

FORMULAS = [
    "=cmd|' /C calc'!A0", "+1+1", "-2+3", "@SUM(A1)", "\tx", "\rx", "'=1", "''=1", "=1\n=2",
]  # fmt: skip
HARMLESS = ["plain", "'quoted'", "-1.5", "+3", "-inf", "", "a=b", "1e-3", " x", "ü病"]


def test_no_cell_is_a_formula_and_all_come_back(tmp_path: Path) -> None:
    """Breaks if a name of data is computed by a spreadsheet, or is another one afterwards."""
    names = [*FORMULAS, *HARMLESS]
    frame = DataFrame({"=id": names, "iou": [0.5] * len(names), "n": range(len(names))})
    write_frame(tmp_path / "frame.csv", frame, "%.3f")
    with (tmp_path / "rows.csv").open("w", newline="") as file:
        write_rows(file, ["=id", "iou"], [(name, 0.5) for name in names])
    for name in ("frame.csv", "rows.csv"):
        shown = pandas.read_csv(tmp_path / name, dtype=str, keep_default_na=False)
        assert shown.columns[0] == "'=id"
        cells = shown.iloc[:, 0].tolist()
        assert not [cell for cell in cells[: len(FORMULAS)] if cell[:1] in "=+-@\t\r"]
        assert cells[len(FORMULAS) :] == HARMLESS
        columns, rows = read_rows(tmp_path / name, ragged=False)
        assert columns[:2] == ["=id", "iou"]
        assert [row["=id"] for row in rows] == names
        assert {row["iou"] for row in rows} <= {"0.5", "0.500"}


def test_ragged_rows_of_our_own_tables_are_damage(tmp_path: Path) -> None:
    """Breaks if a table that was cut passes for a whole one."""
    path = tmp_path / "a.csv"
    for text in ("id,iou\na,0.5\nb\n", "id,iou\na,0.5,1\n"):
        path.write_text(text)
        assert len(read_rows(path)[1]) > 0
        with pytest.raises(ValueError, match="too few or too many"):
            read_rows(path, ragged=False)


def test_markdown_is_one_line_without_marks() -> None:
    """Breaks if a label adds a column, a row, code, a link or a tag to a table in markdown."""
    evil = "a|b\n`code` [x](http://e) <img src=1> **bold** _it_ a_b p < 0.001 &lt; \x1b[31m"
    assert inline(evil) == (
        "a\\|b \\`code\\` [x]\\(http://e) \\<img src=1> \\*\\*bold\\*\\* \\_it\\_ a_b p < 0.001 "
        "\\&lt; \\\\x1b[31m"
    )
    assert table_lines(["a|b", "c"], [["x", 1]]) == ["| a\\|b | c |", "|---|---|", "| x | 1 |"]


def test_a_column_that_is_twice_there_is_refused(tmp_path: Path) -> None:
    """Breaks if one of two columns is believed, or pandas fails on them."""
    path = tmp_path / "table.csv"
    path.write_text("id,iou,iou\na,1,2\n")
    with pytest.raises(ValueError, match="column 'iou' 2 times"):
        read_rows(path)
    path.write_text("id,,\na,,\n")  # as spreadsheets leave them
    assert read_rows(path)[1] == [{"id": "a", "": ""}]
    with pytest.raises(ValueError, match="column '' 2 times"):
        read_rows(path, ragged=False)
