"""Masks of images: each read, predicted and written without the others being kept."""

import errno
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from omegaconf import DictConfig

from anatosegnet.console import progress, say, some
from anatosegnet.data.case import IMAGE_SUFFIXES, CaseError, read_image
from anatosegnet.data.files import not_read
from anatosegnet.data.resizing import resize_image
from anatosegnet.errors import UserError
from anatosegnet.files.writing import remove_leftovers, replacing
from anatosegnet.prediction.masks import NO_NUMBER, mask_at
from anatosegnet.prediction.opening import open_predictor
from anatosegnet.report.overlay import encode_png

# failures to write that say nothing about the next file
OF_ONE_FILE = (errno.ENAMETOOLONG, errno.EINVAL, errno.EILSEQ, errno.EISDIR)


def predict(source: Path, output: Path, config: DictConfig) -> list[str]:
    """Write one mask per image: original size, 0/255 PNG, same stem.

    Memory does not grow with the number or the size of the images: one is read while those
    before it are predicted, and of each only the network's input is kept.

    Args:
        source: An image, or a folder of images.
        output: Folder of the masks.
        config: run (or several), trust, tta, batch_size, device, overwrite.

    Returns:
        One line for each image that could not be done; they are printed too.

    Raises:
        UserError: Nothing can be done at all, or a mask would be overwritten.
        OSError: The masks cannot be written; those before are there and whole.
    """
    if not isinstance(config.batch_size, int) or config.batch_size < 1:
        raise UserError(f"batch_size={config.batch_size} must be at least 1")
    images, passed_over, others = images_of(source)
    targets = masks_to_write(images, output)
    existing = [target for target in targets.values() if target.exists()]
    if existing and not config.overwrite:
        raise UserError(
            f"{existing[0]} exists ({len(existing)} of {len(targets)} masks do); "
            "give another output=DIR, or overwrite=true"
        )
    predictor = open_predictor(config)
    remove_leftovers(output)
    failures: list[str] = []

    def fail(line: str) -> None:
        failures.append(line)
        say(f"error: {line}", error=True)

    def write(batch: list[Prepared]) -> None:
        if not batch:
            return
        probabilities = predictor.predict([item.pixels for item in batch]).probability
        for item, probability in zip(batch, probabilities, strict=True):
            if not np.isfinite(probability).all():
                fail(f"{item.path}: {NO_NUMBER}")
                continue
            mask = mask_at(probability, item.size).view(np.uint8) * np.uint8(255)
            try:
                with replacing(targets[item.path]) as temporary:
                    temporary.write_bytes(encode_png(mask))
            except OSError as error:
                if error.errno not in OF_ONE_FILE:
                    raise
                fail(f"{item.path}: its mask cannot be written ({error.strerror})")

    for line in passed_over:
        fail(line)
    batch: list[Prepared] = []
    for item in progress(
        read_ahead(list(targets), predictor.image_size), "predicting", len(targets)
    ):
        if isinstance(item, str):
            fail(item)
            continue
        batch.append(item)
        if len(batch) == config.batch_size:
            write(batch)
            batch = []
    write(batch)
    done = len(images) + len(passed_over) - len(failures)
    rest = f"; {others} other files passed over" if others else ""
    say(f"{done} masks in {output}, {len(failures)} images failed{rest}")
    return failures


class Prepared(NamedTuple):
    """An image as the network sees it, (h, w, 3) uint8 RGB, and its own (height, width)."""

    path: Path
    size: tuple[int, int]
    pixels: np.ndarray


def read_ahead(paths: Sequence[Path], size: tuple[int, int]) -> Iterator[Prepared | str]:
    """Images one after the other, resized to (height, width), or what is wrong with them.

    The next one is read while the caller works.
    """

    def read(path: Path) -> Prepared | str:
        try:
            image = read_image(path)
        except CaseError as error:
            return str(error)
        return Prepared(path, (image.shape[0], image.shape[1]), resize_image(image, size))

    with ThreadPoolExecutor(1) as pool:
        ahead = None
        for path in paths:
            current, ahead = ahead, pool.submit(read, path)
            if current is not None:
                yield current.result()
        if ahead is not None:
            yield ahead.result()


def images_of(source: Path) -> tuple[list[Path], list[str], int]:
    """The images of a folder, or the one that was named.

    Returns:
        Their paths in order, a line on each picture of a kind that is not read, and the number
        of other files.

    Raises:
        UserError: There is none.
    """
    if not source.is_dir():
        if not source.exists():
            raise UserError(f"input={source}: no such file or folder")
        if complaint := not_read(source):
            raise UserError(f"input={complaint}")
        return [source], [], 0
    images: list[Path] = []
    passed_over: list[str] = []
    others = 0
    for path in sorted(source.iterdir()):
        if path.name.startswith("."):
            continue
        if path.suffix.lower() in IMAGE_SUFFIXES:
            images.append(path)
        elif complaint := not_read(path):
            passed_over.append(complaint)
        else:
            others += 1
    if not images:
        kinds = " ".join(sorted(IMAGE_SUFFIXES))
        found = f"; {some(passed_over, 1, '; ')}" if passed_over else ""
        raise UserError(f"input={source} holds no image ({kinds}){found}")
    return images, passed_over, others


def masks_to_write(images: Sequence[Path], output: Path) -> dict[Path, Path]:
    """The images to do, each with the path of its mask.

    Raises:
        UserError: Two images share a stem, or a mask would replace an image.
    """
    targets = {image: output / f"{image.stem}.png" for image in images}
    by_stem: dict[Path, Path] = {}
    for image, target in targets.items():
        if target in by_stem:
            raise UserError(
                f"{by_stem[target].name} and {image.name} have the same stem and would write the "
                "same mask; rename one"
            )
        by_stem[target] = image
        if target.exists() and target.resolve() == image.resolve():
            raise UserError(f"output={output} is the folder of the images; give another")
    return targets
