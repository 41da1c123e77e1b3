"""Which process works on something, and whether it is still there."""

import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def this_process() -> dict[str, Any]:
    """``host``, ``pid`` and ``pid_started``, by which a later command knows this process again."""
    return {"host": socket.gethostname(), "pid": os.getpid(), "pid_started": started(os.getpid())}


def is_alive(process: Mapping[str, Any]) -> bool | None:
    """Whether a process that `this_process` described still runs; None: that cannot be known.

    A process number is used again after a while, so the time it started has to agree.
    """
    pid = process.get("pid")
    if not isinstance(pid, int) or process.get("host") != socket.gethostname():
        return None
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # somebody else's
        pass
    then, now = process.get("pid_started"), started(pid)
    return then is None or now is None or then == now


def started(pid: int) -> int | None:
    """When a process started, in clock ticks since the machine did; None where Linux is not.

    A zombie, which only waits to be counted, is not running: -1.
    """
    try:
        # the name, in parentheses, may hold anything
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return -1 if fields[0] == "Z" else int(fields[19])
