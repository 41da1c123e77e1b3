"""From pixels to tensors, and the released augmentation."""

import os
import random
from collections.abc import Sequence

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # it would ask the network at import

import albumentations as A
import cv2
import numpy as np
import torch
from torch import Tensor

from anatosegnet.data.normalization import (
    Normalization,
    image_to_array,
    mean_and_deviation,
    normalized,
)


def image_to_tensor(
    image: np.ndarray, in_channels: int = 3, normalization: Normalization = "imagenet"
) -> Tensor:
    """An RGB image (H, W, 3) uint8 as `image_to_array` gives it: (in_channels, H, W) float32."""
    return torch.from_numpy(image_to_array(image, in_channels, normalization))


def normalize(pixels: Tensor, in_channels: int, normalization: Normalization) -> Tensor:
    """`normalized`, of tensors of the same shapes, on the device that the pixels are on."""
    if pixels.device.type == "cpu":
        return torch.from_numpy(normalized(pixels.numpy(), in_channels, normalization))
    mean, deviation = (
        torch.from_numpy(values).to(pixels.device)[:, None, None]
        for values in mean_and_deviation(in_channels, normalization)
    )
    return (pixels.float() / 255 - mean) / deviation


def seed_augmentation(augmentation: A.Compose, seed: Sequence[int]) -> None:
    """Fix everything that the next call of an augmentation draws.

    The whole pipeline shares one state. Albumentations' own ``set_random_seed`` gives every
    transform a state of its own, all alike: each would then draw the same number, so that a
    transform of p = 0.1 happens only together with all those of larger p.

    Args:
        augmentation: The pipeline.
        seed: Integers from 0, such as (seed, epoch, case).
    """
    sequence = np.random.SeedSequence(seed)
    state = random.Random(int(sequence.generate_state(1)[0]))
    augmentation.set_random_state(np.random.default_rng(sequence), state)


def released_augmentation() -> A.Compose:
    """The authors' augmentation: one of five, with equal chance.

    Flip of both axes, vertical flip, horizontal flip, rotation by ±1…±5° in whole degrees, or
    nothing. Unlike the released code, masks are rotated by nearest neighbour, so lesions keep
    their size.
    """
    degrees = [degree for degree in range(-5, 6) if degree != 0]
    rotations = [A.Rotate((k, k), border_mode=cv2.BORDER_CONSTANT, p=1) for k in degrees]
    return A.Compose(
        [
            A.OneOf(
                [
                    A.Sequential([A.HorizontalFlip(p=1), A.VerticalFlip(p=1)], p=1),
                    A.VerticalFlip(p=1),
                    A.HorizontalFlip(p=1),
                    A.OneOf(rotations, p=1),
                    A.NoOp(p=1),
                ],
                p=1,
            )
        ]
    )
