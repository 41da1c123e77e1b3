"""``comparison.html`` of several datasets: tables and the picture of ranks, in one file."""

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from anatosegnet.report.html import render, write
from anatosegnet.report.tables import Cell, Heading, Table

if TYPE_CHECKING:
    from pandas import DataFrame


def write_across(
    output: Path,
    sections: Sequence[tuple[str, "DataFrame", str]],
    notes: Mapping[str, str],
    picture: Path,
) -> Path:
    """Write the page.

    Args:
        output: The folder it is written to.
        sections: Heading, table of text, and what must be known of it.
        notes: What the tables hold for, by name.
        picture: PNG of the ranks; left out where there is none.
    """
    shown = [
        (
            heading,
            Table(heading, [Heading(str(name), False) for name in table],
                  [[Cell(str(text)) for text in row] for row in table.to_numpy().tolist()]),
            about,
        )
        for heading, table, about in sections
    ]  # fmt: skip
    image = base64.b64encode(picture.read_bytes()).decode() if picture.is_file() else ""
    page = render(
        "across.html", (), {}, (), title="Networks across datasets", sections=shown,
        notes=list(notes.items()), image=image,
    )  # fmt: skip
    return write(output / "comparison.html", page)
