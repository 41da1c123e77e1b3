"""Networks side by side across datasets: in domain, zero-shot, their ranks, what leaks are worth.

Runs lie in ``<dataset>/<network>/<fold>``, as ``sweep=leakfree`` writes them: the folder of a run's
folder names its network. Runs whose test images have a near-duplicate, or another image of their
patient, in training are kept apart, and compared with those of the same network that leak nothing.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from omegaconf import DictConfig
from pandas import DataFrame

from anatosegnet.config.composition import named_callbacks
from anatosegnet.config.keys import REPEATED, TRIED, Role, is_of_the_run, role, settings_of
from anatosegnet.config.overrides import key_of, parse
from anatosegnet.console import plain, some
from anatosegnet.data.duplicates import natural_key
from anatosegnet.data.leakage import NOT_A_TEST
from anatosegnet.errors import UserError
from anatosegnet.evaluation.comparison import (
    compare_settings,
    independent_group,
    per_case,
    repetition,
    require_same_cases,
    scores_to_compare,
)
from anatosegnet.metrics.ranks import Rank, mean_ranks, ranks
from anatosegnet.metrics.scores import MAIN, NO_SCORES
from anatosegnet.metrics.statistics import interval
from anatosegnet.run import Run

# what a setting of a network may begin with; the last two are read by those that have an encoder
OF_A_NETWORK = ("model", "encoder", "pretrained")


@dataclass(frozen=True)
class Member:
    """One run of the table.

    Attributes:
        network: The name of its folder's folder.
        dataset: That it was trained on.
        run: The run.
        config: Of the run.
        leaks: Its test images that have a relative in training.
        scores: Of each dataset that it was scored on.
        conditions: Of those scores.
    """

    network: str
    dataset: str
    run: Run
    config: DictConfig
    leaks: frozenset[str]
    scores: Mapping[str, DataFrame]
    conditions: Mapping[str, Mapping[str, str]]

    @property
    def unit(self) -> tuple[str, ...]:
        """Which repetition of its network it is."""
        return tuple(sorted(map(str, settings_of(self.config, *REPEATED).items())))


@dataclass(frozen=True)
class Cell:
    """All networks trained on one dataset, scored on one.

    Attributes:
        trained: The one.
        tested: The other; the same for the test cases of the folds.
        table: As `compare_settings` gives it, a row for each network.
        ranks: Of each network, by `MAIN`.
        mean_ranks: Mean rank over groups of images, in the order of the table.
        groups: How many these are.
    """

    trained: str
    tested: str
    table: DataFrame
    ranks: Sequence[Rank]
    mean_ranks: Sequence[float]
    groups: int

    @property
    def in_domain(self) -> bool:
        """Whether the cases are those of the folds."""
        return self.trained == self.tested

    @property
    def title(self) -> str:
        """``BUSI``, or ``BUSI → BrEaST``."""
        return self.trained if self.in_domain else f"{self.trained} → {self.tested}"


@dataclass(frozen=True)
class Across:
    """What is known of networks on several datasets.

    Attributes:
        cells: In domain first.
        leaks: A row for each network, dataset and part of the images; see `worth_of_leaks`.
        commands: What trains the runs of a network, by dataset and network.
        notes: What a reader must know, by name.
    """

    cells: Sequence[Cell]
    leaks: DataFrame
    commands: Mapping[tuple[str, str], str]
    notes: Mapping[str, str]


def across(members: Sequence[Member], baseline: str, scores: Sequence[str] = ()) -> Across:
    """Compare networks on each dataset, from each to each other, and with leaks.

    A network that lacks runs which others have of a dataset is left out there, and said.

    Args:
        members: All runs.
        baseline: The network that others are tested against.
        scores: To compare; default: those that are shown first, as far as all datasets have them.

    Raises:
        UserError: Runs of one network have different settings, or the baseline is not whole.
    """
    clean = [member for member in members if not member.leaks]
    leaky = [member for member in members if member.leaks]
    if not clean:
        raise UserError("every run leaks test images into training; there is nothing to compare")
    datasets = list(dict.fromkeys(member.dataset for member in clean))
    notes: dict[str, list[str]] = {}
    whole = {d: complete(by_network(clean, d), d, notes) for d in datasets}
    shared = [shown_first(whole[d], d) for d in datasets]
    cells = []
    for trained in datasets:
        if baseline not in whole[trained]:
            raise UserError(
                f"baseline={baseline} has no complete runs on {trained}; baselines are "
                f"{', '.join(whole[trained])}"
            )
        others = sorted({d for m in clean if m.dataset == trained for d in m.scores} - {trained})
        for tested in [trained, *others]:
            scored = {
                name: runs
                for name, runs in whole[trained].items()
                if all(tested in run.scores for run in runs)
            }
            seen = {m.conditions[tested].get("split", "") for runs in scored.values() for m in runs}
            if wrong := [text for text in sorted(seen) if NOT_A_TEST in text]:
                notes.setdefault("seen in training", []).append(f"{trained} → {tested}: {wrong[0]}")
            if lacking := [name for name in whole[trained] if name not in scored]:
                text = f"{trained} → {tested}: {some(lacking)}"
                notes.setdefault("not scored", []).append(text)
            if baseline in scored:
                first = shown_first(scored, tested)
                chosen = scores or [s for s in first if all(s in names for names in shared)]
                cells.append(cell(scored, tested, baseline, chosen))
    cells.sort(key=lambda each: not each.in_domain)  # stable
    count = len({(m.dataset, case) for m in clean for case in m.scores[m.dataset]["id"]})
    said = {
        "runs": f"{len(clean)}; a case's score is its mean over the runs that scored it",
        "leaks": f"0 of {count} test images have a near-duplicate, or another image of their "
        f"patient, in training in any of these runs",
        **{
            name: " | ".join(dict.fromkeys(m.conditions[m.dataset].get(name, "") for m in clean))
            for name in ("selection", "aggregation")
        },
        "recipe": recipes(whole),
        "intervals": "95 %, bootstrap over groups of images; p: paired permutation test against "
        f"{baseline}, Holm over the networks of a column",
        **{name: "; ".join(texts) for name, texts in notes.items()},
    }
    leaks = DataFrame(
        [row for d in datasets for row in worth_of_leaks(by_network(leaky, d), whole[d], d)]
    )
    commands = {(d, name): command(runs) for d in datasets for name, runs in whole[d].items()}
    return Across(cells, leaks, commands, said)


def shown_first(networks: Mapping[str, Sequence[Member]], tested: str) -> list[str]:
    """The scores that are shown first, as far as all runs of networks have them of a dataset."""
    frames = {name: [run.scores[tested] for run in runs] for name, runs in networks.items()}
    return scores_to_compare(frames, NO_SCORES)


def by_network(members: Iterable[Member], dataset: str) -> dict[str, list[Member]]:
    """The runs on a dataset by their network; UserError if they are not of one setting.

    Networks stand in the order of their names.
    """
    found: dict[str, list[Member]] = {}
    for member in members:
        if member.dataset == dataset:
            found.setdefault(member.network, []).append(member)
    for name, runs in found.items():
        settings = [settings_of(run.config, *TRIED) for run in runs]
        for run, other in zip(runs, settings, strict=True):
            apart = [k for k in {**settings[0], **other} if settings[0].get(k) != other.get(k)]
            if apart:
                raise UserError(
                    f"{runs[0].run.directory} and {run.run.directory} are runs of {plain(name)}, "
                    f"by their folders, but differ in {some(apart)}; runs of several datasets lie "
                    "in <dataset>/<network>/<fold>"
                )
        units = Counter(run.unit for run in runs)
        for run in runs:
            if units[run.unit] > 1:
                raise UserError(f"{run.run.directory}: {plain(name)} has another run of this fold")
    return dict(sorted(found.items(), key=lambda item: natural_key(item[0])))


def complete(
    found: Mapping[str, Sequence[Member]], dataset: str, notes: dict[str, list[str]]
) -> dict[str, Sequence[Member]]:
    """The networks that have all runs which any has; the others are noted."""
    units = {run.unit for runs in found.values() for run in runs}
    kept = {name: runs for name, runs in found.items() if {run.unit for run in runs} == units}
    for name, runs in found.items():
        if name not in kept:
            text = f"{dataset}: {plain(name)} ({len(runs)} of {len(units)} runs)"
            notes.setdefault("unfinished", []).append(text)
    return kept


def cell(
    networks: Mapping[str, Sequence[Member]],
    tested: str,
    baseline: str,
    scores: Sequence[str],
) -> Cell:
    """Compare networks trained on one dataset on another one, or on its own test cases."""
    frames = {name: [run.scores[tested] for run in runs] for name, runs in networks.items()}
    require_same_cases(frames)
    repeated = [repetition([run.config for run in runs]) for runs in networks.values()]
    table = compare_settings(frames, repeated, baseline, scores)
    values, groups = cases(frames)
    places, count = mean_ranks(values.to_numpy(), groups)
    trained = next(iter(networks.values()))[0].dataset
    return Cell(
        trained,
        tested,
        table,
        ranks(values.to_numpy(), groups),
        places.tolist(),
        count,
    )


def cases(frames: Mapping[str, Sequence[DataFrame]]) -> tuple[DataFrame, list[str]]:
    """`MAIN` of each case, a column for each network, and the group of each case."""
    values = DataFrame({name: per_case(each, MAIN) for name, each in frames.items()})
    group = independent_group(next(iter(frames.values())))
    return values, group[values.index].tolist()


def worth_of_leaks(
    leaky: Mapping[str, Sequence[Member]], clean: Mapping[str, Sequence[Member]], dataset: str
) -> Iterator[dict[str, Any]]:
    """What a split that leaks gives, beside one that does not, on the same images.

    Yields:
        ``dataset``, ``setting``, ``of`` (all; leaked, those with a relative in training, by the
        runs in which they have one; the rest, by the others), ``images``, ``leaky`` and
        ``leak_free`` (mean `MAIN`), ``difference``, ``difference_low``, ``difference_high``.
    """
    for name, runs in leaky.items():
        if name not in clean:
            continue
        leak_free = [run.scores[dataset] for run in clean[name]]
        without, group = per_case(leak_free, MAIN), independent_group(leak_free)
        # an image may leak in one split, and not in another
        leaked = [run.scores[dataset]["id"].isin(run.leaks) for run in runs]
        parts = {
            "all": [run.scores[dataset] for run in runs],
            "leaked": [run.scores[dataset][own] for run, own in zip(runs, leaked, strict=True)],
            "the rest": [run.scores[dataset][~own] for run, own in zip(runs, leaked, strict=True)],
        }
        for part, frames in parts.items():
            with_leak = per_case(frames, MAIN)
            ids = with_leak.index.intersection(without.index)
            if not len(ids):
                continue
            difference = with_leak[ids] - without[ids]
            low, high = interval(difference, group[ids].tolist()) or (np.nan, np.nan)
            yield {
                "dataset": dataset,
                "setting": name,
                "of": part,
                "images": len(ids),
                "leaky": with_leak[ids].mean(),
                "leak_free": without[ids].mean(),
                "difference": difference.mean(),
                "difference_low": low,
                "difference_high": high,
            }


def recipes(whole: Mapping[str, Mapping[str, Sequence[Member]]]) -> str:
    """Whether all networks of a dataset were trained alike, or in which settings they differ."""
    apart = []
    for dataset, networks in whole.items():
        each = [
            {
                key: value
                for key, value in settings_of(runs[0].config, *TRIED).items()
                if key.partition(".")[0] not in OF_A_NETWORK
            }
            for runs in networks.values()
        ]
        keys = {key for one in each for key in one}
        if wrong := sorted(k for k in keys if len({repr(one.get(k)) for one in each}) > 1):
            apart.append(f"{dataset}: networks differ in {some(wrong)}")
    return "; ".join(apart) or "the same for all networks of a dataset"


def command(runs: Sequence[Member]) -> str:
    """What trains these runs, from what they were given."""
    given: dict[str, list[str]] = {}
    ours = named_callbacks()
    for run in runs:
        for override in parse(run.run.summary.get("overrides", ())):
            key = key_of(override)
            shown = key.startswith("callbacks.") and role(key, ours) is Role.CIRCUMSTANCE
            if is_of_the_run(key) and not shown:
                values = given.setdefault(key, [])
                values += [v for v in [str(override.get_value_string())] if v not in values]
    words = [f"{key}={','.join(values)}" for key, values in given.items()]
    return " ".join(["python -m anatosegnet.train", *["-m"] * (len(runs) > 1), *words])
