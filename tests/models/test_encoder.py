"""Encoders: any timm network with maps of 1/4 to 1/32 of the image."""

import pytest
import timm
import torch
from torch import Tensor

from anatosegnet.errors import UserError
from anatosegnet.models import AnatoSegNet
from anatosegnet.models.encoder import Encoder

# chains of four levels, one with channels last inside; one that gives all its maps at once; chains
# of five
FOUR_LEVELS = ["test_convnext", "test_mambaout", "pvt_v2_b0"]
AT_ONCE = ["hrnet_w18_small"]
CHAINS = [
    "resnet34",
    "efficientnet_b0",
    "mobilenetv3_large_100",
    "densenet121",
    "regnety_002",
    "vgg11_bn",
]
slow = pytest.mark.slow


def parameters(names: list[str], slow_names: list[str]) -> list:
    """Names for `parametrize`, some of them slow."""
    return [*names, *(pytest.param(name, marks=slow) for name in slow_names)]


@pytest.mark.parametrize(
    "name",
    parameters(
        [*FOUR_LEVELS, *AT_ONCE],
        [*CHAINS, "swin_tiny_patch4_window7_224", "selecsls42", "twins_svt_small"],
    ),
)
def test_encoders_give_timms_own_features(name: str) -> None:
    """Breaks if cutting the network into stages drops, repeats or reorders a layer."""
    torch.manual_seed(0)
    ours = Encoder(name, pretrained=False).eval()
    sizes = {"strict_img_size": False} if "swin" in name else {}
    theirs = timm.create_model(name, pretrained=False, features_only=True, **sizes).eval()
    assert name not in CHAINS or (ours.stem is None and ours.attended == (1, 2, 3, 4, 5))
    layers = [value for key, value in ours.state_dict().items() if not key.startswith("stem.")]
    theirs.load_state_dict(dict(zip(theirs.state_dict(), layers, strict=True)))
    x = torch.randn(1, 3, 64, 96)
    expected = theirs(x)[-5:]
    if str(getattr(theirs, "output_fmt", "")).endswith("NHWC"):
        expected = [feature.movedim(-1, 1) for feature in expected]
    features = ours(x)
    assert len(features) == 5
    for feature, same in zip(features[-len(expected) :], expected, strict=True):
        assert torch.equal(feature, same)
    assert tuple(feature.shape[1] for feature in features) == ours.channels
    assert [feature.shape[-1] for feature in features] == [48, 24, 12, 6, 3]


@pytest.mark.parametrize(
    "name", parameters([*FOUR_LEVELS, *AT_ONCE], ["swin_tiny_patch4_window7_224", "dla34"])
)
def test_any_size_and_every_parameter_learns(name: str) -> None:
    """Breaks if an odd size fails, or a part is built that no gradient reaches."""
    levels = [5] if name in AT_ONCE else [4, 5]
    attention = {"levels": levels, "heads": 2}
    network = AnatoSegNet(name, in_channels=1, pretrained=False, attention=attention)
    logits = network(torch.randn(2, 1, 70, 91))
    assert logits.shape == (2, 2, 70, 91)
    logits.square().mean().backward()
    assert [key for key, p in network.named_parameters() if p.grad is None] == []


def test_attention_feeds_the_next_stage_of_a_chain_of_four() -> None:
    """Breaks if what attention makes of a level reaches its skip alone."""
    encoder = Encoder("test_mambaout", pretrained=False).eval()
    image = torch.randn(1, 3, 64, 64)

    def zero_at_4(level: int, x: Tensor) -> Tensor:
        return x * 0 if level == 4 else x

    plain, attended = encoder(image), encoder(image, zero_at_4)
    assert torch.equal(plain[2], attended[2])
    assert attended[3].abs().max() == 0
    assert not torch.allclose(plain[4], attended[4])


@pytest.mark.parametrize(
    ("name", "levels", "taken"),
    [("hrnet_w18_small", [4, 5], r"\[5\]"), ("test_convnext", [1], r"\[2, 3, 4, 5\]")],
)
def test_levels_whose_attention_nobody_would_read(name: str, levels: list[int], taken: str) -> None:
    """Breaks if attention that cannot feed the next stage is built as if it could."""
    with pytest.raises(UserError, match=f"encoder={name}.*{taken}.*model=unet"):
        AnatoSegNet(name, pretrained=False, attention={"levels": levels})


@pytest.mark.parametrize("name", ["test_vit", "levit_128", "resnet1", "convmixer_768_32"])
def test_unfit_encoders_are_named(name: str) -> None:
    """Breaks if an encoder without such levels gives a traceback, or a wrong network."""
    with pytest.raises(UserError, match=f"^model.encoder={name} "):
        Encoder(name, pretrained=False)


def test_an_encoder_bound_to_one_size_names_it() -> None:
    """Breaks if a size that a network cannot take ends in a message about its insides."""
    encoder = Encoder("test_maxvit", pretrained=False)
    with pytest.raises(UserError, match=r"no images of 64×96 pixels but of 160×160: data\.image"):
        encoder(torch.zeros(2, 3, 64, 96))
    assert encoder(torch.zeros(2, 3, 160, 160))[4].shape[-2:] == (5, 5)
