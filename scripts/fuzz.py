"""Attack the package as strangers and broken disks do, and count what comes of it.

    python scripts/fuzz.py                                       # everything: hours
    python scripts/fuzz.py configs overrides --minutes 10        # a random part of two kinds
    python scripts/fuzz.py --share 0.01 --out counts.json        # a hundredth of each

Kinds: ``configs`` (runs whose config executes or writes elsewhere, with every verb), ``files``
(damaged images, tables, configs and checkpoints), ``overrides`` (wrong command lines), ``special``
(pipes, devices, sockets, folders and endless files in the place of files). Each trial runs in a
process of its own on a copy of a small run and its data, with limits of time and memory, and
ends well if it succeeds or is refused in one line, starts nothing, and writes nothing elsewhere.
Exit status 1 if one does not. Linux only.

Columns: ``unseen``: accepted, though the pixels are others; ``unforeseen``: of those refused, with
a line of a library instead of one of ours; ``executed``: a program, a connection
or foreign code was started; ``outside``: something was written where the opener did not say;
``secret``: of the environment, printed or written; ``left``: by what was refused; ``half``: of a
picture taken for all of it; ``traceback``: or any other end but success and one line.
"""

import argparse
import gc
import importlib
import json
import os
import pkgutil
import shutil
import sys
import tempfile
import time
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

COLUMNS = (
    "possible", "tried", "accepted", "unseen", "refused", "unforeseen", "executed", "outside",
    "secret", "left", "half", "hang", "traceback",
)  # fmt: skip
BAD = COLUMNS[6:]
SECONDS = 30  # of a verb, on a busy machine, before it counts as a hang


def main() -> None:
    """Run the kinds that are asked for, print a table, write the counts."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    kinds = ("configs", "files", "overrides", "special")
    parser.add_argument("kinds", nargs="*", help=", ".join(kinds))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, help="of each kind; the rest is left out")
    parser.add_argument("--share", type=float, default=1, help="of all trials")
    parser.add_argument("--only", default="", help="trials whose name holds this text")
    parser.add_argument("--out", type=Path, help="counts and failures, as JSON")
    arguments = parser.parse_args()
    if unknown := set(arguments.kinds) - set(kinds):
        parser.error(f"unknown kind: {', '.join(sorted(unknown))}")
    folder = Path(tempfile.mkdtemp(prefix="anatosegnet-fuzz-"))
    try:
        prepare_process(folder)
        from fuzzing.ground import make_ground

        make_ground(folder)
        found = {kind: fuzz(kind, folder, arguments) for kind in arguments.kinds or kinds}
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    show({kind: counts for kind, (counts, _) in found.items()})
    if arguments.out:
        content = {
            kind: {"counts": counts, "failures": failures}
            for kind, (counts, failures) in found.items()
        }
        arguments.out.write_text(json.dumps({"seed": arguments.seed, **content}, indent=1) + "\n")
    sys.exit(any(counts[name] for counts, _ in found.values() for name in BAD))


def prepare_process(folder: Path) -> None:
    """Load all libraries once: trials are forked from here, where no thread may run."""
    os.environ.update(
        OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1",
        ANATOSEGNET_CACHE_DIR=str(folder / "cache"), MPLCONFIGDIR=str(folder / "matplotlib"),
        PYTHONDONTWRITEBYTECODE="1", WANDB_MODE="offline", CUDA_VISIBLE_DEVICES="",
    )  # fmt: skip
    os.environ.pop("ANATOSEGNET_DEBUG", None)
    (folder / "cache").mkdir()
    tempfile.tempdir = str(folder / "cache")  # where wandb makes a folder when it is loaded
    sys.dont_write_bytecode = True
    import albumentations  # noqa: F401
    import cv2
    import lightning  # noqa: F401
    import matplotlib.pyplot  # noqa: F401
    import monai.losses  # noqa: F401
    import openpyxl  # noqa: F401
    import pandas  # noqa: F401
    import timm  # noqa: F401
    import torch

    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    import anatosegnet

    for module in pkgutil.walk_packages(anatosegnet.__path__, "anatosegnet."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)

    gc.collect()
    gc.freeze()  # else every trial looks through all of these libraries


def fuzz(
    kind: str, ground: Path, arguments: argparse.Namespace
) -> tuple[dict[str, int], list[dict[str, Any]]]:
    """Run the trials of a kind; returns counts, and what failed."""
    module = importlib.import_module(f"fuzzing.{kind}")
    trials = [trial for trial in module.trials(ground, arguments.seed)
              if arguments.only in trial.name]  # fmt: skip
    counts = Counter(possible=sum(trial.count for trial in trials))
    failures = []
    chosen = trials[: max(1, round(len(trials) * arguments.share))]
    started, told, slowest = time.monotonic(), 0.0, (0.0, "")
    for trial in chosen:
        spent = time.monotonic() - started
        if arguments.minutes is not None and spent > 60 * arguments.minutes:
            break
        for result in trial.run(ground, SECONDS):
            counts.update(result.words)
            slowest = max(slowest, (result.seconds, result.name))
            if set(result.words) & set(BAD):
                failures.append(asdict(result))
            if set(result.words) & {*BAD, "unforeseen"}:
                print(
                    f"{kind}: {result.name}: {', '.join(result.words)}: {result.text}", flush=True
                )
        if spent > told + 60:
            told = spent
            print(f"{kind}: {counts['tried']} of {counts['possible']}, {spent / 60:.0f} minutes",
                  flush=True)  # fmt: skip
    print(f"{kind}: slowest {slowest[0]:.1f} s, {slowest[1]}", flush=True)
    return {name: counts[name] for name in COLUMNS}, failures


def show(counts: dict[str, dict[str, int]]) -> None:
    """A row for each kind."""
    print(f"{'kind':<10}" + "".join(f"{name:>11}" for name in COLUMNS))
    for kind, row in counts.items():
        print(f"{kind:<10}" + "".join(f"{row[name]:>11}" for name in COLUMNS))


if __name__ == "__main__":
    main()
