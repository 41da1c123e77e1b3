"""``data.exclude``: cases that are left out, with all that is wrong with them."""

import unicodedata
from collections.abc import Sequence
from fnmatch import fnmatchcase

from anatosegnet.data.case import Case
from anatosegnet.errors import UserError

Excluded = dict[str, Case | None]  # None: too broken to become a case


def leave_out(
    cases: list[Case], problems: list[str], patterns: Sequence[str], dataset: str
) -> tuple[list[Case], list[str], Excluded]:
    """Take out the cases that the patterns name.

    Args:
        cases: All cases.
        problems: Lines on what is wrong; those that are a `Problem` know their case.
        patterns: Names, or patterns with ``*``, ``?`` and ``[…]``.
        dataset: For messages.

    Returns:
        The other cases, the problems that are not of excluded ones, and what was excluded.

    Raises:
        UserError: A pattern fits no case, or none is left.
    """
    known: Excluded = {name: None for line in problems if (name := _case_of(line))}
    known.update({case.name: case for case in cases})
    excluded: Excluded = {}
    for pattern in patterns:
        pattern = unicodedata.normalize("NFC", pattern)
        fits = [name for name in known if fnmatchcase(name, pattern)]
        matched = [pattern] if pattern in known else fits
        if not matched:
            raise UserError(
                f"data.exclude: {pattern} is the name of no case of {dataset}, nor a pattern "
                "(such as HESN_*) that fits one"
            )
        excluded.update({name: known[name] for name in matched})
    kept = [case for case in cases if case.name not in excluded]
    if not kept:
        raise UserError(f"data.exclude leaves no case of {dataset}")
    return kept, [line for line in problems if _case_of(line) not in excluded], excluded


def _case_of(line: str) -> str:
    return getattr(line, "case", "")
