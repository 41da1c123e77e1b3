"""Where cases come from: what a dataset must tell, whoever wrote it."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from anatosegnet.data.cache import hash_of
from anatosegnet.data.case import Case, count_cases, read_case
from anatosegnet.data.checksum import sha256
from anatosegnet.data.download import Download
from anatosegnet.data.duplicates import Pair
from anatosegnet.errors import UserError
from anatosegnet.files.opening import LARGEST


@dataclass(frozen=True)
class Found:
    """What a source found.

    Attributes:
        cases: In any order.
        problems: A line on each thing that must be put right, such as a file without a partner; a
            `Problem` where leaving a case out would silence it.
        passed_over: Names of what lies beside the cases and was not read.
    """

    cases: Sequence[Case]
    problems: Sequence[str] = ()
    passed_over: Sequence[str] = ()


class Source(ABC):
    """A dataset: finds its cases, and reads one.

    A subclass needs `find_cases` alone, where a case is an image file and mask files. Its arguments
    are the settings of ``data`` that are its own (``root``); `DataSettings` has those of all.

    Attributes:
        downloads: The files of the dataset on the network, for ``anatosegnet prepare``.
        how_to_get: How a person gets them.
        published: Counts of the published dataset, in the words of `counts`.
        include_normal: Whether images without a lesion are among the cases.
        simulated: Simulated cases are independent: no duplicates are looked for.
    """

    downloads: tuple[Download, ...] = ()
    how_to_get: str = ""
    published: Mapping[str, int] = {}
    include_normal: bool = True
    simulated: bool = False

    @abstractmethod
    def find_cases(self) -> Found:
        """Find the cases without reading their pixels.

        Raises:
            UserError: A folder or table is missing, or there is no case.
        """

    def read(self, case: Case) -> tuple[np.ndarray, np.ndarray]:
        """Image (H, W, 3) uint8 RGB and mask (H, W) uint8 {0, 1} at the original size.

        Raises:
            CaseError: Either cannot be used.
        """
        return read_case(case)

    def content_of(self, case: Case) -> str:
        """Hash of all that decides what `read` returns or refuses, beside its code.

        Raises:
            OSError: A file cannot be read.
            UserError: The case has no image file, so a subclass must say it.
        """
        if case.image is None:
            raise UserError(
                f"{type(self).__name__} needs a content_of: {case.name} has no image file"
            )
        return hash_of(case.label, *(sha256(path, LARGEST) for path in (case.image, *case.masks)))

    def counts(self, cases: Iterable[Case]) -> dict[str, int]:
        """What can be compared with the published dataset."""
        return count_cases(cases)

    def known_duplicates(self) -> list[Pair] | None:
        """Near-duplicates that the dataset lists; None where they must be looked for."""
        return None
