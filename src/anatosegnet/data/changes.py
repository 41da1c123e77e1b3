"""What of the data is no longer what a run recorded in its ``split.csv``, and whether to go on.

``accept_changed_data=true`` goes on; ``summary.json`` then keeps under ``changed_data`` what had
changed, and every later score says it. What was accepted once need not be accepted again.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from anatosegnet.config.keys import chooses_cases, flatten
from anatosegnet.console import some
from anatosegnet.data.case import Case
from anatosegnet.data.duplicates import Digests
from anatosegnet.data.recorded_split import RecordedSplit
from anatosegnet.data.split import Split
from anatosegnet.errors import UserError
from anatosegnet.files.split_table import PARTS, UNUSED
from anatosegnet.run import CHANGED_DATA, Run

if TYPE_CHECKING:  # heavy
    from anatosegnet.data.prepared import PreparedData

KEY = "changed_data"  # of summary.json
SEEN = ("train", "val")  # parts that have had a say in the weights
WORDS = {  # kind of change: in words, of one and of several; the worst first
    "trained": ("test image seen in training", "test images seen in training"),
    "tested": (
        "training image taken from the test part",
        "training images taken from the test part",
    ),
    "images": ("other image", "other images"),
    "masks": ("other mask", "other masks"),
    "classes": ("other class", "other classes"),
    "moved": ("case in another part", "cases in another part"),
    "gone": ("case gone", "cases gone"),
    "added": ("case added", "cases added"),
    "files": ("other fingerprint of the files", "other fingerprints of the files"),
}


@dataclass(frozen=True)
class Changes:
    """What changed.

    Attributes:
        kinds: Kind of `WORDS` -> name of the case -> what it is now.
    """

    kinds: Mapping[str, Mapping[str, str]]

    @classmethod
    def recorded(cls, run: Run) -> "Changes":
        """What was accepted when the run went on, or repeated another, on changed data."""
        kept: Any = run.summary.get(KEY)
        kinds = kept if isinstance(kept, dict) else {}
        return cls(
            {
                kind: {str(name): str(now) for name, now in kinds[kind].items()}
                for kind in WORDS
                if isinstance(kinds.get(kind), dict)
            }
        )

    def __bool__(self) -> bool:
        return any(self.kinds.values())

    def of(self, kind: str) -> Mapping[str, str]:
        """The cases of one kind of change."""
        return self.kinds.get(kind, {})

    @property
    def text(self) -> str:
        """``2 other images (a, b), 1 case gone (c)``."""
        counted = [(words, list(self.of(kind))) for kind, words in WORDS.items() if self.of(kind)]
        return ", ".join(f"{len(n)} {words[len(n) > 1]} ({some(n)})" for words, n in counted)

    @property
    def condition(self) -> dict[str, str]:
        """What stands among the conditions of a score; nothing where nothing changed."""
        leak = "NOT A TEST SCORE: " if self.of("trained") or self.of("tested") else ""
        return {CHANGED_DATA: f"{leak}accepted, {self.text}"} if self else {}

    def cover(self, other: "Changes") -> bool:
        """Whether all of the other changes are among these."""
        return all(
            self.of(kind).get(name) == now
            for kind, cases in other.kinds.items()
            for name, now in cases.items()
        )

    @property
    def of_cases(self) -> "Changes":
        """Those of the cases alone, where the recorded parts are not those that are scored."""
        return Changes({k: v for k, v in self.kinds.items() if k not in ("trained", "tested")})

    def joined(self, other: "Changes") -> "Changes":
        """These and the other changes."""
        return Changes({kind: {**self.of(kind), **other.of(kind)} for kind in WORDS})

    @property
    def summary(self) -> dict[str, dict[str, str]]:
        """For ``summary.json``; see `recorded`."""
        return {kind: dict(cases) for kind, cases in self.kinds.items() if cases}


def find_changes(
    recorded: RecordedSplit,
    cases: Mapping[str, Case],
    digests: Mapping[str, Digests],
    split: Split | None = None,
) -> Changes:
    """Compare cases with those that a run recorded, as far as it recorded them.

    Args:
        recorded: The split that the run recorded.
        cases: All cases there are now, by name.
        digests: Of those whose pixels are compared.
        split: The split there is now, where it should be the same.
    """
    kinds: dict[str, dict[str, str]] = {kind: {} for kind in WORDS}
    rows = recorded.rows
    parts: dict[str, set[str]] = {}  # of a case
    shown_in: dict[str, set[str]] = {}  # parts in which an image stands
    for row in rows:
        parts.setdefault(row.id, set()).add(row.part)
        shown_in.setdefault(row.pixels, set()).add(row.part)
    for row in {row.id: row for row in rows}.values():
        name = row.id
        if name not in cases:
            kinds["gone"][name] = ""
            continue
        if row.label not in ("", cases[name].label):
            kinds["classes"][name] = cases[name].label
        if split is not None and (now := parts_of(name, split)) != parts[name]:
            kinds["moved"][name] = "+".join(sorted(now))
        if name not in digests:
            continue
        pixels, mask = digests[name]
        if row.mask not in ("", mask):
            kinds["masks"][name] = mask
        if row.pixels in ("", pixels):
            continue
        kinds["images"][name] = pixels
        before = shown_in.get(pixels, set()) - parts[name]
        if "test" in parts[name] and before.intersection(SEEN):
            kinds["trained"][name] = pixels
        if parts[name].intersection(SEEN) and "test" in before:
            kinds["tested"][name] = pixels
    if any(row.mask for row in rows):  # older runs did not record the cases in no part
        kinds["added"] = {name: "" for name in cases if name not in parts}
    return Changes(kinds)


def parts_of(name: str, split: Split) -> set[str]:
    """The parts that a case is in; `UNUSED` where there is none."""
    return {part for part in PARTS if name in getattr(split, part)} or {UNUSED}


def changes_in_training(config: DictConfig, run: Run, data: "PreparedData") -> Changes:
    """What changed since the run that is gone on with, or repeated, was begun.

    Args:
        config: The config of the training.
        run: Its run.
        data: Its data.

    Raises:
        UserError: Something changed, and that was not accepted.
    """
    accept = config.get("accept_changed_data", False)
    if config.get("resume") is not None:
        before = Changes.recorded(run)
        return require_accepted(run, changes_in_all(run, data), accept, before)
    if config.get("from_run") is None:
        return Changes({})
    source = Run(config.from_run)
    theirs, ours = (flatten(settings) for settings in (source.config, config))
    differ = {key for key in {**theirs, **ours} if theirs.get(key) != ours.get(key)}
    if any(map(chooses_cases, differ)):
        return Changes({})  # other data were asked for
    other_split = any(key.startswith("split.") or key == "data.duplicates" for key in differ)
    now = changes_in_all(source, data, None if other_split else data.split)
    return require_accepted(source, now, accept).of_cases


def changes_in_all(run: Run, data: "PreparedData", split: Split | None = None) -> Changes:
    """What changed in prepared data; where a run has no digests, only whether."""
    recorded = RecordedSplit(run.split_path)
    changes = find_changes(recorded, data.cases, data.digests, split)
    if all(row.mask for row in recorded.rows):
        return changes
    then, now = run.summary.get("data_fingerprint"), data.fingerprint
    return changes if then in (None, now) else changes.joined(Changes({"files": {now: str(then)}}))


def require_accepted(
    run: Run, now: Changes, accept: bool, before: Changes | None = None
) -> Changes:
    """All that a score must say of changed data.

    Args:
        run: The run that recorded how the data were.
        now: What changed since.
        accept: Whether to go on nevertheless.
        before: What was accepted earlier.

    Raises:
        UserError: Something changed, and that was not accepted.
    """
    before = before or Changes({})
    if not isinstance(accept, bool):
        raise UserError(f"accept_changed_data={accept} must be true or false")
    if not accept and not before.cover(now):
        raise UserError(
            f"the data are not those that {run.directory} was trained with: {now.text}; put them "
            "back, or go on with accept_changed_data=true, which every score will say"
        )
    return before.joined(now)
