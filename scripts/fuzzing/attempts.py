"""One trial in a process of its own: limited in time and memory, watched, and judged."""

import os
import re
import resource
import signal
import stat
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

MEMORY = 3 * 2**30  # bytes that a trial may take beyond what its process began with
SECRET = "kept-in-the-environment"
# programs that ask about the machine, and wandb's own, which the socket in tmp leads to
HARMLESS = frozenset({"git", "uname", "lscpu", "wandb-core"})
CONNECTS = (
    "socket.connect",
    "socket.bind",
    "socket.getaddrinfo",
    "socket.sendto",
    "urllib.Request",
)
STARTS = ("os.system", "os.exec", "os.posix_spawn", "os.spawn", "pty.spawn", "os.startfile")
CHANGES = (
    "os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.truncate",
    "os.chmod", "os.chown", "os.utime",
)  # fmt: skip


@dataclass(frozen=True)
class Limits:
    """What a trial may do.

    Attributes:
        seconds: Wall time; a longer one counts as a hang.
        writable: Folders in which it may write; None: it is not watched at all.
        home: Its home folder.
        tmp: Its folder of temporary files.
    """

    seconds: float = 30
    writable: Sequence[Path] | None = None
    home: Path | None = None
    tmp: Path | None = None


@dataclass
class Outcome:
    """How a trial ended.

    Attributes:
        verdict: accepted; refused (in one line); hang; traceback (or any other bad end).
        harm: What it did that nobody may do; each begins with executed, outside or secret.
        text: What it printed.
        seconds: It took so long.
    """

    verdict: str
    harm: list[str] = field(default_factory=list)
    text: str = ""
    seconds: float = 0.0

    @property
    def bad(self) -> bool:
        """Whether this must not happen."""
        return bool(self.harm) or self.verdict in ("hang", "traceback")


def attempt(arguments: Sequence[str], work: Path, limits: Limits) -> Outcome:
    """Run a verb as its command line does.

    Args:
        arguments: The verb, then its arguments.
        work: The working directory.
        limits: What it may do.
    """
    verb = import_module(f"anatosegnet.{arguments[0]}")

    def program() -> None:
        os.chdir(work)
        sys.argv = [str(verb.__file__), *arguments[1:]]
        verb.main()

    logs = [work.parent / f".{work.name}.{name}" for name in ("out", "err", "harm")]
    started = time.monotonic()
    process = os.fork()
    if process == 0:
        in_child(program, logs, limits)
    status = wait(process, started + limits.seconds)
    seconds = time.monotonic() - started
    out, err, harm = (read(path) for path in logs)
    for path in logs:
        path.unlink(missing_ok=True)
    return Outcome(verdict(status, err), sorted(set(harm.splitlines())), out + err, seconds)


def read(path: Path) -> str:
    """The text of a log."""
    return path.read_text(errors="replace") if path.exists() else ""


def wait(process: int, deadline: float) -> int | None:
    """The exit status of a process (negative: a signal), None where it had to be killed."""
    while time.monotonic() < deadline:
        ended, status = os.waitpid(process, os.WNOHANG)
        if ended:
            with suppress(ProcessLookupError):  # what it left behind
                os.killpg(process, signal.SIGKILL)
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    with suppress(ProcessLookupError):
        os.killpg(process, signal.SIGKILL)
    os.waitpid(process, 0)
    return None


PROGRESS = re.compile(r"[a-z ]+ \d+( of \d+ \(|: done in )")  # of work that takes seconds


def verdict(status: int | None, err: str) -> str:
    """Accepted, refused in one line, hang, or traceback."""
    if status is None:
        return "hang"
    lines = [line for line in err.splitlines() if line.strip() and not PROGRESS.match(line)]
    if "Traceback (most recent" in err:
        return "traceback"
    if status == 0:
        return "accepted"
    if status == 2 and lines:
        alone = lines[0].startswith("error: ") and is_one(lines)
        # what argparse refuses comes with a line of usage
        return "refused" if alone or re.match(r"\w+\.py: error: ", lines[-1]) else "traceback"
    if status == 1 and all(line.startswith("error: ") for line in lines):
        return "refused"  # a line for each image that could not be done
    return "traceback"


def is_one(lines: Sequence[str]) -> bool:
    """Whether an error is one line, or one with a list of problems below it."""
    return all(line.startswith(("  - ", " - ", "- ", "  …", "  ...")) for line in lines[1:])


def in_child(program: Callable[[], None], logs: Sequence[Path], limits: Limits) -> None:
    """Run a program in this new process, and end the process."""
    os.setsid()
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    out, err, harm = (os.open(path, flags, 0o600) for path in logs)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((nothing, 0), (out, 1), (err, 2)):
        os.dup2(source, target)
    code = 1
    try:
        # torch's pool of threads is made anew after a fork, by whichever of its threads comes
        # first; two at once abort the process ("Invalid thread pool!")
        torch.set_num_threads(1)
        limit_memory()
        if limits.home and limits.tmp:
            os.environ.update(HOME=str(limits.home), TMPDIR=str(limits.tmp), ANATO_SECRET=SECRET)
            tempfile.tempdir = None  # as a new process, which has not looked yet
        if limits.writable is not None:
            watch(harm, limits.writable)
        program()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1 if end.code else 0
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
    finally:
        with suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def limit_memory(more: int = MEMORY) -> None:
    """Give this process so many bytes beyond what it has, and no core dumps."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + more
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def watch(harm: int, writable: Sequence[Path]) -> None:
    """Note what the process does to other folders, to the network, and what it starts.

    Args:
        harm: A descriptor; a line for each.
        writable: Folders in which it may write.
    """
    inside = tuple(f"{path.resolve()}/" for path in writable)
    busy = False

    def note(kind: str, what: object) -> None:
        os.write(harm, f"{kind}: {what}\n".encode(errors="replace"))

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal busy
        if busy:
            return
        busy = True
        try:
            look(event, arguments)
        finally:
            busy = False

    def look(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            path, _, flags = arguments
            if not isinstance(flags, int) or not flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
                return
            if not isinstance(path, int) and not allowed(path, follow=True):
                note("outside", f"opened {os.fsdecode(path)} for writing")
        elif event in CHANGES:
            paths = [p for p in arguments[:2] if isinstance(p, str | bytes | os.PathLike)]
            if event == "os.symlink":
                paths = paths[1:]
            if event in ("os.remove", "os.rmdir", "os.mkdir") and arguments[-1] >= 0:
                base = os.readlink(f"/proc/self/fd/{arguments[-1]}")  # shutil.rmtree's way
                paths = [os.path.join(base, os.fsdecode(path)) for path in paths]
            for path in paths:
                if not allowed(path, follow=False):
                    note("outside", f"{event} {os.fsdecode(path)}")
        elif event in STARTS:
            note("executed", f"{event} {arguments!r}"[:300])
        elif event == "subprocess.Popen":
            if Path(os.fsdecode(arguments[0])).name not in HARMLESS:
                note("executed", f"{event} {arguments[:2]!r}"[:300])
        elif event in CONNECTS and not (
            isinstance(arguments[-1], str) and allowed(arguments[-1], follow=True)
        ):
            note("executed", f"{event} {arguments[1:]!r}"[:300])
        elif event == "pickle.find_class":
            note("executed", f"unpickled {'.'.join(map(str, arguments))}")
        elif event == "exec":
            name = getattr(arguments[0], "co_filename", "")
            if name.startswith(inside):
                note("executed", f"code of {name}")

    def allowed(path: Any, follow: bool) -> bool:
        text = os.path.abspath(os.fsdecode(path))
        if follow:
            real = os.path.realpath(text)
        else:
            real = os.path.join(os.path.realpath(os.path.dirname(text)), os.path.basename(text))
        return (
            real.startswith((*inside, "/dev/null", "/dev/shm/", "/proc/")) or f"{real}/" in inside
        )

    sys.addaudithook(hook)


def watched(path: Path) -> bool:
    """Whether a path is a regular file, and no link to one."""
    with suppress(OSError):
        return stat.S_ISREG(path.lstat().st_mode)
    return False


def last_lines(text: str) -> str:
    """The end of what was printed, on one line."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    places = [line for line in lines if line.startswith("File ") and "anatosegnet" in line]
    return re.sub(r"\s+", " ", " / ".join([*places[-1:], *lines[-3:]]))[-500:]
