"""Cutting cases into parts: grouped, stratified by class, the same everywhere."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import accumulate

from anatosegnet.data.case import Case


def grouped_parts(
    cases: Iterable[Case], fractions: Sequence[float], seed: int
) -> list[tuple[str, ...]]:
    """Cut the cases by the fractions; no group is cut, no case is lost.

    Groups are cut in the order of a hash of seed and group, class by class, at the border between
    two groups that is nearest to the fraction; so a part's share of a class is off by no more than
    the size of that class' largest group. Groups of several classes are cut first, and the groups
    of one class then fill up what each part lacks.

    Returns:
        One tuple of sorted names per fraction.
    """
    groups: dict[str, list[Case]] = {}
    totals: Counter[str] = Counter()
    for case in cases:
        groups.setdefault(case.group or case.name, []).append(case)
        totals[case.label] += 1
    strata: dict[tuple[str, ...], list[str]] = {}
    for group, members in groups.items():
        strata.setdefault(tuple(sorted({case.label for case in members})), []).append(group)
    parts: list[list[Case]] = [[] for _ in fractions]
    for labels in sorted(strata, key=lambda labels: (-len(labels), labels)):
        size = sum(len(groups[group]) for group in strata[labels])
        wanted = [fraction * size for fraction in fractions]
        if len(labels) == 1:
            placed = [sum(case.label == labels[0] for case in part) for part in parts]
            shares = (fraction * totals[labels[0]] for fraction in fractions)
            lacks = [max(share - there, 0.0) for share, there in zip(shares, placed, strict=True)]
            wanted = [lack * size / max(sum(lacks), 1e-9) for lack in lacks]
        order = shuffled(strata[labels], seed)
        ends = list(accumulate((len(groups[group]) for group in order), initial=0))
        start = 0
        for part, border in zip(parts, accumulate(wanted), strict=True):
            end = _nearest(ends, border, start)
            part.extend(case for group in order[start:end] for case in groups[group])
            start = end
    return [tuple(sorted(case.name for case in part)) for part in parts]


def _nearest(ends: Sequence[int], border: float, start: int) -> int:
    """Index from ``start`` on whose end is nearest to the border; a tie goes to the even one."""
    return min(range(start, len(ends)), key=lambda k: (round(abs(ends[k] - border), 6), k % 2, k))


def shuffled(names: Iterable[str], seed: int) -> list[str]:
    """The names in the order of a hash of seed and name: random, and the same everywhere."""
    return sorted(names, key=lambda name: hashlib.sha256(f"{seed}:{name}".encode()).digest())
