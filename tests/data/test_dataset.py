"""Items and their order: the same for any number of workers and processes."""

import multiprocessing
from itertools import chain
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, SequentialSampler

from anatosegnet.data.case import Case
from anatosegnet.data.dataset import (
    EpochSampler,
    FreshCases,
    SegmentationDataset,
    collate,
    number_of,
    unpack,
)
from anatosegnet.data.records import Resized
from anatosegnet.data.transforms import image_to_tensor, released_augmentation
from tests.conftest import grey_image

NAMES = [f"case {number}" for number in range(7)]
COLOURED = 4  # the one case with real colour


def read(case: Case) -> tuple[np.ndarray, np.ndarray]:
    """Noise of 48 × 40 pixels and a mask off the centre, other ones for each case."""
    number = NAMES.index(case.name)
    image = np.repeat(grey_image(number, (48, 40))[..., None], 3, axis=2)
    if number == COLOURED:
        image[:9, :9, 1] = 255
    mask = np.zeros((48, 40), np.uint8)
    mask[4 : 20 + number, 6:16] = 1
    return image, mask


CASES = FreshCases({name: Case(name, label="benign") for name in NAMES}, read, (32, 36))


def make_dataset(**settings: Any) -> SegmentationDataset:
    """The cases at 32 × 36 pixels with the released augmentation."""
    settings = {"augmentation": released_augmentation(), "seed": 5} | settings
    return SegmentationDataset(settings.pop("names", NAMES), CASES, **settings)


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether two items or batches are equal in every tensor."""
    return one.keys() == other.keys() and all(
        torch.equal(torch.as_tensor(one[key]), torch.as_tensor(other[key])) for key in one
    )


def test_item() -> None:
    """Breaks if shapes, types or values of an item change, or evaluation is augmented."""
    item = make_dataset(augmentation=None, in_channels=1)[3, 2]
    assert item["image"].shape == (1, 32, 36)
    assert item["image"].dtype == item["mask"].dtype == torch.uint8
    assert item["mask"].shape == (32, 36)
    assert item["mask"].unique().tolist() == [0, 1]
    assert item["index"] == 2
    assert same(item, make_dataset(augmentation=None, in_channels=1)[2])


def test_grey_images_are_one_channel_and_colour_stays() -> None:
    """Breaks if colour is lost, or grey images are kept three times over."""
    dataset = make_dataset(augmentation=None)
    channels = [dataset[index]["image"].shape[0] for index in range(len(NAMES))]
    assert channels == [3 if index == COLOURED else 1 for index in range(len(NAMES))]
    colour = dataset[COLOURED]["image"]
    assert (colour[1] != colour[0]).any()
    assert make_dataset(augmentation=None, in_channels=1)[COLOURED]["image"].shape[0] == 1


@pytest.mark.parametrize("normalization", ["imagenet", "symmetric", "benchmark"])
@pytest.mark.parametrize("in_channels", [1, 3])
def test_batches_are_normalised_as_single_images_are(in_channels: int, normalization: Any) -> None:
    """Breaks if a batch's numbers part by one bit from those of inference, or mix cases."""
    dataset = make_dataset(augmentation=None, in_channels=in_channels)
    items = [dataset[index] for index in range(len(NAMES))]
    batch = unpack(collate(items), in_channels, normalization)
    assert batch["image"].shape == (len(NAMES), in_channels, 32, 36)
    assert batch["mask"].dtype == torch.int64
    assert batch["index"] == list(range(len(NAMES)))
    for image, mask, name in zip(batch["image"], batch["mask"], NAMES, strict=True):
        pixels, truth = CASES[name]
        rgb = np.broadcast_to(pixels, (32, 36, 3)).copy()
        assert torch.equal(image, image_to_tensor(rgb, in_channels, normalization))
        assert (mask.numpy() == truth).all()


def test_an_item_depends_on_seed_epoch_and_case_alone() -> None:
    """Breaks if the augmentation follows the order of the draws, or repeats in each epoch."""
    forwards, backwards = make_dataset(), make_dataset()
    keys = [(epoch, index) for epoch in range(6) for index in range(len(NAMES))]
    items = {key: forwards[key] for key in keys}
    assert all(same(items[key], backwards[key]) for key in reversed(keys))
    for index in range(len(NAMES)):
        epochs = [items[epoch, index] for epoch in range(6)]
        assert not all(same(epochs[0], other) for other in epochs[1:])
    other_seed = make_dataset(seed=6)
    assert not all(same(items[key], other_seed[key]) for key in keys)


def test_other_cases_do_not_change_an_item() -> None:
    """Breaks if leaving cases out, or another order, changes the augmentation of the rest."""
    everything, some = make_dataset(), make_dataset(names=[NAMES[5], NAMES[2]])
    for epoch in range(6):
        for place, index in enumerate((5, 2)):
            theirs = {**everything[epoch, index], "index": place}
            assert same(some[epoch, place], theirs)


def test_the_number_of_a_name_is_the_same_everywhere() -> None:
    """Breaks if it comes from Python's hash, which changes with every process."""
    assert number_of("benign (1)") == 0xEEC8C400861B944F
    assert number_of("Läsion é") != number_of("Lasion e")


def test_cases_of_one_epoch_are_augmented_apart() -> None:
    """Breaks if every case of an epoch gets the same augmentation."""
    plain = np.zeros((32, 36, 1), np.uint8)
    plain[2:9, 3:20] = 200
    resized = dict.fromkeys(NAMES, (plain, plain[..., 0] // 200))
    dataset = SegmentationDataset(NAMES, resized, augmentation=released_augmentation())
    images = {dataset[0, index]["image"].numpy().tobytes() for index in range(len(NAMES))}
    assert len(images) > 1


def test_kept_cases_give_the_same_items_and_stay_unharmed() -> None:
    """Breaks if an augmentation, or a change to an item, writes into the cache."""
    fresh = make_dataset()
    kept: dict[str, Resized] = dict(CASES)
    copies = {name: (image.copy(), mask.copy()) for name, (image, mask) in kept.items()}
    cached = SegmentationDataset(NAMES, kept, augmentation=released_augmentation(), seed=5)
    for key in [(epoch, index) for epoch in range(4) for index in range(len(NAMES))]:
        assert same(cached[key], fresh[key])
    for name, (image, mask) in copies.items():
        assert (image == kept[name][0]).all()
        assert (mask == kept[name][1]).all()


def test_a_plain_index_is_epoch_0() -> None:
    """Breaks if Lightning's overfit_batches, which replaces the sampler, crashes."""
    dataset = make_dataset()
    for index in (0, np.int64(3), 6):
        assert same(dataset[index], dataset[0, int(index)])
    loader = DataLoader(
        dataset, batch_size=3, sampler=SequentialSampler(dataset), collate_fn=collate
    )
    assert [batch["index"] for batch in loader] == [[0, 1, 2], [3, 4, 5], [6]]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*worker processes in total")
@pytest.mark.parametrize(
    ("workers", "persistent", "start"),
    [(2, True, "fork"), (2, False, "fork"), (8, True, "fork"), (1, True, "spawn")],
)
def test_workers_do_not_change_the_batches(workers: int, persistent: bool, start: str) -> None:
    """Breaks if workers repeat or correlate augmentations, or miss the change of epoch."""
    if start not in multiprocessing.get_all_start_methods():
        pytest.skip(f"this system cannot {start}")
    epochs: list[list[list[dict[str, Any]]]] = []
    for number in (0, workers):
        sampler = EpochSampler(len(NAMES), seed=5, train=True)
        loader = DataLoader(
            make_dataset(),
            batch_size=2,
            sampler=sampler,
            num_workers=number,
            persistent_workers=persistent and number > 0,
            multiprocessing_context=start if number else None,
            collate_fn=collate,
        )
        epochs.append([])
        for epoch in range(2):
            sampler.set_epoch(epoch)
            epochs[-1].append(list(loader))
    for alone, together in zip(*epochs, strict=True):
        assert all(same(one, other) for one, other in zip(alone, together, strict=True))
    order = [list(chain.from_iterable(batch["index"] for batch in epoch)) for epoch in epochs[1]]
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
