"""UNet 3+ (Huang et al., ICASSP 2020) as the public 2-D benchmark has it."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from anatosegnet.models.blocks import PaddedNetwork, convolution, double_convolution, pyramid
from anatosegnet.models.unet_classic import WIDTHS

BRANCH = 64
"""Channels that each of the five scales contributes to a decoder level."""
JOINED = BRANCH * len(WIDTHS)


class UNet3Plus(PaddedNetwork):
    """UNet 3+: every decoder level sees all scales. No deep supervision, no classification gate.

    Args:
        num_classes: Channels of the logits: 2 (background, lesion), or 1 (lesion).
        in_channels: Channels of the image.

    Shape:
        (B, in_channels, H, W) -> logits (B, num_classes, H, W).
    """

    def __init__(self, num_classes: int = 2, in_channels: int = 3) -> None:
        super().__init__()
        self.encoder = nn.ModuleList(map(double_convolution, (in_channels, *WIDTHS), WIDTHS))
        self.decoder, widths = nn.ModuleList(), list(WIDTHS)
        for level in reversed(range(len(WIDTHS) - 1)):
            self.decoder.append(FullScaleLevel(level, widths))
            widths[level] = JOINED  # the levels above see the decoder's map of this one
        self.head = nn.Conv2d(JOINED, num_classes, 3, padding=1)

    def segment(self, image: Tensor) -> Tensor:
        """The logits of images whose sides are multiples of 16."""
        maps = pyramid(image, self.encoder)
        for level, stage in zip(reversed(range(len(maps) - 1)), self.decoder, strict=True):
            maps[level] = stage(maps)
        return self.head(maps[0])


class FullScaleLevel(nn.Module):
    """A level of the decoder: what the maps of all levels say at its size.

    Args:
        level: Its index, 0 being that of the image's size.
        widths: Channels of the maps of all levels.

    Shape:
        Maps of all levels, (B, widths[i], H/2^i, W/2^i) -> (B, 320, H/2^level, W/2^level).
    """

    def __init__(self, level: int, widths: Sequence[int]) -> None:
        super().__init__()
        self.level = level
        self.branches = nn.ModuleList(convolution(width, BRANCH) for width in widths)
        self.fusion = convolution(JOINED, JOINED)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Bring the maps to one size and join them, shallow ones first."""
        scales = [
            branch(_rescale(x, self.level - other))
            for other, (branch, x) in enumerate(zip(self.branches, maps, strict=True))
        ]
        return self.fusion(torch.cat(scales, dim=1))


def _rescale(x: Tensor, levels: int) -> Tensor:
    """A map some levels deeper (by max-pool) or, negative, shallower (bilinear)."""
    if levels > 0:
        return F.max_pool2d(x, 2**levels, ceil_mode=True)
    if levels < 0:
        return F.interpolate(x, scale_factor=2.0**-levels, mode="bilinear")
    return x
