"""Splits: which cases train, which choose the epoch (val), which are tested."""

import csv
import hashlib
import math
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from anatosegnet.data.case import IMAGE_SUFFIXES, Case
from anatosegnet.errors import UserError

PARTS = ("train", "val", "test")


@dataclass(frozen=True)
class Split:
    """Names of the cases of each part, and what a reader of the scores must know."""

    train: tuple[str, ...]
    val: tuple[str, ...]
    test: tuple[str, ...]
    description: str

    @property
    def selection(self) -> str:
        """How the epoch was chosen, said beside every score."""
        if set(self.val) == set(self.test):
            return "epoch chosen on the test cases themselves (validation = test)"
        if shared := set(self.val) & set(self.test):
            return f"epoch chosen on {len(self.val)} cases, {len(shared)} of them test cases"
        return "epoch chosen on separate validation cases"

    def write(self, path: Path, cases: Iterable[Case]) -> None:
        """Write ``id,class,part``; a case that both validates and tests has two rows."""
        labels = {case.name: case.label for case in cases}
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(["id", "class", "part"])
            for part in PARTS:
                writer.writerows([name, labels[name], part] for name in getattr(self, part))


class Splitter(Protocol):
    """Assigns cases to the parts; the result must not depend on the order of the cases."""

    def __call__(self, cases: Sequence[Case]) -> Split:
        """Split the cases."""
        ...


class HoldoutSplit:
    """Random parts, stratified by class; the same on every machine.

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
        train, val, test = stratified_parts(cases, self.fractions, self.seed)
        description = f"holdout {shares}, stratified by class, seed {self.seed}"
        return Split(train, val, test, description)


class ReleasedSplit:
    """The authors' protocol: 80 % train; the other 20 % are both validation and test.

    Their random split ran over an unsorted directory listing and cannot be rebuilt; this one
    has its sizes (517/130 on BUSI, 201/51 on BrEaST) and is the same everywhere.
    """

    def __init__(self, seed: int = 42) -> None:
        self.seed = seed

    def __call__(self, cases: Sequence[Case]) -> Split:
        """Split the cases."""
        order = _shuffled((case.name for case in cases), self.seed)
        count = int(0.8 * len(order))
        rest = tuple(order[count:])
        return Split(tuple(order[:count]), rest, rest, f"released 80/20, seed {self.seed}")


class FilesSplit:
    """Parts from lists of case names, one a line (an image suffix may stand behind a name).

    Args:
        train: List of the training cases.
        test: List of the test cases.
        val: List of the validation cases; without it a tenth of the training cases, stratified
            by class, is held out for choosing the epoch.
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
            tenth = stratified_parts([known[name] for name in train], (0.9, 0.1, 0), self.seed)
            train, val, _ = tenth
            origin = f"val a tenth of train, seed {self.seed}"
        for part, names in (("test", test), ("validation", val)):
            leaked = sorted(set(train) & set(names))
            if leaked:
                raise UserError(
                    f"split: {len(leaked)} cases are both in train and in {part}: "
                    f"{_some(leaked)}; take them out of one list"
                )
        description = f"files train {self.train.stem}, {origin}, test {self.test.stem}"
        return Split(train, val, test, description)


class RecordedSplit:
    """The split that a run wrote into its ``split.csv``."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def __call__(self, cases: Sequence[Case]) -> Split:
        """Read the split; raises UserError if its cases are not all there."""
        parts: dict[str, list[str]] = {part: [] for part in PARTS}
        try:
            with self.path.open(newline="", encoding="utf-8-sig") as file:
                for row in csv.DictReader(file):
                    parts[row["part"]].append(row["id"])
        except (OSError, KeyError, TypeError, ValueError, csv.Error) as error:
            raise UserError(f"{self.path} cannot be read as a split ({error!r})") from error
        known = {case.name for case in cases}
        missing = sorted({name for names in parts.values() for name in names} - known)
        if missing:
            raise UserError(
                f"{len(missing)} cases of {self.path} are not in the data: {_some(missing)}; "
                "point paths.data_dir to the data of the run"
            )
        train, val, test = (tuple(parts[part]) for part in PARTS)
        return Split(train, val, test, f"recorded in {self.path}")


def stratified_parts(
    cases: Iterable[Case], fractions: Sequence[float], seed: int
) -> list[tuple[str, ...]]:
    """Cut each class by the fractions; counts are rounded so that none is lost.

    Returns:
        One tuple of sorted names per fraction.
    """
    classes: dict[str, list[str]] = {}
    for case in cases:
        classes.setdefault(case.label, []).append(case.name)
    parts: list[list[str]] = [[] for _ in fractions]
    for names in classes.values():
        order = _shuffled(names, seed)
        start, share = 0, 0.0
        for part, fraction in zip(parts, fractions, strict=True):
            share += fraction
            end = round(share * len(order))
            part.extend(order[start:end])
            start = end
    return [tuple(sorted(part)) for part in parts]


def _shuffled(names: Iterable[str], seed: int) -> list[str]:
    return sorted(names, key=lambda name: hashlib.sha256(f"{seed}:{name}".encode()).digest())


def _read_names(path: Path, known: dict[str, Case]) -> tuple[str, ...]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"split: the list {path} cannot be read ({error})") from error
    lines = unicodedata.normalize("NFC", text).splitlines()
    names = [line.strip() for line in lines if line.strip()]
    # "case.png" means "case", unless a case is really called so
    names = [name if name in known else _without_suffix(name) for name in names]
    unknown = [name for name in names if name not in known]
    if unknown:
        raise UserError(
            f"split: {len(unknown)} names in {path} are not in the data: {_some(unknown)}; "
            "use the names of this dataset's cases"
        )
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise UserError(f"split: {path} names cases twice: {_some(repeated)}")
    if not names:
        raise UserError(f"split: the list {path} is empty")
    return tuple(names)


def _without_suffix(name: str) -> str:
    stem, dot, suffix = name.rpartition(".")
    return stem if dot + suffix.lower() in IMAGE_SUFFIXES else name


def _some(names: Sequence[str], most: int = 5) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
