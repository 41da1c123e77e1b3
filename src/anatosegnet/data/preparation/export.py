"""A resized copy of a dataset in the plain images/labels layout, for ``data=folder``."""

import os
import shlex
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np

from anatosegnet.console import progress, say, some
from anatosegnet.data.case import NORMAL
from anatosegnet.data.datasets.folder import PAIRS, TABLE
from anatosegnet.data.duplicates import find_duplicates, thumbnail, write_pairs
from anatosegnet.data.preparation.audit import Audit, AuditedCase
from anatosegnet.data.prepared import FoundData
from anatosegnet.data.resizing import resize_image, resize_mask, two_sizes
from anatosegnet.errors import UserError
from anatosegnet.files.rows import write_rows
from anatosegnet.files.writing import replacing_directory

COLUMNS = ("id", "class", "group", "fold", "pixel_size_mm", "original_height", "original_width")


def require_new_folder(folder: Path) -> None:
    """UserError if the folder holds something: nothing is ever overwritten."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"export={folder} exists and is not empty; give another DIR")


def export_cases(
    audit: Audit,
    data: FoundData,
    folder: Path,
    size: tuple[int, int],
    include_normal: bool = False,
) -> tuple[int, int]:
    """Write ``images/``, ``labels/`` and tables; the folder appears whole or not at all.

    Pixels are those that training at this size would see: the same resizing, stored without loss,
    in one channel where the image is grey. Tables keep what resized pixels cannot tell: class,
    patient and official fold, and the near-duplicates of the originals. A pixel size is kept only
    where pixels stay square.

    Args:
        audit: The readable cases.
        data: Reads them.
        include_normal: Whether cases without a lesion are wanted.
        folder: A new folder.
        size: (height, width) in pixels.

    Returns:
        Number of cases, and of bytes written.

    Raises:
        UserError: There is a problem in the data, a lesion vanishes at this size, or the folder
            cannot be written.
    """
    if audit.problems:
        raise UserError(
            f"export={folder}: {len(audit.problems)} problems of {audit.dataset} to put right "
            "first, or to leave out (data.exclude=[NAME,…])"
        )
    records = [r for r in audit.records if include_normal or r.case.label != NORMAL]
    thumbnails: dict[str, np.ndarray] = {}

    def write(record: AuditedCase, work: Path) -> str | None:
        """Write one case; its name if its lesion has vanished."""
        image, mask = data.read(record.case.name)
        thumbnails[record.case.name] = thumbnail(image)
        image, mask = resize_image(image, size), resize_mask(mask, size)
        if record.lesion and not mask.any():
            return record.case.name
        grey = (image == image[..., :1]).all()
        pixels = image[..., 0] if grey else cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
        for part, content in (("images", pixels), ("labels", mask * np.uint8(255))):
            encoded = cv2.imencode(".png", content, [cv2.IMWRITE_PNG_COMPRESSION, 9])[1]
            (work / part / f"{record.case.name}.png").write_bytes(encoded.tobytes())
        return None

    try:
        # an empty folder may be there
        with replacing_directory(folder, overwrite=True) as work:
            for part in ("images", "labels"):
                (work / part).mkdir()
            with ThreadPoolExecutor(os.cpu_count()) as pool:
                names = pool.map(lambda record: write(record, work), records)
                shown = progress(names, "exporting", len(records))
                vanished = [name for name in shown if name]
            if vanished:
                raise UserError(
                    f"size={size[0]}×{size[1]} px is too small: the lesion vanishes in "
                    f"{len(vanished)} cases: {some(vanished)}; take a larger size, or leave "
                    "them out (data.exclude=[NAME,…])"
                )
            _write_table(work / TABLE, records, size)
            write_pairs(work / PAIRS, find_duplicates(thumbnails.items()))
            written = sum(path.stat().st_size for path in work.rglob("*") if path.is_file())
    except OSError as error:
        raise UserError(
            f"export={folder} cannot be written ({error.strerror or error}); give another DIR"
        ) from error
    return len(records), written


def export(
    audit: Audit,
    data: FoundData,
    folder: Path,
    size: int | Sequence[int],
    include_normal: bool = False,
) -> None:
    """Write the resized copy, and say how to train on it; see `export_cases`."""
    height, width = two_sizes(size)
    count, written = export_cases(audit, data, folder, (height, width), include_normal)
    say(f"exported    {count} cases at {height}×{width} px, {written / 1e6:.1f} MB: {folder}")
    edge = height if height == width else f"[{height},{width}]"
    command = f"data=folder data.root={shlex.quote(str(folder))} data.image_size={edge}"
    normal = " data.include_normal=true" if include_normal else ""
    say(f"train on it python -m anatosegnet.train {command}{normal}")


def _write_table(path: Path, records: list[AuditedCase], size: tuple[int, int]) -> None:
    rows = []
    for record in records:
        case, factors = record.case, (record.height / size[0], record.width / size[1])
        pixel: float | None = None
        if case.pixel_size_mm and abs(factors[0] / factors[1] - 1) < 0.005:
            pixel = case.pixel_size_mm * sum(factors) / 2
        rows.append(
            {
                "id": case.name,
                "class": case.label,
                "group": case.group,
                "fold": case.fold,
                "pixel_size_mm": pixel and f"{pixel:.6g}",
                "original_height": record.height,
                "original_width": record.width,
            }
        )
    with path.open("w", newline="", encoding="utf-8") as file:
        write_rows(file, COLUMNS, rows)
