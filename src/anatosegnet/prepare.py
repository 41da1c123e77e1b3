"""``python -m anatosegnet.prepare data=…``: download, check, index, and export a dataset."""

import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig

from anatosegnet.cli import verb
from anatosegnet.config.objects import instantiate
from anatosegnet.console import Progress, say, say_table, some
from anatosegnet.errors import UserError

if TYPE_CHECKING:
    from anatosegnet.data.datamodule import SegmentationDataModule
    from anatosegnet.data.preparation.audit import Audit

USAGE = "data=busi, breast_lesions_usg, bus_bra, bus_uclm, or folder with data.root=DIR"

MOST_PROBLEMS = 50  # that are printed


@verb("prepare")
def main(config: DictConfig) -> None:
    """Prepare a dataset; exit status 1 if something must be put right."""
    if not prepare(config):
        sys.exit(1)


def prepare(config: DictConfig) -> bool:
    """Fetch what is missing, read every file, and write the index.

    Args:
        config: The composed config of the verb.

    Returns:
        Whether nothing must be put right.

    Raises:
        UserError: The dataset cannot be had, or something cannot be written.
    """
    data, root, include_normal = build(config)
    out = Path(config.out or Path(config.paths.data_dir) / "index" / data.name)
    if not isinstance(config.sheet, int) or config.sheet < 0:
        raise UserError(f"sheet={config.sheet} must be a number of cases")
    require_writable(out, "out")
    if config.export is not None:
        from anatosegnet.data.preparation.export import require_new_folder

        require_new_folder(Path(config.export))
        require_writable(Path(config.export), "export")
    fetch(data, root, config.download)

    from anatosegnet.data.preparation.audit import audit
    from anatosegnet.data.preparation.index import write_index

    with Progress("reading") as show:
        found = audit(data, str(root), config.sheet, show)
    write_index(found, out)
    print_audit(found, out)
    if config.export is not None:
        export(found, data, config, include_normal)
    return not found.problems


def build(config: DictConfig) -> tuple["SegmentationDataModule", Path, bool]:
    """The data module, its root, and whether training on it would include normal images.

    What was published is checked whole, normal images included.
    """
    if config.get("data") is None:
        raise UserError(f"say which dataset: {USAGE}")
    if "root" not in config.data:
        raise UserError(f"data={config.data.name} has no files to prepare; give {USAGE}")
    settings = config.copy()
    settings.data.seed = 0  # without effect here, and this program has no ${seed}
    data = instantiate(settings, "data")
    include_normal = bool(config.data.get("include_normal"))
    if data.published and "include_normal" in config.data:
        data.include_normal = True
    return data, Path(config.data.root), include_normal


def fetch(data: "SegmentationDataModule", root: Path, allowed: bool) -> None:
    """Download what is not there; UserError if that is not possible or not wanted."""
    from anatosegnet.data.download import obtain

    needed = [source for source in data.sources if source.is_needed(root)]
    if needed and not allowed:
        names = ", ".join(source.name for source in needed)
        raise UserError(f"data {data.name}: {names} is not in {root}; {data.how_to_get}")
    for source in needed:
        say(f"fetching {source.url}\n  licence: {source.licence}")
        with Progress(source.name, unit="bytes") as show:
            path = obtain(source, root, show)
        verified = source.checksum.partition(":")[0] or "the archive's own checksums only"
        say(f"  {path} (verified: {verified})")


def require_writable(folder: Path, key: str) -> None:
    """UserError before the long work if the folder could not be written after it."""
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not there.is_dir():
        raise UserError(f"{folder}: {there} is not a folder; give another {key}=DIR")
    if not os.access(there, os.W_OK | os.X_OK):
        raise UserError(f"{folder} cannot be written: {there} is read-only; give {key}=DIR")


def export(
    found: "Audit", data: "SegmentationDataModule", config: DictConfig, include_normal: bool
) -> None:
    """Write the resized copy and say how to use it."""
    from anatosegnet.data.preparation.export import export_cases
    from anatosegnet.data.transforms import two_sizes

    folder, size = Path(config.export), two_sizes(config.size)
    with Progress("exporting") as show:
        count, written = export_cases(found, data, folder, size, include_normal, show)
    say(f"exported    {count} cases at {size[0]}×{size[1]} px, {written / 1e6:.1f} MB: {folder}")
    edge = size[0] if size[0] == size[1] else f"[{size[0]},{size[1]}]"
    normal = " data.include_normal=true" if include_normal else ""
    say("train on it python -m anatosegnet.train data=folder "
          f"data.root={shlex.quote(str(folder))} data.image_size={edge}{normal}")  # fmt: skip


def print_audit(found: "Audit", out: Path) -> None:
    """Counts, problems and near-duplicates."""
    published = any(count.published is not None for count in found.counts)
    rows = [
        [count.what, count.found] + ["" if count.published is None else count.published] * published
        for count in found.counts
    ]
    say_table(
        ["count", "found", "published"][: 2 + published],
        rows,
        title=f"{found.dataset} in {found.root}",
        red=[number for number, count in enumerate(found.counts) if count.differs],
    )
    groups = found.duplicates
    say(f"duplicates  {len(found.pairs)} pairs, {sum(map(len, groups.values()))} images in "
          f"{len(groups)} groups; classes differ in {len(found.disagreeing)}")  # fmt: skip
    if found.excluded:
        say(f"excluded    {len(found.excluded)}: {some(found.excluded)}")
    say(f"problems    {len(found.problems) or 'none'}")
    for problem in found.problems[:MOST_PROBLEMS]:
        say(f"  - {problem}")
    if len(found.problems) > MOST_PROBLEMS:
        say(f"  - and {len(found.problems) - MOST_PROBLEMS} more, all in {out / 'audit.md'}")
    say(f"written     {out}: cases.csv, duplicates.csv, audit.md, audit.json, contact_sheet.png")


if __name__ == "__main__":
    main()
