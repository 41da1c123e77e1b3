"""A sweep's directory: which jobs it has, what each of them tries, and how far they are.

``sweep.json`` holds the jobs in the order of their numbers; each job's run lies in a folder of it.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from anatosegnet.config.keys import DECIDES, Role, role
from anatosegnet.config.overrides import in_override, key_of, parse
from anatosegnet.config.places import user_path
from anatosegnet.console import plain
from anatosegnet.errors import UserError, reason
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
        """Record the jobs, where there are none yet or these go beyond them.

        Args:
            jobs: Of the command, in the order of their numbers.
            goes_on: Whether it may go on with a sweep that has begun.

        Raises:
            UserError: A job's number means other settings here, or the sweep has begun.
        """
        before = self.jobs
        if not goes_on and any(self.run(job).state != "waiting" for job in [*before, *jobs]):
            raise UserError(
                f"{self.directory} already holds a sweep; go on with it: resume=auto, or give "
                "another run_dir=DIR"
            )
        if goes_on:
            require_same_settings(self.directory, before, jobs)
        if not goes_on or len(jobs) > len(before):
            write_json(self.path, {"jobs": [asdict(job) for job in jobs]})


def require_same_settings(directory: Path, before: Sequence[Job], now: Sequence[Job]) -> None:
    """UserError if a job has other settings than the one that had its number before."""
    varied = set(settings_apart(before)) | set(settings_apart(now))
    for number, (recorded, given) in enumerate(zip(before, now, strict=False)):
        then, other = (decisive(job.overrides, varied) for job in (recorded, given))
        keys = [key for key in {**then, **other} if then.get(key) != other.get(key)]
        if keys or recorded.directory != given.directory:
            was, is_ = (in_words(settings, keys) for settings in (then, other))
            raise UserError(
                f"{directory} is the sweep of another grid: job {number} was begun with {was}, and "
                f"would now have {is_}; give the grid that it was begun with, or another "
                "run_dir=DIR"
            )


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
        what = role(key)
        decides = (what in DECIDES and what is not Role.LENGTH) or key == "from_run"
        if decides or key in also:
            found[key] = "null" if override.is_delete() else in_override(override.value())
    return found


def settings_apart(jobs: Sequence[Job]) -> dict[str, list[str]]:
    """The settings in which jobs differ: of each key, what every job gives; empty if nothing."""
    each = [
        {key_of(override): str(override.get_value_string()) for override in parse(job.overrides)}
        for job in jobs
    ]
    keys = dict.fromkeys(key for settings in each for key in settings)
    values = {key: [settings.get(key, "") for settings in each] for key in keys}
    return {key: given for key, given in values.items() if len(set(given)) > 1}


def in_words(settings: Mapping[str, Any], keys: Sequence[str]) -> str:
    """Some settings as they are given; ``no seed`` for one that is not."""
    return plain(", ".join(f"{k}={settings[k]}" if k in settings else f"no {k}" for k in keys))
