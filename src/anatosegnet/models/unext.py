"""UNeXt (Valanarasu and Patel, MICCAI 2022) as the public 2-D benchmark has it."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from anatosegnet.models.blocks import (
    ChannelNorm,
    PaddedNetwork,
    Residual,
    depthwise,
    initialize_tokens,
)

WIDTHS = (16, 32, 128, 160, 256)
CONVOLUTIONAL = 3
"""So many levels are convolutions, the deeper ones are of tokens."""
GROUPS = 5


class UNeXt(PaddedNetwork):
    """UNeXt: three convolutional levels and two of shifted MLPs; skips are added.

    Args:
        num_classes: Channels of the logits: 2 (background, lesion), or 1 (lesion).
        in_channels: Channels of the image.

    Shape:
        (B, in_channels, H, W) -> logits (B, num_classes, H, W).
    """

    stride = 32

    def __init__(self, num_classes: int = 2, in_channels: int = 3) -> None:
        super().__init__()
        self.encoder, self.decoder, self.joined = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        for level, (above, width) in enumerate(zip((in_channels, *WIDTHS), WIDTHS, strict=False)):
            if level < CONVOLUTIONAL:
                self.encoder.append(self.build_down(above, width))
            else:
                embed = nn.Conv2d(above, width, 3, stride=2, padding=1)
                self.encoder.append(nn.Sequential(embed, ChannelNorm(width), self._tokens(width)))
        for level in reversed(range(1, len(WIDTHS))):
            width = WIDTHS[level - 1]
            self.decoder.append(self.build_up(WIDTHS[level], width))
            tokenised = level >= CONVOLUTIONAL
            self.joined.append(self._tokens(width) if tokenised else nn.Identity())
        self.last = self.build_last(WIDTHS[0])
        self.upsample = nn.Upsample(scale_factor=2, mode="bilinear")
        self.head = nn.Conv2d(WIDTHS[0], num_classes, 1)
        initialize_tokens(nn.ModuleList([*self.encoder[CONVOLUTIONAL:], *self.joined]))

    def _tokens(self, width: int) -> nn.Sequential:
        return nn.Sequential(
            Residual(ChannelNorm(width), self.build_mixer(width)), ChannelNorm(width)
        )

    def build_down(self, in_channels: int, out_channels: int) -> nn.Module:
        """A convolutional level, which halves the map."""
        return nn.Sequential(
            nn.Conv2d(in_channels, out_channels, 3, padding=1),
            nn.BatchNorm2d(out_channels),
            nn.MaxPool2d(2),
            nn.ReLU(inplace=True),
        )

    def build_mixer(self, width: int) -> nn.Module:
        """What a level of tokens does to its normalised map, beside the residual connection."""
        return ShiftedMLP(width)

    def build_up(self, in_channels: int, out_channels: int) -> nn.Module:
        """What comes before the upsampling of a decoder level."""
        return nn.Sequential(
            nn.Conv2d(in_channels, out_channels, 3, padding=1), nn.BatchNorm2d(out_channels)
        )

    def build_last(self, width: int) -> nn.Module:
        """What comes before the last upsampling."""
        return nn.Conv2d(width, width, 3, padding=1)

    def segment(self, image: Tensor) -> Tensor:
        """The logits of images whose sides are multiples of 32."""
        x, skips = image, []
        for stage in self.encoder:
            x = stage(x)
            skips.append(x)
        skips.pop()
        for stage, joined in zip(self.decoder, self.joined, strict=True):
            x = joined(F.relu(self.upsample(stage(x))) + skips.pop())
        return self.head(F.relu(self.upsample(self.last(x))))


class ShiftedMLP(nn.Module):
    """Shift over rows, linear, depthwise conv, GELU, shift over columns, linear.

    Args:
        channels: Of the map, and inside.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.linear1, self.linear2 = nn.Linear(channels, channels), nn.Linear(channels, channels)
        self.depthwise = depthwise(channels, 3)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        x = self.linear1(shift(x, axis=-2).movedim(1, -1)).movedim(-1, 1)
        x = F.gelu(self.depthwise(x))
        return self.linear2(shift(x, axis=-1).movedim(1, -1)).movedim(-1, 1)


def shift(x: Tensor, axis: int) -> Tensor:
    """Move five groups of channels by -2 … +2 pixels along an axis (-1 or -2); zeros come in."""
    reach, length = GROUPS // 2, x.shape[axis]
    padded = F.pad(x, [0, 0] * (-axis - 1) + [reach, reach])
    moved = [
        group.narrow(axis, reach - step, length)
        for step, group in enumerate(torch.chunk(padded, GROUPS, dim=1), start=-reach)
    ]
    return torch.cat(moved, dim=1)
