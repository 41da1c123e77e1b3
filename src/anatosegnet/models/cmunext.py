"""CMUNeXt (Tang et al., ISBI 2024) as the public 2-D benchmark has it."""

from itertools import pairwise

import torch
from torch import Tensor, nn

from anatosegnet.models.blocks import (
    PaddedNetwork,
    UpConvolution,
    convolution,
    inverted,
    mixer_stage,
    pyramid,
)

WIDTHS = (16, 32, 128, 160, 256)
DEPTHS = (1, 1, 1, 3, 1)
KERNELS = (3, 3, 7, 7, 7)


class CMUNeXt(PaddedNetwork):
    """CMUNeXt: a U-shape of large-kernel depthwise layers, skips fused by grouped convolutions.

    Args:
        num_classes: Channels of the logits: 2 (background, lesion), or 1 (lesion).
        in_channels: Channels of the image.

    Shape:
        (B, in_channels, H, W) -> logits (B, num_classes, H, W).
    """

    def __init__(self, num_classes: int = 2, in_channels: int = 3) -> None:
        super().__init__()
        self.stem = convolution(in_channels, WIDTHS[0])
        inputs = (WIDTHS[0], *WIDTHS[:-1])
        self.encoder = nn.ModuleList(
            mixer_stage(*settings, residual=False)
            for settings in zip(inputs, WIDTHS, DEPTHS, KERNELS, strict=True)
        )
        self.up, self.fusions = nn.ModuleList(), nn.ModuleList()
        for deep, shallow in pairwise(reversed(WIDTHS)):
            self.up.append(UpConvolution(deep, shallow, "bilinear"))
            self.fusions.append(_fusion(shallow))
        self.head = nn.Conv2d(WIDTHS[0], num_classes, 1)

    def segment(self, image: Tensor) -> Tensor:
        """The logits of images whose sides are multiples of 16."""
        features = pyramid(self.stem(image), self.encoder)
        x = features.pop()
        for up, fusion in zip(self.up, self.fusions, strict=True):
            x = fusion(torch.cat([features.pop(), up(x)], dim=1))
        return self.head(x)


def _fusion(channels: int) -> nn.Sequential:
    """Skip and upsampled map, each convolved by itself, then mixed to one of their width."""
    return nn.Sequential(
        nn.Conv2d(2 * channels, 2 * channels, 3, padding=1, groups=2),
        nn.GELU(),
        nn.BatchNorm2d(2 * channels),
        inverted(2 * channels, out_channels=channels),
    )
