"""What is odd about a dataset as a whole, though each of its cases can be read."""

from collections import Counter
from collections.abc import Iterable, Mapping

from anatosegnet.data.case import CLASSES, NORMAL, Case

COVERED = 0.8  # share of an image; a lesion that takes more is rather all that is none


def incomplete(cases: Iterable[Case], published: Mapping[str, int], normal_too: bool) -> str:
    """A line on the classes that have other counts than were published, or nothing.

    Args:
        cases: All that were found.
        published: Counts of the published dataset by class; empty where there is none.
        normal_too: Whether images without a lesion are among the cases.
    """
    found = Counter(case.label for case in cases)
    labels = [one for one in CLASSES if one in published and (normal_too or one != NORMAL)]
    if all(found[label] == published[label] for label in labels):
        return ""
    counts = ", ".join(f"{found[label]} of {published[label]} {label}" for label in labels)
    return f"not what was published, but {counts}"


def looks_inverted(shares: Iterable[float]) -> str:
    """A line about lesions that cover most of most images, or nothing.

    Args:
        shares: Share of each image that is lesion, 0 to 1.
    """
    shares = [share for share in shares if share]
    large = sum(share > COVERED for share in shares)
    if 2 * large <= len(shares):
        return ""
    return (
        f"the lesion covers more than {COVERED:.0%} of the image in {large} of {len(shares)} "
        "cases: the masks look inverted (0 must be what is no lesion)"
    )
