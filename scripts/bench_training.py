"""Speed of training beside a plain PyTorch loop, of starting up, and of other sizes and batches.

    python scripts/bench_training.py [--output bench_training.csv] [--quick]
                                     [--only start|speed|loader|sizes]

The plain loop is written as the authors' protocol reads: images decoded, resized and augmented
with PIL in the training process, float32, contiguous, Adam, and scikit-learn's F1 on every batch.
It is compared with the whole ``train`` command: same network, same cases, the same number of
batches, processes in turn. Timed are the training parts of epochs 2 and 3; the first warms up.
Data: BUSI under ANATOSEGNET_DATA_DIR, else simulated images written as PNG. On a GPU the table
says the share of the device's measured bf16 matmul rate.
"""

import argparse
import csv
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import lightning
import numpy as np
import torch
from omegaconf import OmegaConf
from PIL import Image
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from anatosegnet.data.build import build_data, build_found_data
from anatosegnet.data.datasets.phantom import PhantomSource
from anatosegnet.data.prepared import find_data
from anatosegnet.run import Run
from anatosegnet.training.build import build_module, build_trainer, settle_precision
from bench_attention import machine, matmul_rate, show

Row = dict[str, Any]
EPOCHS = 3


class EpochTimes(lightning.Callback):
    """Writes how long the training part of each epoch took, in seconds.

    Args:
        path: A JSON file.
    """

    def __init__(self, path: str) -> None:
        self.path = Path(path)
        self.seconds: list[float] = []
        self._start = 0.0

    def on_train_epoch_start(self, *_: Any) -> None:
        """Start the clock."""
        wait()
        self._start = time.perf_counter()

    def on_train_batch_end(self, trainer: lightning.Trainer, *_: Any) -> None:
        """Stop it after the last batch, before the validation."""
        if trainer.is_last_batch:
            wait()
            self.seconds.append(time.perf_counter() - self._start)
            self.path.write_text(json.dumps(self.seconds))


class FirstStep(lightning.Callback):
    """Ends the process after its first training step."""

    def on_train_batch_end(self, *_: Any) -> None:
        """The first step is done."""
        wait()
        os._exit(0)


def main() -> None:
    """Measure, print the tables, write the csv."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("bench_training.csv"))
    parser.add_argument("--only", choices=("start", "speed", "loader", "sizes"))
    parser.add_argument("--quick", action="store_true", help="tiny, to try the script")
    parser.add_argument("--encoder", default="resnet50.tv_in1k")
    parser.add_argument("--batch", type=int, help="images; default 16 on a GPU, 8 on a CPU")
    parser.add_argument("--batches", type=int, help="of an epoch; default 28 on a GPU, 4 on a CPU")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--workers", type=int, help="default 8 on a GPU, 2 on a CPU")
    parser.add_argument("--plain", help=argparse.SUPPRESS)  # a process of its own
    given = parser.parse_args()
    cuda = torch.cuda.is_available()
    given.device = "cuda" if cuda else "cpu"
    given.batch = given.batch or (16 if cuda else 8)
    given.batches = given.batches or (28 if cuda else 4)
    given.workers = (8 if cuda else 2) if given.workers is None else given.workers
    given.size = 256
    if given.quick:
        given.encoder, given.batch, given.batches, given.size = "resnet18", 2, 2, 64
    if given.plain:
        plain_loop(given, Path(given.plain))
        return
    parts = {"start": start, "speed": speed, "loader": loader, "sizes": sizes}
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        given.folder = Path(folder)
        for part in [given.only] if given.only else list(parts):
            rows += parts[part](given)
            write(rows, given.output)  # what is measured is kept, whatever comes
    print(f"{machine(given.device)}, torch {torch.__version__}; written {given.output}")


def write(rows: list[Row], path: Path) -> None:
    """All rows as one csv."""
    with path.open("w", newline="", encoding="utf-8") as file:
        columns = list(dict.fromkeys(key for row in rows for key in row))
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def wait() -> None:
    """Until the device has done what it was told."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def dataset(given: argparse.Namespace) -> list[str]:
    """Overrides that choose BUSI, or simulated images as files where there is none."""
    root = os.environ.get("ANATOSEGNET_DATA_DIR")
    if root and list(Path(root).glob("**/benign/*_mask.png"))[:1] and not given.quick:
        return ["data=busi"]
    folder = given.folder / "phantoms"
    if not folder.exists():
        count = max(60, round(1.6 * given.batch * given.batches))
        write_phantoms(folder, count, 128 if given.quick else 512)
    return ["data=folder", f"data.root={folder}"]


def write_phantoms(folder: Path, count: int, size: int) -> None:
    """Simulated cases as PNG files in the layout of ``data=folder``."""
    data = find_data(PhantomSource(count), "phantom")
    for part in ("images", "labels"):
        (folder / part).mkdir(parents=True)
    for name in data.cases:
        image, mask = data.read(name)
        cv2.imwrite(str(folder / "images" / f"{name}.png"), image)
        cv2.imwrite(str(folder / "labels" / f"{name}.png"), mask * 255)


def run_verb(command: list[str]) -> None:
    """Run one of the programs; its output is shown if it fails."""
    places = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    result = subprocess.run(
        [sys.executable, "-m", f"anatosegnet.{command[0]}", *command[1:]],
        capture_output=True, text=True, env={**os.environ, "PYTHONPATH": places},
    )  # fmt: skip
    if result.returncode:
        sys.exit(result.stdout + result.stderr)


def settings(given: argparse.Namespace, **changes: Any) -> list[str]:
    """Overrides of the training that is measured."""
    values = {"size": given.size, "batch": given.batch, **changes}
    return [
        *dataset(given), f"model.encoder={given.encoder}", "model.pretrained=false",
        f"data.image_size={values['size']}", f"data.batch_size={values['batch']}",
        f"data.num_workers={given.workers}", "trainer=auto", f"trainer.max_epochs={EPOCHS}",
        "optimizer=adam", "augmentation=released", "loss=cross_entropy", "test=false",
        f"+trainer.limit_train_batches={given.batches}", "+trainer.limit_val_batches=0",
        f"compile={'true' if given.device == 'cuda' else 'false'}",
        "callbacks.best.monitor=null", "callbacks.panels=null",
    ]  # fmt: skip


def start(given: argparse.Namespace) -> list[Row]:
    """Seconds from the command to the end of its first step, beside ``import lightning``."""
    demo = ["experiment=demo", "+callbacks.first._target_=bench_training.FirstStep"]
    times: dict[str, list[float]] = {"import lightning": [], "train, first step": []}
    places = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    for repeat in range(given.repeats + 2):
        commands = {
            "import lightning": ["-c", "import lightning"],
            "train, first step": [
                "-m", "anatosegnet.train", *demo, f"run_dir={given.folder / str(repeat)}",
            ],
        }  # fmt: skip
        for name, command in commands.items():
            begin = time.perf_counter()
            subprocess.run([sys.executable, *command], check=True, capture_output=True,
                           env={**os.environ, "PYTHONPATH": places})  # fmt: skip
            if repeat:  # the first pair fills caches
                times[name].append(time.perf_counter() - begin)
    baseline = times["import lightning"]
    rows = [
        {
            "kind": "start",
            "command": name,
            "seconds": round(statistics.median(seconds), 2),
            "ratio": round(
                statistics.median(s / b for s, b in zip(seconds, baseline, strict=True)), 2
            ),
        }
        for name, seconds in times.items()
    ]
    show("Command to first training step", rows)
    return rows


def speed(given: argparse.Namespace) -> list[Row]:
    """Training images per second beside the plain loop."""
    images = given.batch * given.batches
    rates: dict[str, list[float]] = {"plain PyTorch loop": [], "train": []}
    for repeat in range(given.repeats):
        path = given.folder / f"speed{repeat}.json"
        ours = [
            "train", *settings(given), f"run_dir={given.folder / f'run{repeat}'}",
            "+callbacks.times._target_=bench_training.EpochTimes", f"+callbacks.times.path={path}",
        ]  # fmt: skip
        plain = [sys.executable, __file__, *sys.argv[1:], "--plain", str(path)]
        subprocess.run(
            plain, check=True, env={**os.environ, "BENCH_DATA": json.dumps(dataset(given))}
        )
        rates["plain PyTorch loop"].append(2 * images / sum(json.loads(path.read_text())[1:]))
        run_verb(ours)
        rates["train"].append(2 * images / sum(json.loads(path.read_text())[1:]))
    precision = Run(given.folder / "run0").config.trainer.precision
    work = flops(given)
    rows = []
    for name, each in rates.items():
        row: Row = {
            "kind": "speed",
            "implementation": name,
            "precision": "float32" if name.startswith("plain") else precision,
            "images_per_second": round(statistics.median(each), 2),
            "speedup": round(
                statistics.median(
                    a / b for a, b in zip(each, rates["plain PyTorch loop"], strict=True)
                ),
                2,
            ),
            "tflops": round(statistics.median(each) * work / 1e12, 3),
        }
        if given.device == "cuda":
            row["share_of_bf16_matmul_rate"] = round(
                statistics.median(each) * work / matmul_rate("bf16"), 3
            )
        rows.append(row)
    title = f"Training, {given.encoder}, {given.size} px, batches of {given.batch}"
    show(f"{title}, {settings(given)[0]}", rows)
    return rows


def flops(given: argparse.Namespace) -> float:
    """Multiplications and additions of forward + backward, for one image."""
    module = build_module(config_of(given))
    image = torch.randn(1, 3, given.size, given.size)
    with FlopCounterMode(display=False) as counter:
        module(image).sum().backward()
    return float(counter.get_total_flops())


def config_of(given: argparse.Namespace, **changes: Any) -> Any:
    """The composed config of the training that is measured."""
    import hydra

    from anatosegnet.config.composition import config_directory

    overrides = [*settings(given, **changes), f"run_dir={given.folder / 'inside'}"]
    with hydra.initialize_config_dir(str(config_directory()), version_base="1.3"):
        config = hydra.compose("train", overrides)
    settle_precision(config)
    return config


class FixedBatch:
    """A loader that gives one batch again and again: what a step costs without any loading."""

    def __init__(self, batch: Any, count: int) -> None:
        self.batch, self.count = batch, count

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[Any]:
        return iter([self.batch] * self.count)


def loader(given: argparse.Namespace) -> list[Row]:
    """An epoch with real data beside one on a fixed batch."""
    config = config_of(given)
    OmegaConf.set_struct(config, False)
    config.callbacks, config.trainer.enable_progress_bar = {}, False
    times: dict[str, list[float]] = {"fixed batch": [], "real data": []}
    data = build_data(config)
    fixed = FixedBatch(next(iter(data.train_dataloader())), given.batches)
    real = data.train_dataloader
    for _ in range(given.repeats):
        for name in times:
            lightning.seed_everything(0, verbose=False)
            module = build_module(config)
            trainer = build_trainer(config, module, Run(given.folder / "inside"))
            path = given.folder / "loader.json"
            trainer.callbacks.append(EpochTimes(str(path)))
            data.train_dataloader = real if name == "real data" else lambda: fixed  # type: ignore[method-assign]
            trainer.fit(module, datamodule=data)
            times[name].append(sum(json.loads(path.read_text())[1:]) / (2 * given.batches))
    rows = [
        {
            "kind": "loader",
            "batches": name,
            "milliseconds_per_step": round(1000 * statistics.median(seconds), 2),
            "ratio": round(
                statistics.median(
                    s / f for s, f in zip(seconds, times["fixed batch"], strict=True)
                ),
                3,
            ),
        }
        for name, seconds in times.items()
    ]
    show(f"Loading, {given.workers} workers", rows)
    return rows


def sizes(given: argparse.Namespace) -> list[Row]:
    """Seconds and memory of a step by image size and batch, not compiled."""
    edges, batches = ((64, 96), (1, 2)) if given.quick else ((128, 256, 512, 1024), (1, 4, 16))
    if given.device == "cpu" and not given.quick:
        edges, batches = (128, 256, 512), (1, 4)
    rows = []
    for edge in edges:
        for batch in batches:
            row = step_cost(given, edge, batch)
            rows.append({"kind": "sizes", "pixels": edge, "batch": batch, **row})
    show("A step of forward, backward and optimizer", rows)
    return rows


def step_cost(given: argparse.Namespace, edge: int, batch: int) -> Row:
    """Median seconds and peak memory of a step; empty where memory does not suffice."""
    config = config_of(given, size=edge, batch=batch)
    try:
        module = build_module(config).to(given.device).train()
        optimizer = module.optimizer(module.parameters())
        image = torch.randn(batch, 3, edge, edge, device=given.device)
        mask = torch.randint(0, 2, (batch, edge, edge), device=given.device)
        seconds = []
        bf16 = config.trainer.precision == "bf16-mixed"
        for repeat in range(6 if given.device == "cuda" else 3):
            wait()
            begin = time.perf_counter()
            with torch.autocast(given.device, torch.bfloat16, enabled=bf16):
                loss = module.loss(module(image), mask)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            wait()
            if repeat > 1:
                seconds.append(time.perf_counter() - begin)
    except torch.OutOfMemoryError:
        return {"precision": config.trainer.precision, "seconds": "out of memory"}
    row: Row = {
        "precision": config.trainer.precision,
        "seconds": round(statistics.median(seconds), 4),
        "images_per_second": round(batch / statistics.median(seconds), 2),
    }
    if given.device == "cuda":
        row["gigabytes"] = round(torch.cuda.max_memory_allocated() / 2**30, 2)
        torch.cuda.reset_peak_memory_stats()
    return row


def plain_loop(given: argparse.Namespace, path: Path) -> None:
    """The baseline: what the authors' protocol reads like in plain PyTorch."""
    from sklearn.metrics import f1_score

    given.folder = path.parent
    data_settings = json.loads(os.environ["BENCH_DATA"])
    config = config_of_data(data_settings, given)
    cases = list(build_found_data(config).cases.values())
    random = np.random.default_rng(0)
    module = build_module(config)
    network = module.model.to(memory_format=torch.contiguous_format).to(given.device)
    loss_function = torch.nn.CrossEntropyLoss()
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-4, weight_decay=1e-4, foreach=False)
    seconds = []
    for _ in range(EPOCHS):
        wait()
        begin = time.perf_counter()
        order = random.permutation(len(cases))[: given.batch * given.batches]
        for batch in range(given.batches):
            chosen = order[batch * given.batch : (batch + 1) * given.batch]
            pairs = [read_with_pil(cases[i], given.size, random) for i in chosen]
            image = torch.stack([image for image, _ in pairs]).to(given.device)
            mask = torch.stack([mask for _, mask in pairs]).to(given.device)
            logits = network(image)
            loss = loss_function(logits, mask)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            predictions = logits.argmax(1).cpu().numpy()
            for prediction, truth in zip(predictions, mask.cpu().numpy(), strict=True):
                f1_score(truth.ravel(), prediction.ravel(), zero_division=1)
            loss.item()
        wait()
        seconds.append(time.perf_counter() - begin)
    path.write_text(json.dumps(seconds))


def config_of_data(data_settings: list[str], given: argparse.Namespace) -> Any:
    """The config of the network and of the data that the other process chose."""
    import hydra

    from anatosegnet.config.composition import config_directory

    overrides = [*data_settings, f"model.encoder={given.encoder}", "model.pretrained=false"]
    with hydra.initialize_config_dir(str(config_directory()), version_base="1.3"):
        return hydra.compose("train", [*overrides, f"data.image_size={given.size}"])


def read_with_pil(case: Any, size: int, random: np.random.Generator) -> tuple[Tensor, Tensor]:
    """A case by the released recipe: (3, size, size) in [-1, 1], (size, size) in {0, 1}."""
    image = Image.open(case.image).convert("RGB").resize((size, size), Image.Resampling.BILINEAR)
    mask = np.zeros((size, size), np.uint8)
    for path in case.masks:
        part = Image.open(path).convert("L").resize((size, size), Image.Resampling.NEAREST)
        mask |= (np.asarray(part) > 0).astype(np.uint8)
    truth = Image.fromarray(mask)
    choice = random.integers(5)
    flips = {0: (0, 1), 1: (1,), 2: (0,)}.get(int(choice), ())
    for flip in flips:
        way = Image.Transpose.FLIP_LEFT_RIGHT if flip == 0 else Image.Transpose.FLIP_TOP_BOTTOM
        image, truth = image.transpose(way), truth.transpose(way)
    if choice == 3:
        angle = int(random.choice([-5, -4, -3, -2, -1, 1, 2, 3, 4, 5]))
        image, truth = image.rotate(angle), truth.rotate(angle)
    pixels = torch.from_numpy(np.array(image, np.float32)).permute(2, 0, 1) / 127.5 - 1
    return pixels, torch.from_numpy(np.array(truth, np.int64))


if __name__ == "__main__":
    main()
