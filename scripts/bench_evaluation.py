"""How long scoring takes beside the network: all tumour images of BUSI, synthetic predictions.

Command: python scripts/bench_evaluation.py [surface] [once]
The predictions are the real masks, moved, resized to 256 px and blurred; making them is not timed.
Timed is all that evaluate does but the network and the report: reading, scoring, pictures, tables.
"""

import contextlib
import io
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from anatosegnet.data.datasets.busi import BUSISource
from anatosegnet.data.prepared import find_data
from anatosegnet.data.resizing import resize_mask
from anatosegnet.evaluation.evaluate import write_evaluation
from anatosegnet.evaluation.scoring import Scoring, score_cases
from anatosegnet.prediction.predictor import Prediction

SIZE = (256, 256)


class PreparedPredictor:
    """Gives prepared probability maps (256, 256) in the order of the cases."""

    image_size = SIZE

    def __init__(self, maps: list[np.ndarray]) -> None:
        self.maps = iter(maps)

    def of(self, _: str) -> "PreparedPredictor":
        """Whatever the case."""
        return self

    def predict(self, images: Sequence[np.ndarray]) -> Prediction:
        """The next maps, (B, 256, 256) float32."""
        return Prediction.of(np.stack([next(self.maps) for _ in images]))


def prepared(mask: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """A probability map that is off by some pixels, with a speck beside the lesion."""
    small = resize_mask(mask, SIZE)
    moved = np.roll(small, random.integers(-12, 13, 2), axis=(0, 1)).astype(np.float32)
    row, column = random.integers(0, 246, 2)
    moved[row : row + 6, column : column + 6] = 1
    return cv2.GaussianBlur(moved, (0, 0), 3)


def main() -> None:
    """Print wall-clock and processor seconds, the best of three (or once)."""
    surface = "surface" in sys.argv[1:]
    repeats = 1 if "once" in sys.argv[1:] else 3
    data = find_data(BUSISource(os.environ.get("ANATOSEGNET_DATA_DIR", "data")), "busi")
    names = tuple(data.cases)
    random = np.random.default_rng(0)
    maps = [prepared(data.read(name)[1], random) for name in names]
    times = []
    for _ in range(repeats):
        with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
            wall, processor = time.perf_counter(), time.process_time()
            scoring = Scoring(surface=surface)
            predictor_of = PreparedPredictor(maps).of
            scored = score_cases(data, names, predictor_of, scoring, Path(folder))
            middle = time.perf_counter(), time.process_time()
            write_evaluation(Path(folder), scored, scoring, {}, {})
            end = time.perf_counter(), time.process_time()
        times.append((end[0] - wall, end[1] - processor, end[0] - middle[0]))
    wall, processor, tables = min(times)
    print(
        f"{len(names)} images, surface={str(surface).lower()}: {wall:.1f} s, of which tables "
        f"{tables:.1f} s; processor {processor:.1f} s; {os.cpu_count()} cores"
    )


if __name__ == "__main__":
    main()
