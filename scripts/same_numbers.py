"""Whether another checkout trains and scores the same: every recipe, in small, to the bit.

    python scripts/same_numbers.py OLD_CHECKOUT [recipe …]

Both checkouts run the recipes by their command lines, in this Python. Compared are the weights and
the optimizer's state in the checkpoints, and the numbers of metrics.csv, summary.json and
scores.csv; what only one of the two writes is named, and is no difference. The recipe ``real`` is
the default one on BUSI, where ANATOSEGNET_DATA_DIR has it. Exit status 1 if something differs.

``--store FILE`` writes the numbers of one checkout that tests/training/test_same_numbers.py holds
against.
"""

import argparse
import csv
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

SMALL = (
    "model.encoder=resnet18",
    "model.pretrained=false",
    "data.image_size=64",
    "data.batch_size=4",
    "data.num_workers=0",
    "trainer=cpu",
    "trainer.max_epochs=2",
    "callbacks.panels=null",
    "callbacks.progress=null",
)
PHANTOMS = ("data=phantom", "data.count=12")
RECIPES = {
    "default": (*PHANTOMS, *SMALL),
    "released": ("experiment=released", *PHANTOMS, *SMALL),
    "benchmark_busi": ("experiment=benchmark_busi", *PHANTOMS, "split=holdout", *SMALL),
    "demo": ("experiment=demo", "data.count=20", "trainer.max_epochs=1", *SMALL[-2:]),
    "ema": ("callbacks=[default,ema]", "scheduler=cosine_warmup", "scheduler.warmup=1",
            "callbacks.ema.decay=0.5", *PHANTOMS, *SMALL),
}  # fmt: skip
REAL = ("data=busi", *SMALL, "data.image_size=32", "data.batch_size=32", "trainer.max_epochs=1")
OF_THE_MACHINE = ("seconds", "minutes", "began", "pid")


def main() -> int:
    """Run, compare, and say of each recipe what differs."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("old", type=Path, help="a checkout; with --store the one to take")
    parser.add_argument("recipes", nargs="*", help=f"{', '.join(RECIPES)}, real; default: all")
    parser.add_argument(
        "--store", type=Path, help="write numbers of the one checkout, compare none"
    )
    options = parser.parse_args()
    recipes = dict(RECIPES)
    data = Path(os.environ.get("ANATOSEGNET_DATA_DIR", "data"))
    if (data / "Dataset_BUSI_with_GT").is_dir() and not options.store:
        recipes["real"] = REAL
    checkouts = {"old": options.old.resolve(), "new": Path(__file__).resolve().parents[1]}
    different, stored = 0, {}
    for name in options.recipes or recipes:
        with tempfile.TemporaryDirectory() as folder:
            places = {which: Path(folder, which) for which in checkouts}
            run_recipe(checkouts["old"], recipes[name], places["old"])
            if options.store:
                stored[name] = stored_numbers(places["old"] / "run")
                continue
            run_recipe(checkouts["new"], recipes[name], places["new"])
            lines, count = compare(places["old"], places["new"])
            different += bool(lines)
            print(f"{name}: " + ("DIFFERS" if lines else f"equal to the bit ({count:,} numbers)"))
            for line in lines[:10]:
                print(f"    {line}")
    if options.store:
        options.store.write_text(json.dumps(stored, indent=1) + "\n")
    return int(different > 0)


def run_recipe(checkout: Path, overrides: tuple[str, ...], place: Path) -> None:
    """Train and evaluate by a checkout's code into ``place/run``."""
    place.mkdir()
    environment = {
        **os.environ,
        "PYTHONPATH": str(checkout / "src"),
        "ANATOSEGNET_CACHE_DIR": str(place / "cache"),
        "OMP_NUM_THREADS": "1",
    }
    for verb, arguments in (
        ("train", (*overrides, "run_dir=run")),
        ("evaluate", ("run=run", "device=cpu", "extremes=1")),
    ):
        command = [sys.executable, "-P", "-m", f"anatosegnet.{verb}", *arguments]
        done = subprocess.run(
            command, cwd=place, env=environment, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise SystemExit(
                f"{checkout}: {verb} failed\n{done.stdout[-500:]}{done.stderr[-2000:]}"
            )


def numbers_of(place: Path) -> dict[str, Any]:
    """Every number that a run and its evaluation left: tensors and texts by name."""
    run, found = place / "run", {}
    for path in sorted((run / "checkpoints").glob("*.ckpt")):
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        for key in ("state_dict", "optimizer_states"):
            found.update(flattened(checkpoint.get(key, {}), f"{path.stem} {key}"))
    (scores,) = run.glob("evaluation/*/scores.csv")
    for path in (run / "metrics.csv", scores):
        with path.open(newline="", encoding="utf-8") as file:
            for line, row in enumerate(csv.DictReader(file)):
                found.update({f"{path.name} {line} {key}": value for key, value in row.items()})
    for path in (run / "summary.json", scores.with_name("summary.json")):
        values = flattened(json.loads(path.read_text()), path.parent.name)
        found.update({key: value for key, value in values.items() if type(value) in (int, float)})
    return {key: value for key, value in found.items()
            if not any(word in key for word in OF_THE_MACHINE)}  # fmt: skip


def flattened(tree: Any, name: str) -> dict[str, Any]:
    """The leaves of nested dictionaries and lists, by their path."""
    if isinstance(tree, dict):
        pairs = tree.items()
    elif isinstance(tree, list | tuple):
        pairs = enumerate(tree)
    else:
        return {name: tree}
    return {key: leaf for part, value in pairs for key, leaf in
            flattened(value, f"{name} {part}").items()}  # fmt: skip


def compare(old: Path, new: Path) -> tuple[list[str], int]:
    """A line for each number that differs, and how many were compared."""
    ours, theirs = numbers_of(new), numbers_of(old)
    only = sorted({" ".join(key.split()[::2]) for key in ours.keys() ^ theirs.keys()})
    if only:
        print(f"    in one checkout only: {', '.join(only)[:300]}")
    lines, count = [], 0
    for key in sorted(ours.keys() & theirs.keys()):
        one, other = theirs[key], ours[key]
        if isinstance(one, torch.Tensor):
            count += one.numel()
            same = one.shape == other.shape and one.dtype == other.dtype and torch.equal(one, other)
            text = f"largest difference {(one.double() - other.double()).abs().max():.2g}" if (
                one.shape == other.shape and not same) else "another shape"  # fmt: skip
        else:
            count += 1
            same, text = one == other, f"{one} and {other}"
        if not same:
            lines.append(f"{key}: {text}")
    return lines, count


def stored_numbers(run: Path) -> dict[str, Any]:
    """What is kept of a run: losses and scores of each epoch, of the test, and of the weights.

    The weights are those of ``best.ckpt``, which EMA averages: the sum of their squares.
    """
    with (run / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    weights = torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)["state_dict"]
    floats = [tensor.double() for tensor in weights.values() if tensor.is_floating_point()]
    summary = json.loads((run / "summary.json").read_text())
    return {
        "epochs": [
            {key: float(value) for key, value in row.items() if key.endswith(("loss", "lr"))}
            for row in rows
        ],
        "test/loss": summary["test/loss"],
        "weights": float(sum((tensor**2).sum() for tensor in floats)),
    }


if __name__ == "__main__":
    sys.exit(main())
