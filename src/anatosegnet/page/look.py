"""A file that somebody gave to the page: what is seen in it at a threshold; all in memory."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from anatosegnet.data.case import CaseError
from anatosegnet.errors import UserError
from anatosegnet.metrics.measurement import Measurement
from anatosegnet.prediction.inputs import Complaint, Picture, prepared, read_pictures
from anatosegnet.prediction.masks import NO_NUMBER, mask_at, probability_at
from anatosegnet.prediction.measurements import measurements
from anatosegnet.prediction.plan import require_decoders
from anatosegnet.prediction.predictor import ImagePredictor


class View(NamedTuple):
    """What is seen at a threshold.

    Attributes:
        mask: (H, W) bool.
        rows: Of the lesions, as in ``measurements.csv``.
        sizes: Of the lesions, in pixels.
        entropy: (H, W) in [0, 1], bits; whatever the threshold.
    """

    mask: np.ndarray
    rows: list[list[Any]]
    sizes: list[Measurement]
    entropy: np.ndarray


@dataclass(eq=False)  # so that it is told by its identity, and its arrays never by their values
class Look:
    """A picture and what the network says of it, kept so that a threshold needs no second pass.

    Attributes:
        picture: With its image.
        probability: (h, w) in [0, 1], at the network's size.
        entropy: (h, w) in [0, 1], bits.
    """

    picture: Picture
    probability: np.ndarray
    entropy: np.ndarray

    @classmethod
    def at(cls, path: Path, predictor: ImagePredictor) -> "Look":
        """The picture of a file, of several the first, predicted.

        Raises:
            UserError: There is nothing to be seen; one sentence, without the file's folder.
        """
        try:
            require_decoders([path], segmentations=False)
            event = next(read_pictures([path], predictor.image_size, keep=True))
            if not isinstance(event, Picture):
                line = event.line if isinstance(event, Complaint) else f"{path}: holds no picture"
                raise UserError(line)
            return cls._of(event, predictor)
        except UserError as error:
            raise UserError(str(error).replace(str(path), path.name)) from error

    @property
    def frames(self) -> int:
        """How many pictures its file holds."""
        dicom = self.picture.source.dicom
        return dicom.frames if dicom else 1

    def turned(self, frame: int, predictor: ImagePredictor) -> "Look":
        """Another picture of the same file, predicted.

        Args:
            frame: Its number, from 1.
            predictor: The network.

        Raises:
            UserError: There is nothing to be seen; one sentence, without the file's folder.
        """
        source = self.picture.source
        assert source.dicom is not None
        image = next(source.dicom.pictures(first=frame))
        if isinstance(image, CaseError):
            raise UserError(str(image).replace(str(source.path), source.path.name))
        return Look._of(prepared(source, frame, image, predictor.image_size, True), predictor)

    @classmethod
    def _of(cls, picture: Picture, predictor: ImagePredictor) -> "Look":
        prediction = predictor.predict([picture.pixels])
        if not np.isfinite(prediction.probability).all():
            raise UserError(f"{picture.source.path.name}: {NO_NUMBER}")
        return cls(picture, prediction.probability[0], prediction.entropy[0])

    def view(self, threshold: float) -> View:
        """What is lesion above a threshold of the probability."""
        size = self.picture.size
        probability, entropy = (
            probability_at(one, size) for one in (self.probability, self.entropy)
        )
        mask = mask_at(probability, size, threshold)
        return View(mask, *measurements(self.picture, mask, probability, entropy), entropy)
