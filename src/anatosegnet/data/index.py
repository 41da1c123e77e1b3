"""The files an audit leaves: cases.csv, duplicates.csv, audit.json, audit.md, contact_sheet.png."""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from anatosegnet.data.audit import Audit, mode_counts
from anatosegnet.data.contact_sheet import contact_sheet
from anatosegnet.data.duplicates import write_pairs
from anatosegnet.errors import UserError
from anatosegnet.rows import write_rows

COLUMNS = (
    "id", "image", "masks", "class", "group", "fold", "height", "width", "pixel_size_mm", "sha256",
)  # fmt: skip


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
        assert case.image is not None
        rows.append(
            {
                "id": case.name,
                "image": _relative(case.image, root),
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
    lines = [
        f"# Audit of {audit.dataset}: {state}", "",
        f"Files in `{audit.root}`; every one was read.", "",
        "| what | published | found | |", "|---|---:|---:|---|",
    ]  # fmt: skip
    for count in audit.counts:
        published = "" if count.published is None else str(count.published)
        verdict = "**differs**" if count.differs else "same" if published else ""
        lines.append(f"| {count.what} | {published} | {count.found} | {verdict} |")
    lines += ["", f"## Problems: {len(audit.problems) or 'none'}"]
    lines += ["", *(f"- {problem}" for problem in audit.problems)] if audit.problems else []
    if audit.excluded:
        lines += ["", f"## Excluded: {len(audit.excluded)}", "", ", ".join(audit.excluded)]
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
    lines += [f"  - {name}: {number}" for name, number in several.items()]
    if wrong := content["other_size_than_listed"]:
        lines.append(f"- size in the table wrong, that of the file counts: {', '.join(wrong)}")
    twins = sum(map(len, audit.duplicates.values()))
    lines += [
        "", "## Near-duplicates", "",
        f"{len(audit.pairs)} pairs; {twins} images in {len(audit.duplicates)} groups, "
        f"{len(audit.disagreeing)} of them of different classes.", "",
    ]  # fmt: skip
    for group, names in audit.duplicates.items():
        mark = " **(classes differ)**" if group in audit.disagreeing else ""
        lines.append(f"- {', '.join(names)}{mark}")
    lines += ["", *(f"The same byte for byte: {', '.join(names)}." for names in audit.identical)]
    return "\n".join(lines).rstrip() + "\n"


@contextmanager
def written_whole(folder: Path) -> Iterator[Path]:
    """A folder to write into; its files go to ``folder`` once all of them are there.

    Raises:
        UserError: The folder cannot be written, or the disk is full.
    """
    work = folder / f".{os.getpid()}.writing"
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    done = False
    try:
        work.mkdir(parents=True)
        yield work
        for path in sorted(work.iterdir()):
            os.replace(path, folder / path.name)
        done = True
    except OSError as error:
        raise UserError(
            f"{folder} cannot be written ({error.strerror or error}); give another out=DIR"
        ) from error
    finally:
        shutil.rmtree(work, ignore_errors=True)
        for path in () if done else made:  # the deepest first
            if path.is_dir() and not any(path.iterdir()):
                path.rmdir()


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
