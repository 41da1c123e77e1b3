"""Evaluation directories, written by evaluate's own functions from made-up predictions."""

import csv
import json
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from shutil import copyfile
from typing import Any

import cv2
import numpy as np
import pandas

from anatosegnet.data.case import Case
from anatosegnet.data.checksum import sha256
from anatosegnet.data.simulator import Phantom, simulate
from anatosegnet.evaluation.evaluate import write_evaluation
from anatosegnet.evaluation.scoring import Scoring, draw, score_case
from anatosegnet.files.rows import write_frame
from anatosegnet.files.writing import write_json
from anatosegnet.run import Run

DIFFERENT = 12  # phantoms simulated; more cases are these, mirrored and cut
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
    """
    rng = np.random.default_rng(seed)
    directory = run / "evaluation" / "phantom"
    for folder in ("thumbnails", "overlays"):
        (directory / folder).mkdir(parents=True)
    given = list(names)
    given += [f"phantom_{index}" for index in range(len(given), count)]
    scoring, scored = Scoring(), []
    for index, name in enumerate(given):
        if drawn is None or index < drawn:
            source, image, truth = make_case(index, 0, different)
            small = float(np.clip(6000 / max(int(truth.sum()), 1), 0.4, 2.0))
            prediction = make_prediction(truth, rng, error * small * rng.lognormal(0, 0.4))
            birads = "345"[index % 3] + ("a" if index % 3 == 1 else "")
            details = {"birads": birads, "device": DEVICES[index % 3]}
            case = Case(
                name, label=source.label, details=details, pixel_size_mm=source.pixel_size_mm
            )
            scored.append(score_case(case, truth, make_probability(prediction), scoring))
            draw(directory, name, image, truth, prediction)
        else:
            first = scored[index % drawn]
            for path in directory.glob(f"*/{first.row['id']}[_.]*"):
                ending = path.name.removeprefix(first.row["id"])
                copyfile(path, path.with_name(name + ending))
            scored.append(first._replace(row={**first.row, "id": name}))
    conditions = {
        "data": f"phantom, {count} images",
        "split": "test part of the run's split (HoldoutSplit)",
        "selection": "epoch chosen on separate validation cases",
        "aggregation": "per image at original size, mean over images",
    }
    about = {
        "run": str(run),
        "split_fingerprint": "5f1c09ab77de",
        "versions": {"python": "3.11.7", "anatosegnet": "0.1.0", "torch": "2.14.1"},
        "git_commit": "0123456789abcdef0123456789abcdef01234567",
        "machine": "x86_64, 2 cores",
    }
    write_evaluation(directory, scored, scoring, conditions, about)
    write_run(run, given, rng)
    return directory


def write_scores(folder: Path, names: list[str], iou: np.ndarray) -> None:
    """An evaluation as far as it is compared: of cases c00, c01, …, with these IoUs."""
    area = np.array([1000 + int(name[1:]) for name in names])
    frame = pandas.DataFrame(
        {"id": names, "class": "benign", "group": "", "birads": "", "device": "",
         "pixel_size_mm": None, "height": 100, "width": 100, "iou": iou,
         "dice": 2 * iou / (1 + iou), "hd95": 50 * (1 - iou), "hits": (iou * area).astype(int),
         "lesion_area": area, "predicted_area": area, "lesion_area_mm2": None}
    )  # fmt: skip
    folder.mkdir(parents=True)
    write_frame(folder / "scores.csv", frame)
    said = {"data": folder.name, "split": "test part", "selection": "best", "aggregation": "a"}
    digest = sha256(folder / "scores.csv")
    write_json(folder / "summary.json", {"conditions": said, "scores_sha256": digest})


def make_probability(prediction: np.ndarray) -> np.ndarray:
    """A map (H, W) float32 whose lesion is the mask, unsure at its border."""
    soft = cv2.GaussianBlur(prediction.astype(np.float32), (0, 0), 4) * 0.98 + 0.01
    return np.where(prediction, np.maximum(soft, 0.51), np.minimum(soft, 0.49)).astype(np.float32)


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
