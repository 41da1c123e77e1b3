"""What predict is given: files, folders and patterns; each opened, its pictures one by one."""

import glob
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np

from anatosegnet.config.places import user_path
from anatosegnet.console import some
from anatosegnet.data.case import IMAGE_SUFFIXES, CaseError, read_image
from anatosegnet.data.dicom import Dicom, Region, is_dicom
from anatosegnet.data.files import not_read
from anatosegnet.data.resizing import resize_image
from anatosegnet.errors import UserError

DICOM_SUFFIXES = frozenset({".dcm", ".dicom"})
DICOM_INDEX = "DICOMDIR"  # of a disc; it holds no picture
T = TypeVar("T")


@dataclass(frozen=True)
class Found:
    """What an input names.

    Attributes:
        images: Pictures and DICOM files in order, each once.
        complaints: A line on each picture of a kind that is not read.
        others: Number of other files.
    """

    images: list[Path] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)
    others: int = 0


def find_images(given: object) -> Found:
    """The images of files, folders (not those below them) and patterns such as ``scans/*.png``.

    Args:
        given: One of these, or a list.

    Raises:
        UserError: One of them names nothing, or there is no image in all.
    """
    listed = isinstance(given, Sequence) and not isinstance(given, str)
    named = [str(one) for one in (given if listed else [given])]  # type: ignore[attr-defined]
    images: dict[Path, None] = {}
    complaints: list[str] = []
    others = 0
    for source in [path for one in named for path in _expanded(one)]:
        alone = not source.is_dir()
        for path in [source] if alone else sorted(source.iterdir()):
            if path.name.startswith(".") and not alone:
                continue
            if is_picture(path):
                images[path] = None
            elif complaint := not_read(path):
                complaints.append(complaint)
            elif alone and len(named) == 1 and source == user_path(named[0]):
                images[path] = None  # what is wrong with it is said when it is read
            else:
                others += 1
    if not images:
        if len(complaints) == 1 and not others:
            raise UserError(f"input={complaints[0]}")
        kinds = " ".join(sorted(IMAGE_SUFFIXES))
        found = f"; {some(complaints, 1, '; ')}" if complaints else ""
        shown = some(named, 3)
        raise UserError(f"input={shown} holds no image ({kinds}, or DICOM){found}")
    return Found(list(images), complaints, others)


def _expanded(given: str) -> list[Path]:
    path = user_path(given)
    if path.exists() or path.is_symlink():
        return [path]
    paths = sorted(map(Path, glob.glob(str(path), recursive=True)))
    if not paths:
        what = "no file matches it" if glob.has_magic(str(path)) else "no such file or folder"
        raise UserError(f"input={path}: {what}")
    return paths


def is_picture(path: Path) -> bool:
    """Whether a file is read, by its suffix, or by what stands in it as DICOM may lack one."""
    if path.suffix.lower() in IMAGE_SUFFIXES:
        return True
    return stores_dicom(path) and path.name != DICOM_INDEX


def stores_dicom(path: Path) -> bool:
    """Whether a file is DICOM; one whose suffix says so too, which may turn out to be damaged."""
    suffix = path.suffix.lower()
    if suffix in IMAGE_SUFFIXES:
        return False
    return suffix in DICOM_SUFFIXES or is_dicom(path)


@dataclass
class Source:
    """A file to predict, and what has become of it so far.

    Attributes:
        path: Of the file.
        name: Its stem, by which everything written for it is named.
        dicom: The same as DICOM, if it is that; from when it is read.
        failed: Whether a part of it could not be done.
        rows: Of its measurements.
        contours: Of its lesions.
    """

    path: Path
    name: str
    dicom: Dicom | None = None
    failed: bool = False
    rows: list[list[Any]] = field(default_factory=list)
    contours: list[dict[str, Any]] = field(default_factory=list)


class Picture(NamedTuple):
    """A picture as the network sees it.

    Attributes:
        source: The file that it is of.
        frame: Its number there, from 1; None where it is the only one.
        size: Its own (height, width).
        pixels: (h, w, 3) uint8 RGB at the network's size.
        image: (H, W, 3) uint8 RGB as it is, where it is needed; else None.
    """

    source: Source
    frame: int | None
    size: tuple[int, int]
    pixels: np.ndarray
    image: np.ndarray | None

    @property
    def name(self) -> str:
        """By which what is written of it is named."""
        return self.source.name if self.frame is None else frame_name(self.source.name, self.frame)

    @property
    def regions(self) -> Sequence[Region]:
        """Parts of it whose scale is known."""
        return self.source.dicom.regions if self.source.dicom else ()


class Complaint(NamedTuple):
    """What is wrong with a picture, in one line."""

    source: Source
    line: str


class End(NamedTuple):
    """A file has no more pictures."""

    source: Source


Event = Picture | Complaint | End


def frame_name(stem: str, frame: int) -> str:
    """The name of a frame, from 1, of a file of several."""
    return f"{stem}_frame{frame:03d}"


def read_pictures(paths: Sequence[Path], size: tuple[int, int], keep: bool) -> Iterator[Event]:
    """The pictures of files, resized to (height, width); one is read while the caller works.

    Args:
        paths: The files.
        size: Of the network.
        keep: Keep each picture as it is too.
    """

    def still(source: Source) -> Event:  # of its own, so that no picture lives longer
        return prepared(source, None, read_image(source.path), size, keep)

    def events() -> Iterator[Event]:
        for path in paths:
            source = Source(path, path.stem)
            try:
                if stores_dicom(path):
                    source.dicom = Dicom(path)
                    for number, image in enumerate(source.dicom.pictures(), start=1):
                        if isinstance(image, CaseError):
                            yield Complaint(source, str(image))
                        else:
                            frame = number if source.dicom.frames > 1 else None
                            yield prepared(source, frame, image, size, keep)
                else:
                    yield still(source)
            except CaseError as error:
                yield Complaint(source, str(error))
            yield End(source)

    return _ahead(events())


def prepared(
    source: Source, frame: int | None, image: np.ndarray, size: tuple[int, int], keep: bool
) -> Picture:
    """A picture (H, W, 3) of a file for a network of (height, width), itself kept or not."""
    shape = image.shape[0], image.shape[1]
    return Picture(source, frame, shape, resize_image(image, size), image if keep else None)


def _ahead(items: Iterator[T]) -> Iterator[T]:
    """Items, of which the next is made while the caller works on one."""
    end = object()
    with ThreadPoolExecutor(1) as pool:
        following = pool.submit(next, items, end)
        while (item := following.result()) is not end:
            following = pool.submit(next, items, end)
            yield item  # type: ignore[misc]
            del item
