"""Who is scored, under which split, and what of them was seen in training."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from omegaconf import DictConfig, open_dict

from anatosegnet.config.overrides import given_keys
from anatosegnet.config.recorded import MARK
from anatosegnet.config.whereabouts import at_home
from anatosegnet.data.build import build_found_data
from anatosegnet.data.changes import Changes, find_changes, require_accepted
from anatosegnet.data.duplicates import Digests, ImageDigest, digest_image
from anatosegnet.data.leakage import (
    about_split,
    digest_images,
    leaked,
    recorded_groups,
    recorded_split,
    require_unchanged,
    seen_in_training,
)
from anatosegnet.data.prepared import FoundData
from anatosegnet.data.recorded_split import RecordedSplit
from anatosegnet.data.split import Split, selection
from anatosegnet.errors import UserError
from anatosegnet.run import Run


class Judgement(NamedTuple):
    """What is stated beside the scores of a cohort.

    Attributes:
        split: Which part of what the cases are, and what is known of it.
        selection: How the epoch was chosen.
        leaks: Cases that have a near-duplicate, or another image of their patient, in training,
            as far as the run recorded that.
        changes: What of the run's data is not as it was recorded.
    """

    split: str
    selection: str
    leaks: frozenset[str]
    changes: Changes


@dataclass(frozen=True)
class Cohort(ABC):
    """The cases that are scored.

    They are judged by their pixels, but decoded only once: each is noticed as it is read for
    scoring, and judged when all are.

    Attributes:
        run: The run that is scored.
        settings: Its config, with its data where they lie now.
        recorded: Its ``split.csv``.
        data: The data that the cases are of.
        names: The cases, in the order of the scores.
        digests: Of those that were noticed, by name.
    """

    run: Run
    settings: DictConfig
    recorded: RecordedSplit
    data: FoundData
    names: tuple[str, ...]
    digests: dict[str, ImageDigest] = field(default_factory=dict, kw_only=True)

    def notice(self, name: str, image: np.ndarray, mask: np.ndarray) -> bool:
        """Keep the digest of a case; False where no score will come of this cohort.

        Args:
            name: Of the case.
            image: (H, W, 3) uint8 at its original size.
            mask: (H, W) uint8 {0, 1}.
        """
        self.digests[name] = digest_image(image, mask)
        return True

    @abstractmethod
    def judge(self) -> Judgement:
        """What is known of the cases, all of which were noticed."""
        ...


@dataclass(frozen=True)
class OwnTestCases(Cohort):
    """The run's recorded test cases, as far as they are there.

    Attributes:
        split: The recorded split of the cases that are there.
        accept: Whether data that changed since training are scored.
    """

    split: Split
    accept: bool

    def notice(self, name: str, image: np.ndarray, mask: np.ndarray) -> bool:
        """As `Cohort.notice`; False from a case on whose change was not accepted."""
        super().notice(name, image, mask)
        now = self.digests[name].digests
        known = now == self.recorded.digests.get(name)
        return bool(known or self.accept or self._before.cover(self._changes({name: now})))

    def judge(self) -> Judgement:
        """What is known of the cases; raises UserError where a change was not accepted."""
        now = self._changes({name: digest.digests for name, digest in self.digests.items()})
        changes = require_accepted(self.run, now, self.accept, self._before)
        return Judgement(
            about_split(self.run, self.recorded, self.split),
            selection(self.settings, self.split, self.run.summary.get("epoch_chosen", True)),
            leaked(self.run, self.recorded) | frozenset(now.of("trained")),
            changes,
        )

    @property
    def _before(self) -> Changes:
        return Changes.recorded(self.run)

    def _changes(self, digests: dict[str, Digests]) -> Changes:
        return find_changes(self.recorded, self.data.cases, digests)


@dataclass(frozen=True)
class OtherImages(Cohort):
    """All cases of other data than the run's own."""

    def judge(self) -> Judgement:
        """What is known of the cases, and whether the run has seen any of them."""
        dataset = self.settings.data.name
        try:
            own = build_found_data(self.settings)
        except UserError:  # the run's data lie elsewhere, or are gone
            own = None
        seen = seen_in_training(self.run, self.recorded, own, self.data, self.digests)
        return Judgement(
            f"none: all cases of {self.data.name}, trained on {dataset}; {seen}",
            f"epoch chosen on validation cases of {dataset}",
            frozenset(),
            Changes.recorded(self.run).of_cases,
        )


def find_cohort(run: Run, config: DictConfig, own_data: bool) -> Cohort:
    """Choose the cases to score.

    On the run's own dataset these are its recorded test cases. On other images (of another
    dataset, or of another root or seed of the same) all cases are. Where the same dataset is
    named, its images say which it is; only then is a test image read here too.

    Args:
        run: The run.
        config: Of the verb: data, paths, accept_changed_data.
        own_data: Whether the run's own data are meant, not ``config.data``.

    Raises:
        UserError: The run's split was changed since training, or the data are at fault.
    """
    settings = run.config
    dataset = settings.data.name
    at_home(settings, config.paths, given_keys())
    if own_data and config.get("data") is not None:  # data.root=… alone
        wrong = [key for key in config.data if key != "root" or key not in settings.data]
        if wrong:
            raise UserError(
                f"data.{wrong[0]} is not for the run's own data; data=NAME evaluates on another "
                "dataset"
            )
        settings.data.root = config.data.root
    if own_data:
        data = build_found_data(settings)
    else:
        external = config.data.copy()
        for key in ("image_size", "in_channels", "normalization", "seed"):
            external[key] = settings.data[key]  # the network's own; never the dataset's
        other = settings.copy()
        with open_dict(other):
            other.data, other.paths = external, config.paths
            other.pop(MARK)  # the dataset is of the user's own command line
        data = build_found_data(other)
    recorded = recorded_split(run, ["test"])
    if data.name == dataset:
        require_unchanged(run, recorded)
        if own_data or is_same(data, recorded):
            split = recorded(list(data.cases.values()))
            own = recorded_groups(recorded, data)
            accept = config.accept_changed_data
            return OwnTestCases(run, settings, recorded, own, split.test, split, accept)
    return OtherImages(run, settings, recorded, data, tuple(data.cases))


def is_same(data: FoundData, recorded: RecordedSplit) -> bool:
    """Whether the recorded test cases are there, and most of their images as they were."""
    test = recorded.read().test
    there = [name for name in test if name in data.cases]
    if len(there) < len(test):
        return False
    digests = {name: digest.digests for name, digest in digest_images(data, there).items()}
    return 2 * len(find_changes(recorded, data.cases, digests).of("images")) < len(there)
