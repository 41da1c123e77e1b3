"""The tables of networks on several datasets, as csv, markdown, LaTeX, and an HTML page."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas
from pandas import DataFrame

from anatosegnet.console import between, p_value, rounded, say_conditions, say_table
from anatosegnet.data.duplicates import natural_key
from anatosegnet.evaluation.across import Across, Cell
from anatosegnet.evaluation.comparison import TABLE, readable, without_differences
from anatosegnet.files.rows import write_frame
from anatosegnet.metrics.ranks import BEST
from anatosegnet.metrics.scores import MAIN, title
from anatosegnet.report import write_across
from anatosegnet.report.latex import latex
from anatosegnet.report.markdown import inline, table_lines
from anatosegnet.report.ranks import draw_ranks

ABOUT_RANKS = (
    f"place by mean {title(MAIN)}, its 95 % interval over resampled groups of images, and the "
    f"probability of being among the best {BEST}"
)
ABOUT_LEAKS = (
    "the same images, scored by networks trained on a split that leaks and on folds that do not; "
    "leaked: those with a near-duplicate, or another image of the patient, in the former's training"
)


def write_tables(directory: Path, found: Across) -> None:
    """Write ``comparison.csv/.md/.tex/.html``, ``ranks.csv/.png`` and ``leaks.csv``."""
    write_frame(directory / TABLE, numbers(found), "%.6g")
    write_frame(directory / "ranks.csv", rank_numbers(found), "%.6g")
    if len(found.leaks):
        write_frame(directory / "leaks.csv", found.leaks, "%.6g")
    draw(directory / "ranks.png", found)
    whole = list(sections(found))
    lines: list[str] = []
    for heading, table, about in whole:
        lines += [f"## {heading}", "", *table_lines(list(table), table.to_numpy().tolist()), ""]
        lines += [f"{inline(about)}.", ""] if about else []
    lines += [f"- {name}: {inline(text)}" for name, text in found.notes.items()]
    (directory / "comparison.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    parts = [
        latex(
            table.assign(**{"": "1"})[[table.columns[0], "", *table.columns[1:]]], {"table": name}
        )
        for name, table, _ in sections(found, short=True)
    ]
    said = "".join(f"% {name}: {' '.join(text.split())}\n" for name, text in found.notes.items())
    (directory / "comparison.tex").write_text(said + "\n".join(parts), encoding="utf-8")
    write_across(directory, whole, found.notes, directory / "ranks.png")


def draw(path: Path, found: Across) -> None:
    """Draw the mean ranks of all cells."""
    panels = {c.title: (names(c), list(c.mean_ranks), c.groups) for c in found.cells}
    draw_ranks(path, panels)


def sections(found: Across, short: bool = False) -> Iterator[tuple[str, DataFrame, str]]:
    """Heading, table of text, and what must be known of it; commands are left out if short."""
    for cell in found.cells:
        if cell.in_domain:
            shown = readable(cell.table).drop(columns="runs")
            yield f"{cell.title}: in domain", without_differences(shown) if short else shown, ""
    if shots := [cell for cell in found.cells if not cell.in_domain]:
        yield (
            "Zero-shot",
            matrix(shots),
            f"{title(MAIN)} per image on all cases of the other dataset [95 % interval]; its "
            "difference to the baseline, and p",
        )
    yield "Ranks", rank_table(found), ABOUT_RANKS
    if len(found.leaks):
        yield "What a leak is worth", leak_table(found), ABOUT_LEAKS
    if not short:
        rows = [(name, data, text) for (data, name), text in found.commands.items()]
        yield "Commands", DataFrame(rows, columns=["network", "dataset", "command"]), ""


def names(cell: Cell) -> list[str]:
    """The networks of a cell."""
    return [str(name) for name in cell.table["setting"]]


def by_cell(cells: Sequence[Cell], texts: dict[str, dict[str, str]]) -> DataFrame:
    """A table with a row for each network and a column for each cell."""
    rows = sorted({name for cell in cells for name in names(cell)}, key=natural_key)
    table = DataFrame({"network": rows})
    for column, each in texts.items():
        table[column] = [each.get(name, "") for name in rows]
    return table


def matrix(cells: list[Cell]) -> DataFrame:
    """`MAIN` of networks trained on one dataset and tested on another: mean [interval], p."""
    texts: dict[str, dict[str, str]] = {}
    for cell in cells:
        column = texts.setdefault(cell.title, {})
        for row in cell.table.to_dict("records"):
            ends = between((row[f"{MAIN}_low"], row[f"{MAIN}_high"]))
            text = f"{rounded(row[MAIN])} {ends}"
            p = row.get(f"{MAIN}_p_holm")
            if p is not None and not pandas.isna(p):
                text += f"; {rounded(row[f'{MAIN}_difference'], 3, '+')}, p {p_value(p)}"
            column[str(row["setting"])] = text
    return by_cell(cells, texts)


def rank_table(found: Across) -> DataFrame:
    """``2 [1, 4]; 0.83`` of each network and cell."""
    texts = {
        cell.title: {
            name: f"{rank.rank:g} [{rank.low:g}, {rank.high:g}]; {rounded(rank.among_best, 2)}"
            for name, rank in zip(names(cell), cell.ranks, strict=True)
        }
        for cell in found.cells
    }
    return by_cell(found.cells, texts)


def leak_table(found: Across) -> DataFrame:
    """The table of leaks as people read it."""
    rows = [
        {
            "network": row["setting"],
            "dataset": row["dataset"],
            "test images": f"{row['of']} ({row['images']})",
            "split that leaks": rounded(row["leaky"]),
            "leak-free folds": rounded(row["leak_free"]),
            "difference [95 % CI]": f"{rounded(row['difference'], 3, '+')} "
            f"{between((row['difference_low'], row['difference_high']))}",
        }
        for row in found.leaks.to_dict("records")
    ]
    return DataFrame(rows)


def numbers(found: Across) -> DataFrame:
    """All cells below each other, with the command of each row."""
    parts = []
    for cell in found.cells:
        table = cell.table.copy()
        table.insert(0, "tested_on", cell.tested)
        table.insert(0, "trained_on", cell.trained)
        table["command"] = [found.commands[cell.trained, name] for name in names(cell)]
        parts.append(table)
    return pandas.concat(parts, ignore_index=True)


def rank_numbers(found: Across) -> DataFrame:
    """The ranks of all cells below each other."""
    rows = [
        {
            "trained_on": cell.trained,
            "tested_on": cell.tested,
            "setting": name,
            **rank._asdict(),
            "mean_rank": place,
            "groups": cell.groups,
        }
        for cell in found.cells
        for name, rank, place in zip(names(cell), cell.ranks, cell.mean_ranks, strict=True)
    ]
    return DataFrame(rows)


def print_tables(found: Across) -> None:
    """Print what is not too wide for a terminal, and what it holds for."""
    for heading, table, _ in sections(found, short=True):
        say_table(list(table), table.to_numpy().tolist(), title=heading)
    say_conditions(found.notes)
