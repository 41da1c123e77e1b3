"""Several networks, or views of an image, as one; on networks that a test can follow."""

from collections.abc import Sequence

import numpy as np
import pytest

from anatosegnet.data.resizing import resize_image
from anatosegnet.errors import UserError
from anatosegnet.metrics.uncertainty import mutual_information, predictive_entropy
from anatosegnet.prediction.masks import probability_at
from anatosegnet.prediction.opening import joined, scaled, seen, views_of
from anatosegnet.prediction.predictor import Ensemble, ImagePredictor, Prediction


class Grey:
    """The grey level as a probability, times a factor; sees any size, and no padding."""

    def __init__(self, edge: int = 32, factor: float = 1.0) -> None:
        self.image_size, self.factor = (edge, edge), factor

    def predict(self, images: Sequence[np.ndarray]) -> Prediction:
        """The first channel."""
        small = [resize_image(image, self.image_size)[..., 0] for image in images]
        return Prediction.of(np.stack(small).astype(np.float32) / 255 * np.float32(self.factor))

    def at_size(self, size: tuple[int, int]) -> ImagePredictor:
        """Itself, elsewhere."""
        return Grey(size[0], self.factor)


class Leftmost:
    """The left half is lesion, whatever is in the image; sees one size alone."""

    image_size = (32, 32)

    def predict(self, images: Sequence[np.ndarray]) -> Prediction:
        """(B, 32, 32)."""
        probability = np.zeros((len(images), 32, 32), np.float32)
        probability[:, :, :16] = 1
        return Prediction.of(probability)


def pictures(count: int = 3, edge: int = 64) -> list[np.ndarray]:
    """Noise (edge, edge, 3) uint8 RGB."""
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (edge, edge, 3), np.uint8) for _ in range(count)]


def test_an_ensemble_is_the_mean_of_its_members() -> None:
    """Breaks if masks are averaged, or entropy is not that of the mean."""
    one, other = Grey(), Grey(factor=0.5)
    images = pictures()
    found = Ensemble([one, other]).predict(images)
    members = np.stack([each.predict(images).probability for each in (one, other)])
    assert np.array_equal(found.probability, members.mean(axis=0))
    assert np.array_equal(found.entropy, predictive_entropy(members.mean(axis=0)))
    assert found.mutual_information is not None
    assert np.array_equal(found.mutual_information, mutual_information(members))
    assert joined([one]) is one and one.predict(images).mutual_information is None


def test_members_may_see_other_sizes() -> None:
    """Breaks if a member gets images of another size than its own, or maps are added askew."""
    found = Ensemble([Grey(32), Grey(64)]).predict(pictures())
    large = Grey(64).predict(pictures()).probability
    small = [probability_at(one, (64, 64)) for one in Grey(32).predict(pictures()).probability]
    assert found.probability == pytest.approx((large + np.stack(small)) / 2)


@pytest.mark.parametrize("sizes", [(32, 64), (64, 96)])
def test_images_brought_to_its_size_before_give_the_same(sizes: tuple[int, int]) -> None:
    """Breaks if predict, which keeps resized images, gives other masks than evaluate scores."""
    ensemble = Ensemble([Grey(edge) for edge in sizes])
    images = pictures(edge=150)
    before = [resize_image(image, ensemble.image_size) for image in images]
    assert np.array_equal(ensemble.predict(images)[0], ensemble.predict(before)[0])


def test_the_mirror_image_is_mirrored_back() -> None:
    """Breaks if an image is flipped upside down, or its answer stays mirrored."""
    images = pictures()
    flipped = seen(Grey(), ["flip"]).predict(images)
    assert np.allclose(flipped.probability, Grey().predict(images).probability)
    assert flipped.mutual_information is None
    assert (seen(Leftmost(), ["flip"]).predict(images).probability == 0.5).all()


def test_scales_are_sizes_that_networks_take() -> None:
    """Breaks if a size is no multiple of 32, or the network's own is not among them."""
    assert scaled((128, 128)) == [(128, 128), (96, 96), (160, 160)]
    assert scaled((256, 224)) == [(256, 224), (192, 192), (320, 288)]
    assert scaled((64, 32)) == [(64, 32), (32, 32), (96, 64)]
    assert scaled((100, 100)) == [(100, 100), (64, 64), (128, 128)]
    views = seen(Grey(128), ["flip", "scales"])
    assert views.image_size == (160, 160) and len(views.predictors) == 6  # type: ignore[attr-defined]
    smooth = [np.full((200, 200, 3), 90, np.uint8)]
    assert np.allclose(views.predict(smooth).probability, 90 / 255)


def test_a_network_of_one_size_refuses_scales() -> None:
    """Breaks if it is shown what it cannot see."""
    assert isinstance(seen(Leftmost(), ()), Leftmost)
    with pytest.raises(UserError, match="one size only"):
        seen(type("Fixed", (), {"image_size": (64, 64)})(), ["scales"])


def test_tta_names_views() -> None:
    """Breaks if a misspelt view is passed over."""
    assert views_of("none") == views_of(None) == views_of([]) == ()
    assert views_of("flip") == ("flip",) and views_of(["scales", "flip"]) == ("flip", "scales")
    for odd in ("flop", ["flip", "up"], 3):
        with pytest.raises(UserError, match=r"tta=.* must be one of none, flip, scales"):
            views_of(odd)
