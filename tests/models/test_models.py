"""The network: its size, its shapes, its encoders, its ablations."""

import copy
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import timm
import torch

from anatosegnet.errors import UserError
from anatosegnet.models import AnatoSegNet, AttentionSettings
from anatosegnet.models.encoder import Encoder


def small(**attention: object) -> AnatoSegNet:
    """A resnet18 network with seeded weights, in evaluation mode."""
    torch.manual_seed(0)
    return AnatoSegNet("resnet18", pretrained=False, attention=attention).eval()


def count(model: torch.nn.Module) -> int:
    """Number of parameters."""
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.slow
def test_default_parameter_count() -> None:
    """Breaks if any layer differs from the described network."""
    model = AnatoSegNet(pretrained=False)
    assert count(model) == 92_857_282
    assert all(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize("size", [(32, 32), (33, 47), (64, 96), (100, 75), (127, 129)])
def test_logits_have_the_size_of_the_image(size: tuple[int, int]) -> None:
    """Breaks if an odd size is rounded on the way down and not restored on the way up."""
    assert small()(torch.randn(1, 3, *size)).shape == (1, 2, *size)


def test_too_small_an_image_is_refused() -> None:
    """Breaks if a map could shrink to nothing."""
    with pytest.raises(ValueError, match="32×32"):
        small()(torch.randn(1, 3, 31, 64))


@pytest.mark.slow
def test_every_ablation_changes_the_output() -> None:
    """Breaks if a setting does not reach the network."""
    x = torch.randn(1, 3, 64, 96, dtype=torch.float64)
    settings = [
        {},
        {"bias": "raster"},
        {"bias": "none"},
        {"differential": "released"},
        {"differential": "none"},
        {"gamma": 0.1},
        {"heads": 4},
        {"levels": [5]},
        {"levels": []},
        {"placement": "residual"},
        {"placement": "prenorm"},
    ]
    outputs = [small(**setting).double()(x) for setting in settings]
    for i, first in enumerate(outputs):
        for second in outputs[:i]:
            assert not torch.allclose(first, second, rtol=0, atol=1e-10)


def test_attention_feeds_both_the_next_stage_and_the_skip() -> None:
    """Breaks if attention at level 4 changes only the skip, or only the next stage."""
    model = small(levels=[4])
    seen: dict[str, torch.Tensor] = {}

    def keep(name: str) -> Callable[..., None]:
        return lambda _module, inputs, output: seen.update({name: output, f"{name}_in": inputs})

    model.attentions["4"].register_forward_hook(keep("attention"))
    model.encoder.stages[4].register_forward_hook(keep("stage5"))
    model.decoder.stages[0].register_forward_hook(keep("up4"))
    model(torch.randn(1, 3, 64, 64))
    assert seen["stage5_in"][0] is seen["attention"]
    assert seen["up4_in"][1] is seen["attention"]


def test_prenorm_starts_as_the_plain_unet_and_leaves_it() -> None:
    """Breaks if the new network's first logits are not the U-Net's, or attention never learns."""
    model, unet = small(placement="prenorm"), small(levels=[])
    unet.load_state_dict(
        {name: value for name, value in model.state_dict().items() if name in unet.state_dict()}
    )
    x = torch.randn(2, 3, 64, 64)
    assert torch.equal(model(x), unet(x))
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    for _ in range(2):  # the first step moves the projection alone
        optimizer.zero_grad()
        model(x).square().mean().backward()
        optimizer.step()
    assert model.attentions["4"].qkv.weight.grad.abs().max() > 0
    with pytest.raises(ValueError, match="placement='before' must be one of"):
        small(placement="before")


def test_no_levels_is_the_plain_unet() -> None:
    """Breaks if the U-Net still carries parameters of attention."""
    unet, full = small(levels=[]), small()
    assert len(unet.attentions) == 0
    expected = sum(4 * channels**2 + channels for channels in (256, 512))
    assert count(full) - count(unet) == expected


def test_every_parameter_gets_a_gradient() -> None:
    """Breaks if a part is built and not used, which would stop distributed training."""
    model = small().train()
    model(torch.randn(2, 3, 64, 64)).sum().backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []


def test_a_copy_is_independent() -> None:
    """Breaks if a copy (EMA, several devices) shares attention with the original."""
    model, x = small(), torch.randn(1, 3, 32, 32)
    twin = copy.deepcopy(model)
    before = model(x)
    for parameter in twin.parameters():
        parameter.data.zero_()
    assert torch.equal(model(x), before)
    assert not torch.allclose(twin(x), before)


def test_grey_images_and_more_classes() -> None:
    """Breaks if the channels of image or logits are fixed somewhere."""
    model = AnatoSegNet("resnet18", num_classes=4, in_channels=1, pretrained=False)
    assert model(torch.randn(2, 1, 64, 64)).shape == (2, 4, 64, 64)


def test_local_weights_are_loaded(tmp_path: Path) -> None:
    """Breaks if encoder_weights is ignored, or the layers are mixed up."""
    source = timm.create_model("resnet18", pretrained=False)
    path = tmp_path / "weights.pth"
    torch.save(source.state_dict(), path)
    encoder = Encoder("resnet18", pretrained=True, weights=str(path))
    assert torch.equal(encoder.stages[0][0].weight, source.conv1.weight)
    assert torch.equal(encoder.stages[4][-1][1].conv2.weight, source.layer4[1].conv2.weight)
    with pytest.raises(UserError, match="do not fit resnet34"):
        Encoder("resnet34", weights=str(path))
    with pytest.raises(UserError, match="no such file"):
        Encoder("resnet18", weights=str(tmp_path / "none.pth"))


@pytest.mark.usefixtures("no_hub")
def test_without_network_both_ways_out_are_named() -> None:
    """Breaks if pretrained=true falls back to random weights, or hides the ways out."""
    with pytest.raises(UserError) as caught:
        AnatoSegNet(pretrained=True)
    message = str(caught.value)
    assert "\n" not in message
    assert "model.pretrained=false" in message
    assert "model.encoder_weights=FILE" in message


def test_attention_levels_are_checked() -> None:
    """Breaks if a level that does not exist is ignored in silence."""
    with pytest.raises(ValueError, match="levels"):
        AnatoSegNet("resnet18", pretrained=False, attention={"levels": [6]})
    with pytest.raises(TypeError, match="lvls"):
        AnatoSegNet("resnet18", pretrained=False, attention={"lvls": [4]})


@pytest.mark.slow
def test_torch_export() -> None:
    """Breaks if the network stops being exportable as one graph."""
    model = small().requires_grad_(False)
    x = torch.randn(1, 3, 64, 64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        exported = torch.export.export(model, (x,)).module()
    torch.testing.assert_close(exported(x), model(x), rtol=1e-4, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("placement", ["replace", "prenorm"])
def test_onnx_export(tmp_path: Path, placement: str) -> None:
    """Breaks if the exported network computes something else in another runtime."""
    import onnxruntime

    model = small(placement=placement).requires_grad_(False).eval()
    for attention in model.attentions.values():  # prenorm starts at zero
        torch.nn.init.normal_(attention.proj.weight, std=0.02)
    x = torch.randn(1, 3, 64, 96)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(model, (x,), tmp_path / "net.onnx", dynamo=True, verbose=False)
    session = onnxruntime.InferenceSession(tmp_path / "net.onnx")
    (logits,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    torch.testing.assert_close(torch.from_numpy(logits), model(x), rtol=1e-3, atol=1e-4)


def test_settings_have_the_described_defaults() -> None:
    """Breaks if a default moves away from the described network."""
    assert AttentionSettings() == AttentionSettings(
        levels=(4, 5),
        heads=8,
        bias="rows",
        differential="spatial",
        gamma=1.0,
        beta=0.0,
        placement="replace",
    )


@pytest.mark.slow
@pytest.mark.parametrize("differential", ["spatial", "released", "none"])
@pytest.mark.parametrize("bias", ["rows", "raster", "none"])
def test_trace_and_older_onnx(tmp_path: Path, bias: str, differential: str) -> None:
    """Breaks if tools that trace on a CPU (Core ML, FLOP counters, older ONNX) cannot."""
    attention = {"bias": bias, "differential": differential}
    model = AnatoSegNet("resnet18", pretrained=False, attention=attention).eval()
    x, more = torch.randn(1, 3, 64, 64), torch.randn(3, 3, 64, 64)
    with torch.no_grad():
        traced = torch.jit.trace(model, x)
        torch.testing.assert_close(traced(more), model(more), rtol=1e-4, atol=1e-5)
        torch.onnx.export(model, (x,), tmp_path / "net.onnx", dynamo=False)
    assert (tmp_path / "net.onnx").stat().st_size
