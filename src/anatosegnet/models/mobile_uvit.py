"""Mobile U-ViT (Tang et al., 2025) as the public 2-D benchmark has it."""

import torch
from timm.layers import DropPath, LayerNorm, Mlp  # this LayerNorm has ε 1e-6
from timm.models.vision_transformer import Block
from torch import Tensor, nn
from torch.nn import functional as F

from anatosegnet.models.blocks import (
    PaddedNetwork,
    Residual,
    UpConvolution,
    convolution,
    depthwise,
    double_convolution,
    mixer_stage,
)

WIDTHS = (16, 32, 64)
DEPTHS = (1, 1, 3)
KERNELS = (3, 3, 7)
DEEP = 128
"""Channels of the deepest blocks."""
BLOCKS = 3
HEADS = 4
LOCAL_KERNEL = 9
DROP_PATH = 0.1


class MobileUViT(PaddedNetwork):
    """Mobile U-ViT: large-kernel convolutions, then local gates and attention at 1/8 of the size.

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
            mixer_stage(*settings, residual=True)
            for settings in zip(inputs, WIDTHS, DEPTHS, KERNELS, strict=True)
        )
        self.pool = nn.MaxPool2d(2)
        width = WIDTHS[-1]
        self.bottom = nn.Sequential(
            *(LocalGlobalBlock(width) for _ in range(BLOCKS)),
            double_convolution(width, DEEP),
            *(GlobalBlock(DEEP) for _ in range(BLOCKS)),
            double_convolution(DEEP, width),
        )
        self.decoder = nn.ModuleList(double_convolution(2 * width, width) for width in WIDTHS)
        self.up = nn.ModuleList(
            UpConvolution(width, out_channels, "bilinear", align_corners=True)
            for width, out_channels in zip(WIDTHS, inputs, strict=True)
        )
        self.head = nn.Conv2d(WIDTHS[0], num_classes, 1)

    def segment(self, image: Tensor) -> Tensor:
        """The logits of images whose sides are multiples of 16."""
        x, skips = self.stem(image), []
        for stage in self.encoder:
            x = self.pool(stage(x))
            skips.append(x)
        x = self.bottom(x)
        for stage, up, skip in reversed([*zip(self.decoder, self.up, skips, strict=True)]):
            x = up(stage(torch.cat([x, skip], dim=1)))
        return self.head(x)


class LocalGlobalBlock(nn.Module):
    """Three gates with large kernels, then attention on every second pixel, then an MLP.

    Args:
        channels: Of the map.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.local = nn.Sequential(
            SoftGate(depthwise(channels, LOCAL_KERNEL)),
            SoftGate(
                nn.BatchNorm2d(channels),
                nn.Conv2d(channels, channels, 1),
                depthwise(channels, LOCAL_KERNEL),
                nn.Conv2d(channels, channels, 1),
            ),
            SoftGate(
                nn.BatchNorm2d(channels),
                nn.Conv2d(channels, 4 * channels, 3, padding=1, groups=channels),
                nn.GELU(),
                nn.Conv2d(4 * channels, channels, 3, padding=1, groups=channels),
            ),
            Residual(depthwise(channels, 3)),
        )
        self.norm = LayerNorm(channels)
        self.attention = SparseAttention(channels)
        self.mlp = nn.Sequential(LayerNorm(channels), Mlp(channels, 4 * channels))
        self.drop_path = DropPath(DROP_PATH)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W), H and W even."""
        x = self.local(x).movedim(1, -1)  # (B, H, W, C)
        x = x + self.drop_path(self.attention(self.norm(x)))
        x = x + self.drop_path(self.mlp(x))
        return x.movedim(-1, 1)


class SoftGate(nn.Module):
    """x + x·(sigmoid(f(x)) - 0.5).

    Args:
        layers: What f does, in a row.
    """

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)
        self.drop_path = DropPath(DROP_PATH)

    def forward(self, x: Tensor) -> Tensor:
        """The gated map, of the shape of x."""
        return x + x * (torch.sigmoid(self.drop_path(self.layers(x))) - 0.5)


class SparseAttention(nn.Module):
    """Self-attention of every second pixel of every second row, spread over their neighbours.

    Args:
        channels: Of the map.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.qkv = nn.Linear(channels, 3 * channels)
        self.spread = nn.ConvTranspose2d(channels, channels, 2, stride=2, groups=channels)
        self.norm = nn.LayerNorm(channels)
        self.projection = nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> (B, H, W, C), H and W even."""
        qkv = self.qkv(x[:, ::2, ::2])
        B, h, w, channels = qkv.shape
        heads = qkv.reshape(B, h * w, 3, HEADS, channels // 3 // HEADS)
        query, key, value = heads.permute(2, 0, 3, 1, 4)  # each (B, heads, N, d)
        attended = F.scaled_dot_product_attention(query, key, value)
        attended = attended.transpose(-1, -2).reshape(B, channels // 3, h, w)
        return self.projection(self.norm(self.spread(attended).movedim(1, -1)))


class GlobalBlock(nn.Module):
    """x + depthwise x, then a transformer block over all pixels.

    Args:
        channels: Of the map.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.local = Residual(depthwise(channels, 3))
        self.block = Block(channels, HEADS, qkv_bias=True, norm_layer=LayerNorm)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        tokens = self.block(self.local(x).flatten(2).transpose(1, 2))  # (B, N, C)
        return tokens.transpose(1, 2).reshape(x.shape)
