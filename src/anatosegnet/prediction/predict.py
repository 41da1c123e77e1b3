"""Images to masks and measurements: each is read, predicted and written by itself."""

import errno
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig

from anatosegnet.console import Progress, say
from anatosegnet.data.case import LARGEST
from anatosegnet.errors import UserError
from anatosegnet.files.writing import remove_leftovers
from anatosegnet.prediction.going_on import TABLE, Record, settings_of
from anatosegnet.prediction.inputs import (
    Complaint,
    Event,
    Picture,
    Source,
    find_images,
    frame_name,
    read_pictures,
)
from anatosegnet.prediction.masks import NO_NUMBER, mask_at, probability_at
from anatosegnet.prediction.measurements import contours, measurements
from anatosegnet.prediction.opening import open_predictor
from anatosegnet.prediction.outputs import MAPS, Outputs, kinds_of
from anatosegnet.prediction.plan import by_name, require_decoders, require_room
from anatosegnet.prediction.predictor import Ensemble, ImagePredictor

# failures to write that say nothing about the next file
OF_ONE_FILE = (errno.ENAMETOOLONG, errno.EINVAL, errno.EILSEQ, errno.EISDIR)


def predict(given: Any, output: Path, config: DictConfig) -> list[str]:
    """Write masks of images, and what else is asked for; always ``measurements.csv``.

    Memory does not grow with the number of images: of each only the network's input is kept, and
    the image itself until its overlay is drawn. What was interrupted goes on where it was.

    Args:
        given: An image, a folder of images, a pattern, or a list of these.
        output: Folder of what is written.
        config: run (or several), trust, tta, write, batch_size, device, overwrite.

    Returns:
        One line for each image that could not be done; they are printed too.

    Raises:
        UserError: Nothing can be done at all, or results of other settings would be overwritten.
        OSError: The results cannot be written; those before are there and whole.
    """
    if not isinstance(config.batch_size, int) or config.batch_size < 1:
        raise UserError(f"batch_size={config.batch_size} must be at least 1")
    kinds = kinds_of(config.write)
    found = find_images(given)
    outputs = Outputs(output, kinds)
    dicoms = require_decoders(found.images, "dicom_seg" in kinds)
    sources = by_name(found.images, dicoms)
    require_room(sources, dicoms, outputs, config.overwrite)
    settings = settings_of(config, kinds)
    predictor = open_predictor(config)
    if "mutual_information" in kinds and not isinstance(predictor, Ensemble):
        raise UserError(
            "write=mutual_information is of an ensemble's members: give run=[DIR,DIR,…]"
        )
    record = Record(output, settings, config.overwrite)
    try:
        for folder in {output, *(path.parent for path in outputs.paths("x").values())}:
            remove_leftovers(folder)
        work = Work(predictor, outputs, record, kinds, config.batch_size)
        record.begin(sources, work.is_written)
        for line in found.complaints:
            work.fail(line)
        todo = [path for name, path in sources.items() if name not in record.done]
        work.run(todo)
        record.finish(whole=not work.failures)
        work.conclude(len(sources) - len(todo), found.others)
        return work.failures
    finally:
        record.close()


class Work:
    """Images on their way through the network.

    Args:
        predictor: The network.
        outputs: Where its masks go.
        record: Of what is done.
        kinds: What is written.
        batch_size: Images at once.
    """

    def __init__(
        self,
        predictor: ImagePredictor,
        outputs: Outputs,
        record: Record,
        kinds: Sequence[str],
        batch_size: int,
    ) -> None:
        self.predictor, self.outputs, self.record = predictor, outputs, record
        self.kinds, self.batch_size = kinds, batch_size
        self.failures: list[str] = []
        self.lesions = self.pictures = self.done = self.without_scale = 0

    def run(self, paths: Sequence[Path]) -> None:
        """Predict files."""
        size = self.predictor.image_size
        waiting: list[Event] = []
        pictures = pixels = files = 0
        with Progress("predicting", len(paths)) as show:
            for event in read_pictures(paths, size, keep="overlays" in self.kinds):
                waiting.append(event)
                if isinstance(event, Picture):
                    pictures += 1
                    pixels += 0 if event.image is None else event.size[0] * event.size[1]
                    # images that wait for their overlay must fit into memory
                    if pictures < self.batch_size and pixels < LARGEST:
                        continue
                elif pictures:
                    continue
                files = self._finish(waiting, files, show)
                waiting, pictures, pixels = [], 0, 0
                del event
            self._finish(waiting, files, show)

    def _finish(self, events: Sequence[Event], files: int, show: Progress) -> int:
        """Predict and write what waits; returns how many files that makes."""
        batch = [event for event in events if isinstance(event, Picture)]
        predicted = self.predictor.predict([picture.pixels for picture in batch]) if batch else None
        number = 0
        for event in events:
            if isinstance(event, Picture):
                assert predicted is not None
                self._write(event, *(None if one is None else one[number] for one in predicted))
                number += 1
            elif isinstance(event, Complaint):
                self.fail(event.line, event.source)
            else:
                self._end(event.source)
                files += 1
                show(files)
        return files

    def fail(self, line: str, source: Source | None = None) -> None:
        """Print what could not be done."""
        self.failures.append(line)
        if source:
            source.failed = True
        say(f"error: {line}", error=True)

    def _write(self, picture: Picture, *predicted: np.ndarray | None) -> None:
        """Write and measure a picture, from its part of a `Prediction`."""
        source = picture.source
        frame = f", frame {picture.frame}" if picture.frame else ""
        maps = {
            kind: probability_at(one, picture.size)
            for kind, one in zip(MAPS, predicted, strict=True)
            if one is not None
        }
        probability = maps["probabilities"]
        if not np.isfinite(probability).all():
            self.fail(f"{source.path}{frame}: {NO_NUMBER}", source)
            return
        mask = mask_at(probability, picture.size)
        rows, sizes = measurements(picture, mask, probability, maps["entropy"])
        try:
            self.outputs.write(picture, mask, maps, sizes)
        except OSError as error:
            if error.errno not in OF_ONE_FILE:
                raise
            kind = getattr(error, "kind", "mask")
            self.fail(
                f"{source.path}{frame}: its {kind} cannot be written ({error.strerror})", source
            )
            return
        except UserError as error:
            self.fail(str(error), source)
            return
        source.rows += rows
        self.pictures += 1
        self.lesions += len(sizes)
        self.without_scale += bool(sizes) and not picture.regions
        if "contours" in self.kinds:
            name: dict[str, Any] = {"file_name": source.path.name}
            if picture.frame:
                name["frame"] = picture.frame
            size = {"width": picture.size[1], "height": picture.size[0]}
            source.contours.append({"image": {**name, **size}, "annotations": list(contours(mask))})

    def _end(self, source: Source) -> None:
        """A file has no more pictures, and everything of it is written."""
        self.record.add(source)
        self.done += not source.failed

    def is_written(self, name: str, frames: int) -> bool:
        """Whether all files of a source of so many frames are there."""
        names = [name] if frames == 1 else [frame_name(name, n + 1) for n in range(frames)]
        return all(path.exists() for one in names for path in self.outputs.paths(one).values())

    def conclude(self, before: int, others: int) -> None:
        """Say what was done."""
        folder = self.outputs.folder
        rest = f"; {others} other files passed over" if others else ""
        if before:
            say(f"{before} images were done before")
            if not (self.done or self.failures):
                return
        what = f"{self.pictures} masks" if "masks" in self.kinds else f"{self.done} images"
        say(f"{what} in {folder}, {len(self.failures)} images failed{rest}")
        say(f"{self.lesions} lesions measured in {folder / TABLE}")
        if self.without_scale:
            say(
                f"{self.without_scale} images say nothing of their scale: "
                "their lesions are measured in pixels alone"
            )
