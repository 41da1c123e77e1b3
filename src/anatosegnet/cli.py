"""A verb around a function; user errors in one line."""

import functools
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.types import Override
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from anatosegnet.config import overrides
from anatosegnet.config.checks import check_top_level, expand_home, one_error
from anatosegnet.config.composition import (
    EXPECTED,
    choices_of,
    config_directory,
    one_line,
    require_visible,
    top_level,
    yaml_of,
)
from anatosegnet.console import say, settle_streams
from anatosegnet.errors import TrainingFailed, UserError, of_the_disk
from anatosegnet.files.writing import remove_if_empty
from anatosegnet.help import help_of

OmegaConf.register_new_resolver("help_of", help_of, replace=True)  # the template of --help

# programs whose overrides are partly about a recorded run or a file, not what Hydra composes
ABOUT_A_RUN = {
    "app": overrides.of_a_file,
    "predict": overrides.of_a_file,
    "runs": overrides.of_a_folder,
    "train": overrides.of_a_run,
    "evaluate": overrides.of_own_data,
    "export": overrides.of_own_data,
    "compare": overrides.of_own_data,
}


def verb(
    config_name: str, shows_tracebacks: bool = False
) -> Callable[[Callable[[DictConfig], Any]], Callable[[], None]]:
    """Make a program of a function of the composed config.

    A user's mistake ends in one line on stderr and exit status 2. With ``ANATOSEGNET_DEBUG=1``
    the traceback is shown instead.

    Args:
        config_name: The program's YAML.
        shows_tracebacks: Of what nobody expected; else that is one line too.
    """

    def decorate(task: Callable[[DictConfig], Any]) -> Callable[[], None]:
        # Hydra would print a traceback and exit with 1; its exceptions come through this way.
        os.environ["HYDRA_FULL_ERROR"] = "1"
        arguments = sys.argv
        composed = False

        @functools.wraps(task)
        def guarded(config: DictConfig) -> None:
            nonlocal composed
            composed, sys.argv = True, arguments
            failed = None
            # Hydra adds a line of its own to what leaves the task
            with errors_in_one_line(config_name):
                try:
                    with nullcontext() if shows_tracebacks else unexpected():
                        for source in HydraConfig.get().runtime.config_sources:
                            if source.provider not in ("hydra", "main", "schema"):
                                require_visible(Path(source.path))
                        settle(config, config_name)
                        task(config)
                except UserError as error:
                    job = HydraConfig.get()
                    goes_on = isinstance(error, TrainingFailed) or elsewhere(job)
                    if job.mode != RunMode.MULTIRUN or not goes_on:
                        raise
                    say(f"job {job.job.num} failed: {error}", error=True)
                    failed = error
                finally:
                    runtime = HydraConfig.get().runtime
                    remove_if_empty(Path(runtime.output_dir), Path(runtime.cwd))
            if failed is not None:  # the other jobs go on, then Hydra raises it again
                raise failed

        program = hydra.main(
            version_base="1.3", config_path=str(config_directory()), config_name=config_name
        )(guarded)

        @functools.wraps(task)
        def main() -> None:
            nonlocal arguments, composed
            arguments, composed = sys.argv, False
            settle_streams()
            with errors_in_one_line(config_name):
                check_choices(overrides.readable(arguments[1:]), config_name)
                about_a_run = ABOUT_A_RUN.get(config_name, list)
                sys.argv = [arguments[0], *about_a_run(arguments[1:])]
                try:
                    program()
                except EXPECTED:
                    raise
                except Exception as error:  # Hydra's own, of what it could not compose
                    if composed:
                        raise
                    raise UserError(one_line(error, config_name)) from error
                finally:
                    sys.argv = arguments

        return main

    return decorate


def settle(config: DictConfig, config_name: str) -> None:
    """Check the settings outside the groups, and expand ``~`` in all paths.

    Args:
        config: As composed for a program; changed in place.
        config_name: The program.

    Raises:
        UserError: A value is of another kind than its default.
    """
    OmegaConf.set_struct(config, False)
    check_top_level(config, top_level(config_name))
    expand_home(config)
    OmegaConf.set_struct(config, True)


def check_choices(given: Sequence[Override], config_name: str) -> None:
    """UserError if a group is given something else than the name of a choice, or of several."""
    defaults = yaml_of(config_name)["defaults"]
    optional = {
        key
        for entry in defaults
        if isinstance(entry, dict)
        for key, choice in entry.items()
        if choice is None
    }
    for override in given:
        key = overrides.key_of(override)
        folder = config_directory() / key.replace(".", "/")
        if not folder.is_dir() or override.is_delete() or override.is_sweep_override():
            continue
        value = override.value()
        names = value if isinstance(value, list) else [value]
        if not (names and all(isinstance(name, str) for name in names)) and not (
            value is None and key in optional
        ):
            known = ", ".join(choices_of(key.replace(".", "/")))
            raise UserError(f"{override.input_line}: {key} is chosen by name; available: {known}")


def elsewhere(job: Any) -> bool:
    """Whether a launcher runs the jobs in other processes, which must not exit but return."""
    return not str(job.launcher._target_).endswith(".BasicLauncher")


@contextmanager
def errors_in_one_line(config_name: str = "train") -> Iterator[None]:
    """Print a user's mistake as ``error: …`` and exit with status 2.

    Args:
        config_name: The program's config, whose settings are proposed for a misspelt one.
    """
    try:
        yield
    except EXPECTED as error:
        if os.environ.get("ANATOSEGNET_DEBUG") == "1":
            raise
        message = str(error) if isinstance(error, UserError) else one_line(error, config_name)
        say(f"error: {message}", error=True)
        sys.exit(2)
    except OSError as error:
        refused = of_the_disk(error)
        if refused is None or os.environ.get("ANATOSEGNET_DEBUG") == "1":
            raise
        say(f"error: {refused}", error=True)
        sys.exit(2)
    except KeyboardInterrupt:
        say("interrupted", error=True)
        sys.exit(130)


@contextmanager
def unexpected() -> Iterator[None]:
    """Turn what nobody expected into one line, with the settings that may have caused it.

    Raises:
        UserError: In the place of an exception that is not one of `EXPECTED`.
    """
    try:
        yield
    except (*EXPECTED, BrokenPipeError):
        raise
    except Exception as error:
        if isinstance(error, OSError) and of_the_disk(error):
            raise
        settings = " ".join(overrides.given())
        raise UserError(
            f"{one_error(error)}; ANATOSEGNET_DEBUG=1 shows where"
            + (f" (given were: {settings})" if settings else "")
        ) from error
