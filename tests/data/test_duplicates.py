"""Near-duplicates are found through every change they are met with, and nothing else is."""

import itertools
import random
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anatosegnet.data.datasets.busi import BUSISource
from anatosegnet.data.duplicates import (
    NEIGHBOURS,
    Pair,
    components,
    duplicate_groups,
    find_duplicates,
    natural_key,
    pixel_digest,
    signature,
    similar_signatures,
    similarity,
    thumbnail,
    write_pairs,
)
from anatosegnet.data.prepared import find_data
from anatosegnet.data.simulator import simulate

Image = np.ndarray


def marked(image: Image) -> Image:
    """Callipers and a label burned in, as scanners do."""
    image, (height, width) = image.copy(), image.shape
    cv2.putText(image, "RT 12:00", (width // 10, height // 6), 0, 1, 255, 2)
    cv2.line(image, (width // 3, height // 3), (2 * width // 3, 2 * height // 3), 255, 2)
    cv2.line(image, (2 * width // 3, height // 3), (width // 3, 2 * height // 3), 255, 2)
    return image


def cropped(image: Image, left: float, right: float, top: float, bottom: float) -> Image:
    """Cut shares of the width and the height away."""
    height, width = image.shape
    rows = slice(int(top * height), height - int(bottom * height))
    return image[rows, int(left * width) : width - int(right * width)]


def rescaled(image: Image, down: float, across: float) -> Image:
    """Resized by two factors."""
    return cv2.resize(image, None, fx=across, fy=down, interpolation=cv2.INTER_AREA)


def brightened(image: Image, contrast: float, offset: float, gamma: float) -> Image:
    """Another gain, offset and gamma."""
    values = 255 * np.clip(contrast * image / 255 + offset, 0, 1) ** gamma
    return values.astype(np.uint8)


def as_jpeg(image: Image, quality: int = 40) -> Image:
    """Through a lossy file."""
    return cv2.imdecode(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1], 0)


@pytest.fixture(scope="module")
def phantoms() -> dict[str, Image]:
    """Twelve patients."""
    return {f"p{index}": simulate(3, index).image for index in range(12)}


CHANGES: dict[str, Callable[[Image], Image]] = {
    "smaller": lambda image: rescaled(image, 0.5, 0.5),
    "other aspect": lambda image: cv2.resize(image, (256, 256)),
    "cropped": lambda image: cropped(image, 0.05, 0.0, 0.04, 0.05),
    "darker": lambda image: brightened(image, 0.5, 0.0, 1.0),
    "brighter": lambda image: brightened(image, 1.2, 0.1, 0.7),
    "marked": marked,
    "jpeg": as_jpeg,
    "colour": lambda image: cv2.cvtColor(image, cv2.COLOR_GRAY2RGB),
    "all": lambda image: as_jpeg(
        brightened(marked(cropped(rescaled(image, 0.8, 0.7), 0, 0.04, 0, 0.04)), 1.1, 0, 1.2)
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_copies_are_found_and_nothing_else(phantoms: dict[str, Image], change: str) -> None:
    """Breaks if a copy of this kind is missed, or two patients pass for one."""
    copies = {f"{name} copy": CHANGES[change](image) for name, image in phantoms.items()}
    pairs = find_duplicates({**phantoms, **copies}.items())
    assert [(pair.id_a, pair.id_b) for pair in pairs] == [(n, f"{n} copy") for n in phantoms]
    assert min(pair.similarity for pair in pairs) > 0.7


@pytest.mark.slow
@given(
    patient=st.integers(0, 11),
    crop=st.tuples(*[st.floats(0, 0.05)] * 4),
    scale=st.tuples(*[st.floats(0.5, 1.5)] * 2),
    light=st.tuples(st.floats(0.6, 1.2), st.floats(-0.05, 0.1), st.floats(0.7, 1.4)),
    mark=st.booleans(),
)
@settings(deadline=None, max_examples=25, derandomize=True)
def test_any_mild_change_is_seen_through(
    phantoms: dict[str, Image], patient: int, crop: tuple, scale: tuple, light: tuple, mark: bool
) -> None:
    """Breaks if some combination of crop, scale, brightness and marks hides a copy."""
    image = phantoms[f"p{patient}"]
    copy = brightened(rescaled(cropped(image, *crop), *scale), *light)
    copy = marked(copy) if mark else copy
    pairs = find_duplicates([*phantoms.items(), ("copy", copy)])
    assert [(pair.id_a, pair.id_b) for pair in pairs] == [("copy", f"p{patient}")]


def test_patients_are_far_from_the_threshold(phantoms: dict[str, Image]) -> None:
    """Breaks if the similarity of different patients comes near 0.6, so that precision is luck."""
    thumbs = [thumbnail(image) for image in phantoms.values()]
    scores = [similarity(a, b) for a, b in itertools.combinations(thumbs, 2)]
    assert max(scores) < 0.4
    assert all(similarity(thumb, thumb) > 0.999 for thumb in thumbs)


def test_the_order_of_the_images_has_no_part(phantoms: dict[str, Image]) -> None:
    """Breaks if groups, and so splits, depend on the directory's order."""
    images = [*phantoms.items(), *((f"q{n}", as_jpeg(i)) for n, i in phantoms.items())]
    expected = find_duplicates(images)
    assert len(expected) == len(phantoms)
    random.Random(0).shuffle(images)
    assert find_duplicates(images) == expected


def test_images_that_show_nothing_are_no_copies() -> None:
    """Breaks if black, even or noisy images are declared one patient, or divide by zero."""
    rng = np.random.default_rng(0)
    images = {
        "black": np.zeros((60, 80), np.uint8),
        "grey": np.full((90, 70), 128, np.uint8),
        "too": np.full((50, 50), 128, np.uint8),
        "noise": rng.integers(0, 256, (120, 150), dtype=np.uint8),
        "other noise": rng.integers(0, 256, (120, 150), dtype=np.uint8),
    }
    assert find_duplicates(images.items()) == []
    assert find_duplicates([]) == find_duplicates([("a", images["noise"])]) == []


def test_thumbnails_stand_for_images(phantoms: dict[str, Image]) -> None:
    """Breaks if those who keep thumbnails only find other pairs than those who keep images."""
    images = [*phantoms.items(), ("copy", marked(phantoms["p4"]))]
    assert find_duplicates((n, thumbnail(i)) for n, i in images) == find_duplicates(images)


def test_groups_are_connected_components() -> None:
    """Breaks if a chain of copies is cut, or a group's name depends on the order of the pairs."""
    pairs = [Pair("b (10)", "c", 0.9), Pair("b (2)", "b (10)", 0.9), Pair("x", "y", 0.9)]
    expected = {"b (10)": "b (2)", "c": "b (2)", "b (2)": "b (2)", "x": "x", "y": "x"}
    for order in itertools.permutations(pairs):
        assert duplicate_groups(order) == expected
    assert duplicate_groups([]) == {}


@given(st.lists(st.tuples(st.integers(0, 15), st.integers(0, 15)), max_size=20))
@settings(deadline=None, max_examples=60, derandomize=True)
def test_components_agree_with_scipy(links: list[tuple[int, int]]) -> None:
    """Breaks if two linked names get different groups, or unlinked ones the same."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    ours = components((str(a), str(b)) for a, b in links)
    rows, columns = ([pair[side] for pair in links] for side in (0, 1))
    matrix = coo_array((np.ones(len(links)), (rows, columns)), shape=(16, 16))
    labels = connected_components(matrix, directed=False)[1]
    for a, b in itertools.combinations(sorted({*rows, *columns}), 2):
        assert (ours[str(a)] == ours[str(b)]) == (labels[a] == labels[b])


def test_signatures_are_compared_with_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks if a pair is lost between two blocks, or other than the nearest ones stay."""
    rng = np.random.default_rng(0)
    directions = rng.standard_normal((300, 8), dtype=np.float32)
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    cosines = directions @ directions.T
    np.fill_diagonal(cosines, -1)
    expected = {
        (min(a, b), max(a, b))
        for a, row in enumerate(cosines)
        for b in np.argsort(-row.round(4), kind="stable")[:NEIGHBOURS].tolist()
        if row[b] >= 0.5
    }
    for block in (2**24, 7000, 1):  # all at once, some rows, one row
        monkeypatch.setattr("anatosegnet.data.duplicates.BLOCK", block)
        assert list(map(tuple, similar_signatures(directions).tolist())) == sorted(expected)


def test_many_duplicates_of_one_image_stay_linear() -> None:
    """Breaks if of 500 equal signatures every pair is looked at, or their group falls apart."""
    one = signature(thumbnail(simulate(0, 0).image))
    pairs = similar_signatures(np.tile(one, (500, 1)))
    assert len(pairs) <= NEIGHBOURS * 500
    joined = components((str(a), str(b)) for a, b in pairs)
    assert set(joined.values()) == {"0"}
    assert len(joined) == 500


def test_digest_is_of_the_pixels() -> None:
    """Breaks if a changed pixel or shape goes unnoticed, or the digest differs by machine."""
    image = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    assert pixel_digest(image) == "d0be4c19f76cee5e"
    assert pixel_digest(image.reshape(4, 2, 3)) != pixel_digest(image)
    assert pixel_digest(image.copy()[:, ::-1]) != pixel_digest(image)
    assert pixel_digest(np.asfortranarray(image)) == pixel_digest(image)


def test_pairs_are_written_for_people(tmp_path: Path) -> None:
    """Breaks if duplicates.csv changes its columns or cuts a name at a comma."""
    write_pairs(tmp_path / "d.csv", [Pair("benign (1), left", "benign (2)", 0.98765)])
    expected = 'id_a,id_b,similarity\n"benign (1), left",benign (2),0.9877\n'
    assert (tmp_path / "d.csv").read_text() == expected


def test_natural_order() -> None:
    """Breaks if "benign (10)" stands before "benign (2)"."""
    names = ["m (1)", "benign (10)", "benign (2)", "2", "10"]
    assert sorted(names, key=natural_key) == ["2", "10", "benign (2)", "benign (10)", "m (1)"]


@pytest.mark.slow
def test_real_busi_and_breast(real_data: Path) -> None:
    """Breaks if a known pair is missed, BrEaST is said to hold copies, or BUSI takes too long."""
    data = find_data(BUSISource(str(real_data), include_normal=True), "busi")
    start = time.process_time()
    names = list(data.cases)
    images = {name: data.read(name)[0] for name in names}
    pairs = find_duplicates(images.items())
    assert time.process_time() - start < 60  # of two cores' time: 30 s
    found = {(pair.id_a, pair.id_b) for pair in pairs}
    assert ("benign (433)", "malignant (145)") in found
    small = [cv2.resize(i[..., 0], (64, 64), interpolation=cv2.INTER_AREA) for i in images.values()]
    thumbs = np.stack(small).reshape(len(names), -1)
    known = np.argwhere(np.triu(np.corrcoef(thumbs.astype(np.float32)) > 0.97, 1))
    assert len(known) == 124
    assert {(names[a], names[b]) for a, b in known} <= found
    groups = duplicate_groups(pairs)
    assert (len(pairs), len(groups), len(set(groups.values()))) == (236, 340, 150)
    paths = sorted((real_data / "BrEaST-Lesions_USG-images_and_masks").glob("case???.png"))
    assert len(paths) == 256
    assert find_duplicates((path.stem, cv2.imread(str(path))) for path in paths) == []
