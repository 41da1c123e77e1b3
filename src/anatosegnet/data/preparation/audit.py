"""An audit: every file of a dataset read once, counted, and compared with what was published."""

import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import pairwise

import cv2
import numpy as np

from anatosegnet.console import progress, some
from anatosegnet.data.case import (
    CLASSES,
    Case,
    CaseError,
    file_mode,
    mask_values,
    read_bytes,
)
from anatosegnet.data.duplicates import (
    Pair,
    components,
    duplicate_groups,
    find_duplicates,
    natural_key,
    thumbnail,
)
from anatosegnet.data.prepared import FoundData
from anatosegnet.data.remarks import looks_inverted

CHUNK = 64  # cases read ahead
SAMPLE = (320, 240)  # largest width and height of a sample, pixels
MOST_GROUPS, MOST_IN_GROUP = 30, 5  # near-duplicates that are shown
Sample = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class AuditedCase:
    """What reading a case told.

    Attributes:
        case: The case.
        height: Of the image, pixels.
        width: Of the image, pixels.
        sha256: Of the image file; empty where there is none.
        image_mode: How the image file stores its pixels, as ``PNG RGB``.
        mask_modes: The same of its masks.
        mask_values: The values that its masks hold, as ``0, 255``.
        lesion: Pixels of the merged mask.
    """

    case: Case
    height: int
    width: int
    sha256: str
    image_mode: str
    mask_modes: tuple[str, ...]
    mask_values: tuple[str, ...]
    lesion: int


@dataclass(frozen=True)
class Count:
    """A count of the published dataset (None: not published) and of this one."""

    what: str
    published: int | None
    found: int

    @property
    def differs(self) -> bool:
        """Whether something published is not what was found."""
        return self.published is not None and self.published != self.found


@dataclass(frozen=True)
class Audit:
    """All that is known of a dataset after reading it.

    Attributes:
        dataset: Its name.
        root: Where it lies.
        records: The readable cases in natural order.
        problems: One line on everything that must be put right.
        excluded: Names left out by ``data.exclude``.
        counts: Published against found, excluded cases counted in.
        pairs: Near-duplicates.
        groups: Of each case that has one: its patient, or the first of its near-duplicates;
            patients that share an image are one group.
        selection: Cases for the contact sheet, evenly over the data.
        samples: Small image (H, W, 3) uint8 RGB and mask (H, W) uint8 {0, 1} of those, and of
            the near-duplicates to be shown.
    """

    dataset: str
    root: str
    records: list[AuditedCase]
    problems: list[str]
    excluded: list[str]
    counts: list[Count]
    pairs: list[Pair]
    groups: dict[str, str]
    selection: list[str] = field(default_factory=list)
    samples: dict[str, Sample] = field(default_factory=dict)

    @property
    def duplicates(self) -> dict[str, list[str]]:
        """Names of each group of near-duplicates, in natural order."""
        groups: dict[str, list[str]] = defaultdict(list)
        for name, group in sorted(
            duplicate_groups(self.pairs).items(), key=lambda item: natural_key(item[0])
        ):
            groups[group].append(name)
        return dict(sorted(groups.items(), key=lambda item: natural_key(item[0])))

    @property
    def disagreeing(self) -> dict[str, list[str]]:
        """The groups of near-duplicates whose classes differ."""
        labels = {record.case.name: record.case.label for record in self.records}
        return {
            group: names
            for group, names in self.duplicates.items()
            if len({labels[name] for name in names}) > 1
        }

    @property
    def shown_groups(self) -> list[tuple[list[str], bool]]:
        """The groups of near-duplicates to show, each with whether its classes differ.

        Those whose classes differ come first, then the largest; long ones are cut.
        """
        different = self.disagreeing
        order = sorted(
            self.duplicates.items(), key=lambda item: (item[0] not in different, -len(item[1]))
        )
        return [(names[:MOST_IN_GROUP], group in different) for group, names in order[:MOST_GROUPS]]

    @property
    def identical(self) -> list[list[str]]:
        """Names of cases whose image files are the same byte for byte."""
        files: dict[str, list[str]] = defaultdict(list)
        for record in self.records:
            files[record.sha256].append(record.case.name)
        return [names for digest, names in files.items() if digest and len(names) > 1]


def audit(
    data: FoundData,
    problems: Iterable[str],
    root: str,
    sheet: int = 120,
) -> Audit:
    """Read every file of a dataset once.

    Args:
        data: The dataset.
        problems: What is wrong with it so far; see `look_for_data`.
        root: Where it lies, for the record.
        sheet: Number of cases for the contact sheet.
    """
    cases, problems = list(data.cases.values()), list(problems)
    records: list[AuditedCase] = []
    samples: dict[str, Sample] = {}
    selection = evenly(list(data.cases), sheet)

    def images() -> Iterator[tuple[str, np.ndarray]]:
        """Thumbnails for the search of duplicates; the rest is noted on the way."""
        for case, result in progress(_read(data, cases, set(selection)), "reading", len(cases)):
            if isinstance(result, str):
                problems.append(result)
                continue
            record, small, kept = result
            records.append(record)
            if kept is not None:
                samples[case.name] = kept
            yield case.name, small

    pairs = find_duplicates(images())
    counts = compare_counts(data.source.counts(data.everything), data.source.published)
    problems += [
        f"{count.found} {count.what} found, {count.published} published"
        for count in counts
        if count.differs
    ]
    if data.passed_over and any(count.differs for count in counts):
        problems.append(f"not read, beside the folders looked for: {some(data.passed_over)}")
    shares = [record.lesion / (record.height * record.width) for record in records]
    problems += [line for line in (looks_inverted(shares),) if line]
    groups = merged_groups([record.case for record in records], pairs)
    problems += _folds_that_share(records)
    excluded = sorted(data.excluded, key=natural_key)
    result = Audit(
        data.name, root, records, problems, excluded, counts, pairs, groups, selection, samples
    )
    for names, _ in result.shown_groups:
        for name in names:
            if name not in samples:
                samples[name] = shrink(*data.read(name))
    return result


Result = tuple[AuditedCase, np.ndarray, Sample | None] | str


def _read(data: FoundData, cases: list[Case], selection: set[str]) -> Iterator[tuple[Case, Result]]:
    """Each case with what it holds, or with what is wrong; memory stays flat."""

    def read(case: Case) -> Result:
        try:
            image, mask = data.read(case.name)
            digest = hashlib.sha256(read_bytes(case.image)).hexdigest() if case.image else ""
            values = tuple(map(mask_values, case.masks))
        except CaseError as error:
            return str(error)
        modes = tuple(file_mode(path) for path in case.masks)
        height, width = mask.shape
        mode = file_mode(case.image) if case.image else "no file"
        lesion = int(mask.sum())
        record = AuditedCase(case, height, width, digest, mode, modes, values, lesion)
        kept = shrink(image, mask) if case.name in selection else None
        return record, thumbnail(image), kept

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for start in range(0, len(cases), CHUNK):
            chunk = cases[start : start + CHUNK]
            yield from zip(chunk, pool.map(read, chunk), strict=True)


def evenly(names: Sequence[str], count: int) -> list[str]:
    """So many of the names, evenly over the list."""
    count = min(count, len(names))
    return [names[index * len(names) // count] for index in range(count)]


def shrink(image: np.ndarray, mask: np.ndarray) -> Sample:
    """Image and mask whole, in their own shape, at the size of a sample.

    Args:
        image: (H, W, 3) uint8 RGB.
        mask: (H, W) uint8 {0, 1}.
    """
    scale = min(SAMPLE[0] / mask.shape[1], SAMPLE[1] / mask.shape[0])
    size = tuple(max(1, round(edge * scale)) for edge in mask.shape[::-1])
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    return small, cv2.resize(mask, size, interpolation=cv2.INTER_NEAREST)


def merged_groups(cases: list[Case], pairs: list[Pair]) -> dict[str, str]:
    """Group of each case that has a patient or a near-duplicate; see `Audit.groups`."""
    members: dict[str, list[str]] = defaultdict(list)
    for case in cases:
        if case.group:
            members[case.group].append(case.name)
    links = [(pair.id_a, pair.id_b) for pair in pairs]
    links += [pair for names in members.values() for pair in pairwise(names)]
    joined = components(links)
    patients: dict[str, set[str]] = defaultdict(set)
    for case in cases:
        if case.group:
            patients[joined.get(case.name, case.name)].add(case.group)
    groups = {}
    for case in cases:
        group = joined.get(case.name, case.name)
        known = patients.get(group, set())
        if len(known) == 1:
            groups[case.name] = next(iter(known))
        elif known or case.name in joined:
            groups[case.name] = group
    return groups


def compare_counts(found: Mapping[str, int], published: Mapping[str, int]) -> list[Count]:
    """Found beside published counts; what this layout cannot tell is left out."""
    known = [what for what in published if what in found or what in CLASSES]
    others = [what for what in found if what not in published]
    return [Count(what, published.get(what), found.get(what, 0)) for what in [*known, *others]]


def _folds_that_share(records: list[AuditedCase]) -> list[str]:
    """A line for each patient whose images lie in several official folds."""
    folds: dict[str, set[int]] = defaultdict(set)
    for record in records:
        if record.case.group and record.case.fold is not None:
            folds[record.case.group].add(record.case.fold)
    return [
        f"{group} has images in the official folds {', '.join(map(str, sorted(numbers)))}"
        for group, numbers in folds.items()
        if len(numbers) > 1
    ]


def mode_counts(records: list[AuditedCase]) -> dict[str, dict[str, int]]:
    """How the files store their pixels: counts for images, lesion masks, and empty masks."""
    kinds: dict[str, Counter[str]] = defaultdict(Counter)
    for record in records:
        kinds["images"][record.image_mode] += 1
        kind = "masks" if record.lesion else "masks without a lesion"
        kinds[kind].update(record.mask_modes)
        kinds["values of masks"].update(record.mask_values)
    return {kind: dict(counter.most_common()) for kind, counter in kinds.items()}
