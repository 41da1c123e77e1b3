"""The built-in data: simulated breast-ultrasound images, nothing to download."""

import cv2
import numpy as np

from anatosegnet.data import simulator
from anatosegnet.data.cache import hash_of, hash_of_code
from anatosegnet.data.case import Case
from anatosegnet.data.simulator import label_of, simulate
from anatosegnet.data.source import Found, Source


class PhantomSource(Source):
    """Simulated images with exact masks, the same for the same seed on every machine.

    Args:
        count: Number of cases.
        phantom_seed: Another seed, other patients.
    """

    simulated = True

    def __init__(self, count: int = 200, phantom_seed: int = 0) -> None:
        self.count = count
        self.phantom_seed = phantom_seed
        self._code = hash_of_code(simulator)

    def find_cases(self) -> Found:
        """One case per index; see `Source.find_cases`."""
        indices = range(self.count)
        return Found(
            [Case(f"phantom_{i:04d}", label=label_of(self.phantom_seed, i)) for i in indices]
        )

    def read(self, case: Case) -> tuple[np.ndarray, np.ndarray]:
        """Simulate the case."""
        phantom = simulate(self.phantom_seed, int(case.name.removeprefix("phantom_")))
        return cv2.cvtColor(phantom.image, cv2.COLOR_GRAY2RGB), phantom.mask

    def content_of(self, case: Case) -> str:
        """See `Source.content_of`: the simulator, the seed and the index."""
        return hash_of(self._code, self.phantom_seed, case.name)
