"""Evaluation directories as evaluate writes them, of phantoms and made-up predictions."""

import csv
import json
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from anatosegnet.data.simulator import Phantom, simulate
from anatosegnet.metrics.overlap import overlap_scores
from anatosegnet.report.overlay import OVERLAY_JPEG, encode_jpeg, error_overlay, thumbnails
from anatosegnet.run import Run

DIFFERENT = 12  # phantoms simulated; more cases are these, mirrored and cut
SIZES = ("1 small (≤ {0:.3g} mm²)", "2 medium ({0:.3g} to {1:.3g} mm²)", "3 large (> {1:.3g} mm²)")
SCORES = ("iou", "dice", "precision", "recall", "specificity", "hd95", "hd95_mm", "brier")
DEVICES = ("Samsung RS85", "Toshiba Aplio 500", "GE Logiq E9")

phantom = cache(simulate)


def make_case(index: int, seed: int, different: int) -> tuple[Phantom, np.ndarray, np.ndarray]:
    """A phantom, its image (H, W, 3) uint8 and mask (H, W) bool; beyond `different`, variants."""
    source = phantom(seed, index % different)
    image, truth = source.image, source.mask > 0
    variant = index // different
    if variant % 2:
        image, truth = image[:, ::-1], truth[:, ::-1]
    if variant:
        top, left = (7 * variant) % 40, (11 * variant) % 40
        image, truth = image[top:, left:], truth[top:, left:]
    return source, cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_GRAY2RGB), truth.copy()


def make_prediction(truth: np.ndarray, rng: np.random.Generator, error: float) -> np.ndarray:
    """A mask (H, W) bool like a network's: a shifted, uneven border; some missed, some added."""
    distance = cv2.distanceTransform(truth.astype(np.uint8), cv2.DIST_L2, 5)
    distance -= cv2.distanceTransform((~truth).astype(np.uint8), cv2.DIST_L2, 5)
    coarse = rng.standard_normal((5, 6)).astype(np.float32)
    uneven = cv2.resize(coarse, truth.shape[::-1], interpolation=cv2.INTER_CUBIC)
    depth = max(float(distance.max()), 1.0)
    prediction = distance > depth * error * (uneven + rng.normal(0.15, 0.5))
    if rng.random() < 0.12 * error:
        prediction[:] = False
    if rng.random() < 0.5 * error:
        centre = int(rng.integers(60, truth.shape[1] - 60)), int(rng.integers(60, 200))
        axes = int(rng.integers(15, 45)), int(rng.integers(8, 25))
        extra = np.zeros(truth.shape, np.uint8)
        prediction |= cv2.ellipse(extra, centre, axes, 0, 0, 360, 1, -1) > 0
    return prediction


def make_evaluation(
    run: Path,
    count: int = 24,
    *,
    seed: int = 0,
    error: float = 0.35,
    different: int = DIFFERENT,
    names: Iterable[str] = (),
    drawn: int | None = None,
    overlays: bool = False,
) -> Path:
    """Write a run directory with ``evaluation/phantom/`` in it; returns the latter.

    Args:
        run: The run directory.
        count: Number of cases.
        seed: Of the predictions; cases are the same for all seeds.
        error: How bad the predictions are, about 0.1 to 1.
        different: Number of phantoms simulated.
        names: Names of the first cases, in place of ``phantom_0``.
        drawn: Number of cases drawn, which takes time; more cases are copies of these.
        overlays: Also write ``overlays/``.
    """
    rng = np.random.default_rng(seed)
    directory = run / "evaluation" / "phantom"
    for folder in ("thumbnails", "overlays"):
        (directory / folder).mkdir(parents=True)
    given = list(names)
    given += [f"phantom_{index}" for index in range(len(given), count)]
    rows: list[dict[str, Any]] = []
    kept: list[dict[str, bytes]] = []
    for index, name in enumerate(given):
        if drawn is None or index < drawn:
            source, image, truth = make_case(index, 0, different)
            small = float(np.clip(6000 / max(int(truth.sum()), 1), 0.4, 2.0))
            prediction = make_prediction(truth, rng, error * small * rng.lognormal(0, 0.4))
            kept.append(thumbnails(image, truth, prediction))
            rows.append(score(name, source, truth, prediction, index))
            if overlays:
                picture = encode_jpeg(error_overlay(image, truth, prediction), OVERLAY_JPEG)
                (directory / "overlays" / f"{name}.jpg").write_bytes(picture)
        else:
            kept.append(kept[index % drawn])
            rows.append({**rows[index % drawn], "id": name})
        for kind, content in kept[index].items():
            (directory / "thumbnails" / f"{name}_{kind}.jpg").write_bytes(content)
    write_csv(directory / "scores.csv", rows)
    write_csv(directory / "tables.csv", stratify(rows))
    conditions = {
        "data": f"phantom, {count} images",
        "split": "test part of the run's split (HoldoutSplit)",
        "selection": "epoch chosen on separate validation cases",
        "aggregation": "per image at original size, mean over images",
        "intervals": f"95 %, bootstrap over {count} images",
    }
    means = {score: mean(rows, score) for score in SCORES}
    order = [row["id"] for row in sorted(rows, key=lambda row: (row["iou"], row["id"]))]
    shown, middle = min(5, count), (count - min(5, count)) // 2
    hit = sum(row["lesions_hit"] for row in rows)
    summary: dict[str, Any] = {
        "run": str(run),
        "images": count,
        **means,
        "iou_pooled": means["iou"] + 0.031,
        "iou_batch_pooled": means["iou"] + 0.012,
        **{f"{name}_sd": float(np.std([float(row[name]) for row in rows])) for name in means},
        "detection": {
            "lesions": count,
            "hit": hit,
            "missed": count - hit,
            "false": 7,
            "sensitivity": hit / count,
            "false_per_image": 7 / count,
        },
        "intervals": {
            **{name: interval(rows, name) for name in means},
            "sensitivity": [hit / count - 0.05, min(1.0, hit / count + 0.04)],
            "specificity": None,
        },
        "extremes": {
            "worst": order[:shown],
            "median": order[middle : middle + shown],
            "best": order[count - shown :],
        },
        "calibration": calibration(),
        "conditions": conditions,
        "split_fingerprint": "5f1c09ab77de",
        "versions": {"python": "3.11.7", "anatosegnet": "0.1.0", "torch": "2.14.1"},
        "git_commit": "0123456789abcdef0123456789abcdef01234567",
        "machine": "x86_64, 2 cores",
    }
    (directory / "summary.json").write_text(json.dumps(summary))
    write_run(run, [row["id"] for row in rows], rng)
    return directory


def score(
    name: str, source: Phantom, truth: np.ndarray, prediction: np.ndarray, index: int
) -> dict[str, Any]:
    """A row of scores.csv."""
    hits, alarms, misses = (
        int(part.sum()) for part in (truth & prediction, ~truth & prediction, truth & ~prediction)
    )
    scores = overlap_scores(np.array([[hits, alarms, misses]]))
    mm = source.pixel_size_mm
    hd95 = 12 * (1 - scores["iou"][0]) * np.sqrt(hits + misses) / 10
    found = int(scores["iou"][0] >= 0.5)
    return {
        "id": name,
        "class": source.label,
        "group": "",
        "birads": "345"[index % 3] + ("a" if index % 3 == 1 else ""),
        "device": DEVICES[index % 3],
        "pixel_size_mm": mm,
        "height": truth.shape[0],
        "width": truth.shape[1],
        **{key: f"{value[0]:.6f}" for key, value in scores.items()},
        "specificity": f"{1 - alarms / (~truth).sum():.6f}",
        "hd95": f"{hd95:.6f}",
        "hd95_mm": f"{hd95 * mm:.6f}",
        "brier": f"{(alarms + misses) / truth.size:.6f}",
        "lesions": 1,
        "lesions_hit": found,
        "lesions_missed": 1 - found,
        "lesions_false": int(hits + alarms > 0) - found,
        "hits": hits,
        "lesion_area": hits + misses,
        "predicted_area": hits + alarms,
        "area_error": alarms - misses,
        "lesion_area_mm2": round((hits + misses) * mm**2, 2),
    }


def stratify(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of tables.csv."""
    bounds = np.quantile([row["lesion_area_mm2"] for row in rows], [1 / 3, 2 / 3])
    strata: dict[str, list[str]] = {
        "all": ["all"] * len(rows),
        "class": [row["class"] for row in rows],
        "lesion size": [
            SIZES[int(np.searchsorted(bounds, row["lesion_area_mm2"]))].format(*bounds)
            for row in rows
        ],
        "BI-RADS": [row["birads"] for row in rows],
        "device": [row["device"] for row in rows],
    }
    result = []
    for by, values in strata.items():
        for value in sorted(set(values)):
            members = [row for row, own in zip(rows, values, strict=True) if own == value]
            line: dict[str, Any] = {"by": by, "value": value, "images": len(members)}
            for name in ("iou", "dice", "recall", "hd95"):
                low, high = interval(members, name)
                line |= {name: mean(members, name), f"{name}_sd": 0.1}
                line |= {f"{name}_low": low, f"{name}_high": high}
            result.append(line)
    return result


def mean(rows: list[dict[str, Any]], name: str) -> float:
    """Mean of a column."""
    return float(np.mean([float(row[name]) for row in rows]))


def interval(rows: list[dict[str, Any]], name: str) -> list[float]:
    """95 % percentile bootstrap."""
    values = np.array([float(row[name]) for row in rows])
    draws = np.random.default_rng(0).choice(values, (400, len(values))).mean(axis=1)
    return [float(bound) for bound in np.quantile(draws, (0.025, 0.975))]


def calibration() -> dict[str, Any]:
    """A somewhat overconfident network."""
    edges = np.linspace(0, 1, 11)
    confidence = (edges[1:] + edges[:-1]) / 2
    frequency = 0.5 + (confidence - 0.5) * 0.82
    share = np.array([0.862, 0.012, 0.006, 0.005, 0.005, 0.005, 0.006, 0.008, 0.014, 0.077])
    bins = [
        {"confidence": float(c), "frequency": float(f), "share": float(s)}
        for c, f, s in zip(confidence, frequency, share, strict=True)
    ]
    return {"ece": 0.0214, "brier": 0.0312, "bins": bins}


def write_run(directory: Path, test: list[str], rng: np.random.Generator) -> None:
    """The files of the run: config, summary, split, learning curves."""
    run = Run(directory)
    run.config_path.write_text(
        "model:\n  _target_: anatosegnet.models.AnatoSegNet\n  encoder: resnet50\n"
        "data:\n  name: phantom\n  image_size: 256\nsplit:\n"
        "  _target_: anatosegnet.data.HoldoutSplit\nname: demo # <b>&amp;\nseed: 0\n"
    )
    run.summary_path.write_text(
        json.dumps(
            {
                "command": "python -m anatosegnet.train experiment=demo name='<demo>'",
                "best_epoch": 34,
                "epochs": 40,
                "minutes": 12.5,
                "split_fingerprint": "5f1c09ab77de",
            }
        )
    )
    train = [f"train_{number}" for number in range(3 * len(test))]
    parts = [(name, "train") for name in train] + [(name, "test") for name in test]
    write_csv(run.split_path, [{"id": n, "class": "benign", "part": part} for n, part in parts])
    curves: list[dict[str, Any]] = []
    for epoch in range(40):
        fall, noise = np.exp(-epoch / 9), rng.normal(0, 0.012, 4)
        blank = dict.fromkeys(
            ("train/loss", "train/iou", "train/lr", "val/loss", "val/iou", "val/dice"), ""
        )
        iou = 0.74 - 0.6 * fall + noise[1]
        val = {"val/loss": 0.34 + 1.1 * fall + noise[0], "val/iou": iou, "val/dice": iou + 0.09}
        fit = {"train/loss": 0.2 + 1.2 * fall + noise[2], "train/iou": 0.82 - 0.7 * fall}
        step = {"epoch": epoch, "step": 13 * (epoch + 1) - 1}
        curves += [{**step, **blank, **val}, {**step, **blank, **fit, "train/lr": 3e-4}]
    write_csv(run.metrics_path, curves)


def write_csv(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write rows with the keys of the first as columns."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
