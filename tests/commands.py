"""Programs run as a user would, each in a forked process: imports are paid for once."""

import os
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import pytest
import torch
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig

from anatosegnet.__main__ import program_of

# a network of one layer, of a class that a recorded config may build
CONVOLUTION = """\
_target_: torch.nn.Conv2d
in_channels: 3
out_channels: 2
kernel_size: 3
padding: 1
"""
QUICK = (
    "model=convolution", "data.image_size=32", "data.batch_size=4", "data.num_workers=0",
    "trainer=cpu", "callbacks.panels=null", "test=false",
)  # fmt: skip
PHANTOMS = ("data.count=12", "data.cache=off")


@dataclass
class Result:
    """What a program left: its exit status, and what it printed."""

    status: int
    output: str
    errors: str


class Shell:
    """A folder in which commands are run.

    Args:
        folder: The working directory; it holds ``configs`` with the small network.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.configs = folder / "configs"
        (self.configs / "model").mkdir(parents=True)
        (self.configs / "model" / "convolution.yaml").write_text(CONVOLUTION)

    def train(self, *arguments: str, status: int = 0, **environment: str | None) -> Result:
        """``python -m anatosegnet.train``, with the small network to choose from."""
        return self("train", "--config-dir", str(self.configs), *arguments, status=status,
                    **environment)  # fmt: skip

    def __call__(
        self, verb: str, *arguments: str, status: int | None = 0, **environment: str | None
    ) -> Result:
        """Run a program; its exit status must be as expected (None: whatever it is).

        Args:
            verb: Such as ``train``.
            *arguments: Of the command line.
            status: Expected exit status; that of a mistake (2) must be one line.
            **environment: Variables to set, None to take away.
        """
        out, err = self.folder / ".out", self.folder / ".err"
        pid = self.start(verb, *arguments, streams=(out, err), **environment)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        said = [
            line for line in err.read_text().splitlines(True) if not line.startswith("reading ")
        ]
        result = Result(code, out.read_text(), "".join(said))
        out.unlink()
        err.unlink()
        assert status is None or code == status, result
        if code == 2:
            assert result.errors.startswith("error: "), result
            lines = result.errors.splitlines()
            # what is wrong with data is a line each
            assert all(line.startswith("  - ") for line in lines[1:]), result
        return result

    def start(
        self,
        verb: str,
        *arguments: str,
        streams: Sequence[Path],
        prepare: Callable[[], object] = bool,
        **environment: str | None,
    ) -> int:
        """Start a program as `__call__` does, and return its process number.

        Args:
            verb: Such as ``train``.
            *arguments: Of the command line.
            streams: Files for what it prints, and for its errors.
            prepare: Called in the new process before the program.
            **environment: Variables to set, None to take away.
        """
        module = program_of(verb)
        sys.stdout.flush()
        pid = os.fork()
        if pid == 0:
            prepare()
            _run(module, arguments, self.folder, streams, environment)
        return pid


def _run(
    module: object, arguments: Sequence[str], folder: Path, streams: Sequence[Path],
    environment: dict[str, str | None],
) -> None:  # fmt: skip
    code = 70
    try:
        os.chdir(folder)
        for number, path in enumerate(streams, start=1):
            target = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(target, number)
        sys.stdout, sys.stderr = (open(n, "w", buffering=1, closefd=False) for n in (1, 2))  # noqa: SIM115
        for name, value in environment.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
        GlobalHydra.instance().clear()
        HydraConfig.instance().cfg = None
        sys.argv = [str(module.__file__), *arguments]  # type: ignore[attr-defined]
        try:
            module.main()  # type: ignore[attr-defined]
            code = 0
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else 0
        except BaseException:
            traceback.print_exc()
            code = 1
    finally:
        os._exit(code)


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """A forked process has none of its parent's threads and would wait for them for ever."""
    threads = torch.get_num_threads(), cv2.getNumThreads()
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    yield
    torch.set_num_threads(threads[0])
    cv2.setNumThreads(threads[1])


@pytest.fixture
def shell(tmp_path: Path, one_thread: None) -> Shell:
    """A folder in which commands are run."""
    return Shell(tmp_path)
