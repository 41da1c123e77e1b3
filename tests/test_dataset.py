"""Items and their order: the same for any number of workers and processes."""

from itertools import chain
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, SequentialSampler

from anatosegnet.data.case import Case
from anatosegnet.data.dataset import EpochSampler, SegmentationDataset, read_resized
from anatosegnet.data.transforms import released_augmentation
from tests.conftest import grey_image

CASES = [Case(f"case {number}", label="benign") for number in range(7)]


def read(case: Case) -> tuple[np.ndarray, np.ndarray]:
    """Noise of 48 × 40 pixels and a mask off the centre, other ones for each case."""
    number = CASES.index(case)
    grey = grey_image(number, (48, 40))
    mask = np.zeros((48, 40), np.uint8)
    mask[4 : 20 + number, 6:16] = 1
    return np.repeat(grey[..., None], 3, axis=2), mask


def make_dataset(**settings: Any) -> SegmentationDataset:
    """The cases at 32 × 36 pixels with the released augmentation."""
    settings = {"augmentation": released_augmentation(), "seed": 5} | settings
    return SegmentationDataset(CASES, read, (32, 36), **settings)


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether two items or batches are equal in every tensor."""
    return one.keys() == other.keys() and all(
        torch.equal(torch.as_tensor(one[key]), torch.as_tensor(other[key])) for key in one
    )


def test_item() -> None:
    """Breaks if shapes, types or values of an item change, or evaluation is augmented."""
    item = make_dataset(augmentation=None, in_channels=1, normalization="symmetric")[3, 2]
    assert item["image"].shape == (1, 32, 36)
    assert item["image"].dtype == torch.float32
    assert item["image"].abs().max() <= 1
    assert item["mask"].shape == (32, 36)
    assert item["mask"].dtype == torch.int64
    assert item["mask"].unique().tolist() == [0, 1]
    assert item["index"] == 2
    assert same(item, make_dataset(augmentation=None, in_channels=1, normalization="symmetric")[2])


def test_an_item_depends_on_seed_epoch_and_index_alone() -> None:
    """Breaks if the augmentation follows the order of the draws, or repeats in each epoch."""
    forwards, backwards = make_dataset(), make_dataset()
    keys = [(epoch, index) for epoch in range(6) for index in range(len(CASES))]
    items = {key: forwards[key] for key in keys}
    assert all(same(items[key], backwards[key]) for key in reversed(keys))
    for index in range(len(CASES)):
        epochs = [items[epoch, index] for epoch in range(6)]
        assert not all(same(epochs[0], other) for other in epochs[1:])
    other_seed = make_dataset(seed=6)
    assert not all(same(items[key], other_seed[key]) for key in keys)


def test_cases_of_one_epoch_are_augmented_apart() -> None:
    """Breaks if every case of an epoch gets the same augmentation."""
    plain = np.zeros((32, 36, 3), np.uint8)
    plain[2:9, 3:20] = 200
    resized = [(plain, plain[..., 0] // 200)] * len(CASES)
    dataset = make_dataset(resized=resized)
    images = {dataset[0, index]["image"].numpy().tobytes() for index in range(len(CASES))}
    assert len(images) > 1


def test_cached_cases_give_the_same_items_and_stay_unharmed() -> None:
    """Breaks if an augmentation writes into the cache."""
    fresh = make_dataset()
    cache = [read_resized(case, read, (32, 36)) for case in CASES]
    copies = [(image.copy(), mask.copy()) for image, mask in cache]
    cached = make_dataset(resized=cache)
    for key in [(epoch, index) for epoch in range(4) for index in range(len(CASES))]:
        assert same(cached[key], fresh[key])
    for (image, mask), (image_copy, mask_copy) in zip(cache, copies, strict=True):
        assert (image == image_copy).all()
        assert (mask == mask_copy).all()


def test_a_plain_index_is_epoch_0() -> None:
    """Breaks if Lightning's overfit_batches, which replaces the sampler, crashes."""
    dataset = make_dataset()
    for index in (0, np.int64(3), 6):
        assert same(dataset[index], dataset[0, int(index)])
    loader = DataLoader(dataset, batch_size=3, sampler=SequentialSampler(dataset))
    assert [batch["index"].tolist() for batch in loader] == [[0, 1, 2], [3, 4, 5], [6]]


@pytest.mark.slow
def test_workers_do_not_change_the_batches() -> None:
    """Breaks if workers repeat or correlate augmentations, or miss the change of epoch."""
    epochs: dict[int, list[list[dict[str, Any]]]] = {}
    for workers in (0, 2):
        dataset = make_dataset()
        sampler = EpochSampler(len(dataset), seed=5, train=True)
        loader = DataLoader(
            dataset,
            batch_size=2,
            sampler=sampler,
            num_workers=workers,
            persistent_workers=workers > 0,
        )
        epochs[workers] = []
        for epoch in range(2):
            sampler.set_epoch(epoch)
            epochs[workers].append(list(loader))
    for alone, together in zip(epochs[0], epochs[2], strict=True):
        assert all(same(one, other) for one, other in zip(alone, together, strict=True))
    order = [torch.cat([batch["index"] for batch in epoch]).tolist() for epoch in epochs[2]]
    assert order[0] != order[1]


def test_training_is_shuffled_anew_each_epoch() -> None:
    """Breaks if an epoch repeats the last one's order, or leaves a case out."""
    sampler = EpochSampler(20, seed=1, train=True)
    orders = []
    for epoch in range(3):
        sampler.set_epoch(epoch)
        keys = list(sampler)
        assert {key[0] for key in keys} == {epoch}
        orders.append([index for _, index in keys])
        assert sorted(orders[-1]) == list(range(20))
    assert orders[0] != orders[1] != orders[2]
    sampler.set_epoch(0)
    assert [index for _, index in sampler] == orders[0]
    assert [index for _, index in EpochSampler(20, seed=2, train=True)] != orders[0]


@pytest.mark.parametrize("size", [1, 2, 9, 10, 11])
def test_three_processes_share_training_evenly(size: int) -> None:
    """Breaks if processes get shares of unequal length, which hangs a distributed run."""
    shares = [EpochSampler(size, 1, train=True, rank=rank, world_size=3) for rank in range(3)]
    drawn = [[index for _, index in share] for share in shares]
    assert {len(indices) for indices in drawn} == {len(share) for share in shares}
    assert len({len(indices) for indices in drawn}) == 1
    everything = list(chain.from_iterable(drawn))
    assert set(everything) == set(range(size))
    if size >= 3:
        assert len(everything) - size < 3


@pytest.mark.parametrize("size", [1, 9, 10, 11])
def test_three_processes_share_evaluation_exactly(size: int) -> None:
    """Breaks if a case is scored twice, or not at all, on several devices."""
    shares = [EpochSampler(size, rank=rank, world_size=3) for rank in range(3)]
    drawn = [list(share) for share in shares]
    assert [len(keys) for keys in drawn] == [len(share) for share in shares]
    assert sorted(chain.from_iterable(drawn)) == [(0, index) for index in range(size)]
    assert [index for _, index in EpochSampler(size)] == list(range(size))
