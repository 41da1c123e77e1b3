"""The exceptions that stand for something the user can put right."""

import errno
from collections.abc import Iterator

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
CLOSED = (errno.EROFS, errno.EACCES, errno.EPERM)


class UserError(Exception):
    """Something the user can put right: shown without a traceback, exit status 2.

    The message names the thing at fault and the way out. Programs in this package print it as
    ``error: <message>``; library users catch it like any exception.
    """


class TrainingFailed(UserError):
    """A training that had begun and cannot go on; the other jobs of a sweep can."""


def reason(error: BaseException) -> str:
    """Why something failed, in a few words on one line: the system's own, without the path."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return " ".join(str(error).split())[:200] or type(error).__name__


def origins(error: BaseException) -> Iterator[BaseException]:
    """An error, what it was raised from or amid, and so on."""
    link: BaseException | None = error
    while link is not None:
        yield link
        link = link.__cause__ or link.__context__


def of_the_disk(error: OSError) -> str | None:
    """What a disk or a file refused, in one line with the way out; None for other failures."""
    if error.errno is None or isinstance(error, ConnectionError):
        return None
    # the place that could not be taken, where there are two
    name = error.filename if error.filename2 is None else error.filename2
    place = "" if name is None else f"{name}: "
    if error.errno in FULL:
        way_out = "; make room, then give the same command again"
    elif error.errno in CLOSED:
        way_out = "; change its permissions, or give another place"
    else:
        way_out = ""
    return f"{place}{error.strerror or error}{way_out}"
