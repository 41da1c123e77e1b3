"""The files an audit leaves: cases.csv, duplicates.csv, audit.json, audit.md, contact_sheet.png."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from anatosegnet.console import say, say_table, some
from anatosegnet.data.duplicates import write_pairs
from anatosegnet.data.preparation.audit import Audit, mode_counts
from anatosegnet.data.preparation.contact_sheet import contact_sheet
from anatosegnet.errors import UserError
from anatosegnet.files.rows import write_rows
from anatosegnet.files.writing import HELD, held_directory
from anatosegnet.report.markdown import inline, table_lines

MOST_PROBLEMS = 50  # that are printed
COLUMNS = (
    *("id", "image", "masks", "class", "group", "fold"),
    *("height", "width", "pixel_size_mm", "sha256"),
)


def write_index(audit: Audit, folder: Path) -> None:
    """Write all files of an audit, or none; earlier ones of these names are replaced."""
    with written_whole(folder) as work:
        write_cases(work / "cases.csv", audit)
        write_pairs(work / "duplicates.csv", audit.pairs)
        text = json.dumps(as_json(audit), indent=2, ensure_ascii=False)
        (work / "audit.json").write_text(text + "\n", encoding="utf-8")
        (work / "audit.md").write_text(as_markdown(audit), encoding="utf-8")
        (work / "contact_sheet.png").write_bytes(contact_sheet(audit))


def write_cases(path: Path, audit: Audit) -> None:
    """A row per case; paths are relative to the data's root, several masks joined by ``|``."""
    root = Path(audit.root).resolve()
    rows = []
    for record in audit.records:
        case = record.case
        rows.append(
            {
                "id": case.name,
                "image": _relative(case.image, root) if case.image else "",
                "masks": "|".join(_relative(mask, root) for mask in case.masks),
                "class": case.label,
                "group": audit.groups.get(case.name, ""),
                "fold": case.fold,
                "height": record.height,
                "width": record.width,
                "pixel_size_mm": case.pixel_size_mm and f"{case.pixel_size_mm:.6g}",
                "sha256": record.sha256,
            }
        )
    with path.open("w", newline="", encoding="utf-8") as file:
        write_rows(file, COLUMNS, rows)


def as_json(audit: Audit) -> dict[str, Any]:
    """The audit as plain values; ``clean`` is whether nothing must be put right."""
    heights, widths = _sizes(audit)
    return {
        "dataset": audit.dataset,
        "root": audit.root,
        "clean": not audit.problems,
        "counts": {c.what: {"published": c.published, "found": c.found} for c in audit.counts},
        "problems": [str(problem) for problem in audit.problems],
        "excluded": audit.excluded,
        "modes": mode_counts(audit.records),
        "height": heights,
        "width": widths,
        "several_masks": {
            record.case.name: len(record.case.masks)
            for record in audit.records
            if len(record.case.masks) > 1
        },
        "other_size_than_listed": _other_size(audit),
        "identical_files": audit.identical,
        "duplicate_pairs": len(audit.pairs),
        "duplicate_groups": audit.duplicates,
        "duplicate_groups_of_different_class": audit.disagreeing,
    }


def as_markdown(audit: Audit) -> str:
    """The audit as a person reads it."""
    content = as_json(audit)
    state = "clean" if content["clean"] else f"{len(audit.problems)} problems"
    rows = []
    for count in audit.counts:
        verdict = "" if count.published is None else "differs" if count.differs else "same"
        published = "" if count.published is None else count.published
        rows.append((count.what, published, count.found, verdict))
    lines = [
        f"# Audit of {inline(audit.dataset)}: {state}",
        "",
        f"Files in {inline(audit.root)}; every one was read.",
        "",
        *table_lines(("what", "published", "found", ""), rows),
        "",
        f"## Problems: {len(audit.problems) or 'none'}",
    ]
    lines += ["", *(f"- {inline(problem)}" for problem in audit.problems)] if audit.problems else []
    if audit.excluded:
        names = ", ".join(map(inline, audit.excluded))
        lines += ["", f"## Excluded: {len(audit.excluded)}", "", names]
    lines += ["", "## Files", ""]
    for kind, modes in content["modes"].items():
        if not modes:
            continue
        stored = "; ".join(f"{number} × {mode}" for mode, number in modes.items())
        lines.append(f"- {kind}: {stored}")
    if audit.records:
        (low, high), (narrow, wide) = content["height"], content["width"]
        lines.append(f"- sizes: {low} to {high} pixels high, {narrow} to {wide} wide")
        shares = [100 * r.lesion / (r.height * r.width) for r in audit.records if r.lesion]
        if shares:
            lines.append(
                f"- lesions: {min(shares):.2f} to {max(shares):.1f} % of the image, median "
                f"{np.median(shares):.1f} %"
            )
    several = content["several_masks"]
    lines.append(f"- images with several masks, merged: {len(several)}")
    lines += [f"  - {inline(name)}: {number}" for name, number in several.items()]
    if wrong := content["other_size_than_listed"]:
        lines.append(
            f"- size in the table wrong, that of the file counts: {inline(', '.join(wrong))}"
        )
    grouped = sum(map(len, audit.duplicates.values()))
    lines += [
        "",
        "## Near-duplicates",
        "",
        f"{len(audit.pairs)} pairs; {grouped} images in {len(audit.duplicates)} groups, "
        f"{len(audit.disagreeing)} of them of different classes.",
        "",
    ]
    for group, members in audit.duplicates.items():
        mark = " **(classes differ)**" if group in audit.disagreeing else ""
        lines.append(f"- {inline(', '.join(members))}{mark}")
    lines += [
        "",
        *(f"The same byte for byte: {inline(', '.join(same))}." for same in audit.identical),
    ]
    return "\n".join(lines).rstrip() + "\n"


def print_audit(audit: Audit, out: Path) -> None:
    """Counts, problems and near-duplicates."""
    published = any(count.published is not None for count in audit.counts)
    rows = [
        [count.what, count.found] + ["" if count.published is None else count.published] * published
        for count in audit.counts
    ]
    say_table(
        ["count", "found", "published"][: 2 + published],
        rows,
        title=f"{audit.dataset} in {audit.root}",
        red=[number for number, count in enumerate(audit.counts) if count.differs],
    )
    groups = audit.duplicates
    images = sum(map(len, groups.values()))
    say(
        f"duplicates  {len(audit.pairs)} pairs, {images} images in {len(groups)} groups; "
        f"classes differ in {len(audit.disagreeing)}"
    )
    if audit.excluded:
        say(f"excluded    {len(audit.excluded)}: {some(audit.excluded)}")
    say(f"problems    {len(audit.problems) or 'none'}")
    for problem in audit.problems[:MOST_PROBLEMS]:
        say(f"  - {problem}")
    if len(audit.problems) > MOST_PROBLEMS:
        say(f"  - and {len(audit.problems) - MOST_PROBLEMS} more, all in {out / 'audit.md'}")
    say(f"written     {out}: cases.csv, duplicates.csv, audit.md, audit.json, contact_sheet.png")


@contextmanager
def written_whole(folder: Path) -> Iterator[Path]:
    """A folder to write into; its files go to ``folder`` once all of them are there.

    Raises:
        UserError: The folder cannot be written, or the disk is full.
    """
    try:
        with held_directory(folder / "index") as work:
            yield work
            for path in sorted(work.iterdir()):
                if path.name != HELD:
                    os.replace(path, folder / path.name)
    except OSError as error:
        raise UserError(
            f"{folder} cannot be written ({error.strerror or error}); give another out=DIR"
        ) from error


def _relative(path: Path, root: Path) -> str:
    resolved = path.resolve() if path.parent.is_symlink() else path.absolute()
    return resolved.relative_to(root).as_posix() if resolved.is_relative_to(root) else str(path)


def _sizes(audit: Audit) -> tuple[list[int], list[int]]:
    """Least and largest height and width; empty without a readable case."""
    if not audit.records:
        return [], []
    heights = [record.height for record in audit.records]
    widths = [record.width for record in audit.records]
    return [min(heights), max(heights)], [min(widths), max(widths)]


def _other_size(audit: Audit) -> list[str]:
    """Cases whose table gives another size than their file has."""
    return [
        record.case.name
        for record in audit.records
        if (listed := record.case.details.get("listed_size"))
        and listed != f"{record.width}×{record.height}"
    ]
