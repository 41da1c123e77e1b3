"""What of the cases that are scored was seen in training; without an answer no score is a test."""

import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TypeVar

import numpy as np

from anatosegnet.console import progress, some
from anatosegnet.data.case import Case, CaseError
from anatosegnet.data.changes import SEEN, Changes
from anatosegnet.data.duplicates import (
    Digests,
    duplicate_groups,
    find_duplicates,
    natural_key,
    pixel_digest,
    read_pairs,
    thumbnail,
)
from anatosegnet.data.groups import Leakage, leakage, with_groups
from anatosegnet.data.prepared import FoundData
from anatosegnet.data.recorded_split import RecordedSplit
from anatosegnet.data.split import Split
from anatosegnet.errors import UserError
from anatosegnet.run import Run

Look = tuple[str, np.ndarray]  # digest of the pixels, thumbnail
Kept = TypeVar("Kept")


def recorded_split(run: Run, needed: Sequence[str] = ()) -> RecordedSplit:
    """The split of a run under its own description; ``needed`` as in `RecordedSplit`."""
    return RecordedSplit(run.split_path, run.summary.get("split_description"), needed)


def unchanged_split(run: Run) -> Split:
    """The split of a run, if it is the one that the run trained with.

    Raises:
        UserError: ``split.csv`` was changed: its test cases may have been trained on.
    """
    split = recorded_split(run).read()
    recorded = run.summary.get("split_fingerprint")
    if recorded is not None and recorded != split.fingerprint:
        raise UserError(
            f"{run.split_path} is not the split this run trained with (fingerprint "
            f"{split.fingerprint}, {run.summary_path.name} says {recorded}): its test cases may "
            "have been trained on, so no score of them is a test score; put the file back"
        )
    return split


def about_split(run: Run, split: Split) -> str:
    """What is said of a run's own split beside a score."""
    summary, rows = run.summary, RecordedSplit(run.split_path).rows
    known = f"fingerprint {split.fingerprint}; {summary.get('leakage', 'leakage unknown')}"
    if "split_fingerprint" not in summary:
        known = "the run recorded no fingerprint, so whether it was changed is unknown"
    unknown = [
        words
        for column, words in (("pixels", "images"), ("mask", "masks"))
        if not all(getattr(row, column) for row in rows)
    ]
    if unknown:
        known += f"; whether the {' and '.join(unknown)} are those of training is unknown"
    name = summary.get("split_description") or run.config.split._target_.split(".")[-1]
    return f"test part of the run's split ({name}); {known}"


def recorded_groups(run: Run, data: FoundData) -> FoundData:
    """The run's own data, with the groups under which they were split."""
    cases = dict(data.cases)
    for row in RecordedSplit(run.split_path).rows:
        if row.group and (case := cases.get(row.id)):
            cases[case.name] = replace(case, group=row.group, patient=case.patient or case.group)
    return replace(data, cases=cases)


def leaked(run: Run) -> frozenset[str]:
    """The run's test cases that have a near-duplicate, or an image of their patient, in training.

    From what it recorded; cases that validate and test are no leak.
    """
    return frozenset(recorded_leakage(run).test) | frozenset(Changes.recorded(run).of("trained"))


def recorded_leakage(run: Run) -> Leakage:
    """What crosses the parts of a run's split, from ``split.csv`` and ``duplicates.csv``."""
    rows = RecordedSplit(run.split_path).rows
    pairs = read_pairs(run.duplicates_path) if run.duplicates_path.is_file() else []
    # copies of one image are copies of each other, even if it is in no part itself
    cases = {name: Case(name) for pair in pairs for name in (pair.id_a, pair.id_b)}
    cases |= {row.id: Case(row.id, group=row.group) for row in rows}
    related = with_groups(cases.values(), duplicate_groups(pairs))
    return leakage(RecordedSplit(run.split_path).read(), related)


def trained_pixels(run: Run) -> set[str]:
    """Digests of the images that a run trained on or chose its epoch with, as far as recorded."""
    rows = [row for row in RecordedSplit(run.split_path).rows if row.part in SEEN]
    later = Changes.recorded(run).of("images")  # it went on with others
    return {row.pixels for row in rows} | {later.get(row.id, "") for row in rows} - {""}


def seen_in_training(
    run: Run,
    own: FoundData | None,
    data: FoundData,
    names: Iterable[str],
) -> str:
    """Which images of another dataset the run trained on or chose its epoch with.

    Identical pixels are known from the run's ``split.csv``; near-duplicates are looked for among
    the run's own images, if these can be had.

    Args:
        run: The run.
        own: The run's own data; None where they could not be found.
        data: Those of the cases to score.
        names: Those cases.

    Returns:
        One line to stand beside the scores.
    """
    rows = [row for row in RecordedSplit(run.split_path).rows if row.part in SEEN]
    known = trained_pixels(run)
    looks = look(data, names)
    seen = {name for name, (digest, _) in looks.items() if digest in known}
    unread = ""
    if not ((own and own.source.simulated) or data.source.simulated):
        mine = {row.id for row in rows}
        trained = look(own, mine & set(own.cases)) if own else {}
        images = {f"own {name}": thumb for name, (_, thumb) in trained.items()}
        images |= {f"new {name}": thumb for name, (_, thumb) in looks.items()}
        for pair in find_duplicates(images.items()):
            sides = {key[:3]: key[4:] for key in (pair.id_a, pair.id_b)}
            if len(sides) == 2:
                seen.add(sides["new"])
        if missing := len(mine) - len(trained):
            unread = (
                f" ({missing} of the run's {len(mine)} training and validation images could not be "
                "read again; of these only identical pixels would be noticed)"
            )
    if not seen:
        return f"none of them is a near-duplicate of a training or validation image{unread}"
    names = sorted(seen, key=natural_key)
    return (
        f"NOT A TEST SCORE: {len(seen)} of {len(looks)} images are copies or near-duplicates of "
        f"training or validation images: {some(names)}{unread}"
    )


def read_digests(data: FoundData, names: Iterable[str]) -> dict[str, Digests]:
    """Digests of each case that can be read."""
    return _read_each(
        data, names, lambda image, mask: Digests(pixel_digest(image), pixel_digest(mask))
    )


def look(data: FoundData, names: Iterable[str]) -> dict[str, Look]:
    """Digest and thumbnail of each image that can be read."""
    return _read_each(data, names, lambda image, _: (pixel_digest(image), thumbnail(image)))


def _read_each(
    data: FoundData,
    names: Iterable[str],
    keep: Callable[[np.ndarray, np.ndarray], Kept],
) -> dict[str, Kept]:
    """What is kept of image and mask of each case that can be read."""

    def one(name: str) -> tuple[str, Kept] | None:
        try:
            return name, keep(*data.read(name))
        except CaseError:
            return None  # scoring reports it

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        names = sorted(names)
        looks = progress(pool.map(one, names), "comparing images", len(names))
        return dict(item for item in looks if item is not None)
