"""What only looks like a file, in the place of each file of a run and of its data."""

import os
import random
import shutil
import socket
from collections.abc import Callable
from pathlib import Path

from fuzzing.configs import verbs
from fuzzing.ground import Sandbox, train_arguments
from fuzzing.trials import Edit, Trial


def bind(path: Path) -> None:
    """A socket; the name that the system takes may be short."""
    before = Path.cwd()
    with socket.socket(socket.AF_UNIX) as server:
        os.chdir(path.parent)
        server.bind(path.name)
        os.chdir(before)


def endless(path: Path) -> None:
    """A terabyte of zeros, which takes no room."""
    with path.open("wb") as file:
        file.truncate(2**40)


MAKE: dict[str, Callable[[Path], object]] = {
    "pipe": os.mkfifo,
    "socket": bind,
    "link to /dev/zero": lambda path: path.symlink_to("/dev/zero"),
    "link to /dev/random": lambda path: path.symlink_to("/dev/random"),
    "link to /dev/tty": lambda path: path.symlink_to("/dev/tty"),
    "link to stdin": lambda path: path.symlink_to("/proc/self/fd/0"),
    "link to itself": lambda path: path.symlink_to(path.name),
    "link to nothing": lambda path: path.symlink_to("nowhere"),
    "folder": Path.mkdir,
    "terabyte": endless,
    "empty file": Path.touch,
    "nothing": lambda path: None,
}
RUN = (
    "config.yaml", "summary.json", "split.csv", "duplicates.csv", "metrics.csv", "curves.png",
    "panels", "panels/epoch_002.png", "checkpoints", "checkpoints/best.ckpt",
    "checkpoints/last.ckpt", "checkpoints/previous.ckpt", ".lock", ".config.yaml.1.tmp", "extra",
    "evaluation", "evaluation/folder", "evaluation/folder/scores.csv", "evaluation/phantom",
    "evaluation/folder/summary.json", "evaluation/folder/tables.csv", ".evaluation.1.tmp",
    "evaluation/folder/report.html", "evaluation/folder/overlays", "evaluation/.folder.1.tmp",
)  # fmt: skip
DATA = (
    "images/benign_0.png", "labels/benign_0.png", "images", "labels", "cases.csv",
    "duplicates.csv", "images/extra", "images/extra.png", "labels/extra.png", ".",
)  # fmt: skip


def place(folder: str, name: str, what: str) -> Edit:
    """Something else in the place of a file."""

    def prepare(box: Sandbox) -> None:
        path = box.folder / folder / name
        path = path.parent / path.name if name != "." else box.folder / folder
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        path.unlink(missing_ok=True)
        MAKE[what](path)

    return prepare


def trials(ground: Path, seed: int) -> list[Trial]:
    """Each kind in each place, with each verb that might open it; in random order."""
    generator = random.Random(seed)
    tiny = [*train_arguments(ground), "data=folder", "data.root=../data",
            "split.fractions=[0.5,0.25,0.25]", "run_dir=new"]  # fmt: skip
    known = verbs(ground)
    on_runs = {
        **known,
        "train over it": ["train", *train_arguments(ground), "data.count=16", "run_dir=../run"],
        "resume=auto": ["train", *train_arguments(ground), "resume=auto", "run_dir=../run",
                        "data=folder", "data.root=../data", "trainer.max_epochs=3"],
    }  # fmt: skip
    on_data = {
        "train": ["train", *tiny],
        "files": ["train", *[word for word in tiny if "fractions" not in word], "split=files",
                  "split.train=../data/cases.csv", "split.test=../data/duplicates.csv"],
        "prepare": ["prepare", "data=folder", "data.root=../data", "out=index"],
        "predict a file": ["predict", "run=../run", "input=../data/images/benign_0.png",
                           "output=out"],
        **{name: known[name] for name in ("predict", "evaluate", "resume", "from_run")},
    }  # fmt: skip
    found = []
    for folder, names, opened in (("run", RUN, on_runs), ("data", DATA, on_data)):
        for name in names:
            for what in MAKE:
                for verb, arguments in opened.items():
                    found.append(Trial(f"{what} as {folder}/{name}: {verb}", arguments,
                                       place(folder, name, what)))  # fmt: skip
    generator.shuffle(found)
    return found
