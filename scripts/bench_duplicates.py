"""How the search for near-duplicates grows with the number of images, without pixels.

python scripts/bench_duplicates.py [COUNT …]      default: 1000 20000 100000

Random signatures, a tenth of them with a duplicate at cosine 0.9. Prints Markdown.
"""

import sys
import time

import numpy as np

from anatosegnet.data.duplicates import similar_signatures


def main(counts: list[int]) -> None:
    """Print a row per number of images."""
    print("| images | CPU s | duplicates found | pairs left for the pixel check |")
    print("|---|---|---|---|")
    for count in counts:
        rng = np.random.default_rng(0)
        signatures = rng.standard_normal((count, 64), dtype=np.float32)
        doubles = rng.permutation(count)[: count // 10 * 2].reshape(-1, 2)
        noise = rng.standard_normal((len(doubles), 64), dtype=np.float32)
        signatures[doubles[:, 1]] = 0.9 * signatures[doubles[:, 0]] + 0.19**0.5 * noise
        signatures /= np.linalg.norm(signatures, axis=1, keepdims=True)
        start = time.process_time()
        pairs = similar_signatures(signatures)
        seconds = time.process_time() - start
        found = set(map(tuple, pairs.tolist()))
        hits = sum(tuple(pair) in found for pair in np.sort(doubles, axis=1).tolist())
        share = f"{100 * hits / len(doubles):.2f} %"
        print(f"| {count:,} | {seconds:.2f} | {share} | {len(pairs):,} |", flush=True)


if __name__ == "__main__":
    main([int(text) for text in sys.argv[1:]] or [1000, 20_000, 100_000])
