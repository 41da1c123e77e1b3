"""Rows of scores to means, intervals and strata; ``scores.csv`` and ``tables.csv``."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas
from pandas import DataFrame, Series

from anatosegnet.console import between, rounded, say_conditions, say_table
from anatosegnet.errors import UserError
from anatosegnet.metrics.overlap import BENCHMARK_BATCH, pooled_scores
from anatosegnet.metrics.risk import FAILED, risk_summary
from anatosegnet.metrics.scores import (
    MAIN,
    NO_SCORES,
    TEXT,
    Score,
    is_fact,
    read_about,
    shown_in,
    title,
)
from anatosegnet.metrics.statistics import independent_groups, interval
from anatosegnet.report import reading

if TYPE_CHECKING:
    from anatosegnet.evaluation.scoring import Scoring

LEAKED = "leaked"  # a near-duplicate, or another image of the patient, is in training
UNCERTAINTY = "uncertainty"
SIZES = ("small", "medium", "large")


def read_scores(path: Path) -> DataFrame:
    """Read ``scores.csv``; raises UserError if it is missing or no such table."""
    frame = DataFrame(reading.read_scores(path))
    missing = {"id", "group", MAIN, "hits", "lesion_area", "predicted_area", "height", "width"}
    missing -= {*frame.columns}
    if missing:
        raise UserError(f"{path} has no column {', '.join(sorted(missing))}; evaluate again")
    return frame


def score_columns(frame: DataFrame) -> list[str]:
    """The columns that are scores of an image, in order; those all unknown are left out."""
    return [
        str(column)
        for column in frame.columns
        if column not in TEXT and not is_fact(column) and bool(frame[column].notna().any())
    ]


def pixel_counts(frame: DataFrame) -> np.ndarray:
    """(N, 3) int64: true positives, false positives, false negatives of each image."""
    hits = frame["hits"].to_numpy(np.int64)
    predicted, area = frame["predicted_area"].to_numpy(np.int64), frame["lesion_area"]
    return np.stack([hits, predicted - hits, area.to_numpy(np.int64) - hits], axis=1)


def summarise(frame: DataFrame) -> dict[str, Any]:
    """Means, deviations and intervals of scores in order of the cases.

    Returns:
        ``images``; for each score its mean and its deviation over images, ``<score>_sd`` (scores
        in mm: over the images of known pixel size); IoU and Dice ``_pooled`` over all pixels and
        ``_batch_pooled`` in batches of 8 in this order; ``detection`` of lesions; ``risk``, where
        uncertainty is known; ``intervals`` of 95 %, by name.
    """
    groups = independent_groups(frame["id"].tolist(), frame["group"].tolist())
    summary: dict[str, Any] = {"images": len(frame), "independent_groups": len(set(groups))}
    intervals: dict[str, list[float]] = {}

    def keep(name: str, values: Series, weights: Series | None = None) -> None:
        known = values.notna().to_numpy()
        kept = [group for group, is_known in zip(groups, known, strict=True) if is_known]
        ends = interval(values[known], kept, None if weights is None else weights[known])
        if ends is not None:
            intervals[name] = list(ends)

    for name in score_columns(frame):
        values = frame[name].dropna()
        summary[name] = float(values.mean())
        summary[f"{name}_sd"] = float(values.std(ddof=0))
        keep(name, frame[name])
    counts = pixel_counts(frame)
    pooled, batches = pooled_scores(counts), pooled_scores(counts, BENCHMARK_BATCH)
    summary |= {f"{name}_pooled": value for name, value in pooled.items()}
    summary |= {f"{name}_batch_pooled": value for name, value in batches.items()}
    areas = frame["lesion_area"] + frame["predicted_area"]
    keep("iou_pooled", frame["hits"], areas - frame["hits"])
    keep("dice_pooled", 2 * frame["hits"], areas)
    summary["detection"] = detection_summary(frame)
    keep("sensitivity", frame["lesions_hit"], frame["lesions"])
    keep("lesion_precision", frame["lesions_hit"], frame["lesions_hit"] + frame["lesions_false"])
    if UNCERTAINTY in frame and bool(frame[UNCERTAINTY].notna().all()):
        summary["risk"], ends = risk_summary(frame[UNCERTAINTY], frame[MAIN], groups)
        intervals |= ends
    return {**summary, "intervals": intervals}


def detection_summary(frame: DataFrame) -> dict[str, float | int | None]:
    """Lesions counted over all images; shares are None where nothing could be counted."""
    columns = ("lesions", "lesions_hit", "lesions_missed", "lesions_false")
    total, hit, missed, false = (int(frame[name].sum()) for name in columns)
    return {
        "lesions": total,
        "hit": hit,
        "missed": missed,
        "false": false,
        "sensitivity": hit / total if total else None,
        "lesion_precision": hit / (hit + false) if hit + false else None,
        "false_per_image": false / len(frame),
    }


def conditions(frame: DataFrame, scoring: "Scoring", summary: Mapping[str, Any]) -> dict[str, str]:
    """What a reader must know of intervals, boundary scores and batches."""
    images, groups = summary["images"], summary["independent_groups"]
    drawn = f"{images} images" if groups == images else f"{groups} groups of {images} images"
    said = {
        "intervals": f"95 %, bootstrap over {drawn}"
        if groups > 1
        else "none: fewer than two independent images",
        "batch_pooled": f"batches of {BENCHMARK_BATCH} images in order of scores.csv",
    }
    if scoring.surface:
        pixel = "original" if scoring.at == "original" else "the network's"
        said["boundary"] = f"MONAI's edges and distances, in {pixel} pixels; one empty = diagonal"
    if clean := summary.get("without_leaks"):
        ends = between(clean["intervals"].get(MAIN))
        said["no leaks"] = (
            f"{title(MAIN)} {rounded(clean[MAIN])} {ends}".strip()
            + f" over the {clean['images']} of {images} images without a near-duplicate, or "
            "another image of the patient, in training"
        )
    known = int(frame["pixel_size_mm"].notna().sum())
    if known:
        said["mm"] = f"over the {known} of {images} images of known pixel size"
    return said


def stratified(
    frame: DataFrame, leaked: Collection[str] = (), own: Mapping[str, Score] = NO_SCORES
) -> DataFrame:
    """Scores by class, lesion size, BI-RADS, device, and leaks, where more than one is known.

    Args:
        frame: The scores.
        leaked: Names of the images of which a duplicate or a group mate is in training.
        own: Scores from outside the package, by name.

    Returns:
        Columns ``by``, ``value``, ``images``, and ``<score>``, ``<score>_sd``, ``<score>_low``,
        ``<score>_high`` of each score that is shown in tables; the first row is all images.
    """
    strata: dict[str, Series] = {
        "class": frame["class"],
        "lesion size": lesion_sizes(frame),
        "BI-RADS": frame["birads"],
        "device": frame["device"],
        LEAKED: frame["id"].isin(set(leaked)).map({True: "yes", False: "no"}),
    }
    scores = shown_in(("tables", "first"), frame.columns, own)
    rows = [stratum_row("all", "all", frame, scores)]
    for by, values in strata.items():
        known = sorted({*values} - {""})
        if by == "lesion size":
            known.sort(key=lambda value: SIZES.index(value.split()[0]))
        if len(known) > 1:
            rows += [stratum_row(by, value, frame[values == value], scores) for value in known]
    return DataFrame(rows)


def clean_scores(strata: DataFrame) -> dict[str, Any] | None:
    """The scores of the images that are not leaked; None where all are alike."""
    rows = strata[(strata["by"] == LEAKED) & (strata["value"] == "no")].to_dict("records")
    if not rows:
        return None
    names = [str(name) for name in strata if f"{name}_low" in strata]
    ends = {name: [rows[0][f"{name}_low"], rows[0][f"{name}_high"]] for name in names}
    return {
        "images": int(rows[0]["images"]),
        **{key: float(rows[0][key]) for name in names for key in (name, f"{name}_sd")},
        "intervals": {name: pair for name, pair in ends.items() if not pandas.isna(pair[0])},
    }


def stratum_row(by: str, value: str, part: DataFrame, scores: Sequence[str]) -> dict[str, Any]:
    """A row of `stratified`."""
    row: dict[str, Any] = {"by": by, "value": value, "images": len(part)}
    groups = independent_groups(part["id"].tolist(), part["group"].tolist())
    for name in scores:
        low, high = interval(part[name], groups) or (None, None)
        row |= {name: part[name].mean(), f"{name}_sd": part[name].std(ddof=0)}
        row |= {f"{name}_low": low, f"{name}_high": high}
    return row


def lesion_sizes(frame: DataFrame) -> Series:
    """The tercile of each image's lesion area, with its bounds; "" without a lesion.

    In mm² where every lesion's is known, else as a share of the image: scans differ in depth and
    resolution, so pixels do not compare.
    """
    there = frame["lesion_area"] > 0
    in_mm = bool(frame.loc[there, "lesion_area_mm2"].notna().all())
    share = 100 * frame["lesion_area"] / (frame["height"] * frame["width"])
    size = frame["lesion_area_mm2"].astype(float) if in_mm else share
    unit = "mm²" if in_mm else "% of the image"
    labels = Series("", index=frame.index)
    if not there.any():
        return labels
    low, high = np.quantile(size[there], [1 / 3, 2 / 3])
    bounds = (f"≤ {low:.3g}", f"{low:.3g} to {high:.3g}", f"> {high:.3g}")
    names = [f"{name} ({bound} {unit})" for name, bound in zip(SIZES, bounds, strict=True)]
    labels[there & (size <= low)] = names[0]
    labels[there & (size > low) & (size <= high)] = names[1]
    labels[there & (size > high)] = names[2]
    return labels


def extremes(frame: DataFrame, count: int) -> dict[str, list[str]]:
    """Names of the images of worst, median and best `MAIN`, ``count`` of each, worst first."""
    order = frame.sort_values([MAIN, "id"], kind="stable")["id"].tolist()
    count = min(count, len(order))
    middle = (len(order) - count) // 2
    return {
        "worst": order[:count],
        "median": order[middle : middle + count],
        "best": order[len(order) - count :],
    }


def print_evaluation(summary: Mapping[str, Any], frame: DataFrame, strata: DataFrame) -> None:
    """Print the scores with their intervals, the strata, and what the numbers hold for."""
    rows = []
    for name in score_columns(frame):
        quartiles = np.quantile(frame[name].dropna(), [0.25, 0.5, 0.75])
        low, middle, high = (rounded(value, 4) for value in quartiles)
        spread = f"{rounded(summary[name], 4)} ± {rounded(summary[f'{name}_sd'], 4)}"
        ends = between(summary["intervals"].get(name), 4)
        rows.append((name, spread, ends, f"{middle} ({low}, {high})"))
    for name in ("iou_pooled", "iou_batch_pooled", "dice_pooled", "dice_batch_pooled"):
        ends = between(summary["intervals"].get(name), 4)
        rows.append((name, rounded(summary[name], 4), ends, ""))
    columns = ("score", "mean ± sd", "95 % interval", "median (quartiles)")
    say_table(columns, rows, title="evaluation")
    print_strata(strata, read_about(summary.get("own_scores", {})))
    found = summary["detection"]
    calibration = summary["calibration"]
    lesions = (
        f"{found['hit']} of {found['lesions']} found (IoU ≥ 0.5), {found['missed']} missed, "
        f"{found['false']} false"
    )
    calibrated = (
        f"ECE {rounded(calibration['ece'], 4)}, Brier {rounded(calibration['brier'], 4)} "
        f"({calibration['pixels']})"
    )
    said = {"lesions": lesions, "calibration": calibrated}
    if risk := summary.get("risk"):
        said["risk and coverage"] = in_words(risk, summary["intervals"], summary["images"])
    say_conditions({**said, **summary["conditions"]})


def in_words(risk: Mapping[str, Any], ends: Mapping[str, Any], images: int) -> str:
    """What the order by uncertainty is worth, in a line."""
    values = {name: rounded(risk[name]) for name in ("aurc", "excess_aurc") if name in risk}
    text = (
        f"AURC {values['aurc']} {between(ends.get('aurc'))}".strip()
        + f", {values['excess_aurc']} above the ideal order; "
    )
    failed = f"failure (IoU < {FAILED:g}, {risk['failures']} of {images} images)"
    if risk["failure_auroc"] is None:
        return f"{text}AUROC of {failed}: none"
    auroc = f"{rounded(risk['failure_auroc'])} {between(ends.get('failure_auroc'))}".strip()
    return f"{text}AUROC of {failed} {auroc}"


def print_strata(strata: DataFrame, own: Mapping[str, Score]) -> None:
    """Print the main scores of the strata, if there is more than the row of all images."""
    if len(strata) < 2:
        return
    names = shown_in(("first",), strata, own)
    rows = []
    for row in strata.to_dict("records"):
        cells = []
        for name in names:
            low, high = row[f"{name}_low"], row[f"{name}_high"]
            cells.append(f"{rounded(row[name])} {between((low, high))}".strip())
        rows.append((row["by"], row["value"], row["images"], *cells))
    say_table(("by", "value", "images", *names), rows, title="mean [95 % interval]", left=2)
