"""Which members of an ensemble may score which case: those that had no say of it in training."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, reduce
from typing import Any

import numpy as np
from omegaconf import DictConfig

from anatosegnet.config.objects import network_name
from anatosegnet.console import some
from anatosegnet.data.changes import Changes
from anatosegnet.data.checksum import sha256
from anatosegnet.data.duplicates import natural_key
from anatosegnet.data.leakage import never_seen
from anatosegnet.data.prepared import FoundData
from anatosegnet.errors import UserError
from anatosegnet.evaluation.cohort import Cohort, Judgement, OwnTestCases, find_cohort
from anatosegnet.evaluation.settings import in_words, setting_of
from anatosegnet.run import Run


@dataclass(frozen=True)
class Members:
    """The cases that an ensemble is scored on, each by the members that never saw it.

    Attributes:
        cohorts: What each member could be scored on, in the order of the members.
    """

    cohorts: tuple[Cohort, ...]

    @classmethod
    def find(cls, runs: Sequence[Run], config: DictConfig, own_data: bool) -> "Members":
        """The cases of the members' own data, or of ``config.data``; see `find_cohort`.

        Raises:
            UserError: The members were trained on different data and none was named, or they saw
                every case; or as `find_cohort`.
        """
        found = cls(tuple(find_cohort(run, config, own_data) for run in runs))
        if len(names := sorted({cohort.data.name for cohort in found.cohorts})) > 1:
            raise UserError(
                f"the members were trained on different data ({', '.join(names)}); say which to "
                f"score: data={names[0]}, or a dataset that none of them was trained on"
            )
        if not found.names:
            raise UserError(
                f"no case of {names[0]} can be scored: each was trained on by every member, or "
                "chose its epoch, or has a near-duplicate or group mate that did; data=NAME scores "
                "another dataset"
            )
        return found

    @cached_property
    def allowed(self) -> tuple[frozenset[str], ...]:
        """Of each member the cases that it never saw."""
        return tuple(
            frozenset(cohort.names) & never_seen(cohort.run, cohort.recorded)
            if isinstance(cohort, OwnTestCases)
            else frozenset(cohort.names)
            for cohort in self.cohorts
        )

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The cases that a member never saw, in natural order."""
        return tuple(sorted(frozenset().union(*self.allowed), key=natural_key))

    @cached_property
    def data(self) -> FoundData:
        """The cases of all members, each as the first that has it found and grouped it."""
        cases = {
            name: case
            for cohort in reversed(self.cohorts)
            for name, case in cohort.data.cases.items()
        }
        return replace(self.cohorts[0].data, cases=cases)

    def of(self, name: str) -> tuple[int, ...]:
        """The places of the members that score a case."""
        return tuple(place for place, names in enumerate(self.allowed) if name in names)

    def notice(self, name: str, image: np.ndarray, mask: np.ndarray) -> bool:
        """As `Cohort.notice`, for the members that score the case."""
        return all([self.cohorts[place].notice(name, image, mask) for place in self.of(name)])

    def judge(self) -> Judgement:
        """What is known of the cases, all of which were noticed; of all members."""
        known = [cohort.judge() for cohort in self.cohorts]
        leaks = (each.leaks & allowed for each, allowed in zip(known, self.allowed, strict=True))
        splits = unique(each.split for each in known)
        return Judgement(
            f"{self.who_scores}; {splits}" if self.who_scores else splits,
            unique(each.selection for each in known),
            frozenset().union(*leaks),
            reduce(Changes.joined, (each.changes for each in known)),
        )

    @property
    def who_scores(self) -> str:
        """How many members score a case, and which cases none does; "" where all score all."""
        if not any(isinstance(cohort, OwnTestCases) for cohort in self.cohorts):
            return ""
        counts = Counter(len(self.of(name)) for name in self.names)
        by = ", ".join(f"{images} by {members}" for members, images in sorted(counts.items()))
        left_out = sorted({*self.data.cases} - {*self.names}, key=natural_key)
        return (
            f"out of fold: a member scores no image that it trained on, that chose its epoch, or "
            f"that has a near-duplicate or group mate there; of {len(self.cohorts)} members, {by}; "
            f"{len(left_out)} images left out"
            + (f" that every member saw ({some(left_out)})" if left_out else "")
        )


def unique(texts: Iterable[str]) -> str:
    """Texts that are not the same, one after the other."""
    return " | ".join(dict.fromkeys(texts))


def about_predictor(runs: Sequence[Run], views: Sequence[str]) -> dict[str, Any]:
    """What is recorded of a predictor that is more than a run's network, under ``predictor``.

    Returns:
        ``name`` for people, ``setting`` (what was tried, in 12 hex digits: equal for repetitions),
        ``members`` (their folders and checkpoints), and ``views``.
    """
    tried = sorted(repr(sorted(setting_of(run.config).items())) for run in runs)
    networks = Counter(in_words(network_name(setting_of(run.config))) or "network" for run in runs)
    name = " + ".join(f"{n} × {network}" if n > 1 else network for network, n in networks.items())
    return {
        "name": ", ".join([name, *([f"tta={'+'.join(views)}"] if views else [])]),
        "setting": hashlib.sha256(repr([*tried, *views]).encode()).hexdigest()[:12],
        "members": [
            {"run": str(run.directory.resolve()), "checkpoint_sha256": sha256(run.best_path)}
            for run in runs
        ],
        "views": list(views),
    }
