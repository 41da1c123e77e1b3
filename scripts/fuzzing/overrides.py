"""Wrong command lines: each setting of each verb with values that it cannot have."""

import random
from collections.abc import Iterator
from pathlib import Path

import hydra

from anatosegnet.config.composition import config_directory, dotted_keys
from fuzzing.configs import verbs
from fuzzing.ground import Sandbox, train_arguments
from fuzzing.trials import Trial

VALUES = (
    "null", "", "-1", "0", "1", "1.5", "true", "nan", "inf", "-inf", "1e400", "[]", "{}", "[1,2]",
    "[[]]", "{a: 1}", "abc", "'a b'", "''", "é", "\u202e", "..", "~", "/dev/null/x",
    "/proc/1/x", "\\${x}", "${name}", "${nothing}", "${oc.env:NOTHING}", "'${'", "???",
    "[null]", "{_target_: os.getpid}", "{_target_: torch.nn.Identity}", "1,2", "range(1,3)",
    "choice(1,2)", "x" * 300, "a=b", "'[/x]'", "{", "]", "'", "-0.0",
)  # fmt: skip
# of keys that name amounts a large number is a large request, not a wrong one
HUGE = ("99999999999999999999", "1e30", "60000", "2147483648", "1_000")
AMOUNTS = ("count", "max_epochs", "num_workers", "trials", "devices", "patience")
MISUSE = (
    "=", "==", "+", "~", "~nothing", "+nothing=1", "++nothing=1", "nothing=1", "nothing", "a.b.c=1",
    "@=1", "model@=x", "model@loss=unet", "+model@callbacks.x=unet", "model", "model=", "model=[]",
    "model=nothing", "model=anatosegnet,unet", "model=[anatosegnet,unet]", "model=../model/unet",
    "model=/model/unet", "model=3", "~model", "~model=tiny", "~data", "~split", "~loss", "~trainer",
    "~callbacks", "~callbacks.best", "~callbacks.last", "~callbacks.history", "~optimizer",
    "~optimizer.lr", "~run_dir", "~seed", "~paths", "~name", "data=nothing", "data=busi",
    "data=folder", "split=released", "split=files", "split=official", "split=kfold", "split=1",
    "augmentation=0", "augmentation=released", "loss=hausdorff", "optimizer=sgd",
    "scheduler=nothing", "scheduler=cosine_warmup", "trainer=gpu", "trainer=ddp", "logger=wandb",
    "callbacks=[]", "callbacks=default,ema", "callbacks=[default,nothing]", "callbacks=ema",
    "+callbacks=ema", "experiment=nothing", "experiment=../x", "sweep=seeds", "sweep=nothing",
    "hydra=x", "hydra.run.dir=null", "hydra.mode=X", "hydra/launcher=x", "hydra/output=x",
    "hydra.job.chdir=1", "hydra.verbose=3", "+hydra.x=1", "_target_=1", "+_target_=os.getpid",
    "resume=auto,auto", "trust=x", "trust=[1]", "trust={}", "--nothing", "--cfg", "--cfg=x",
    "--config-name=x", "--config-dir=/nowhere", "--multirun=3", "-x", "seed=1 seed=2", " ",
    "\t=1", "\n", "é=1", "data. root=1", "data..root=1", ".data=1", "data.=1", "data[0]=1",
    "data.exclude[0]=x", "'data.root'=1", "data.root==1", "data.root:=1", "data.exclude=[x",
    "data.exclude={x", "\udcff=1",
)  # fmt: skip


def settings(verb: str, given: list[str]) -> list[str]:
    """All keys of a verb as it is composed."""
    with hydra.initialize_config_dir(str(config_directory()), version_base="1.3"):
        return dotted_keys(hydra.compose(verb, given))


def wrong(generator: random.Random, keys: list[str], count: int) -> Iterator[str]:
    """So many wrong settings: a key and a value that it cannot have, at random."""
    for _ in range(count):
        key = generator.choice(keys)
        value = generator.choice(VALUES + HUGE * (not key.endswith(AMOUNTS)))
        prefix = generator.choice(("", "", "", "", "", "+", "++", "~"))
        yield f"{prefix}{key}={value}"


def nothing(_: Sandbox) -> None:
    """Nothing is damaged."""


def trials(ground: Path, seed: int) -> list[Trial]:
    """Commands with one wrong setting, or two; in random order."""
    generator = random.Random(seed)
    tiny = [*train_arguments(ground), "data.count=16", "run_dir=new"]
    runs = verbs(ground)
    programs: dict[str, tuple[list[str], list[str], int]] = {
        "train": (["train", *tiny], settings("train", []), 900),
        "train on files": (
            ["train", *train_arguments(ground), "data=folder", "data.root=../data",
             "split.fractions=[0.5,0.25,0.25]", "run_dir=new"],
            settings("train", ["data=folder", "loss=tversky", "scheduler=cosine_warmup"]), 200),
        "resume": (runs["resume"], settings("train", ["data=folder"]), 250),
        "from_run": (runs["from_run seed="], settings("train", ["data=folder"]), 200),
        "evaluate": (runs["evaluate"], settings("evaluate", []), 200),
        "evaluate data=": (runs["evaluate data="], settings("evaluate", ["data=phantom"]), 150),
        "compare": (runs["compare"], settings("compare", []), 200),
        "predict": (runs["predict"], settings("predict", []), 150),
        "runs": (runs["runs"], settings("runs", []), 60),
        "prepare": (["prepare", "data=folder", "data.root=../data", "out=index"],
                    settings("prepare", ["data=folder"]), 150),
        "tune": (["tune", *tiny[:-1], "search.trials=0", "search.directory=study"],
                 [key for key in settings("tune", []) if key != "search.trials"], 200),
    }  # fmt: skip
    found = []
    for name, (arguments, keys, count) in programs.items():
        given = [[one] for one in wrong(generator, keys, count)]
        given += [[generator.choice(MISUSE), *two[:1]] for two in given[: count // 8]]
        misuse = MISUSE if name == "train" else generator.sample(MISUSE, 30)
        for words in [*given, *[[one] for one in misuse]]:
            found.append(Trial(f"{name}: {' '.join(words)!r}"[:200], [*arguments, *words], nothing,
                               own=True))  # fmt: skip
    generator.shuffle(found)
    return found
