"""What is asked of any trained network, and several of them as one; knows no framework."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np

from anatosegnet.data.resizing import resize_image
from anatosegnet.metrics.uncertainty import mutual_information, predictive_entropy
from anatosegnet.prediction.masks import probability_at


class Prediction(NamedTuple):
    """What is predicted of a batch of images, at the network's size.

    Attributes:
        probability: (B, h, w) float32 in [0, 1], of lesion; the mean over the members. NaN where
            the network's output is.
        entropy: (B, h, w) float32 in [0, 1], of it in bits.
        mutual_information: (B, h, w) float32 in [0, 1], of the members in bits; None of one alone.
    """

    probability: np.ndarray
    entropy: np.ndarray
    mutual_information: np.ndarray | None = None

    @classmethod
    def of(cls, probability: np.ndarray) -> "Prediction":
        """That of a single network, from its probability (B, h, w)."""
        return cls(probability, predictive_entropy(probability))


class ImagePredictor(Protocol):
    """A trained network, or several, as predict and evaluate see it.

    Attributes:
        image_size: (height, width) of what it predicts. An image of another size is resized to
            it first, here or before: the prediction is the same.
    """

    image_size: tuple[int, int]

    def predict(self, images: Sequence[np.ndarray]) -> Prediction:
        """Predict images (H, W, 3) uint8 RGB of any sizes."""
        ...


class Several:
    """Predictors of images of any sizes, whose probabilities are averaged.

    Images are brought to the largest size that one of them sees, and from there to each one's own;
    probabilities come back to the largest.

    Args:
        predictors: At least one.
    """

    def __init__(self, predictors: Sequence[ImagePredictor]) -> None:
        self.predictors = tuple(predictors)
        self.image_size = max(
            (predictor.image_size for predictor in predictors), key=lambda size: size[0] * size[1]
        )

    def probabilities(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """(M, B, h, w) float32: the probability that each predictor gives, at the common size."""
        images = [resize_image(image, self.image_size) for image in images]
        each = []
        for predictor in self.predictors:
            given = predictor.predict(images).probability
            each.append([probability_at(one, self.image_size) for one in given])
        return np.asarray(each, np.float32)


class Ensemble(Several):
    """Networks trained apart, as one (Lakshminarayanan et al. 2017)."""

    def predict(self, images: Sequence[np.ndarray]) -> Prediction:
        """The mean of the members, and what they disagree about."""
        members = self.probabilities(images)
        mean = members.mean(axis=0)
        return Prediction(mean, predictive_entropy(mean), mutual_information(members))


class Views(Several):
    """One network on several views of each image, as one.

    Views are no members: that they disagree tells of the image, not of what the network was never
    taught, so there is no mutual information of them.
    """

    def predict(self, images: Sequence[np.ndarray]) -> Prediction:
        """The mean over the views."""
        return Prediction.of(self.probabilities(images).mean(axis=0))


class Mirrored:
    """A network on the mirror images, left for right; its answer is mirrored back.

    Args:
        predictor: Of the images as they are.
    """

    def __init__(self, predictor: ImagePredictor) -> None:
        self.predictor = predictor
        self.image_size = predictor.image_size

    def predict(self, images: Sequence[np.ndarray]) -> Prediction:
        """Predict images (H, W, 3) uint8."""
        mirrored = self.predictor.predict([image[:, ::-1] for image in images]).probability
        return Prediction.of(np.ascontiguousarray(mirrored[:, :, ::-1]))
