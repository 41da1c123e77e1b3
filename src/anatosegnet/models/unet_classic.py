"""U-Net (Ronneberger et al., MICCAI 2015) as the public 2-D benchmark has it."""

from itertools import pairwise

import torch
from torch import Tensor, nn

from anatosegnet.models.blocks import PaddedNetwork, UpConvolution, double_convolution, pyramid

WIDTHS = (64, 128, 256, 512, 1024)
"""Channels of the levels, from the image's size down."""


class UNet(PaddedNetwork):
    """U-Net: five levels of double convolutions. Subclasses change its bottom and its skips.

    Args:
        num_classes: Channels of the logits: 2 (background, lesion), or 1 (lesion).
        in_channels: Channels of the image.

    Shape:
        (B, in_channels, H, W) -> logits (B, num_classes, H, W).
    """

    def __init__(self, num_classes: int = 2, in_channels: int = 3) -> None:
        super().__init__()
        self.encoder = nn.ModuleList(map(double_convolution, (in_channels, *WIDTHS), WIDTHS))
        self.bottom = self.build_bottom(WIDTHS[-1])
        self.up, self.skips, self.decoder = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        for deep, shallow in pairwise(reversed(WIDTHS)):
            self.up.append(UpConvolution(deep, shallow))
            self.skips.append(self.build_skip(shallow))
            self.decoder.append(double_convolution(2 * shallow, shallow))
        self.head = nn.Conv2d(WIDTHS[0], num_classes, 1)

    def build_bottom(self, channels: int) -> nn.Module:
        """What the deepest features go through."""
        return nn.Identity()

    def build_skip(self, channels: int) -> nn.Module:
        """What makes a skip of (features of the encoder, upsampled features), of one shape."""
        return Skip()

    def segment(self, image: Tensor) -> Tensor:
        """The logits of images whose sides are multiples of 16."""
        features = pyramid(image, self.encoder)
        x = self.bottom(features.pop())
        for up, skip, stage in zip(self.up, self.skips, self.decoder, strict=True):
            x = up(x)
            x = stage(torch.cat([skip(features.pop(), x), x], dim=1))
        return self.head(x)


class Skip(nn.Module):
    """The features of the encoder as they are."""

    def forward(self, features: Tensor, upsampled: Tensor) -> Tensor:
        """The first of two maps."""
        return features
