"""The jobs of a sweep, by every launcher: numbered alike by all workers, passed over, taken up.

A job itself decides, when it is started, whether it is to be trained (`command.open_job`).
"""

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn
from omegaconf import OmegaConf, open_dict

from anatosegnet.config.overrides import in_override
from anatosegnet.console import say, without_password
from anatosegnet.errors import TrainingFailed
from anatosegnet.files.locks import is_abandoned
from anatosegnet.files.writing import remove_if_empty
from anatosegnet.sweep import Job, Sweep

STOPPED = (130, 143)  # exit statuses after Ctrl-C and SIGTERM


class Sweeper(BasicSweeper):
    """Hydra's own grid of jobs, which can be stopped and gone on with, by several workers at once.

    Jobs that another worker was training are looked at again when all others are done: those whose
    worker died are trained here.
    """

    def sweep(self, arguments: list[str]) -> Any:
        """Run the jobs of a command line.

        Returns:
            What Hydra's own sweeper returns: of each batch, what its jobs returned.

        Raises:
            UserError: The directory holds another sweep; nothing was touched.
            TrainingFailed: A job failed; the others are done.
        """
        assert self.config is not None and self.launcher is not None
        if "resume" not in self.config:  # of another verb
            return super().sweep(arguments)
        overrides = self.parse([*self._parse_config(), *arguments])
        batches = self.split_arguments(overrides, self.max_batch_size)
        grid = [own for batch in batches for own in batch]
        jobs = [self.job(number, own) for number, own in enumerate(grid)]
        sweep = Sweep(self.config.hydra.sweep.dir)
        goes_on, self.failures = self.config.resume == "auto", list[TrainingFailed]()
        sweep.begin(jobs, goes_on)
        OmegaConf.save(self.config, sweep.directory / "multirun.yaml")  # as Hydra's own does
        if goes_on and self.is_dated():
            say(
                "sweep  run_dir is new for each command: other workers join this sweep, and it "
                f"goes on once it was stopped, with run_dir={in_override(str(sweep.directory))}"
            )
        try:
            returned = self.run(batches)
            if goes_on:
                self.take_up(sweep, jobs, grid)
        except (KeyboardInterrupt, SystemExit) as stop:
            if isinstance(stop, SystemExit) and stop.code not in STOPPED:
                raise
            say(f"the sweep is stopped; go on with: {command(sweep)}", error=True)
            raise SystemExit(getattr(stop, "code", STOPPED[0])) from None
        finally:
            if not any(sweep.run(job).directory.exists() for job in jobs):
                sweep.forget(jobs)
                remove_if_empty(sweep.directory, Path.cwd())
        if self.failures:
            raise self.failures[0]
        return returned

    def parse(self, overrides: list[str]) -> list[Any]:
        """Overrides as Hydra understands them, those among them that choose files."""
        assert self.hydra_context is not None
        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        return parser.parse_overrides(overrides)

    def job(self, number: int, overrides: Sequence[str]) -> Job:
        """A job, composed to see that it can be, and where it goes."""
        assert self.hydra_context is not None and self.config is not None
        loader = self.hydra_context.config_loader
        config = loader.load_sweep_config(self.config, list(overrides))
        with open_dict(config):
            config.hydra.job.id = config.hydra.job.num = number
        epochs = OmegaConf.select(config, "trainer.max_epochs")
        return Job(
            str(config.hydra.sweep.subdir),
            tuple(str(override) for override in config.hydra.overrides.task),
            epochs if isinstance(epochs, int) and epochs > 0 else None,
        )

    def is_dated(self) -> bool:
        """Whether the directory is a new one for each command."""
        raw: Any = OmegaConf.to_container(self.config, resolve=False)
        place = str(raw["hydra"]["sweep"]["dir"])
        return "${now:" in place.replace("${run_dir}", str(raw["run_dir"]))

    def run(self, batches: Sequence[Sequence[Sequence[str]]]) -> list[Sequence[JobReturn]]:
        """Run all jobs; what each returned, batch by batch."""
        returned: list[Sequence[JobReturn]] = []
        for batch in batches:
            returned.append(self.launch(batch, sum(map(len, returned))))
        return returned

    def take_up(self, sweep: Sweep, jobs: Sequence[Job], grid: Sequence[Sequence[str]]) -> None:
        """Run the jobs that other workers left, and say which of them others are at."""
        passed_over, before = unfinished(sweep, jobs), len(jobs) + 1
        while 0 < len(passed_over) < before:
            before = len(passed_over)
            for number in passed_over:
                if is_abandoned(sweep.run(jobs[number]).claim.path):
                    self.launch([grid[number]], number)
            passed_over = unfinished(sweep, jobs)
        for number in passed_over:
            who = sweep.run(jobs[number]).holder or "another worker"
            say(f"job {number} is left to {who}, which trains it")

    def launch(self, batch: Sequence[Sequence[str]], first: int) -> Sequence[JobReturn]:
        """Have the launcher run some jobs; that one failed is raised when all others are done."""
        assert self.launcher is not None
        results = self.launcher.launch(batch, initial_job_idx=first)
        try:
            for result in results:
                _ = result.return_value  # raises what the job raised
        except TrainingFailed as failure:
            self.failures.append(failure)
        return results


def unfinished(sweep: Sweep, jobs: Sequence[Job]) -> list[int]:
    """The numbers of the jobs that are neither finished nor failed."""
    states = [sweep.run(job).state for job in jobs]
    return [number for number, state in enumerate(states) if state not in ("finished", "failed")]


def command(sweep: Sweep) -> str:
    """What goes on with a sweep, given here, or beside it by another worker."""
    kept = [
        argument for argument in sys.argv[1:] if not argument.startswith(("run_dir=", "resume="))
    ]
    place = f"run_dir={in_override(str(sweep.directory))}"
    return without_password(
        shlex.join(["python", "-m", "anatosegnet.train", *kept, place, "resume=auto"])
    )


def register() -> None:
    """Let `Sweeper` stand in the place of Hydra's own, which takes no other outside of packages."""
    name = f"{BasicSweeper.__module__}.{BasicSweeper.__name__}"
    Plugins.instance().class_name_to_class[name] = Sweeper
