"""Rows, means and tables of scores; predictions and masks that are degenerate."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas
import pytest
from pandas import DataFrame
from scipy import ndimage
from sklearn.metrics import f1_score, jaccard_score, precision_score, recall_score, roc_auc_score

from anatosegnet.data.case import Case
from anatosegnet.errors import UserError
from anatosegnet.evaluation import tables
from anatosegnet.evaluation.evaluate import write_evaluation
from anatosegnet.evaluation.scoring import Scored, Scoring, score_case, score_cases
from anatosegnet.files.rows import write_frame
from anatosegnet.metrics.scores import SCORES
from anatosegnet.prediction.predictor import Prediction

CONDITIONS = {"data": "test", "split": "none", "selection": "none", "aggregation": "per image"}


class Cases:
    """A data module of masks in memory."""

    name = "memory"

    def __init__(self, masks: Sequence[np.ndarray], **about: Sequence[object]) -> None:
        self.masks = {f"case {i}": mask.astype(np.uint8) for i, mask in enumerate(masks)}
        labels = about.get("labels", ["benign"] * len(masks))
        groups = about.get("groups", [""] * len(masks))
        self.cases = {
            name: Case(name, label=str(label), group=str(group))
            for name, label, group in zip(self.masks, labels, groups, strict=True)
        }

    def read(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """A grey image and the mask."""
        mask = self.masks[name]
        return np.full((*mask.shape, 3), 90, np.uint8), mask


class Answers:
    """A predictor that gives prepared probability maps."""

    image_size = (32, 32)

    def __init__(self, maps: Sequence[np.ndarray]) -> None:
        self.maps = iter(maps)

    def always(self, _: str) -> "Answers":
        """Whatever the case."""
        return self

    def predict(self, images: Sequence[np.ndarray]) -> Prediction:
        """The next maps."""
        return Prediction.of(np.stack([next(self.maps) for _ in images]).astype(np.float32))


def square(at: int, size: int = 10, edge: int = 32) -> np.ndarray:
    """(edge, edge) bool with a square."""
    mask = np.zeros((edge, edge), bool)
    mask[at : at + size, at : at + size] = True
    return mask


def evaluated(
    directory: Path, cases: Cases, maps: Sequence[np.ndarray], surface: bool = True
) -> tuple[dict, DataFrame]:
    """Score and write; the summary and scores.csv read back."""
    scoring = Scoring(surface=surface)
    scored = score_cases(cases, [*cases.cases], Answers(maps).always, scoring, directory)  # type: ignore
    write_evaluation(directory, scored, scoring, CONDITIONS, {})
    summary = json.loads((directory / "summary.json").read_text())
    return summary, tables.read_scores(directory / "scores.csv")


@pytest.mark.slow
def test_overlaps_against_scikit_learn() -> None:
    """Breaks if a row's counts or overlaps differ from an independent implementation.

    200 random pairs, some of them empty, full, or of one pixel.
    """
    random = np.random.default_rng(0)
    kinds = (np.zeros((24, 24), bool), np.ones((24, 24), bool), square(7, 1, 24))
    for index in range(200):
        prediction, truth = ndimage.gaussian_filter(random.normal(size=(2, 24, 24)), (0, 2, 2)) > 0
        if index < 45:
            truth, prediction = kinds[index % 3], (*kinds, prediction)[index // 3 % 4]
        row = score_case(
            Case("case"), truth.astype(np.uint8), prediction.astype(np.float32),
            Scoring(surface=False),
        ).row  # fmt: skip
        empty = not truth.any() and not prediction.any()
        options = {"zero_division": 1.0 if empty else 0.0}
        pair = truth.ravel(), prediction.ravel()
        assert row["iou"] == pytest.approx(jaccard_score(*pair, **options))
        assert row["dice"] == pytest.approx(f1_score(*pair, **options))
        assert row["precision"] == pytest.approx(precision_score(*pair, **options))
        assert row["recall"] == pytest.approx(recall_score(*pair, **options))
        background = recall_score(~pair[0], ~pair[1], zero_division=1.0)
        assert row["specificity"] == pytest.approx(background)
        assert row["area_error"] == prediction.sum() - truth.sum()
        assert row["hits"] == (truth & prediction).sum()


def test_scores_are_of_the_original_size_or_the_networks(tmp_path: Path) -> None:
    """Breaks if `at` is not what is scored, or millimetres survive the network's resizing."""
    case = Case("case", pixel_size_mm=0.1)
    mask = square(20, 20, 64).astype(np.uint8)
    probability = square(10, 10, 32).astype(np.float32)
    original = score_case(case, mask, probability, Scoring()).row
    model = score_case(case, mask, probability, Scoring(at="model")).row
    assert (original["height"], model["height"]) == (64, 32)
    assert (original["lesion_area"], model["lesion_area"]) == (400, 100)
    assert model["iou"] == 1
    assert original["iou"] == 1  # halfway between pixels of 0 and 1 lies the border
    assert original["lesion_area_mm2"] == pytest.approx(4)
    assert original["hd95_mm"] == pytest.approx(0.1 * original["hd95"])
    assert model["lesion_area_mm2"] is None
    assert "hd95_mm" not in model


def test_pooled_by_hand(tmp_path: Path) -> None:
    """Breaks if pooling is over images, batches are not of 8 in order, or weigh wrongly.

    Nine images: eight hit exactly (100 px each), the ninth missed (400 px).
    """
    masks = [square(5)] * 8 + [square(5, 20)]
    maps = [square(5)] * 8 + [np.zeros((32, 32))]
    summary, _ = evaluated(tmp_path, Cases(masks), maps, surface=False)
    assert summary["iou"] == pytest.approx(8 / 9)
    assert summary["iou_pooled"] == pytest.approx(800 / 1200)
    assert summary["iou_batch_pooled"] == pytest.approx((8 * 1 + 1 * 0) / 9)
    assert summary["dice_pooled"] == pytest.approx(2 * 800 / (800 + 1200))
    assert summary["detection"] == {
        "lesions": 9, "hit": 8, "missed": 1, "false": 0, "sensitivity": pytest.approx(8 / 9),
        "lesion_precision": 1, "false_per_image": 0,
    }  # fmt: skip
    assert summary["extremes"]["worst"][0] == "case 8"


def test_batches_differ_from_both_other_means() -> None:
    """Breaks if batch-pooled becomes a name for one of the others: 16 images of two sizes."""
    sizes = np.tile([10, 1000], 8)
    hits = np.where(sizes == 10, 1, 900)
    frame = DataFrame({"hits": hits, "lesion_area": sizes, "predicted_area": hits})
    counts = tables.pixel_counts(frame)
    from anatosegnet.metrics.overlap import pooled_scores

    assert pooled_scores(counts)["iou"] == pytest.approx(901 / 1010)
    shuffled = counts[np.argsort(sizes, kind="stable")]  # small lesions first: other batches
    assert pooled_scores(shuffled, 8)["iou"] == pytest.approx((0.1 + 0.9) / 2)
    assert pooled_scores(counts, 8)["iou"] == pytest.approx(901 / 1010)


def test_one_case(tmp_path: Path) -> None:
    """Breaks if a single image divides by zero, or claims an interval."""
    summary, frame = evaluated(tmp_path, Cases([square(5)]), [square(7)])
    assert len(frame) == summary["images"] == 1
    assert summary["intervals"] == {}
    assert summary["conditions"]["intervals"].startswith("none")
    assert (tmp_path / "extremes.png").stat().st_size > 1000
    assert len(tables.stratified(frame)) == 1


def test_images_with_a_copy_in_training_are_told_apart(tmp_path: Path) -> None:
    """Breaks if the score of the clean images is not theirs, or is given where none leaks."""
    cases = Cases([square(5)] * 6)
    maps = [square(5)] * 2 + [square(9)] * 4
    names = [*cases.cases]
    scored = score_cases(cases, names, Answers(maps).always, Scoring(surface=False), tmp_path)  # type: ignore
    for copies, clean in ((names[:3], names[3:]), ((), names), (names, ())):
        written = write_evaluation(tmp_path, scored, Scoring(), CONDITIONS, {}, leaks=copies)
        summary = written.summary
        strata = pandas.read_csv(tmp_path / "tables.csv").set_index(["by", "value"])
        assert ("without_leaks" in summary) == ("no leaks" in summary["conditions"])
        assert ("without_leaks" in summary) == (0 < len(clean) < 6)
        if 0 < len(clean) < 6:
            theirs = [item.row["iou"] for item in scored if item.row["id"] in clean]
            assert summary["without_leaks"]["iou"] == pytest.approx(np.mean(theirs))
            assert summary["without_leaks"]["images"] == 3
            assert "IoU 0.220 [0.220, 0.220] over the 3 of 6" in summary["conditions"]["no leaks"]
            assert strata.loc[("leaked", "yes"), "images"] == 3
            assert summary["iou"] == pytest.approx(np.mean([item.row["iou"] for item in scored]))
        else:
            assert "leaked" not in strata.index.get_level_values("by")


def test_nothing_is_predicted_and_nothing_is_there(tmp_path: Path) -> None:
    """Breaks if empty masks or predictions give NaN, a warning, or are dropped."""
    nothing = np.zeros((32, 32), bool)
    cases = Cases([nothing, nothing, square(5)], labels=["normal", "normal", "benign"])
    summary, frame = evaluated(tmp_path, cases, [nothing, square(3), nothing])
    assert frame["iou"].tolist() == [1, 0, 0]
    assert frame["hd95"].tolist() == pytest.approx([0, 32 * 2**0.5, 32 * 2**0.5], abs=1e-5)
    assert frame["relative_area_error"].tolist() == [0, 1, -1]
    assert frame["specificity"].tolist() == pytest.approx([1, 1 - 100 / 1024, 1], abs=1e-6)
    assert summary["detection"]["missed"] == summary["detection"]["false"] == 1
    numbers = [value for value in summary.values() if isinstance(value, float)]
    assert np.isfinite(numbers).all()


def test_all_masks_are_empty(tmp_path: Path) -> None:
    """Breaks if a data set without any lesion cannot be scored."""
    nothing = np.zeros((32, 32), bool)
    cases = Cases([nothing] * 3, labels=["normal"] * 3)
    summary, frame = evaluated(tmp_path, cases, [nothing] * 3)
    assert (summary["iou"], summary["iou_pooled"], summary["hd95"]) == (1, 1, 0)
    assert summary["detection"]["sensitivity"] is None
    assert tables.lesion_sizes(frame).tolist() == ["", "", ""]


def test_not_a_number_names_the_cases(tmp_path: Path) -> None:
    """Breaks if a diverged network gets a score, or its cases are not named."""
    broken = np.full((32, 32), np.nan)
    with pytest.raises(UserError, match="infinite on 2 of 3 cases: case 0, case 2") as caught:
        score_cases(
            Cases([square(5)] * 3), ["case 0", "case 1", "case 2"],  # type: ignore[arg-type]
            Answers([broken, square(5), broken]).always, Scoring(), tmp_path,
        )  # fmt: skip
    assert "\n" not in str(caught.value)


def test_no_case(tmp_path: Path) -> None:
    """Breaks if an empty test part ends in a traceback or an empty table."""
    with pytest.raises(UserError, match="no case to score"):
        score_cases(Cases([]), [], Answers([]).always, Scoring(), tmp_path)  # type: ignore[arg-type]


def rows(count: int = 30, **columns: Sequence[object]) -> DataFrame:
    """Scores of ``count`` images, IoU from 0 to 1."""
    iou = np.linspace(0, 1, count)
    area = np.arange(1, count + 1) * 10
    frame = DataFrame(
        {"id": [f"c{i}" for i in range(count)], "class": "benign", "group": "", "birads": "",
         "device": "", "pixel_size_mm": None, "height": 100, "width": 100, "iou": iou,
         "lesion_area": area, "predicted_area": area, "hits": area, "lesion_area_mm2": None},
    )  # fmt: skip
    return frame.assign(**columns)


def test_tables_by_class_size_birads_and_device() -> None:
    """Breaks if a stratum holds other images, or an unknown value becomes a stratum."""
    frame = rows(birads=["2", "4a", ""] * 10, **{"class": ["benign", "malignant"] * 15})
    table = tables.stratified(frame)
    assert table.groupby("by", sort=False)["images"].apply(list).to_dict() == {
        "all": [30], "class": [15, 15], "lesion size": [10, 10, 10], "BI-RADS": [10, 10],
    }  # fmt: skip
    sizes = table[table["by"] == "lesion size"]
    assert [value.split()[0] for value in sizes["value"]] == ["small", "medium", "large"]
    assert sizes["iou"].is_monotonic_increasing
    assert "% of the image" in sizes["value"].iloc[0]
    assert (table["iou_low"] <= table["iou"]).all()
    assert (table["iou"] <= table["iou_high"]).all()
    known = frame.assign(lesion_area_mm2=frame["lesion_area"] * 0.01)
    assert tables.lesion_sizes(known).iloc[0].endswith("mm²)")


def test_groups_count_once_in_intervals() -> None:
    """Breaks if images of one patient narrow the interval as independent ones do."""
    alone = tables.summarise(full_rows(group=""))
    grouped = tables.summarise(full_rows(group=[f"p{i // 10}" for i in range(30)]))
    width = [summary["intervals"]["iou"][1] - summary["intervals"]["iou"][0]
             for summary in (alone, grouped)]  # fmt: skip
    assert width[1] > 1.5 * width[0]
    assert (alone["independent_groups"], grouped["independent_groups"]) == (30, 3)


def full_rows(**columns: object) -> DataFrame:
    """`rows` with the lesions' counts."""
    return rows().assign(lesions=1, lesions_hit=1, lesions_missed=0, lesions_false=0, **columns)


def test_extremes() -> None:
    """Breaks if worst and best change places, or the median row is not in the middle."""
    picked = tables.extremes(rows(30), 4)
    assert picked["worst"] == ["c0", "c1", "c2", "c3"]
    assert picked["best"] == ["c26", "c27", "c28", "c29"]
    assert picked["median"] == ["c13", "c14", "c15", "c16"]
    assert tables.extremes(rows(2), 4)["worst"] == ["c0", "c1"]


def test_risk_is_what_scores_csv_gives(tmp_path: Path) -> None:
    """Breaks if the file does not give the summary again, or an earlier table needs the column."""
    rng = np.random.default_rng(0)
    masks = [square(4 + index % 12) for index in range(24)]
    maps = [np.clip(np.roll(mask, index % 9, 1) * 0.9 + 0.1 * rng.random((32, 32)), 0, 1)
            for index, mask in enumerate(masks)]  # fmt: skip
    summary, frame = evaluated(tmp_path, Cases(masks), maps, surface=False)
    again = tables.summarise(frame)
    assert again["risk"].keys() == summary["risk"].keys() == {
        "aurc", "excess_aurc", "failure_auroc", "failures", "risk_coverage"
    }  # fmt: skip
    for name in ("aurc", "excess_aurc", "failure_auroc"):
        assert again["risk"][name] == pytest.approx(summary["risk"][name], abs=2e-6)
        assert again["intervals"][name] == pytest.approx(summary["intervals"][name], abs=2e-6)
    assert summary["risk"]["failures"] == (frame["iou"] < 0.5).sum() > 0
    assert summary["risk"]["failure_auroc"] == roc_auc_score(
        frame["iou"] < 0.5, frame["uncertainty"]
    )
    earlier = tables.summarise(frame.drop(columns="uncertainty"))
    assert "risk" not in earlier and earlier["iou"] == again["iou"]


def test_scores_survive_the_file(tmp_path: Path) -> None:
    """Breaks if names that look like numbers, or unknown values, change on the way."""
    frame = rows(2, id=["001", "1e5"], device=["NA", ""], pixel_size_mm=[0.07, None])
    write_frame(tmp_path / "scores.csv", frame)
    read = tables.read_scores(tmp_path / "scores.csv")
    assert read["id"].tolist() == ["001", "1e5"]
    assert read["device"].tolist() == ["NA", ""]
    assert read["pixel_size_mm"].tolist()[0] == 0.07
    assert np.isnan(read["pixel_size_mm"][1])


@pytest.mark.parametrize("text", ["", "id,iou\na,high\n", "id,iou\na,0.5\n"])
def test_damaged_scores_are_one_line(tmp_path: Path, text: str) -> None:
    """Breaks if a csv that was edited gives a traceback."""
    (tmp_path / "scores.csv").write_text(text)
    with pytest.raises(UserError, match=r"scores\.csv .*evaluate again") as caught:
        tables.read_scores(tmp_path / "scores.csv")
    assert "\n" not in str(caught.value)


def test_scored_is_a_row_and_its_calibration() -> None:
    """Breaks if a row loses a column that tables or reports rely on."""
    scored = score_case(
        Case("a", label="benign", group="p1", details={"birads": "4a", "device": "X"}),
        square(5).astype(np.uint8), square(6).astype(np.float32), Scoring(),
    )  # fmt: skip
    assert isinstance(scored, Scored)
    assert scored.reliability.shape == (3, 10)
    assert [scored.row[key] for key in ("group", "birads", "device")] == ["p1", "4a", "X"]
    facts = {score.name for score in SCORES if score.shown == "fact"}
    assert facts | {"id", "class", "group", "birads", "device"} <= {*scored.row}
