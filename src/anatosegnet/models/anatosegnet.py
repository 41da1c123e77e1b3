"""AnatoSegNet: a U-shaped network with anatomical attention in its deep levels."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from torch import Tensor, nn

from anatosegnet.models.attention import AnatomicalAttention, Bias, Differential
from anatosegnet.models.decoder import Decoder
from anatosegnet.models.encoder import Encoder

MINIMUM_SIZE = 32
Placement = Literal["replace", "residual", "prenorm"]


@dataclass(frozen=True)
class AttentionSettings:
    """Where attention stands in the network and what it computes; see `AnatomicalAttention`."""

    levels: tuple[int, ...] = (4, 5)
    """Encoder levels (1..5) whose features go through attention; none = the plain U-Net."""
    heads: int = 8
    bias: Bias = "rows"
    differential: Differential = "spatial"
    gamma: float = 1.0
    beta: float = 0.0
    learn_gamma: bool = False
    spread: float = 1.0
    unit: str = "rows"
    local: bool = False
    mlp: bool = False
    placement: Placement = "replace"
    """What becomes of features x: ``replace``: attention(x), as described; ``residual``: x +
    attention(x); ``prenorm``: x + attention(norm(x)), norm over all channels and positions of an
    image, the output projection starting at zero, so that the network starts as the plain U-Net."""


class AnatoSegNet(nn.Module):
    """U-shaped segmentation network with anatomical attention (AnatoSegNet, ISBI 2025).

    The attended features of a level are both its skip and what the next encoder stage reads.

    Args:
        encoder: A timm model with five feature levels.
        num_classes: Channels of the logits: 2 (background, lesion), or 1 (lesion).
        in_channels: Channels of the image.
        pretrained: Start the encoder from its ImageNet weights.
        encoder_weights: A local file with such weights, instead of the download.
        attention: `AttentionSettings`, or a mapping with some of its fields.

    Shape:
        (B, in_channels, H, W), any H, W ≥ 32 -> logits (B, num_classes, H, W).

    Raises:
        ValueError: An attention setting or the image's size is out of range.
        UserError: The encoder or its weights cannot be had.
    """

    def __init__(
        self,
        encoder: str = "resnet50.tv_in1k",
        num_classes: int = 2,
        in_channels: int = 3,
        pretrained: bool = True,
        encoder_weights: str | None = None,
        attention: AttentionSettings | Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(attention, AttentionSettings):
            attention = AttentionSettings(**(attention or {}))
        if not set(attention.levels) <= {1, 2, 3, 4, 5}:
            raise ValueError(f"attention levels={list(attention.levels)} must lie in 1..5")
        if attention.placement not in get_args(Placement):
            names = ", ".join(get_args(Placement))
            raise ValueError(f"attention placement={attention.placement!r} must be one of {names}")
        self.encoder = Encoder(encoder, in_channels, pretrained, encoder_weights)
        self.placement = attention.placement
        # keyed by level, so that the weights of one level keep their name in every ablation
        self.attentions = nn.ModuleDict(
            {
                str(level): AnatomicalAttention(
                    channels,
                    num_heads=attention.heads,
                    bias=attention.bias,
                    differential=attention.differential,
                    gamma=attention.gamma,
                    beta=attention.beta,
                    learn_gamma=attention.learn_gamma,
                    spread=attention.spread,
                    unit=attention.unit,
                    local=attention.local,
                )
                for level, channels in enumerate(self.encoder.channels, start=1)
                if level in attention.levels
            }
        )
        self.norms = nn.ModuleDict()
        if attention.placement == "prenorm":
            for level, module in self.attentions.items():
                self.norms[level] = nn.GroupNorm(1, self.encoder.channels[int(level) - 1])
                for parameter in module.get_submodule("proj").parameters():
                    nn.init.zeros_(parameter)
        self.mlps = nn.ModuleDict()
        if attention.mlp:
            for level in self.attentions:
                c = self.encoder.channels[int(level) - 1]
                mlp = nn.Sequential(nn.GroupNorm(1, c), nn.Conv2d(c, 4 * c, 1), nn.GELU(), nn.Conv2d(4 * c, c, 1))
                for parameter in mlp[3].parameters():
                    nn.init.zeros_(parameter)
                self.mlps[level] = mlp
        self.decoder = Decoder(self.encoder.channels, num_classes)

    def forward(self, image: Tensor) -> Tensor:
        """Segment a batch of images.

        Args:
            image: (B, in_channels, H, W) normalised images, H and W at least 32.

        Returns:
            (B, num_classes, H, W) logits.
        """
        height, width = image.shape[-2:]
        if height < MINIMUM_SIZE or width < MINIMUM_SIZE:
            raise ValueError(
                f"images of {height}×{width} pixels are too small; "
                f"the network needs at least {MINIMUM_SIZE}×{MINIMUM_SIZE}"
            )
        x, features = image, []
        for level, stage in enumerate(self.encoder.stages, start=1):
            x = stage(x)
            if str(level) in self.attentions:
                x = self._attend(str(level), x)
            features.append(x)
        return self.decoder(features, (height, width))

    def _attend(self, level: str, x: Tensor) -> Tensor:
        attention = self.attentions[level]
        if self.placement == "replace":
            return attention(x)
        x = x + attention(self.norms[level](x) if self.placement == "prenorm" else x)
        return x + self.mlps[level](x) if level in self.mlps else x
