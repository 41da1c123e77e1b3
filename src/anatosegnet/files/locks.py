"""Which process holds a file, or works in a folder; one that was killed holds nothing."""

import os
import socket
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryFile
from threading import Event, Thread

BEAT = 15.0  # seconds between two signs of life of a claim's holder
# seconds without one after which a holder whom the system cannot tell of is taken for dead: a
# network disk shows a new time up to a minute late
SILENCE = 120.0
WRITING = 2.0  # seconds in which a new claim says whose it is
BOOT = Path("/proc/sys/kernel/random/boot_id")


def lock(descriptor: int, shared: bool = False) -> bool | None:
    """Lock an open file while this process lives and has it open.

    Returns:
        Whether it is locked now; None where the system or the disk has no such locks.
    """
    try:
        import fcntl
    except ImportError:
        return None
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def is_held(path: Path) -> bool:
    """Whether a process holds a file, to write or to read, as far as the system can tell."""
    return _can_lock(path, shared=False) is False


def is_free(path: Path) -> bool:
    """Whether a file is locked by no process; one that was killed holds no lock any more.

    A file that is not there is free. False too where locks cannot be looked at.
    """
    try:
        return _can_lock(path, shared=True) is True
    except FileNotFoundError:
        return True
    except OSError:
        return False


def _can_lock(path: Path, shared: bool) -> bool | None:
    """`lock` of a file, for a moment; raises OSError if it cannot be opened."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        return lock(descriptor, shared)
    finally:
        os.close(descriptor)


@dataclass(frozen=True)
class Holder:
    """The process that holds a claim.

    Attributes:
        machine: Where it runs, by `this_machine`; empty where that is not known.
        process: Its number there.
        host: The machine's name.
        certain: Whether that is known, and not only that it lived `SILENCE` ago.
        sign: When it gave its last sign of life, by the clock of the disk.
    """

    machine: str = ""
    process: str = ""
    host: str = ""
    certain: bool = True
    sign: float = 0.0

    def __str__(self) -> str:
        return f"process {self.process} on {self.host}" if self.host else "another process"


class Claim:
    """A place where one process at a time works: a file tells whose it is, for as long.

    Between processes of one machine the system's lock decides, and a kill ends it. It does not
    reach other machines on every network disk, so the file says in which machine its holder runs,
    and its time is that of the holder's last sign of life, by the clock of the disk. A file
    appears, or takes the place of a dead one's, in one step that succeeds for one process only.

    Args:
        path: The file; folders above it are made.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor: int | None = None
        self._ended = Event()
        self._beating: Thread | None = None

    @property
    def is_taken(self) -> bool:
        """Whether this process has it."""
        return self._descriptor is not None

    def take(self) -> bool:
        """Take the place for this process.

        Returns:
            Whether it is ours; False if another process that lives has it.

        Raises:
            OSError: The file cannot be made, or is none.
        """
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL
        while self._descriptor is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            try:
                descriptor = os.open(self.path, flags, 0o666)
            except FileExistsError:
                if not self._remove_dead():
                    return False
                continue
            except FileNotFoundError:  # the folder, by one who left nothing in it
                continue
            while lock(descriptor) is False:  # somebody just looks whether it is locked
                time.sleep(0.001)
            whose = f"{this_machine()} {os.getpid()} {socket.gethostname()}\n"
            os.write(descriptor, whose.encode())
            if is_at(self.path, descriptor):
                self._descriptor = descriptor
            else:  # we were so slow that another took it for dead
                os.close(descriptor)
        self._ended.clear()
        self._beating = Thread(target=self._beat, args=(descriptor,), daemon=True)
        self._beating.start()
        return True

    def release(self) -> None:
        """Give the place back, if it was taken."""
        if self._descriptor is None or self._beating is None:
            return
        self._ended.set()
        self._beating.join()
        if is_at(self.path, self._descriptor):
            with suppress(OSError):
                self.path.unlink()
        os.close(self._descriptor)
        self._descriptor = None

    def _beat(self, descriptor: int) -> None:
        while not self._ended.wait(BEAT):
            with suppress(OSError):  # a network disk may be away for a while
                os.utime(descriptor)

    def _remove_dead(self) -> bool:
        """Remove the file of one who is gone; whether there is none now."""
        try:
            descriptor = os.open(self.path, os.O_RDWR | os.O_NONBLOCK | os.O_NOFOLLOW)
        except FileNotFoundError:
            return True
        try:
            if _holder(self.path, descriptor, lock(descriptor)):
                return False
            if not is_at(self.path, descriptor):
                return True
            aside = self.path.with_name(f"{self.path.name}.{uuid.uuid4().hex}")
            try:
                self.path.rename(aside)
            except FileNotFoundError:
                return True
            with suppress(OSError):
                if not is_at(aside, descriptor):  # of one who was quicker, and lives: give it back
                    os.link(aside, self.path)
                aside.unlink()
        finally:
            os.close(descriptor)
        return True


@contextmanager
def waited_for(path: Path) -> Iterator[None]:
    """A moment in which no other process does what the claim of a file is about.

    Raises:
        OSError: The file cannot be made.
    """
    claim = Claim(path)
    while not claim.take():
        time.sleep(0.02)
    try:
        yield
    finally:
        claim.release()


def holder(path: Path) -> Holder | None:
    """Who holds the claim of a file, if anybody does; nothing is changed."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        return _holder(path, descriptor, lock(descriptor, shared=True))
    finally:
        os.close(descriptor)


def _holder(path: Path, descriptor: int, locked: bool | None) -> Holder | None:
    """`holder` of an open file that could be locked, or not, or cannot be known."""
    words, sign = [], os.fstat(descriptor).st_mtime
    with suppress(OSError):  # of a folder or a pipe
        words = os.pread(descriptor, 300, 0).decode(errors="replace").split()
    machine, process, host = words if len(words) == 3 else ("", "", "")
    here = machine == this_machine()
    if locked is False:  # what a killed process has started has its locks for some seconds more
        return Holder(machine, process, host, not (here and is_gone(process)), sign)
    if locked and here:
        return None
    # an empty file is just being written, or of an earlier version, whose lock would be held
    limit = SILENCE if machine or locked is None else WRITING
    if age(path, sign) > limit:
        return None
    return Holder(machine, process, host, False, sign)


def is_abandoned(path: Path) -> bool:
    """Whether nobody holds a claim; where that is not certain it is waited for, about `SILENCE`."""
    end, found = time.monotonic() + SILENCE + 1, holder(path)  # a disk's clock has coarse ticks
    sign = found.sign if found else None
    while found and not found.certain and found.sign == sign and time.monotonic() < end:
        time.sleep(0.5)
        found = holder(path)
    return found is None


def is_at(path: Path, descriptor: int) -> bool:
    """Whether a path leads to an open file."""
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except OSError:
        return False


def is_gone(process: str) -> bool:
    """Whether there is no process of a number here."""
    try:
        os.kill(int(process), 0)
    except ProcessLookupError:
        return True
    except (OSError, ValueError, OverflowError):  # somebody else's
        return False
    return False


def age(path: Path, changed: float) -> float:
    """Seconds since a file was changed, by the clock of its disk where that can be asked."""
    try:
        with TemporaryFile(dir=path.parent) as file:
            return os.fstat(file.fileno()).st_mtime - changed
    except OSError:  # a folder that one may only read
        return time.time() - changed


@cache
def this_machine() -> str:
    """What is the same for all processes that the system's locks reach, containers among them."""
    try:
        return BOOT.read_text().strip()
    except OSError:
        return socket.gethostname()
