"""Groups: cases that stay on one side of a split, and what is known where they do not."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from anatosegnet.data.case import Case
from anatosegnet.data.duplicates import components, natural_key
from anatosegnet.data.split import Split


def with_groups(cases: Iterable[Case], duplicates: Mapping[str, str]) -> list[Case]:
    """Unite patients and groups of near-duplicates that share a case.

    Args:
        cases: The cases; their ``group`` is the patient, or empty.
        duplicates: Group of near-duplicates of each case that has one; see `duplicate_groups`.

    Returns:
        The cases, ``group`` the smallest name of the connected component, or empty for a case
        that stands alone; ``patient`` what ``group`` was.
    """
    cases = list(cases)
    first: dict[str, str] = {}  # case that stands for a patient
    links = [(case.name, first.setdefault(case.group, case.name)) for case in cases if case.group]
    names = {case.name for case in cases}
    links += [pair for pair in duplicates.items() if names.issuperset(pair)]
    group = components((a, b) for a, b in links if a != b)
    return [replace(case, group=group.get(case.name, ""), patient=case.group) for case in cases]


def without_duplicates(split: Split, duplicates: Mapping[str, str]) -> Split:
    """Leave one case of each group of near-duplicates, the first in natural order."""
    present = sorted({*split.train, *split.val, *split.test}, key=natural_key)
    kept: dict[str, str] = {}
    for name in present:
        kept.setdefault(duplicates.get(name, name), name)
    stay = set(kept.values())
    train, val, test = (
        tuple(name for name in names if name in stay)
        for names in (split.train, split.val, split.test)
    )
    dropped = len(present) - len(stay)
    return Split(train, val, test, f"{split.description}, {dropped} near-duplicates dropped")


def disagreements(cases: Iterable[Case], duplicates: Mapping[str, str]) -> list[str]:
    """A line for each group of near-duplicates whose classes differ."""
    groups: dict[str, list[Case]] = {}
    for case in sorted(cases, key=lambda case: natural_key(case.name)):
        if case.name in duplicates:
            groups.setdefault(duplicates[case.name], []).append(case)
    return [
        ", ".join(f"{case.name} is {case.label}" for case in group)
        for group in groups.values()
        if len({case.label for case in group}) > 1
    ]


@dataclass(frozen=True)
class Leakage:
    """Cases that have a near-duplicate, or another image of their patient, in another part.

    Attributes:
        test: Test cases with such an image in training.
        val: Validation cases with one in training.
        test_in_val: Test cases with one in validation, on which the epoch is chosen.
        text: The same in words, said beside every score.
    """

    test: tuple[str, ...]
    val: tuple[str, ...]
    test_in_val: tuple[str, ...]
    text: str

    @property
    def leaks(self) -> bool:
        """Whether anything crosses the parts."""
        return bool(self.test or self.val or self.test_in_val)


def leakage(split: Split, cases: Sequence[Case], patients: bool = False) -> Leakage:
    """Count what crosses the parts of a split.

    Args:
        split: The split.
        cases: The cases, ``group`` as `with_groups` gives it.
        patients: Whether the groups hold patients too, for the words alone.
    """
    group = {case.name: case.group for case in cases if case.group}

    def leaked(names: Iterable[str], others: Iterable[str]) -> tuple[str, ...]:
        others = set(others)
        there = {group[name] for name in others if name in group}
        return tuple(name for name in names if name not in others and group.get(name) in there)

    test, val = leaked(split.test, split.train), leaked(split.val, split.train)
    test_in_val = leaked(split.test, split.val)
    image = "a near-duplicate or another image of the patient" if patients else "a near-duplicate"
    counts = [f"{len(test)} of {len(split.test)} test images"] if test else []
    if val and set(split.val) != set(split.test):
        counts.append(f"{len(val)} of {len(split.val)} validation images")
    texts = []
    if counts:
        texts.append(f"{' and '.join(counts)} have {image} in training")
    if test_in_val and set(split.val) != set(split.test):
        texts.append(f"{len(test_in_val)} of {len(split.test)} test images have one in validation")
    text = "; ".join(texts) or f"no image has {image} in another part"
    return Leakage(test, val, test_in_val, text)
