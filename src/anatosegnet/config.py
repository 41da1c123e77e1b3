"""Where the configs are, the wrapper around hydra, and user errors in one line."""

import difflib
import functools
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from anatosegnet.console import say, settle_streams
from anatosegnet.errors import TrainingFailed, UserError, of_the_disk
from anatosegnet.recorded import require_admitted


def config_directory() -> Path:
    """The configs beside the package (wheel), or at the top of the checkout (editable)."""
    package = Path(__file__).resolve().parent
    inside = package / "configs"
    return inside if inside.is_dir() else package.parents[1] / "configs"


def verb(config_name: str) -> Callable[[Callable[[DictConfig], Any]], Callable[[], None]]:
    """Make a program of a function of the composed config.

    A user's mistake ends in one line on stderr and exit status 2. With ``ANATOSEGNET_DEBUG=1``
    the traceback is shown instead.
    """

    def decorate(task: Callable[[DictConfig], Any]) -> Callable[[], None]:
        # Hydra would print a traceback and exit with 1; its exceptions come through this way.
        os.environ["HYDRA_FULL_ERROR"] = "1"

        @functools.wraps(task)
        def guarded(config: DictConfig) -> None:
            failed = None
            # Hydra adds a line of its own to what leaves the task
            with errors_in_one_line(config_name):
                try:
                    task(config)
                except UserError as error:
                    job = HydraConfig.get()
                    goes_on = isinstance(error, TrainingFailed) or elsewhere(job)
                    if job.mode != RunMode.MULTIRUN or not goes_on:
                        raise
                    say(f"job {job.job.num} failed: {error}", error=True)
                    failed = error
            if failed is not None:  # the other jobs go on, then Hydra raises it again
                raise failed

        program = hydra.main(
            version_base="1.3", config_path=str(config_directory()), config_name=config_name
        )(guarded)

        @functools.wraps(task)
        def main() -> None:
            settle_streams()
            with errors_in_one_line(config_name):
                program()

        return main

    return decorate


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
    except (UserError, HydraException, OmegaConfBaseException) as error:
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


def instantiate(config: DictConfig, key: str, **arguments: Any) -> Any:
    """Build the object of one config group, or of one entry of a group.

    Args:
        config: The whole config.
        key: Such as ``model`` or ``callbacks.best``.
        **arguments: Finished objects that the constructor takes beside its config.

    Raises:
        UserError: The constructor refused its settings, or a recorded config names what it may
            not build.
    """
    require_admitted(config, key)
    node = OmegaConf.select(config, key)
    try:
        if arguments:
            return hydra.utils.instantiate(node, _partial_=True)(**arguments)
        return hydra.utils.instantiate(node)
    except Exception as error:
        chain: list[BaseException] = [error]
        while chain[-1].__cause__ is not None:
            chain.append(chain[-1].__cause__)
        root = chain[-1]
        for link in chain:
            if isinstance(link, UserError):
                raise link from error
        refused = isinstance(root, TypeError | ValueError | ImportError | AttributeError)
        if refused or type(root).__name__ == "MisconfigurationException":  # Lightning's own
            raise UserError(f"{key}: {' '.join(str(root).split())}") from error
        raise


def one_line(error: Exception, config_name: str = "train") -> str:
    """Hydra's message on one line; for a misspelt key, the nearest one that exists."""
    cause = error.__cause__
    text = " ".join(f"{error} {cause if cause is not None else ''}".split())
    if isinstance(error, MissingMandatoryValue):
        key = text.split("full_key: ")[-1].split()[0]
        return f"{key} has no value; give {key}=…"
    options = r"(?: Available options in '[^']+': (.+) Config)?"  # not said of lists of choices
    unknown = re.search(rf"Could not (?:find|load) '([^']+/[^']+)'{options}", text)
    if unknown:
        files = (config_directory() / unknown[1]).parent.glob("*.yaml")
        names = unknown[2].split() if unknown[2] else sorted(path.stem for path in files)
        available = ", ".join(name for name in names if not name.startswith("_"))
        return f"there is no {unknown[1]}" + (f"; available: {available}" if available else "")
    misspelt = re.search(r"Could not override '([^']+)'", text)
    if misspelt:
        near = difflib.get_close_matches(misspelt[1], _known_keys(config_name), n=1)
        hint = f"; did you mean {near[0]}?" if near else "; --cfg job lists the settings"
        return f"{misspelt[1]} is not a setting{hint}"
    return text


def _known_keys(config_name: str) -> list[str]:
    """Dotted keys and groups of the program at hand, composed without overrides."""
    from hydra.core.global_hydra import GlobalHydra

    groups = [path.name for path in config_directory().iterdir() if path.is_dir()]
    try:
        GlobalHydra.instance().clear()
        with hydra.initialize_config_dir(str(config_directory()), version_base="1.3"):
            choices = [a for a in sys.argv[1:] if re.match(r"\w+=", a)]
            composed = hydra.compose(config_name, choices)
    except Exception:  # the hint is a courtesy; the error itself is already known
        return groups
    return groups + dotted_keys(composed)


def dotted_keys(config: DictConfig) -> list[str]:
    """Keys of all settings as they are written in an override, those of whole nodes too."""
    keys: list[str] = []

    def walk(node: Any, prefix: str) -> None:
        if isinstance(node, dict):
            for key, value in node.items():
                keys.append(f"{prefix}{key}")
                walk(value, f"{prefix}{key}.")

    walk(OmegaConf.to_container(config, resolve=False), "")
    return keys
