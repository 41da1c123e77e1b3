"""Draw what an augmentation does: a row per case, the original and then draws, masks outlined.

    python scripts/show_augmentations.py                                # strong, on phantoms
    python scripts/show_augmentations.py data=busi augmentation=light   # any hydra overrides
    python scripts/show_augmentations.py --each                         # a column per transform

Draw n is what training sees in epoch n.
"""

import argparse
from copy import deepcopy
from pathlib import Path

import albumentations as A
import cv2
import hydra
import numpy as np
from omegaconf import DictConfig

from anatosegnet.cli import errors_in_one_line
from anatosegnet.config.composition import config_directory
from anatosegnet.config.objects import instantiate
from anatosegnet.data.build import build_found_data, build_settings
from anatosegnet.data.dataset import FreshCases, SegmentationDataset
from anatosegnet.data.records import Resized
from anatosegnet.errors import UserError
from anatosegnet.report.grid import Cell, grid, page
from anatosegnet.report.overlay import encode_png

OUTLINE = (255, 196, 0)  # RGB


def main() -> None:
    """Compose, draw, and write the picture."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cases", type=int, default=4, help="rows, spread over the dataset")
    parser.add_argument("--draws", type=int, default=6, help="columns beside the original")
    parser.add_argument("--each", action="store_true", help="every transform of the list alone")
    parser.add_argument("--output", type=Path, default=Path("augmentations.png"))
    options, overrides = parser.parse_known_args()
    with errors_in_one_line():
        with hydra.initialize_config_dir(str(config_directory()), version_base="1.3"):
            config = hydra.compose("train", overrides)
        titles, rows = draw(config, options.cases, options.draws, options.each)
    box = rows[0][0].picture.shape[:2]  # a pixel of a cell is a pixel of the file
    sheet = page(f"Augmentation of {config.data.name}", [grid(rows, box, column_names=titles)])
    options.output.write_bytes(encode_png(sheet))
    print(f"written {options.output}")


def draw(
    config: DictConfig, cases: int, draws: int, each: bool
) -> tuple[list[str], list[list[Cell]]]:
    """Title of each column, and the cells of each row."""
    if not config.augmentation:
        raise UserError("augmentation=none has nothing to show; try augmentation=strong")
    augmentation, settings = instantiate(config, "augmentation"), build_settings(config)
    data = build_found_data(config)
    known = list(data.cases)
    picked = np.linspace(0, len(known) - 1, min(cases, len(known))).round().astype(int)
    names = [known[index] for index in picked]
    fresh = FreshCases(data.cases, data.source.read, settings.size)
    resized = {name: fresh[name] for name in names}
    if each:
        columns = {name_of(step): certain(step) for step in augmentation.transforms}
        drawn = {
            name: [item(resized, names, one, settings.seed, 0, row) for row in range(len(names))]
            for name, one in columns.items()
        }
    else:
        drawn = {
            f"draw {epoch + 1}": [
                item(resized, names, augmentation, settings.seed, epoch, row)
                for row in range(len(names))
            ]
            for epoch in range(draws)
        }
    original = [item(resized, names, None, 0, 0, row) for row in range(len(names))]
    table = {"original": original, **drawn}
    return list(table), [
        [Cell(column[row]) for column in table.values()] for row in range(len(names))
    ]


def item(
    resized: dict[str, Resized],
    names: list[str],
    augmentation: A.Compose | None,
    seed: int,
    epoch: int,
    row: int,
) -> np.ndarray:
    """One cell: what the dataset gives to training, its mask outlined."""
    dataset = SegmentationDataset(names, resized, augmentation=augmentation, seed=seed)
    sample = dataset[epoch, row]
    image = sample["image"].expand(3, -1, -1).permute(1, 2, 0).numpy().copy()
    contours, _ = cv2.findContours(sample["mask"].numpy(), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    return cv2.drawContours(image, contours, -1, OUTLINE, max(1, image.shape[0] // 200))


def name_of(step: A.BasicTransform) -> str:
    """``DepthGain`` as "depth gain"."""
    name = type(step).__name__
    return "".join(f" {c.lower()}" if c.isupper() else c for c in name).strip()


def certain(step: A.BasicTransform) -> A.Compose:
    """A pipeline of one transform that always happens."""
    step = deepcopy(step)
    step.p = 1.0
    return A.Compose([step])


if __name__ == "__main__":
    main()
