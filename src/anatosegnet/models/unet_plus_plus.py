"""UNet++ (Zhou et al., DLMIA 2018) on a ResNet-34, as the public 2-D benchmark has it."""

from collections.abc import Sequence
from typing import Any

import timm
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from anatosegnet.models.blocks import PaddedNetwork, convolution

COLUMNS = ((64, 64, 128, 256), (64, 128, 256), (128, 256), (256,))
"""Widths of the nodes, a column after the other, rows from shallow to deep."""


class UNetPlusPlus(PaddedNetwork):
    """UNet++: a triangle of nodes between encoder and heads, on an untrained ResNet-34.

    Each node sees all earlier ones of its row and the upsampled one below. The four heads on
    the top row are summed with learned weights.

    Args:
        num_classes: Channels of the logits: 2 (background, lesion), or 1 (lesion).
        in_channels: Channels of the image.

    Shape:
        (B, in_channels, H, W) -> logits (B, num_classes, H, W).
    """

    stride = 32

    def __init__(self, num_classes: int = 2, in_channels: int = 3) -> None:
        super().__init__()
        # torchvision's weights at the start, which do not silence the residual branches
        encoder: Any = timm.create_model(
            "resnet34", features_only=True, in_chans=in_channels, zero_init_last=False
        )
        self.encoder = encoder
        self.columns = nn.ModuleList()
        rows = [[channels] for channels in encoder.feature_info.channels()]
        for widths in COLUMNS:
            self.columns.append(Column(rows, widths))
            for row, width in zip(rows, widths, strict=False):
                row.append(width)
        self.heads = nn.ModuleList(nn.Conv2d(width, num_classes, 1) for width in rows[0][1:])
        # the first is the encoder's, which has no head; kept for the count of the public network
        self.head_weights = nn.Parameter(torch.ones(len(self.heads) + 1))

    def segment(self, image: Tensor) -> Tensor:
        """The logits of images whose sides are multiples of 32."""
        rows = [[features] for features in self.encoder(image)]
        for column in self.columns:
            for row, features in zip(rows, column(rows), strict=False):
                row.append(features)
        weighted = zip(self.head_weights[1:], self.heads, rows[0][1:], strict=True)
        logits = torch.stack([weight * head(x) for weight, head, x in weighted]).sum(0)
        return F.interpolate(logits, image.shape[-2:], mode="bilinear")


class Column(nn.Module):
    """Nodes from shallow to deep; each sees the earlier ones of its row and the one below.

    Args:
        rows: Channels of the maps so far in each row, at least one row more than nodes.
        widths: Channels of the nodes.

    Shape:
        The maps so far, one list a row -> one map a node, of its row's size.
    """

    def __init__(self, rows: Sequence[Sequence[int]], widths: Sequence[int]) -> None:
        super().__init__()
        self.nodes = nn.ModuleList(
            _node(sum(row) + below[-1], width)
            for row, below, width in zip(rows, rows[1:], widths, strict=False)
        )

    def forward(self, rows: Sequence[Sequence[Tensor]]) -> list[Tensor]:
        """What the nodes make of the maps so far."""
        return [
            node(torch.cat([*row, F.interpolate(below[-1], scale_factor=2.0)], dim=1))
            for node, row, below in zip(self.nodes, rows, rows[1:], strict=False)
        ]


def _node(in_channels: int, out_channels: int) -> nn.Sequential:
    half = out_channels // 2
    return nn.Sequential(
        convolution(in_channels, half, bias=False),
        convolution(half, half, bias=False),
        convolution(half, out_channels, bias=False),
    )
