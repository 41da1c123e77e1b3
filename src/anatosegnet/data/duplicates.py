"""Near-duplicates: one image twice, with another scale, crop, brightness, or burned-in marks.

Three steps, none of which compares all pairs of pixels:

1. Each image becomes a thumbnail (96 × 96) and a signature of 64 numbers, its coarse structure.
2. All signatures are compared with all, by a product of matrices: 2 s for 20,000 images.
3. The most similar ones are registered on their thumbnails (scale and shift; Evangelidis and
   Psarakis, "Parametric image alignment using enhanced correlation coefficient maximization", PAMI
   2008) and compared tile by tile. The similarity is the *median* correlation of the 8 × 8 tiles:
   half of the picture agrees at least so well. Brightness, contrast and gain change no
   correlation, and a burned-in mark spoils a few tiles only.

The same image twice scores above 0.95, neighbouring frames of one sweep 0.5 to 0.95, different
lesions at most 0.53 (BUSI and BrEaST, looked at pair by pair; see docs/leakage.md).
"""

import hashlib
import os
import re
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from anatosegnet.console import progress
from anatosegnet.errors import UserError, reason
from anatosegnet.files.rows import read_rows, write_rows

THRESHOLD = 0.6  # median correlation of the tiles; the pairs around it: docs/leakage.md
SIZE = 96  # edge of a thumbnail, pixels
TILES = 8  # tiles along an edge
REGISTERED = 64  # edge at which thumbnails are registered, pixels
LEAST_COSINE = 0.5  # of two signatures whose images are worth a look
NEIGHBOURS = 16  # so many of an image's candidates are looked at, the most similar ones
BLOCK = 2**24  # cosines that are in memory at once
SHEAR, SCALE, SHIFT = 0.08, 0.45, 0.4  # what registration may find; beyond it, it has lost its way


class Pair(NamedTuple):
    """Two images that show the same; ``id_a`` stands first in natural order."""

    id_a: str
    id_b: str
    similarity: float  # median correlation of the tiles, up to 1


def find_duplicates(
    images: Iterable[tuple[str, np.ndarray]], threshold: float = THRESHOLD
) -> list[Pair]:
    """Find the near-duplicates among images.

    Of a group of more than `NEIGHBOURS` not every pair is listed, but enough to join them.

    Args:
        images: (name, pixels); the pixels are (H, W) or (H, W, 3) uint8, or the image's
            `thumbnail`. They are drawn once, and only thumbnails (9 kB each) are kept.
        threshold: Least similarity of a pair.

    Returns:
        The pairs in natural order of their names, whatever the order of the images.
    """
    thumbnails = {name: thumbnail(image) for name, image in images}
    names = sorted(thumbnails, key=natural_key)
    if len(names) < 2:
        return []
    outlines = progress(names, "looking for duplicates")
    candidates = similar_signatures(np.stack([signature(thumbnails[name]) for name in outlines]))

    def compare(pair: np.ndarray) -> Pair:
        a, b = names[pair[0]], names[pair[1]]
        return Pair(a, b, round(similarity(thumbnails[a], thumbnails[b]), 4))

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        pairs = progress(
            pool.map(compare, candidates), "comparing possible duplicates", len(candidates)
        )
        return [pair for pair in pairs if pair.similarity >= threshold]


def duplicate_groups(pairs: Iterable[Pair]) -> dict[str, str]:
    """The connected components of the pairs.

    Returns:
        Group of each name that has a duplicate: the smallest name of its component, in natural
        order.
    """
    return components((pair.id_a, pair.id_b) for pair in pairs)


def components(links: Iterable[tuple[str, str]]) -> dict[str, str]:
    """The smallest name, in natural order, that links lead to from each linked name."""
    parents: dict[str, str] = {}

    def root(name: str) -> str:
        while (parent := parents.setdefault(name, name)) != name:
            parents[name] = name = parents.setdefault(parent, parent)
        return name

    for a, b in links:
        first, second = sorted((root(a), root(b)), key=natural_key)
        parents[second] = first
    return {name: root(name) for name in parents}


def write_pairs(path: Path, pairs: Iterable[Pair]) -> None:
    """Write ``id_a,id_b,similarity``."""
    with path.open("w", newline="", encoding="utf-8") as file:
        write_rows(file, Pair._fields, ([a, b, f"{score:.4f}"] for a, b, score in pairs))


def read_pairs(path: Path) -> list[Pair]:
    """Read what `write_pairs` wrote; raises UserError if it is no such list."""
    try:
        columns, rows = read_rows(path)
        if missing := set(Pair._fields) - set(columns):
            raise ValueError(f"no column {', '.join(sorted(missing))}")
        return [Pair(row["id_a"], row["id_b"], float(row["similarity"] or "nan")) for row in rows]
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is no list of near-duplicates ({reason(error)})") from error


def thumbnail(image: np.ndarray) -> np.ndarray:
    """What is kept of an image, (96, 96) uint8 grey; a thumbnail's thumbnail is itself."""
    if image.shape == (SIZE, SIZE) and image.dtype == np.uint8:
        return image
    small = cv2.resize(image, (SIZE, SIZE), interpolation=cv2.INTER_AREA)
    return small if small.ndim == 2 else cv2.cvtColor(small, cv2.COLOR_RGB2GRAY)


class Digests(NamedTuple):
    """`pixel_digest` of a case's image and of its merged mask, at their original size."""

    pixels: str
    mask: str


def pixel_digest(image: np.ndarray) -> str:
    """16 hex digits that two images share only if size and pixels are the same.

    Args:
        image: (H, W, 3) or mask (H, W), uint8; so the file format has no part in it.
    """
    digest = hashlib.sha256(str(image.shape).encode())
    digest.update(np.ascontiguousarray(image).data)
    return digest.hexdigest()[:16]


class ImageDigest(NamedTuple):
    """What is kept of an image and its mask: their `Digests`, and the image's `thumbnail`."""

    digests: Digests
    thumbnail: np.ndarray


def digest_image(image: np.ndarray, mask: np.ndarray) -> ImageDigest:
    """The digest of an image (H, W, 3) and its mask (H, W), uint8 at the original size."""
    return ImageDigest(Digests(pixel_digest(image), pixel_digest(mask)), thumbnail(image))


def signature(thumb: np.ndarray) -> np.ndarray:
    """Coarse structure of a thumbnail, (64,) float32 of length 1 (0 for an even image).

    The 8 × 8 lowest cosine coefficients of the locally normalised image. What varies with depth
    alone counts half: all breasts share it.
    """
    even = _normalised(cv2.resize(thumb, (32, 32), interpolation=cv2.INTER_AREA), 5.0)
    coefficients = cv2.dct(np.clip(even, -2, 2))[:8, :8].copy()
    coefficients[:, 0] *= 0.5
    coefficients[0, 0] = 0
    length = float(np.linalg.norm(coefficients))
    return coefficients.ravel() / np.float32(length if length > 1e-3 else np.inf)


def similar_signatures(signatures: np.ndarray, least: float = LEAST_COSINE) -> np.ndarray:
    """Pairs of signatures whose cosine reaches ``least``.

    Args:
        signatures: (N, D) float32 of length 1 or 0.
        least: Least cosine.

    Returns:
        (M, 2) indices, first < second, in order; of an image with more than `NEIGHBOURS` pairs the
        most similar ones, so that M grows with N and not with N².
    """
    count = len(signatures)
    rows = max(1, BLOCK // count)
    found = [np.empty(0, np.int64)]
    for start in range(0, count, rows):
        cosines = signatures[start : start + rows] @ signatures.T
        cosines[np.arange(len(cosines)), np.arange(start, start + len(cosines))] = -1  # itself
        a, b = np.nonzero(cosines >= least)
        # rounded: equal images are equally near, whatever the order of the processor's sums
        order = np.lexsort((b, -cosines[a, b].round(4), a))
        rank = np.arange(len(a)) - np.searchsorted(a, a)  # a is sorted: where its pairs begin
        nearest = order[rank < NEIGHBOURS]
        a, b = a[nearest] + start, b[nearest]
        found.append(np.minimum(a, b) * count + np.maximum(a, b))
    return np.stack(np.divmod(np.unique(np.concatenate(found)), count), axis=1)


def similarity(a: np.ndarray, b: np.ndarray) -> float:
    """Median correlation of the tiles of thumbnail ``a`` with ``b`` registered to it.

    Returns:
        At most 1; 0 where the two cannot be brought to overlap, or show nothing.
    """
    warp = _register(a, b)
    if warp is None:
        return 0.0
    moved = cv2.warpAffine(
        b.astype(np.float32),
        warp,
        (SIZE, SIZE),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderValue=-1e6,
    )
    ours, theirs = _tiles(a.astype(np.float32)), _tiles(moved)
    inside = (theirs >= 0).all(axis=1)  # tiles that both images cover
    ours, theirs = ours[inside], theirs[inside]
    ours = ours - ours.mean(axis=1, keepdims=True)
    theirs = theirs - theirs.mean(axis=1, keepdims=True)
    spreads = ours.std(axis=1), theirs.std(axis=1)
    textured = np.maximum(*spreads) > 2  # grey levels; below, only noise and coding are left
    if textured.sum() < TILES * TILES // 4:
        return 0.0
    correlations = (ours * theirs).mean(axis=1) / (spreads[0] * spreads[1] + 1e-3)
    return float(np.median(correlations[textured]))


def natural_key(name: str) -> list[tuple[int, str]]:
    """Sort key in which "benign (2)" stands before "benign (10)"."""
    parts = re.split(r"(\d+)", name)
    return [(int(part), "") if part.isdigit() else (-1, part) for part in parts]


def _register(a: np.ndarray, b: np.ndarray) -> np.ndarray | None:
    """The map (2, 3) from thumbnail ``a`` into ``b``; None where there is no plausible one."""
    edge, start = (REGISTERED, REGISTERED), np.eye(2, 3, dtype=np.float32)
    ours, theirs = (
        _normalised(cv2.resize(image, edge, interpolation=cv2.INTER_AREA), 4.0) for image in (a, b)
    )
    stop = (cv2.TERM_CRITERIA_COUNT + cv2.TERM_CRITERIA_EPS, 30, 1e-3)
    try:
        _, found = cv2.findTransformECC(ours, theirs, start, cv2.MOTION_AFFINE, stop)
    except cv2.error:  # it diverged
        return None
    warp = np.asarray(found, np.float64)
    scale = max(abs(warp[0, 0] - 1), abs(warp[1, 1] - 1))
    shear = max(abs(warp[0, 1]), abs(warp[1, 0]))
    if scale > SCALE or shear > SHEAR or np.abs(warp[:, 2]).max() > SHIFT * REGISTERED:
        return None
    warp[:, 2] *= SIZE / REGISTERED
    return warp


def _normalised(image: np.ndarray, sigma: float) -> np.ndarray:
    """Local mean 0 and deviation about 1, (H, W) float32; sigma in pixels."""
    pixels = image.astype(np.float32)
    detail = pixels - cv2.GaussianBlur(pixels, (0, 0), sigma)
    return detail / (np.sqrt(cv2.GaussianBlur(detail * detail, (0, 0), sigma)) + np.float32(4))


def _tiles(image: np.ndarray) -> np.ndarray:
    """(96, 96) -> (64, 144): a row per tile."""
    edge = SIZE // TILES
    blocks = image.reshape(TILES, edge, TILES, edge)  # tile row, y, tile column, x
    return blocks.swapaxes(1, 2).reshape(TILES * TILES, edge * edge)
