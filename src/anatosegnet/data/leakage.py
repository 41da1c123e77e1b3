"""What of the cases that are scored was seen in training; without an answer no score is a test."""

import os
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from anatosegnet.console import progress, some
from anatosegnet.data.case import Case, CaseError
from anatosegnet.data.changes import SEEN, Changes
from anatosegnet.data.duplicates import (
    ImageDigest,
    digest_image,
    duplicate_groups,
    find_duplicates,
    natural_key,
    read_pairs,
)
from anatosegnet.data.groups import Leakage, leakage, with_groups
from anatosegnet.data.prepared import FoundData
from anatosegnet.data.recorded_split import RecordedSplit
from anatosegnet.data.split import Split
from anatosegnet.errors import UserError
from anatosegnet.run import Run

NOT_A_TEST = "NOT A TEST SCORE"  # said of scores on images that were trained on


def recorded_split(run: Run, needed: Sequence[str] = ()) -> RecordedSplit:
    """The split of a run under its own description; ``needed`` as in `RecordedSplit`."""
    return RecordedSplit(run.split_path, run.summary.get("split_description"), needed)


def require_unchanged(run: Run, recorded: RecordedSplit) -> None:
    """UserError unless ``split.csv`` is the split that the run trained with.

    Of another, test cases may have been trained on.
    """
    split, then = recorded.read(), run.summary.get("split_fingerprint")
    if then not in (None, split.fingerprint):
        raise UserError(
            f"{run.split_path} is not the split this run trained with (fingerprint "
            f"{split.fingerprint}, {run.summary_path.name} says {then}): its test cases may "
            "have been trained on, so no score of them is a test score; put the file back"
        )


def about_split(run: Run, recorded: RecordedSplit, split: Split) -> str:
    """What is said of a run's own split beside a score."""
    summary, rows = run.summary, recorded.rows
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


def recorded_groups(recorded: RecordedSplit, data: FoundData) -> FoundData:
    """The run's own data, with the groups under which they were split."""
    cases = dict(data.cases)
    for row in recorded.rows:
        if row.group and (case := cases.get(row.id)):
            cases[case.name] = replace(case, group=row.group, patient=case.patient or case.group)
    return replace(data, cases=cases)


def leaked(run: Run, recorded: RecordedSplit) -> frozenset[str]:
    """The run's test cases that have a near-duplicate, or an image of their patient, in training.

    From what it recorded; cases that validate and test are no leak.
    """
    leakage = recorded_leakage(run, recorded)
    return frozenset(leakage.test) | frozenset(Changes.recorded(run).of("trained"))


def never_seen(run: Run, recorded: RecordedSplit) -> frozenset[str]:
    """The run's test cases that had no say in it, nor had a near-duplicate or group mate of them.

    Neither in its weights nor, if one was chosen, in the choice of its epoch; as far as recorded.
    """
    crossing, split = recorded_leakage(run, recorded), recorded.read()
    seen = {*split.train, *crossing.test, *Changes.recorded(run).of("trained")}
    if run.summary.get("epoch_chosen", True):
        seen |= {*split.val, *crossing.test_in_val}
    return frozenset(split.test) - seen


def recorded_leakage(run: Run, recorded: RecordedSplit) -> Leakage:
    """What crosses the parts of a run's split, from ``split.csv`` and ``duplicates.csv``."""
    pairs = read_pairs(run.duplicates_path) if run.duplicates_path.is_file() else []
    # duplicates of one image are duplicates of each other, even if it is in no part itself
    cases = {name: Case(name) for pair in pairs for name in (pair.id_a, pair.id_b)}
    cases |= {row.id: Case(row.id, group=row.group) for row in recorded.rows}
    grouped = with_groups(cases.values(), duplicate_groups(pairs))
    return leakage(recorded.read(), grouped)


def trained_pixels(run: Run, recorded: RecordedSplit) -> set[str]:
    """Digests of the images that a run trained on or chose its epoch with, as far as recorded."""
    rows = [row for row in recorded.rows if row.part in SEEN]
    later = Changes.recorded(run).of("images")  # it went on with others
    return {row.pixels for row in rows} | {later.get(row.id, "") for row in rows} - {""}


def seen_in_training(
    run: Run,
    recorded: RecordedSplit,
    own: FoundData | None,
    data: FoundData,
    digests: Mapping[str, ImageDigest],
) -> str:
    """Which images of another dataset the run trained on or chose its epoch with.

    Identical pixels are known from the run's ``split.csv``; near-duplicates are looked for among
    the run's own images, if these can be had.

    Args:
        run: The run.
        recorded: Its split.
        own: The run's own data; None where they could not be found.
        data: Those of the cases to score.
        digests: Of those cases, by name.

    Returns:
        One line to stand beside the scores.
    """
    rows = [row for row in recorded.rows if row.part in SEEN]
    known = trained_pixels(run, recorded)
    seen = {name for name, digest in digests.items() if digest.digests.pixels in known}
    unread = ""
    if not ((own and own.source.simulated) or data.source.simulated):
        mine = {row.id for row in rows}
        trained = digest_images(own, mine & set(own.cases)) if own else {}
        images = {f"own {name}": digest.thumbnail for name, digest in trained.items()}
        images |= {f"new {name}": digest.thumbnail for name, digest in digests.items()}
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
        f"{NOT_A_TEST}: {len(seen)} of {len(digests)} images are duplicates of training or "
        f"validation images: {some(names)}{unread}"
    )


def digest_images(data: FoundData, names: Iterable[str]) -> dict[str, ImageDigest]:
    """Digest of each case that can be read."""

    def one(name: str) -> tuple[str, ImageDigest] | None:
        try:
            return name, digest_image(*data.read(name))
        except CaseError:
            return None  # scoring reports it

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        names = sorted(names)
        digests = progress(pool.map(one, names), "comparing images", len(names))
        return dict(item for item in digests if item is not None)
