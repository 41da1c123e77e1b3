"""Swin-Unet (Cao et al., ECCV Workshops 2022) of timm's Swin stages."""

from typing import Any, cast

import torch
from timm.models.swin_transformer import SwinTransformerStage
from torch import Tensor, nn

from anatosegnet.models.blocks import PaddedNetwork

PATCH = 4
WIDTHS = (96, 192, 384, 768)
HEADS = (3, 6, 12, 24)
DEPTH = 2
"""Blocks of each stage, in encoder and decoder."""
WINDOW = 7
GRIDS = (56, 28, 14, 7)
"""Sides of the stages' maps of a 224-px image, the size it was made for."""
DROP_PATH = 0.2


class SwinUnet(PaddedNetwork):
    """Swin-Unet: Swin-Tiny's encoder of 2, 2, 2, 2 blocks, and its mirror image as decoder.

    Made for images of 224×224, whose maps the windows of 7×7 tile. Others are padded to a
    multiple of 32 here, and their maps to a multiple of 7 in each block. A skip is what the
    blocks of its stage read.

    Args:
        num_classes: Channels of the logits: 2 (background, lesion), or 1 (lesion).
        in_channels: Channels of the image.

    Shape:
        (B, in_channels, H, W) -> logits (B, num_classes, H, W).
    """

    stride = 32

    def __init__(self, num_classes: int = 2, in_channels: int = 3) -> None:
        super().__init__()
        self.embed = nn.Conv2d(in_channels, WIDTHS[0], PATCH, stride=PATCH)
        self.embed_norm = nn.LayerNorm(WIDTHS[0])
        self.encoder = nn.ModuleList(_stage(level, merge=level > 0) for level in range(4))
        self.bottom_norm = nn.LayerNorm(WIDTHS[-1])
        self.expand, self.join, self.decoder = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        for level in (2, 1, 0):
            self.expand.append(PatchExpanding(WIDTHS[level + 1], WIDTHS[level], 2))
            self.join.append(nn.Linear(2 * WIDTHS[level], WIDTHS[level]))
            self.decoder.append(_stage(level, merge=False))
        self.top_norm = nn.LayerNorm(WIDTHS[0])
        self.last_expand = PatchExpanding(WIDTHS[0], WIDTHS[0], PATCH)
        self.head = nn.Conv2d(WIDTHS[0], num_classes, 1, bias=False)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def segment(self, image: Tensor) -> Tensor:
        """The logits of images whose sides are multiples of 32."""
        x = self.embed_norm(self.embed(image).movedim(1, -1))  # (B, H, W, C) from here on
        skips = []
        for stage in cast(Any, self.encoder):
            x = stage.downsample(x)
            skips.append(x)
            x = stage.blocks(x)
        skips.pop()
        x = self.bottom_norm(x)
        for expand, join, stage in zip(self.expand, self.join, self.decoder, strict=True):
            x = stage(join(torch.cat([expand(x), skips.pop()], dim=-1)))
        return self.head(self.last_expand(self.top_norm(x)).movedim(-1, 1))


class PatchExpanding(nn.Module):
    """Each pixel becomes scale×scale ones by a linear map, then LayerNorm.

    Args:
        in_channels: Channels of the map.
        out_channels: Channels of the result.
        scale: How much larger it is.
    """

    def __init__(self, in_channels: int, out_channels: int, scale: int) -> None:
        super().__init__()
        self.scale = scale
        self.linear = nn.Linear(in_channels, scale * scale * out_channels, bias=False)
        self.norm = nn.LayerNorm(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, in_channels) -> (B, scale·H, scale·W, out_channels)."""
        x = self.linear(x).unflatten(-1, (self.scale, self.scale, -1))  # (B, H, W, s, s, C)
        return self.norm(x.transpose(2, 3).flatten(3, 4).flatten(1, 2))


def _stage(level: int, merge: bool) -> SwinTransformerStage:
    """Two blocks, with stochastic depth growing with the level; patch merging before them."""
    blocks = DEPTH * len(WIDTHS)
    rates = [DROP_PATH * block / (blocks - 1) for block in range(blocks)]
    grid = GRIDS[level - merge]
    return SwinTransformerStage(
        WIDTHS[level - merge],
        WIDTHS[level],
        (grid, grid),
        DEPTH,
        downsample=merge,
        num_heads=HEADS[level],
        window_size=WINDOW,
        dynamic_mask=True,
        drop_path=rates[DEPTH * level : DEPTH * (level + 1)],
    )
