"""Overlays and thumbnails: sizes, colours, and what small lesions leave of themselves."""

import cv2
import numpy as np
import pytest

from anatosegnet.report.overlay import (
    FALSE_ALARM,
    HIT,
    MISS,
    OPACITY,
    OVERLAY_JPEG,
    THUMBNAIL_EDGE,
    encode_jpeg,
    error_overlay,
    thumbnails,
    tint_errors,
)

# Machado, Oliveira, Fernandes 2009: full deuteranopia and protanopia, on linear RGB
DEFICIENCIES = {
    "deutan": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413],
               [-0.011820, 0.042940, 0.968881]],
    "protan": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216],
               [-0.003882, -0.048116, 1.051998]],
}  # fmt: skip


def decode(content: bytes) -> np.ndarray:
    """A JPEG as RGB (H, W, 3) or grey (H, W)."""
    pixels = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    return pixels if pixels.ndim == 2 else cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)


def masks(size: tuple[int, int] = (300, 400)) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A grey image, a truth on the left and a prediction that covers its right half and more."""
    image = np.full((*size, 3), 90, np.uint8)
    truth, prediction = np.zeros(size, bool), np.zeros(size, bool)
    truth[100:200, 100:200] = True
    prediction[100:200, 150:250] = True
    return image, truth, prediction


def moved(mask: np.ndarray, down: int, right: int) -> np.ndarray:
    """The mask, of which the part that leaves the image is lost."""
    matrix = np.array([[1, 0, right], [0, 1, down]], np.float32)
    return cv2.warpAffine(mask.astype(np.uint8), matrix, mask.shape[::-1]) > 0


def test_errors_have_the_colours_of_the_legend() -> None:
    """Breaks if hit, missed and false alarm change their meaning, or tissue stays untouched."""
    image, truth, prediction = masks()
    tinted = tint_errors(image, truth, prediction, 1)
    red, green, blue = tinted[150, 120].astype(int)
    assert red > 2 * green and red > 2 * blue  # missed
    red, green, blue = tinted[150, 230].astype(int)
    assert green > 2 * red and green > blue  # false alarm
    assert len(set(tinted[150, 170])) == 1 and tinted[150, 170, 0] > 90  # hit
    assert (tinted[20, 20] == 90).all()
    overlay = error_overlay(image, truth, prediction)
    assert overlay.shape == (300, 804, 3)
    assert (overlay[:, :400] == image).all() and (overlay[:, 404:] == tinted).all()


@pytest.mark.parametrize("shift", [(0, 0), (-90, -170), (140, 190), (-200, 0)])
def test_only_the_areas_are_tinted_and_each_by_its_opacity(shift: tuple[int, int]) -> None:
    """Breaks if a blend is off by a level, or pixels beside the lesions are touched.

    The lesions are moved to the borders, and the prediction out of the image.
    """
    random = np.random.default_rng(0)
    image = random.integers(0, 256, (300, 400, 3), np.uint8)
    _, truth, prediction = masks()
    there, predicted = moved(truth, -shift[0], shift[1]), moved(prediction, *shift)
    expected = image.copy()
    for area, colour in (
        (there & predicted, HIT), (there & ~predicted, MISS), (~there & predicted, FALSE_ALARM),
    ):  # fmt: skip
        opacity = OPACITY[colour]
        expected[area] = (1 - opacity) * image[area] + opacity * np.array(colour)
    tinted = tint_errors(image, there, predicted, 1)
    outline = (tinted == HIT).all(axis=2) | (tinted == FALSE_ALARM).all(axis=2)
    assert (tinted == expected).all(axis=2)[~outline].all()
    assert outline.sum() < 900 and not (outline & ~there & ~predicted).any()
    assert (tint_errors(image, there & False, there & False, 1) == image).all()


def test_an_overlay_keeps_its_colours_in_the_file() -> None:
    """Breaks if the file's compression blurs outlines of one pixel, as thinned colours do."""
    overlay = error_overlay(*masks())
    content = encode_jpeg(overlay, OVERLAY_JPEG)
    off = np.abs(decode(content).astype(int) - overlay)
    assert off.mean() < 0.5 and off.max() < 50


@pytest.mark.parametrize("deficiency", DEFICIENCIES)
def test_colours_stay_apart_for_all_kinds_of_colour_vision(deficiency: str) -> None:
    """Breaks if missed and false alarm look alike to someone who does not tell red from green.

    Distances in CIELAB, where 10 is plain to see. A purer green, (40, 200, 70), is 15 from the
    red to a deuteranope.
    """
    linear = (np.array([MISS, FALSE_ALARM, HIT]) / 255) ** 2.2
    seen = np.clip(linear @ np.array(DEFICIENCIES[deficiency]).T, 0, 1) ** (1 / 2.2)
    miss, false_alarm, hit = cv2.cvtColor(seen[None].astype(np.float32), cv2.COLOR_RGB2LAB)[0]
    assert np.linalg.norm(miss - false_alarm) > 40
    assert np.linalg.norm(miss - hit) > 25 and np.linalg.norm(false_alarm - hit) > 25


def test_thumbnails_are_small_and_of_one_size() -> None:
    """Breaks if a thumbnail is as large as the image, distorted, or a picture is missing."""
    pictures = thumbnails(*masks())
    assert list(pictures) == ["image", "truth", "prediction", "error"]
    shapes = {decode(content).shape[:2] for content in pictures.values()}
    assert shapes == {(192, THUMBNAIL_EDGE)}
    assert all(len(content) < 10_000 for content in pictures.values())
    truth = decode(pictures["truth"])
    assert truth.ndim == 2 and truth[96, 90] > 240 and truth[10, 10] < 15
    assert truth.mean() / 255 == pytest.approx(1 / 12, rel=0.05)


def test_small_images_are_not_enlarged() -> None:
    """Breaks if blurred pixels are invented, or an image of one pixel fails."""
    assert decode(thumbnails(*masks((260, 254)))["error"]).shape[:2] == (256, 250)
    assert decode(thumbnails(*masks((40, 60)))["image"]).shape == (40, 60)
    one = np.ones((1, 1), bool)
    assert decode(thumbnails(np.zeros((1, 1, 3), np.uint8), one, one)["truth"]).shape == (1, 1)


def test_a_lesion_of_few_pixels_is_still_seen() -> None:
    """Breaks if shrinking a large image wipes out a small missed lesion."""
    image = np.full((1000, 1400, 3), 60, np.uint8)
    truth, nothing = np.zeros((1000, 1400), bool), np.zeros((1000, 1400), bool)
    truth[500:504, 700:704] = True
    error = decode(thumbnails(image, truth, nothing)["error"]).astype(int)
    assert error[88:96, 124:132].max() > 130
    assert abs(error[20:60, 20:60] - 60).max() < 10
