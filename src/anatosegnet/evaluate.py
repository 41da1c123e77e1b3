"""``python -m anatosegnet.evaluate run=DIR``: scores a row per image, and overlays."""

import csv
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, open_dict

from anatosegnet.config import verb
from anatosegnet.errors import UserError
from anatosegnet.run import Run, environment, write_json

if TYPE_CHECKING:
    from anatosegnet.data.case import Case
    from anatosegnet.data.datamodule import SegmentationDataModule
    from anatosegnet.inference import Predictor


@verb("evaluate")
def main(config: DictConfig) -> None:
    """Evaluate a run on its test cases, or on another dataset."""
    chosen = HydraConfig.get().runtime.choices.get("data")
    evaluate(Run.open(config.run), config, own_data=chosen in (None, "null"))


def evaluate(run: Run, config: DictConfig, own_data: bool = True) -> dict[str, Any]:
    """Score the best epoch of a run and write ``evaluation/<dataset>/``.

    Args:
        run: The run.
        config: The composed config of the verb: data, at, batch_size, device, overwrite.
        own_data: Evaluate on the run's own data; else on ``config.data``.

    Returns:
        What was written to ``summary.json``.

    Raises:
        UserError: The run or the data is at fault, or results would be overwritten.
    """
    from anatosegnet.inference import Predictor
    from anatosegnet.report import print_scores

    if config.at not in ("original", "model"):
        raise UserError(f"at={config.at} is neither original nor model")
    data, names, split, chosen = test_cases(run, config, own_data)
    suffix = "" if config.at == "original" else "_at_model_size"
    output = run.directory / "evaluation" / f"{data.name}{suffix}"
    if output.exists() and not config.overwrite:
        raise UserError(f"{output} exists; overwrite=true puts the new results in its place")
    predictor = Predictor.from_run(run, config.device)
    size = "original size" if config.at == "original" else "{}×{} px".format(*predictor.image_size)

    temporary = output.with_name(f".{output.name}.{os.getpid()}.tmp")
    try:
        (temporary / "overlays").mkdir(parents=True)
        rows = score_cases(data, names, predictor, config, temporary / "overlays")
        scores = write_scores(temporary / "scores.csv", rows)
        conditions = {
            "data": f"{data.name}, {len(rows)} images",
            "split": split,
            "selection": chosen,
            "aggregation": f"per image at {size}, mean over images",
        }
        summary = {
            "run": str(run.directory.resolve()),
            "images": len(rows),
            **{name: float(values.mean()) for name, values in scores.items()},
            **{f"{name}_sd": float(values.std()) for name, values in scores.items()},
            "conditions": conditions,
            **environment(),
        }
        write_json(temporary / "summary.json", summary)
        if output.exists():
            shutil.rmtree(output)
        temporary.replace(output)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    print_scores("evaluation", scores, conditions)
    print(f"written {output}")
    return summary


def test_cases(
    run: Run, config: DictConfig, own_data: bool
) -> tuple["SegmentationDataModule", tuple[str, ...], str, str]:
    """The data module, the names to score, and the split and selection to state.

    On the run's own dataset these are its recorded test cases. On other images (of another
    dataset, or of another root or seed of the same) all cases are, and it is said whether the run
    has seen any of them.

    Raises:
        UserError: The run's split was changed since training, or its cases are not all there.
    """
    from anatosegnet.build import build_data, selection
    from anatosegnet.leakage import (
        changed_images,
        own_split,
        recorded_groups,
        seen_in_training,
        unchanged_split,
    )

    settings = run.config
    dataset = settings.data.name
    move_data(settings, config.paths.data_dir)
    own = data = build_data(settings, run.split_path)
    if not own_data:
        external = config.data.copy()
        for key in ("image_size", "in_channels", "normalization", "seed"):
            external[key] = settings.data[key]  # the network's own; never the dataset's
        other = settings.copy()
        with open_dict(other):
            other.data, other.paths = external, config.paths
        data = build_data(other, run.split_path)
    cases = data.prepare_cases()
    if data.name == dataset:
        recorded = unchanged_split(run).test
        changed = changed_images(run, data, recorded)
        there = [name for name in recorded if name in cases]
        if own_data or 2 * len(changed) < len(there) == len(recorded):
            split, known = own_split(run, cases.values())
            recorded_groups(run, data)
            kind = settings.split._target_.split(".")[-1]
            description = f"test part of the run's split ({kind}); {known}"
            if changed:
                description += f"; {len(changed)} images are not those of training time"
            return data, split.test, description, selection(settings, split)
    chosen = f"epoch chosen on validation cases of {dataset}"
    seen = seen_in_training(run, own, data, cases)
    description = f"none: all cases of {data.name}, trained on {dataset}; {seen}"
    return data, tuple(cases), description, chosen


def move_data(settings: DictConfig, data_dir: str) -> None:
    """Follow the data to where it lies now, if it was moved since the run."""
    root, before = settings.data.get("root"), settings.paths.data_dir
    if root and not Path(root).is_dir() and str(root).startswith(str(before)):
        settings.data.root = str(Path(data_dir) / os.path.relpath(root, before))


def score_cases(
    data: "SegmentationDataModule",
    names: tuple[str, ...],
    predictor: "Predictor",
    config: DictConfig,
    overlays: Path,
) -> list[dict[str, Any]]:
    """Score the cases in batches and write their overlays.

    Returns:
        A row per case: id, class, pixels of the truth and of the prediction, and pixel counts.

    Raises:
        UserError: Lists every case that cannot be read.
    """
    from anatosegnet.data.transforms import resize_mask
    from anatosegnet.inference import mask_at
    from anatosegnet.overlay import encode_png, error_overlay

    rows = []
    for batch in readable_batches(data, names, config.batch_size):
        probabilities = predictor.probabilities([image for _, image, _ in batch])
        for (case, image, mask), probability in zip(batch, probabilities, strict=True):
            truth = mask > 0
            prediction = mask_at(probability, (image.shape[0], image.shape[1]))
            (overlays / f"{case.name}.png").write_bytes(
                encode_png(error_overlay(image, truth, prediction))
            )
            if config.at == "model":
                truth = resize_mask(mask, predictor.image_size) > 0
                prediction = probability > 0.5
            rows.append(
                {
                    "id": case.name,
                    "class": case.label,
                    "height": truth.shape[0],
                    "width": truth.shape[1],
                    "hits": int((truth & prediction).sum()),
                    "false_alarms": int((~truth & prediction).sum()),
                    "misses": int((truth & ~prediction).sum()),
                    "pixel_size_mm": case.pixel_size_mm if config.at == "original" else None,
                }
            )
    return rows


def readable_batches(
    data: "SegmentationDataModule", names: tuple[str, ...], size: int
) -> Iterator[list[tuple["Case", np.ndarray, np.ndarray]]]:
    """Batches of (case, image, mask); at the end a UserError if any case was unreadable."""
    from concurrent.futures import ThreadPoolExecutor

    from anatosegnet.data.case import CaseError

    problems: list[str] = []

    def read(name: str) -> tuple["Case", np.ndarray, np.ndarray] | None:
        try:
            return data.cases[name], *data.read(data.cases[name])
        except CaseError as error:
            problems.append(str(error))
            return None

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for start in range(0, len(names), size):
            cases = [item for item in pool.map(read, names[start : start + size]) if item]
            if cases and not problems:
                yield cases
    if problems:
        lines = "".join(f"\n  - {problem}" for problem in sorted(problems))
        raise UserError(f"data {data.name}: {len(problems)} cases cannot be scored:{lines}")


def write_scores(path: Path, rows: list[dict[str, Any]]) -> dict[str, np.ndarray]:
    """Write ``scores.csv`` and return the per-image scores, each (N,).

    Columns: id, class, iou, dice, precision, recall, lesion_area and predicted_area (pixels of
    the scored size), lesion_area_mm2 (empty where the pixel size is unknown), height, width.
    """
    from anatosegnet.metrics import overlap_scores

    counts = np.array([[row["hits"], row["false_alarms"], row["misses"]] for row in rows])
    scores = overlap_scores(counts)
    columns = ["id", "class", *scores, "lesion_area", "predicted_area", "lesion_area_mm2"]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([*columns, "height", "width"])
        for index, row in enumerate(rows):
            area = row["hits"] + row["misses"]
            pixel = row["pixel_size_mm"]
            writer.writerow(
                [
                    row["id"],
                    row["class"],
                    *(f"{values[index]:.6f}" for values in scores.values()),
                    area,
                    row["hits"] + row["false_alarms"],
                    f"{area * pixel**2:.2f}" if pixel else "",
                    row["height"],
                    row["width"],
                ]
            )
    return scores


if __name__ == "__main__":
    main()
