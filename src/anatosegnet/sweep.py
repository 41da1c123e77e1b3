"""A sweep's directory: which jobs it has, what each of them tries, and how far they are.

``sweep.json`` holds the jobs as they came to it; each job's run lies in a folder of it.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from anatosegnet.config.composition import named_callbacks
from anatosegnet.config.keys import DECIDES, Role, role
from anatosegnet.config.overrides import in_override, key_of, parse
from anatosegnet.config.places import user_path
from anatosegnet.console import plain
from anatosegnet.errors import UserError, reason
from anatosegnet.files.locks import waited_for
from anatosegnet.files.opening import read_json
from anatosegnet.files.writing import write_json
from anatosegnet.run import Run


@dataclass(frozen=True)
class Job:
    """One job of a sweep.

    Attributes:
        directory: Of its run, below the sweep's.
        overrides: Its settings as on a command line, those that all jobs share among them.
        epochs: It is to have; None where that is not known.
    """

    directory: str
    overrides: tuple[str, ...]
    epochs: int | None


class Sweep:
    """The jobs of a sweep, and the runs that they left.

    Args:
        directory: Of the sweep; it need not exist yet.
    """

    def __init__(self, directory: str | Path) -> None:
        self.directory = user_path(directory)
        self.path = self.directory / "sweep.json"
        self.lock_path = self.directory / ".sweep.lock"

    @property
    def exists(self) -> bool:
        """Whether a sweep was begun here."""
        return self.path.is_file()

    @property
    def jobs(self) -> list[Job]:
        """The jobs; none where no sweep was begun.

        Raises:
            UserError: The record cannot be read.
        """
        if not self.exists:
            return []
        try:
            return [
                Job(str(job["directory"]), tuple(map(str, job["overrides"])), job["epochs"])
                for job in read_json(self.path)["jobs"]
            ]
        except (OSError, ValueError, LookupError, TypeError) as error:
            raise UserError(
                f"{self.path} cannot be read ({reason(error)}); remove it, and the same command "
                "writes it again"
            ) from error

    def run(self, job: Job) -> Run:
        """The run of a job, whether or not it has begun."""
        return Run(self.directory / job.directory)

    def begin(self, jobs: Sequence[Job], goes_on: bool) -> None:
        """Record the jobs that are not yet among those of the sweep.

        A job is known by its folder: where that is its number a grid may grow at its end, where it
        names what varies (``model/fold``) any grid may come to those before.

        Args:
            jobs: Of the command.
            goes_on: Whether it may go on with a sweep that has begun.

        Raises:
            UserError: A folder means other settings here, or two jobs; or the sweep has begun.
            OSError: The record cannot be written.
        """
        require_own_folders(jobs)
        with waited_for(self.lock_path):
            before = self.jobs
            if not goes_on and any(self.run(job).state != "waiting" for job in [*before, *jobs]):
                raise UserError(
                    f"{self.directory} already holds a sweep; go on with it: resume=auto, or give "
                    "another run_dir=DIR"
                )
            kept = before if goes_on else []
            require_same_settings(self.directory, kept, jobs)
            known = {job.directory for job in kept}
            new = [job for job in jobs if job.directory not in known]
            if new or kept != before:
                self._write([*kept, *new])

    def forget(self, jobs: Sequence[Job]) -> None:
        """Take back the jobs of a command of which none could begin, and a sweep without jobs."""
        with waited_for(self.lock_path):
            theirs = {job.directory for job in jobs}
            kept = [job for job in self.jobs if job.directory not in theirs]
            if kept:
                self._write(kept)
            else:
                self.path.unlink(missing_ok=True)

    def _write(self, jobs: Sequence[Job]) -> None:
        write_json(self.path, {"jobs": [asdict(job) for job in jobs]})


def require_own_folders(jobs: Sequence[Job]) -> None:
    """UserError if two jobs of a grid would lie in one folder."""
    seen: dict[str, Job] = {}
    for job in jobs:
        if other := seen.get(job.directory):
            keys = list(settings_apart([other, job]))
            one, two = (in_words(decisive(each.overrides, keys), keys) for each in (other, job))
            raise UserError(
                f"two jobs of the grid would lie in one folder, {job.directory}: "
                + (f"{one} and {two}; give hydra.sweep.subdir a setting in which they differ"
                   if keys else "they are the same; give each value once")
            )  # fmt: skip
        seen[job.directory] = job


def require_same_settings(directory: Path, before: Sequence[Job], now: Sequence[Job]) -> None:
    """UserError if a job has other settings than the one that was begun in its folder."""
    varied = lengths_apart(before) | set(settings_apart(now))
    recorded = {job.directory: job for job in before}
    for job in now:
        if job.directory not in recorded:
            continue
        begun = recorded[job.directory]
        then, given = (decisive(each.overrides, varied) for each in (begun, job))
        keys = [key for key in {**then, **given} if then.get(key) != given.get(key)]
        if keys:
            was, is_ = (in_words(settings, keys) for settings in (then, given))
            raise UserError(
                f"{directory} is the sweep of another grid: job {job.directory} was begun with "
                f"{was}, and would now have {is_}; give the grid that it was begun with, or "
                "another run_dir=DIR"
            )


def lengths_apart(jobs: Sequence[Job]) -> set[str]:
    """The keys by which alone some jobs differ that are one experiment otherwise: their length."""
    alike: dict[tuple[tuple[str, str], ...], list[Job]] = {}
    for job in jobs:
        alike.setdefault(tuple(sorted(decisive(job.overrides).items())), []).append(job)
    return {key for group in alike.values() for key in settings_apart(group)}


def decisive(overrides: Sequence[str], also: Collection[str] = ()) -> dict[str, str]:
    """The overrides by which two jobs are one experiment, as key and value, in any order.

    What may be prolonged is not among them, nor where and how fast a job runs.

    Args:
        overrides: Of a job.
        also: Keys that count whatever they are: the grid varies them.
    """
    found = {}
    for override in parse(overrides):
        key = key_of(override)
        what = role(key, named_callbacks())
        decides = (what in DECIDES and what is not Role.LENGTH) or key == "from_run"
        if decides or key in also:
            found[key] = "null" if override.is_delete() else in_override(override.value())
    return found


def settings_apart(jobs: Sequence[Job]) -> dict[str, list[str]]:
    """The settings in which jobs differ: of each key, what every job gives; empty if nothing.

    What a command alone is about (``run_dir``, ``resume``) is no setting of a job.
    """
    each = [
        {key: str(override.get_value_string()) for override in parse(job.overrides)
         if role(key := key_of(override)) is not Role.COMMAND or key == "from_run"}
        for job in jobs
    ]  # fmt: skip
    keys = dict.fromkeys(key for settings in each for key in settings)
    values = {key: [settings.get(key, "") for settings in each] for key in keys}
    return {key: given for key, given in values.items() if len(set(given)) > 1}


def in_words(settings: Mapping[str, Any], keys: Sequence[str]) -> str:
    """Some settings as they are given; ``no seed`` for one that is not."""
    return plain(", ".join(f"{k}={settings[k]}" if k in settings else f"no {k}" for k in keys))
