"""Files of a folder, and images paired with masks by their stems."""

import unicodedata
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from anatosegnet.config.places import path_part
from anatosegnet.console import some
from anatosegnet.data.case import IMAGE_SUFFIXES, Problem, file_mode
from anatosegnet.errors import UserError, reason
from anatosegnet.files.rows import read_rows

DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
LONGEST_NAME = 255  # bytes, of any file system
LONGEST_HEADING = 40  # letters of a column's name in a message

# pictures that are not read here; passing them over in silence would lose cases
FOREIGN_SUFFIXES = frozenset(
    {".gif", ".webp", ".dcm", ".dicom", ".nii", ".gz", ".mha", ".mhd", ".nrrd"}
    | {".npy", ".npz", ".mat", ".jp2", ".heic", ".avif"}
)


def require_directory(path: Path, way_out: str) -> Path:
    """The path if it is a directory; else a UserError that says how to get the data."""
    if not path.is_dir():
        raise UserError(f"there is no folder {path}; {way_out}")
    return path


def find_folder(candidates: Sequence[Path], needed: Sequence[str]) -> Path | None:
    """The first folder that holds everything needed (names of files or folders)."""
    for folder in candidates:
        if all((folder / name).exists() for name in needed):
            return folder
    return None


def files_by_stem(folder: Path, problems: list[str]) -> dict[str, Path]:
    """The image files of a folder by stem.

    Two files of one stem, names that cannot be written down, and pictures of a kind that is not
    read are problems.
    """
    files: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):
            continue
        stem = unicodedata.normalize("NFC", path.stem)  # macOS may take accents apart
        if path.suffix.lower() not in IMAGE_SUFFIXES:
            if _holds_pictures(path):
                fault = "folders in here are not read; move its pictures up, or it away"
                problems.append(Problem(f"{shown(path)}: {fault}", stem))
            if complaint := not_read(path):
                problems.append(Problem(complaint, stem))
            continue
        if any(unicodedata.category(letter) in ("Cc", "Cs") for letter in path.name):
            problems.append(Problem(f"{shown(path)}: rename it; its name is not plain text", stem))
            continue
        if stem in files:
            problems.append(Problem(f"{path}: {files[stem].name} has the same stem", stem))
        files[stem] = path
    return files


def not_read(path: Path) -> str | None:
    """One line on a picture of a kind that is not read; None for what is read, or no picture."""
    suffix = path.suffix.lower()
    if suffix in IMAGE_SUFFIXES or not (suffix in FOREIGN_SUFFIXES or file_mode(path) != "unknown"):
        return None
    kinds = " ".join(sorted(IMAGE_SUFFIXES))
    return (
        f"{shown(path)}: {path.suffix or 'a picture without suffix'} is not read; convert it, or "
        f"name it as what it is ({kinds})"
    )


def _holds_pictures(path: Path) -> bool:
    """Whether a folder holds pictures; those that systems put there (``@eaDir``) do not count."""
    with suppress(OSError):  # one that may not be read is the system's own
        return path.name[0].isalnum() and any(
            inside.suffix.lower() in IMAGE_SUFFIXES for inside in path.iterdir()
        )
    return False


def shown(path: Path) -> str:
    """A path in one line whatever its name holds."""
    text = str(path)
    return text if text.isprintable() else ascii(text)[1:-1]


def pair_by_stem(images: Path, masks: Path) -> tuple[list[tuple[str, Path, Path]], list[str]]:
    """Pair images with masks of the same stem.

    Returns:
        (stem, image, mask) of each pair, and one line for each file without a partner.
    """
    problems: list[str] = []
    image_files, mask_files = files_by_stem(images, problems), files_by_stem(masks, problems)
    problems += without_partner(image_files, mask_files, f"has no mask in {masks}")
    problems += without_partner(mask_files, image_files, f"is a mask without an image in {images}")
    stems = [stem for stem in image_files if stem in mask_files]
    return [(stem, image_files[stem], mask_files[stem]) for stem in stems], problems


def without_partner(
    files: dict[str, Path], partners: Iterable[str], complaint: str
) -> list[Problem]:
    """One line for each file whose stem is not among the partners."""
    known = set(partners)
    return [
        Problem(f"{path}: {complaint}", stem) for stem, path in files.items() if stem not in known
    ]


def read_table(path: Path, columns: tuple[str, ...], delimiter: str = ",") -> list[dict[str, str]]:
    """Rows of a csv file as text without blanks around it, blank rows left out.

    Raises:
        UserError: The file cannot be read, or a column is missing.
    """
    try:
        names, rows = read_rows(path, delimiter)
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read as a table ({reason(error)})") from error
    require_columns(path, columns, names, delimiter)
    stripped = ({key: value.strip() for key, value in row.items()} for row in rows)
    return [row for row in stripped if any(row.values())]


def require_columns(
    path: Path, needed: Iterable[str], there: Sequence[str], delimiter: str = ","
) -> None:
    """UserError if a table lacks a column: says which ones it has, or how it is delimited."""
    missing = [column for column in needed if column not in there]
    if not missing:
        return
    line = f"{path} has no column {', '.join(missing)}"
    if not any(there):
        raise UserError(f"{line}: its first line is empty")
    if len(there) == 1:
        for other, name in DELIMITERS.items():
            if other in there[0] and other != delimiter:
                raise UserError(
                    f"{line}: its cells seem to be separated by {name}; "
                    f"save it with {DELIMITERS[delimiter]}"
                )
    raise UserError(f"{line}; its columns are {some([heading(name) for name in there], 12)}")


def heading(column: str) -> str:
    """A column's name on one line, cut: where a quote is not closed it is all of the table."""
    line = " ".join(column.split())
    return line if len(line) <= LONGEST_HEADING else f"{line[:LONGEST_HEADING]}…"


def file_named(folder: Path, cell: str) -> Path | None:
    """The file of a folder that a table's cell names; None if the name leads out of the folder."""
    try:
        return folder / path_part(cell, "file", LONGEST_NAME)
    except UserError:
        return None
