"""Speed of training beside a plain PyTorch loop, of starting up, and of other sizes and batches.

    python scripts/bench_training.py [--output bench_training.csv] [--quick]
                                     [--only start|speed|profile|depthwise|loader|sizes]

The plain loop is written as the authors' protocol reads: images decoded, resized and augmented
with PIL in the training process, float32, contiguous, Adam, and scikit-learn's F1 on every batch.
It is compared with the whole ``train`` command, as it is and with ``compile=true``: same network,
same cases, the same number of batches, processes in turn. Timed are the training parts of epochs 2
and 3; the first warms up. In each round the device's rate in a large matrix product is measured
too, in float32 and, where it has instructions for it, in bf16; the share of it is in the precision
of the row. ``profile`` says which operations a step's time goes to, ``depthwise`` (CPUs) what it is
worth that depthwise convolutions train in float32.
Data: BUSI under ANATOSEGNET_DATA_DIR, else simulated images written as PNG.
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
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
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
from anatosegnet.errors import UserError
from anatosegnet.run import Run
from anatosegnet.training.begin import quieten
from anatosegnet.training.build import build_module, build_trainer, settle_precision
from anatosegnet.training.depthwise import depthwise_in_float32
from bench_attention import has_bf16, machine, matmul_rate, ratio, show

Row = dict[str, Any]
EPOCHS = 3
OPERATIONS = 12  # shown of a profile
DEPTHWISE = ("tf_efficientnet_lite0", "mobilenetv3_large_100")
PARTS = ("start", "speed", "profile", "depthwise", "loader", "sizes")


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
    parser.add_argument("--only", choices=PARTS)
    parser.add_argument("--quick", action="store_true", help="tiny, to try the script")
    parser.add_argument(
        "--encoder",
        nargs="+",
        default=["resnet50.tv_in1k", "tf_efficientnet_lite0"],
        help="of speed and profile; the others take the first",
    )
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
        given.encoder, given.batch, given.batches, given.size = ["resnet18"], 2, 2, 64
    given.encoders, given.encoder = given.encoder, given.encoder[0]
    if given.plain:
        plain_loop(given, Path(given.plain))
        return
    parts: dict[str, Callable[[argparse.Namespace], list[Row]]] = {
        "start": start,
        "speed": lambda given: of_each_encoder(speed, given),
        "profile": lambda given: of_each_encoder(profile, given),
        "depthwise": depthwise,
        "loader": loader,
        "sizes": sizes,
    }
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        given.folder = Path(folder)
        for part in [given.only] if given.only else list(parts):
            rows += parts[part](given)
            write(rows, given.output)  # what is measured is kept, whatever comes
    print(f"{machine(given.device)}, torch {torch.__version__}; written {given.output}")


def of_each_encoder(
    part: Callable[[argparse.Namespace], list[Row]], given: argparse.Namespace
) -> list[Row]:
    """The rows of a part of the measurements for each encoder."""
    rows = []
    for encoder in given.encoders:
        rows += part(argparse.Namespace(**{**vars(given), "encoder": encoder}))
    return rows


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


def run_verb(command: list[str]) -> str:
    """Run one of the programs; returns what it says if it fails, else nothing."""
    places = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    result = subprocess.run(
        [sys.executable, "-m", f"anatosegnet.{command[0]}", *command[1:]],
        capture_output=True, text=True, env={**os.environ, "PYTHONPATH": places},
    )  # fmt: skip
    return result.stdout + result.stderr if result.returncode else ""


def settings(given: argparse.Namespace, **changes: Any) -> list[str]:
    """Overrides of the training that is measured."""
    defaults = {"size": given.size, "batch": given.batch, "compile": given.device == "cuda"}
    values = {**defaults, **changes}
    return [
        *dataset(given), f"model.encoder={given.encoder}", "model.pretrained=false",
        f"data.image_size={values['size']}", f"data.batch_size={values['batch']}",
        f"data.num_workers={given.workers}", "trainer=auto", f"trainer.max_epochs={EPOCHS}",
        "optimizer=adam", "augmentation=released", "loss=cross_entropy", "test=false",
        f"+trainer.limit_train_batches={given.batches}", "+trainer.limit_val_batches=0",
        f"compile={str(values['compile']).lower()}",
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
            "ratio": round(ratio(seconds, baseline), 2),
        }
        for name, seconds in times.items()
    ]
    show("Command to first training step", rows)
    return rows


def speed(given: argparse.Namespace) -> list[Row]:
    """Training images per second beside the plain loop, and the share of the matmul rate."""
    images = given.batch * given.batches
    baseline, compiled = "plain PyTorch loop", "train, compile=true"
    rates: dict[str, list[float]] = {baseline: [], "train": [], compiled: []}  # images a second
    precisions = ["float32", *(["bf16"] if has_bf16(given.device) else [])]
    matmul: dict[str, list[float]] = {precision: [] for precision in precisions}
    for repeat in range(given.repeats):
        for precision, measured in matmul.items():
            measured.append(matmul_rate(precision, given.device, 256 if given.quick else None))
        for name in list(rates):
            label = f"{given.encoder}-{list(rates).index(name)}-{repeat}"
            path = given.folder / f"{label}.json"
            if name == baseline:
                run_plain(given, path)
            elif said := run_verb(
                [
                    "train",
                    *settings(given, compile=name == compiled),
                    f"run_dir={given.folder / label}",
                    "+callbacks.times._target_=bench_training.EpochTimes",
                    f"+callbacks.times.path={path}",
                ]
            ):
                if name != compiled:
                    sys.exit(said)
                print(f"{name} is left out: {said.strip().splitlines()[-1]}")
                del rates[name]
                continue
            rates[name].append(2 * images / sum(json.loads(path.read_text())[1:]))
    run = Run(given.folder / f"{given.encoder}-1-0")
    auto = "bf16" if "bf16" in run.config.trainer.precision else "float32"
    work = flops(given)
    rows = [
        {
            "kind": "speed",
            "encoder": given.encoder,
            "implementation": f"matmul, {precision}",
            "precision": precision,
            "tflops": round(statistics.median(measured) / 1e12, 3),
        }
        for precision, measured in matmul.items()
    ]
    for name, each in rates.items():
        precision = "float32" if name == baseline else auto
        rows.append(
            {
                "kind": "speed",
                "encoder": given.encoder,
                "implementation": name,
                "precision": precision,
                "images_per_second": round(statistics.median(each), 2),
                "speedup": round(ratio(each, rates[baseline]), 2),
                "tflops": round(statistics.median(each) * work / 1e12, 3),
                "share_of_matmul_rate": round(work * ratio(each, matmul[precision]), 3),
            }
        )
    title = f"Training, {given.encoder}, {given.size} px, batches of {given.batch}"
    show(f"{title}, {settings(given)[0]}", rows)
    return rows


def run_plain(given: argparse.Namespace, path: Path) -> None:
    """The plain loop in a process of its own."""
    command = [sys.executable, __file__, *sys.argv[1:], "--encoder", given.encoder]
    environment = {**os.environ, "BENCH_DATA": json.dumps(dataset(given))}
    subprocess.run([*command, "--plain", str(path)], check=True, env=environment)


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


class Profile(lightning.Callback):
    """Records the operations of the second epoch's training part, in ``events`` at its end."""

    def __init__(self) -> None:
        activities = [torch.profiler.ProfilerActivity.CPU]
        if torch.cuda.is_available():
            activities.append(torch.profiler.ProfilerActivity.CUDA)
        self._profiler = torch.profiler.profile(activities=activities)
        self.events: list[Any] = []

    def on_train_epoch_start(self, trainer: lightning.Trainer, *_: Any) -> None:
        """Begin."""
        if trainer.current_epoch == 1:
            wait()
            self._profiler.start()

    def on_train_batch_end(self, trainer: lightning.Trainer, *_: Any) -> None:
        """End after the last batch."""
        if trainer.current_epoch == 1 and trainer.is_last_batch:
            wait()
            self._profiler.stop()
            self.events = list(self._profiler.key_averages())


def profile(given: argparse.Namespace) -> list[Row]:
    """The operations that take most of a training step on a fixed batch, as it is and compiled."""
    rows: list[Row] = []
    for compiled in (False, True):
        config = config_of(given, compile=compiled)
        data = build_data(config)
        fixed = FixedBatch(next(iter(data.train_dataloader())), given.batches)
        recorded = Profile()
        try:
            fit(config, given, data, fixed, recorded)
        except UserError as error:
            print(f"compile={str(compiled).lower()} is left out: {error}")
            continue
        which = "self_device_time_total" if given.device == "cuda" else "self_cpu_time_total"
        times = {event.key: getattr(event, which) / 1000 for event in recorded.events}
        calls = {event.key: event.count for event in recorded.events}
        whole = sum(times.values())
        most = sorted(times, key=times.__getitem__, reverse=True)[:OPERATIONS]
        times["all others"] = whole - sum(times[name] for name in most)
        rows += [
            {
                "kind": "profile",
                "encoder": given.encoder,
                "compile": compiled,
                "operation": name,
                "calls_per_step": round(calls[name] / given.batches) if name in calls else "",
                "milliseconds_per_step": round(times[name] / given.batches, 2),
                "share": round(times[name] / whole, 3),
            }
            for name in [*most, "all others"]
        ]
    show(f"Where a step's time goes, {given.encoder}, {config.trainer.precision}", rows)
    return rows


def depthwise(given: argparse.Namespace) -> list[Row]:
    """Processor time of a step with depthwise convolutions in bf16 and in float32, in turn."""
    if given.device != "cpu":
        return []
    ways: dict[str, tuple[bool, Callable[[Tensor], AbstractContextManager[Any]]]] = {
        "all in bf16": (True, lambda _: nullcontext()),
        "depthwise in float32 (train)": (True, depthwise_in_float32),
        "all in float32": (False, lambda _: nullcontext()),
    }
    rows = []
    encoders = ("mobilenetv3_small_050",) if given.quick else DEPTHWISE
    for encoder in encoders:
        for edge in (64,) if given.quick else (128, 256):
            options = argparse.Namespace(**{**vars(given), "encoder": encoder})
            module = build_module(config_of(options, size=edge)).train()
            image = torch.randn(given.batch, 3, edge, edge)
            image = image.contiguous(memory_format=torch.channels_last)
            times: dict[str, list[float]] = {name: [] for name in ways}
            for repeat in range(given.repeats + 3):
                for name, (bf16, context) in ways.items():
                    begin = time.process_time()
                    with torch.autocast("cpu", torch.bfloat16, enabled=bf16), context(image):
                        loss = module(image).square().mean()
                    loss.backward()
                    module.zero_grad()
                    if repeat:
                        times[name].append(time.process_time() - begin)
            baseline = times["all in bf16"]
            rows += [
                {
                    "kind": "depthwise",
                    "encoder": encoder,
                    "pixels": edge,
                    "convolutions": name,
                    "processor_seconds": round(statistics.median(seconds), 3),
                    "speedup": round(ratio(baseline, seconds), 2),
                }
                for name, seconds in times.items()
            ]
    show(f"Forward and backward, batches of {given.batch}", rows)
    return rows


def fit(
    config: Any,
    given: argparse.Namespace,
    data: Any,
    batches: Any,
    callback: lightning.Callback,
) -> None:
    """Train on these batches, without anything else that costs time."""
    OmegaConf.set_struct(config, False)
    config.callbacks = {}
    config.trainer.enable_progress_bar = config.trainer.enable_checkpointing = False
    quieten()
    lightning.seed_everything(0, verbose=False)
    module = build_module(config)
    trainer = build_trainer(config, module, Run(given.folder / "inside"))
    trainer.callbacks.append(callback)
    data.train_dataloader = lambda: batches
    trainer.fit(module, datamodule=data)


def loader(given: argparse.Namespace) -> list[Row]:
    """An epoch with real data beside one on a fixed batch."""
    config = config_of(given)
    data = build_data(config)
    real = data.train_dataloader()
    loaders = {"fixed batch": FixedBatch(next(iter(real)), given.batches), "real data": real}
    times: dict[str, list[float]] = {name: [] for name in loaders}
    for _ in range(given.repeats):
        for name, batches in loaders.items():
            path = given.folder / "loader.json"
            fit(config, given, data, batches, EpochTimes(str(path)))
            times[name].append(sum(json.loads(path.read_text())[1:]) / (2 * given.batches))
    rows = [
        {
            "kind": "loader",
            "batches": name,
            "milliseconds_per_step": round(1000 * statistics.median(seconds), 2),
            "ratio": round(ratio(seconds, times["fixed batch"]), 3),
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
