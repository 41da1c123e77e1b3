"""Splits: which cases train, which choose the epoch (val), which are tested."""

import hashlib
import math
import unicodedata
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig

from anatosegnet.console import some
from anatosegnet.data.case import IMAGE_SUFFIXES, Case
from anatosegnet.data.stratify import grouped_parts, shuffled
from anatosegnet.errors import UserError, reason
from anatosegnet.files.opening import read_text
from anatosegnet.files.split_table import PARTS


@dataclass(frozen=True)
class Split:
    """Names of the cases of each part, and what a reader of the scores must know."""

    train: tuple[str, ...]
    val: tuple[str, ...]
    test: tuple[str, ...]
    description: str

    @property
    def fingerprint(self) -> str:
        """12 hex digits that two splits share only if the same names are in the same parts."""
        lines = [f"{part},{name}" for part in PARTS for name in getattr(self, part)]
        return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()[:12]

    @property
    def selection(self) -> str:
        """How the epoch was chosen, said beside every score."""
        if set(self.val) == set(self.test):
            return "epoch chosen on the test cases themselves (validation = test)"
        if shared := set(self.val) & set(self.test):
            return f"epoch chosen on {len(self.val)} cases, {len(shared)} of them test cases"
        return "epoch chosen on separate validation cases"

    def among(self, names: Collection[str]) -> "Split":
        """The same split of those names alone."""
        train, val, test = (
            tuple(name for name in getattr(self, part) if name in names) for part in PARTS
        )
        return Split(train, val, test, self.description)


def selection(config: DictConfig, split: Split, chosen: bool = True) -> str:
    """How the epoch of ``best.ckpt`` was chosen, said beside every score.

    Args:
        config: Of the training.
        split: Its split.
        chosen: False if the training ended before the first validation.
    """
    best = config.callbacks.get("best")
    if not chosen or (best is not None and best.get("monitor") is None):
        return "the last epoch, none was chosen"
    return split.selection


class Splitter(ABC):
    """Assigns cases to the parts; the result must not depend on the order of the cases."""

    @abstractmethod
    def __call__(self, cases: Sequence[Case]) -> Split:
        """Split the cases."""
        ...


class HoldoutSplit(Splitter):
    """Random parts, grouped, stratified by class; the same on every machine.

    The order comes from a hash of seed and name, so neither the directory's order nor a
    library's random generator has a part in it.

    Args:
        fractions: Shares of train, val and test; they sum to 1.
        seed: Another seed, another split.
    """

    def __init__(self, fractions: Sequence[float] = (0.7, 0.1, 0.2), seed: int = 0) -> None:
        if len(fractions) != 3 or min(fractions) < 0 or not math.isclose(sum(fractions), 1):
            raise UserError(f"split.fractions={list(fractions)} must be three shares that sum to 1")
        self.fractions = tuple(fractions)
        self.seed = seed

    def __call__(self, cases: Sequence[Case]) -> Split:
        """Split the cases."""
        shares = "/".join(f"{100 * fraction:g}" for fraction in self.fractions)
        train, val, test = grouped_parts(cases, self.fractions, self.seed)
        return Split(train, val, test, f"holdout {shares}, {_how(cases, self.seed)}")


class KFoldSplit(Splitter):
    """Cross-validation: one fold tests, and a share of the rest chooses the epoch.

    Over ``fold`` = 0 … ``folds`` - 1 every case is tested exactly once.

    Args:
        folds: Number of folds.
        fold: The one that tests, from 0.
        val: Share of the other folds that is held out to choose the epoch; 0: the fold that
            tests chooses it too.
        seed: Another seed, other folds.
    """

    def __init__(self, folds: int = 5, fold: int = 0, val: float = 0.1, seed: int = 0) -> None:
        if folds < 2:
            raise UserError(f"split.folds={folds} must be at least 2")
        if not 0 <= fold < folds:
            raise UserError(f"split.fold={fold} must be 0 to {folds - 1} (split.folds={folds})")
        self.folds, self.fold, self.val, self.seed = folds, fold, _share(val), seed

    def __call__(self, cases: Sequence[Case]) -> Split:
        """Split the cases."""
        test = grouped_parts(cases, [1 / self.folds] * self.folds, self.seed)[self.fold]
        train, val = _hold_out(cases, test, self.val, self.seed)
        description = f"fold {self.fold} of {self.folds} (from 0), {_how(cases, self.seed)}"
        return Split(train, val, test, f"{description}, {_chosen_by(self.val)}")


class OfficialSplit(Splitter):
    """The dataset's own folds: one tests, and a share of the rest chooses the epoch.

    Args:
        fold: The one that tests, from 0.
        val: Share of the other folds that is held out to choose the epoch; 0: the fold that
            tests chooses it too.
        seed: Of that share.
    """

    def __init__(self, fold: int = 0, val: float = 0.1, seed: int = 0) -> None:
        self.fold, self.val, self.seed = fold, _share(val), seed

    def __call__(self, cases: Sequence[Case]) -> Split:
        """Split the cases; raises UserError where the dataset has no folds, or not this one."""
        without = [case.name for case in cases if case.fold is None]
        if len(without) == len(cases):
            raise UserError(
                "split=official: this dataset has no official folds; use split=holdout or "
                "split=kfold"
            )
        if without:
            raise UserError(
                f"split=official: {len(without)} cases have no official fold: {some(without)}; "
                "leave them out, or use split=kfold"
            )
        folds = sorted({case.fold for case in cases if case.fold is not None})
        if self.fold not in folds:
            known = ", ".join(map(str, folds))
            raise UserError(f"split.fold={self.fold} must be one of the official folds: {known}")
        test = tuple(sorted(case.name for case in cases if case.fold == self.fold))
        train, val = _hold_out(cases, test, self.val, self.seed)
        description = f"official fold {self.fold} of {len(folds)} (from 0)"
        how = f", {_how(cases, self.seed)}" if self.val else ""
        return Split(train, val, test, f"{description}, {_chosen_by(self.val)}{how}")


class ReleasedSplit(Splitter):
    """The authors' protocol: 80 % train; the other 20 % are both validation and test.

    Their random split ran over an unsorted directory listing and cannot be rebuilt; this one
    has its sizes (517/130 on BUSI, 201/51 on BrEaST) and is the same everywhere.
    """

    def __init__(self, seed: int = 42) -> None:
        self.seed = seed

    def __call__(self, cases: Sequence[Case]) -> Split:
        """Split the cases."""
        order = shuffled((case.name for case in cases), self.seed)
        count = int(0.8 * len(order))
        rest = tuple(order[count:])
        return Split(tuple(order[:count]), rest, rest, f"released 80/20, seed {self.seed}")


class FilesSplit(Splitter):
    """Parts from lists of case names, one a line (an image suffix may stand behind a name).

    Args:
        train: List of the training cases.
        test: List of the test cases.
        val: List of the validation cases; without it a tenth of the training cases, grouped and
            stratified by class, is held out for choosing the epoch.
        seed: Of that tenth.
    """

    def __init__(self, train: str, test: str, val: str | None = None, seed: int = 0) -> None:
        self.train, self.test, self.val = Path(train), Path(test), Path(val) if val else None
        self.seed = seed

    def __call__(self, cases: Sequence[Case]) -> Split:
        """Split the cases; raises UserError for unknown or repeated names and for leaks."""
        known = {case.name: case for case in cases}
        train, test = _read_names(self.train, known), _read_names(self.test, known)
        if self.val is not None:
            val = _read_names(self.val, known)
            origin = f"val {self.val.stem}"
        else:
            train, val = grouped_parts([known[name] for name in train], (0.9, 0.1), self.seed)
            origin = f"val a tenth of train, seed {self.seed}"
        for part, names in (("test", test), ("validation", val)):
            leaked = sorted(set(train) & set(names))
            if leaked:
                raise UserError(
                    f"split: {len(leaked)} cases are both in train and in {part}: "
                    f"{some(leaked)}; take them out of one list"
                )
        description = f"files train {self.train.stem}, {origin}, test {self.test.stem}"
        return Split(train, val, test, description)


def require_parts(split: Split, cases: Sequence[Case], seed: int = 0) -> None:
    """UserError if a part is empty: says how many groups there are, and what would do.

    Args:
        split: The split.
        cases: The cases, as they were split.
        seed: Of the split.
    """
    empty = [part for part in PARTS if not getattr(split, part)]
    if not empty:
        return
    line = f"the split ({split.description}) leaves {' and '.join(empty)} empty"
    groups = len({case.group or case.name for case in cases})
    known = f"{len(cases)} cases"
    if groups < len(cases):
        known += f" are {groups} groups (patients, near-duplicates), which are never cut"
    shares = [(a, b, 20 - a - b) for a in range(1, 19) for b in range(1, 20 - a)]
    for share in sorted(shares, key=lambda share: math.dist(share, (14, 2, 4))):  # the usual one
        fractions = [part / 20 for part in share]
        if all(grouped_parts(cases, fractions, seed)):
            offer = ",".join(map(str, fractions))
            raise UserError(f"{line}: {known}; take split=holdout split.fractions=[{offer}]")
    raise UserError(
        f"{line}: {known}, too few of each class for three parts; give more cases, or lists of "
        "your own (split=files)"
    )


def benchmark_split(directory: str, fold: int = 1) -> FilesSplit:
    """One of the public benchmark's three splits of BUSI; its test part doubles as validation.

    Args:
        directory: Holds ``busi_train1.txt``, ``busi_val1.txt`` and so on.
        fold: 1, 2 or 3.
    """
    if fold not in (1, 2, 3):
        raise UserError(f"split.fold={fold} must be 1, 2 or 3: the benchmark has three splits")
    train, test = (str(Path(directory) / f"busi_{part}{fold}.txt") for part in ("train", "val"))
    return FilesSplit(train, test, val=test)


def _hold_out(
    cases: Iterable[Case], test: tuple[str, ...], share: float, seed: int
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names of train and val: the cases that do not test, cut by the share; 0: val is test."""
    tested = set(test)
    rest = [case for case in cases if case.name not in tested]
    if share == 0:
        return tuple(sorted(case.name for case in rest)), test
    train, val = grouped_parts(rest, (1 - share, share), seed)
    return train, val


def _how(cases: Iterable[Case], seed: int) -> str:
    sizes = Counter(case.group for case in cases if case.group)
    several = sum(size > 1 for size in sizes.values())
    kept = f", {several} group{'s' * (several > 1)} kept together" if several else ""
    return f"stratified by class{kept}, seed {seed}"


def _chosen_by(val: float) -> str:
    return f"val {100 * val:g} % of the rest" if val else "val the same fold"


def _share(val: float) -> float:
    if not 0 <= val < 1:
        raise UserError(f"split.val={val} must be a share of at least 0 and less than 1")
    return val


def _read_names(path: Path, known: dict[str, Case]) -> tuple[str, ...]:
    try:
        text = read_text(path)
    except (OSError, ValueError) as error:
        raise UserError(f"split: the list {path} cannot be read ({reason(error)})") from error
    lines = unicodedata.normalize("NFC", text).splitlines()
    names = [line.strip() for line in lines if line.strip()]
    # "case.png" means "case", unless a case is really called so
    names = [name if name in known else _without_suffix(name) for name in names]
    unknown = [name for name in names if name not in known]
    if unknown:
        raise UserError(
            f"split: {len(unknown)} names in {path} are not in the data: {some(unknown)}; "
            "use the names of this dataset's cases"
        )
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise UserError(f"split: {path} names cases twice: {some(repeated)}")
    if not names:
        raise UserError(f"split: the list {path} is empty")
    return tuple(names)


def _without_suffix(name: str) -> str:
    stem, dot, suffix = name.rpartition(".")
    return stem if dot + suffix.lower() in IMAGE_SUFFIXES else name
