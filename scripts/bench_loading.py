"""How fast batches come, and how much memory that takes, against a loader that decodes with PIL.

    python scripts/bench_loading.py                  # 300 phantoms, written as RGB PNG files
    python scripts/bench_loading.py data=busi        # any dataset of files; hydra overrides
    python scripts/bench_loading.py --only memory

The other loader is the usual PyTorch dataset: it opens, resizes, augments and normalises every
image in every epoch with PIL, in as many workers. Both are warm; they take turns. Its ``light`` and
``strong`` are the nearest torchvision offers, and do less: no deformation, depth gain or shadow.
"""

import argparse
import csv
import itertools
import json
import multiprocessing
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import hydra
import numpy as np
import torch
from PIL import Image, ImageEnhance
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as F

from anatosegnet.cli import errors_in_one_line
from anatosegnet.config.composition import config_directory
from anatosegnet.config.objects import instantiate
from anatosegnet.data.build import build_settings, build_source
from anatosegnet.data.case import Case
from anatosegnet.data.datamodule import SegmentationDataModule
from anatosegnet.data.normalization import IMAGENET_MEAN, IMAGENET_STD
from anatosegnet.data.prepared import DataSettings, prepare_data
from anatosegnet.data.simulator import simulate
from anatosegnet.data.source import Found, Source
from anatosegnet.data.split import HoldoutSplit

AUGMENTATIONS = ("none", "released", "light", "strong")
OURS_PER_TURN = 5  # our epochs are short, so several are timed together
HEADER = """\
augmentation   images per second          CPU ms per image
                   PIL    ours   ratio          PIL    ours   ratio"""


class PILDataset(Dataset[dict[str, Any]]):
    """Opens, resizes, augments and normalises a case whenever it is asked for."""

    def __init__(self, cases: list[Case], size: tuple[int, int], augmentation: str) -> None:
        self.cases, self.size, self.augmentation = cases, size, augmentation

    def __len__(self) -> int:
        return len(self.cases)

    def __getitem__(self, index: int) -> dict[str, Any]:
        case = self.cases[index]
        assert case.image is not None
        image = Image.open(case.image).convert("RGB")
        merged = np.zeros((image.height, image.width), bool)
        for path in case.masks:
            merged |= np.asarray(Image.open(path).convert("L")) > 0
        mask = Image.fromarray(merged.astype(np.uint8))
        size = self.size[::-1]
        image = image.resize(size, Image.Resampling.BILINEAR)
        mask = mask.resize(size, Image.Resampling.NEAREST)
        if self.augmentation == "released":
            image, mask = released(image, mask)
        elif self.augmentation != "none":
            image, mask = flipped_and_moved(image, mask, self.augmentation == "strong")
        tensor = F.normalize(F.to_tensor(image), IMAGENET_MEAN, IMAGENET_STD)
        return {"image": tensor, "mask": torch.from_numpy(np.array(mask)).long(), "index": index}


def released(image: Image.Image, mask: Image.Image) -> tuple[Image.Image, Image.Image]:
    """One of: both flips, vertical, horizontal, rotation, nothing."""
    both, up = random.randrange(5), Image.Transpose.FLIP_TOP_BOTTOM
    side = Image.Transpose.FLIP_LEFT_RIGHT
    for flip in {0: (side, up), 1: (up,), 2: (side,)}.get(both, ()):
        image, mask = image.transpose(flip), mask.transpose(flip)
    if both == 3:
        angle = random.choice([k for k in range(-5, 6) if k])
        image = image.rotate(angle, Image.Resampling.BILINEAR)
        mask = mask.rotate(angle, Image.Resampling.NEAREST)
    return image, mask


def flipped_and_moved(
    image: Image.Image, mask: Image.Image, strong: bool
) -> tuple[Image.Image, Image.Image]:
    """Flip, affine, brightness, contrast; strong adds gamma, noise and blur."""
    if random.random() < 0.5:
        image, mask = F.hflip(image), F.hflip(mask)
    if random.random() < (0.7 if strong else 0.5):
        reach = 2 if strong else 1
        edge = 0.05 * reach * image.width
        move = {
            "angle": random.uniform(-5 * reach, 5 * reach),
            "translate": [round(random.uniform(-edge, edge)) for _ in range(2)],
            "scale": random.uniform(1 - 0.1 * reach, 1 + 0.1 * reach),
            "shear": [random.uniform(-5, 5) if strong else 0.0],
        }
        image = F.affine(image, **move, interpolation=InterpolationMode.BILINEAR)
        mask = F.affine(mask, **move, interpolation=InterpolationMode.NEAREST)
    if random.random() < (0.7 if strong else 0.5):
        image = ImageEnhance.Brightness(image).enhance(random.uniform(0.8, 1.2))
        image = ImageEnhance.Contrast(image).enhance(random.uniform(0.8, 1.25))
        if strong:
            image = F.adjust_gamma(image, random.uniform(0.75, 1.35))
    if strong and random.random() < 0.4:
        pixels = np.asarray(image, np.float32)
        noise = np.random.normal(1.0, 0.1, (*pixels.shape[:2], 1)).astype(np.float32)
        image = Image.fromarray(np.clip(pixels * noise, 0, 255).astype(np.uint8))
    if strong and random.random() < 0.1:
        image = F.gaussian_blur(image, [5, 5])
    return image, mask


class Synthetic(Source):
    """Noise with a square, made at the final size: what matters is how many there are."""

    simulated = True

    def __init__(self, count: int, size: tuple[int, int] = (256, 256)) -> None:
        self.count, self.size = count, size

    def find_cases(self) -> Found:
        """One case per index."""
        return Found([Case(f"case_{index}") for index in range(self.count)])

    def content_of(self, case: Case) -> str:
        """The name decides."""
        return case.name

    def read(self, case: Case) -> tuple[np.ndarray, np.ndarray]:
        """Noise and a square."""
        generator = np.random.default_rng(int(case.name.removeprefix("case_")))
        noise = np.frombuffer(generator.bytes(int(np.prod(self.size))), np.uint8)
        mask = np.zeros(self.size, np.uint8)
        mask[: self.size[0] // 2, : self.size[1] // 2] = 1
        return np.repeat(noise.reshape(*self.size, 1), 3, axis=2), mask


def main() -> None:
    """Measure, print, and write a csv."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cases", type=int, default=300, help="phantoms, where data is not given")
    parser.add_argument("--workers", type=int, default=2, help="of each loader")
    parser.add_argument("--repeats", type=int, default=3, help="turns of each loader")
    parser.add_argument("--counts", type=int, nargs="+", default=[1000, 20000], help="for memory")
    parser.add_argument("--only", choices=["speed", "memory"])
    parser.add_argument("--output", type=Path, default=Path("bench_loading.csv"))
    options, overrides = parser.parse_known_args()
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder, errors_in_one_line():
        if options.only != "memory":
            if not any(override.startswith("data=") for override in overrides):
                print(f"writing {options.cases} phantoms", file=sys.stderr)
                write_phantoms(Path(folder) / "phantoms", options.cases)
                overrides += ["data=folder", f"data.root={folder}/phantoms"]
            overrides += [f"data.num_workers={options.workers}"]
            if not any(override.startswith("data.cache_dir=") for override in overrides):
                overrides += [f"data.cache_dir={folder}/cache"]
            rows += compare_speed(overrides, options.repeats)
        if options.only != "speed":
            rows += compare_memory(options.counts, options.workers, f"{folder}/cache")
    columns = list(dict.fromkeys(key for row in rows for key in row))
    with options.output.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    print(f"written {options.output}")


def compose(overrides: list[str], augmentation: str) -> SegmentationDataModule:
    """The data module of a command line, all cases but a few in training."""
    with hydra.initialize_config_dir(str(config_directory()), version_base="1.3"):
        config = hydra.compose("train", [*overrides, f"augmentation={augmentation}"])
    pipeline = instantiate(config, "augmentation") if config.augmentation else None
    split = HoldoutSplit((0.98, 0.01, 0.01))
    data = prepare_data(build_source(config), build_settings(config), split)
    return SegmentationDataModule(data, pipeline)


def compare_speed(overrides: list[str], repeats: int) -> list[dict[str, Any]]:
    """Images per second of both loaders for each augmentation, taking turns."""
    rows = []
    for number, augmentation in enumerate(AUGMENTATIONS):
        started = time.perf_counter()
        loading = compose(overrides, augmentation)
        seconds = time.perf_counter() - started
        data, settings = loading.prepared, loading.prepared.settings
        cases = [data.cases[name] for name in data.split.train]
        if number == 0:
            print(
                f"{data.name}: {len(cases)} images to {settings.size[0]}×{settings.size[1]} px, "
                f"batch {settings.batch_size}, {settings.num_workers} workers, "
                f"{os.cpu_count()} cores"
            )
            print(f"start: {seconds:.2f} s to read, check and cache the cases", end="")
        elif number == 1:
            print(f"; {seconds:.2f} s from the cache\n\n{HEADER}")
        theirs_loader = DataLoader(
            PILDataset(cases, settings.size, augmentation),
            batch_size=settings.batch_size,
            shuffle=True,
            num_workers=settings.num_workers,
            persistent_workers=settings.num_workers > 0,
            worker_init_fn=one_thread,
        )
        ours_loader = loading.train_dataloader()
        epochs(theirs_loader), epochs(ours_loader)  # warm: workers started, files in memory
        theirs, ours = [], []  # (seconds, CPU seconds) of an epoch
        for _ in range(repeats):
            theirs.append(epochs(theirs_loader))
            ours.append(epochs(ours_loader, loading.on_after_batch_transfer, OURS_PER_TURN))
        row = {
            "measure": "speed", "data": data.name, "augmentation": augmentation,
            "images": len(cases), "workers": settings.num_workers, "repeats": repeats,
        }  # fmt: skip
        for part, unit in enumerate(("images_per_s", "cpu_ms")):
            for name, turns in (("pil", theirs), ("ours", ours)):
                least = min(turn[part] for turn in turns)
                value = len(cases) / least if part == 0 else 1000 * least / len(cases)
                row[f"{name}_{unit}"] = round(value, 3)
            ratios = [one[part] / two[part] for one, two in zip(theirs, ours, strict=True)]
            row[f"{unit}_ratio"] = round(statistics.median(ratios), 1)
            row[f"{unit}_ratio_least"] = round(min(ratios), 1)
        rows.append(row)
        for line in rows if number == 1 else rows[-1:] if number else ():
            print(
                f"{line['augmentation']:14}{line['pil_images_per_s']:8.0f}"
                f"{line['ours_images_per_s']:8.0f}{line['images_per_s_ratio']:7}×"
                f"{line['pil_cpu_ms']:13.2f}{line['ours_cpu_ms']:8.2f}{line['cpu_ms_ratio']:7}×"
            )
    return rows


def epochs(
    loader: DataLoader[Any], finish: Callable[[Any], Any] = lambda batch: batch, count: int = 1
) -> tuple[float, float]:
    """Seconds, and seconds of all processors, that an epoch takes to its last finished batch."""
    started, worked = time.perf_counter(), cpu_seconds()
    for _ in range(count):
        for batch in loader:
            finish(batch)
    return (time.perf_counter() - started) / count, (cpu_seconds() - worked) / count


def cpu_seconds() -> float:
    """What this process and its workers have computed so far."""
    total = time.process_time()
    for child in multiprocessing.active_children():
        fields = Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()
        total += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return total


def compare_memory(counts: list[int], workers: int, cache: str) -> list[dict[str, Any]]:
    """Memory of the training process and its workers, by number of cases; batches as many.

    What is measured is loading, up to the uint8 batch. The float batches made of it come from
    PyTorch's allocator, whose hoard depends on sizes and history, not on the number of cases.
    """
    print("\n   cases   their pixels   memory of all processes at most (resident sizes added up)")
    rows = []
    for count in counts:
        context = multiprocessing.get_context("spawn")  # a process of its own, with nothing in it
        receiver, sender = context.Pipe(duplex=False)
        process = context.Process(
            target=measure_memory, args=(sender, count, max(counts), workers, cache)
        )
        process.start()
        row = json.loads(receiver.recv())
        process.join()
        rows.append(row)
        print(
            f"{count:>8}{row['pixels_mb']:>12} MB{row['pss_mb']:>12} MB{'':22}({row['rss_mb']} MB)",
            flush=True,
        )
    return rows


def measure_memory(sender: Any, count: int, images: int, workers: int, cache: str) -> None:
    """Load so many images of synthetic cases, over and over, and send the memory it took."""
    split = HoldoutSplit((1 - 2 / 500, 1 / 500, 1 / 500))
    settings = DataSettings("synthetic", cache="disk", cache_dir=cache, num_workers=workers)
    prepare_data(Synthetic(count), settings, split)  # writes the cache
    data = prepare_data(Synthetic(count), settings, split)  # reads it, as every run but the first
    sizes = []
    loader = SegmentationDataModule(data).train_dataloader()
    batches = (batch for _ in itertools.repeat(None) for batch in loader)
    for number, _ in enumerate(itertools.islice(batches, images // settings.batch_size)):
        if number % 30 == 29:
            sizes.append(memory_mb())
    pss, rss = (max(size) for size in zip(*sizes, strict=True))
    row = {
        "measure": "memory", "augmentation": "none", "images": count, "workers": workers,
        "pixels_mb": count * 2 * settings.size[0] * settings.size[1] // 10**6,
        "pss_mb": pss, "rss_mb": rss,
    }  # fmt: skip
    sender.send(json.dumps(row))


def memory_mb() -> tuple[int, int]:
    """Memory of this process and its workers, MB: shared pages counted once, and in each."""
    sums = {"Pss": 0, "Rss": 0}
    for pid in [os.getpid(), *(child.pid for child in multiprocessing.active_children())]:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            name, _, size = line.partition(":")
            if name in sums:
                sums[name] += int(size.split()[0])
    return round(sums["Pss"] * 1024 / 1e6), round(sums["Rss"] * 1024 / 1e6)


def write_phantoms(folder: Path, count: int) -> None:
    """Phantoms as RGB images and 1-bit masks, as BUSI stores them."""
    for kind in ("images", "labels"):
        (folder / kind).mkdir(parents=True)
    for index in range(count):
        phantom = simulate(0, index)
        name = f"{phantom.label}_{index}.png"
        image = cv2.cvtColor(phantom.image, cv2.COLOR_GRAY2BGR)
        cv2.imwrite(str(folder / "images" / name), image)
        Image.fromarray(phantom.mask * 255).convert("1").save(folder / "labels" / name)


def one_thread(worker: int) -> None:
    """Workers are the parallelism."""
    torch.set_num_threads(1)


if __name__ == "__main__":
    main()
