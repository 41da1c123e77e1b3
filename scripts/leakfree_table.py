"""The tables and the picture of docs/benchmark.md, from the scores under results/leakfree.

python scripts/leakfree_table.py [--runs results/leakfree] [--docs docs]
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

from anatosegnet.cli import errors_in_one_line
from anatosegnet.evaluation.across import Across, across
from anatosegnet.evaluation.across_tables import draw, sections
from anatosegnet.evaluation.compare import find_runs, read_members
from anatosegnet.report.markdown import inline, table_lines, write_computed

ROOT = Path(__file__).resolve().parents[1]
BASELINE = "unet"


def main() -> None:
    """Write the tables into docs/benchmark.md, and the picture beside it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=Path, default=ROOT / "results" / "leakfree")
    parser.add_argument("--docs", type=Path, default=ROOT / "docs")
    given = parser.parse_args()
    with errors_in_one_line():
        found = read(given.runs)
        draw(given.docs / "benchmark.png", found)
        write_computed(given.docs / "benchmark.md", lines(found))
    print(f"written {given.docs / 'benchmark.md'}")


def read(folder: Path) -> Across:
    """All published runs of the table, beside the baseline."""
    return across(read_members(find_runs(str(folder)), "original"), BASELINE)


def lines(found: Across) -> Iterator[str]:
    """What stands between the marks."""
    for heading, table, about in sections(found):
        yield from ("", f"### {heading}", "")
        yield from table_lines(list(table), table.to_numpy().tolist())
        if about:
            yield from ("", f"{inline(about)}.")
    yield from ("", "### What this holds for", "")
    yield from (f"- {name}: {inline(text)}" for name, text in found.notes.items())


if __name__ == "__main__":
    main()
