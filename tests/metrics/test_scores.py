"""The registry of scores: names, titles, and which columns an image has."""

import numpy as np
import pytest

from anatosegnet.evaluation.scoring import Scoring
from anatosegnet.metrics.scores import SCORES, Score, Segmentation, find, is_fact, shown_in, title


def image(pixel_size_mm: float | None = None) -> Segmentation:
    """A lesion of 4 pixels, of which 2 are found."""
    probability, truth = np.zeros((6, 8), np.float32), np.zeros((6, 8), bool)
    truth[2:4, 2:4], probability[2:4, 3:5] = True, 0.75
    return Segmentation(probability, truth, pixel_size_mm)


def test_each_column_is_registered_and_known_again() -> None:
    """Breaks if two entries share a name, or a column of a row cannot be read back."""
    names = [score.name for score in SCORES]
    assert len(set(names)) == len(names)
    row = Scoring(tolerances=(3, 0.5), tolerances_mm=(0.25,)).row(image(0.1))
    assert all(find(name) for name in row)
    assert [name for name in row if name.startswith("nsd")] == [
        "nsd_3px", "nsd_0.5px", "nsd_0.25mm",
    ]  # fmt: skip


def test_what_is_not_there_is_no_column() -> None:
    """Breaks if a run without boundaries, or images without a pixel size, get empty columns."""
    whole, plain = Scoring().row(image(0.1)), Scoring().row(image())
    assert {*whole} - {*plain} == {"hd95_mm", "assd_mm", "nsd_1mm"}
    overlaps = Scoring(surface=False).row(image())
    assert {*plain} - {*overlaps} == {"boundary_iou", "hd95", "assd", "nsd_2px", "nsd_5px"}


def test_values_by_hand() -> None:
    """Breaks if an entry has the function of another one."""
    row = Scoring().row(image(0.5))
    assert (row["iou"], row["dice"]) == (2 / 6, 0.5)
    assert (row["precision"], row["recall"]) == (0.5, 0.5)
    assert row["specificity"] == pytest.approx(42 / 44)
    assert (row["hits"], row["lesion_area"], row["predicted_area"]) == (2, 4, 4)
    assert (row["height"], row["width"], row["pixel_size_mm"]) == (6, 8, 0.5)
    assert (row["area_error"], row["lesion_area_mm2"], row["area_error_mm2"]) == (0, 1, 0)
    assert row["brier"] == pytest.approx((2 * 1 + 2 * 0.25**2 + 2 * 0.75**2) / 48)
    assert (row["lesions"], row["lesions_missed"], row["lesions_false"]) == (1, 1, 1)
    assert row["hd95"] == 1 and row["hd95_mm"] == 0.5


def test_titles_of_what_is_known_of_a_score() -> None:
    """Breaks if a head of a comparison loses its score, or an unknown column its words."""
    own = {"share": Score("share", "my share", None, "%", shown="first")}
    assert title("share", own) == "my share (%)"
    assert title("share_p_holm", own) == "my share (%) p (Holm)"
    assert title("hd95_difference") == "HD95 difference"
    assert title("hd95_mm_difference") == "HD95 (mm) difference"
    assert title("nsd_2px_p_holm") == "NSD (2 px) p (Holm)"
    assert title("lesion_precision") == "lesion precision"
    assert title("val/iou") == "val IoU"
    assert (title("id"), title("birads")) == ("case", "BI-RADS")
    assert shown_in(("first",), ["dice", "recall", "share", "other"], own) == ["dice", "share"]
    assert is_fact("hits") and not is_fact("iou") and not is_fact("other")
