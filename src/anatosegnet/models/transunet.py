"""TransUNet (Chen et al., 2021): timm's R50 + ViT-B/16 hybrid under a convolutional decoder."""

from typing import Any

import timm
import torch
from timm.layers import resample_abs_pos_embed
from torch import Tensor, nn

from anatosegnet.models.blocks import PaddedNetwork, convolution, double_convolution

BOTTOM = 512
"""Channels between transformer and decoder."""
WIDTHS = (256, 128, 64, 16)
SKIPS = (512, 256, 64, 0)
"""Channels of the ResNet's maps at 1/8, 1/4 and 1/2 of the size; none at the image's own."""
POSITIONS = 256
"""Image size whose patches have one learned position each; other sizes interpolate them."""


class TransUNet(PaddedNetwork):
    """TransUNet: a ResNet-50's map at 1/16 through twelve transformer layers, then upsampled.

    Args:
        num_classes: Channels of the logits: 2 (background, lesion), or 1 (lesion).
        in_channels: Channels of the image.
        dropout: Of the embedded patches and in the transformer's layers.

    Shape:
        (B, in_channels, H, W) -> logits (B, num_classes, H, W).
    """

    def __init__(self, num_classes: int = 2, in_channels: int = 3, dropout: float = 0.1) -> None:
        super().__init__()
        vit: Any = timm.create_model(
            "vit_base_r50_s16_224",
            in_chans=in_channels,
            img_size=POSITIONS,
            class_token=False,
            global_pool="",
            num_classes=0,
            pos_drop_rate=dropout,
            proj_drop_rate=dropout,
        )
        self.transformer = vit
        self.bottom = convolution(vit.embed_dim, BOTTOM, bias=False)
        self.upsample = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True)
        self.decoder = nn.ModuleList(
            double_convolution(deeper + skip, width, bias=False)
            for deeper, skip, width in zip((BOTTOM, *WIDTHS), SKIPS, WIDTHS, strict=False)
        )
        self.head = nn.Conv2d(WIDTHS[-1], num_classes, 3, padding=1)

    def segment(self, image: Tensor) -> Tensor:
        """The logits of images whose sides are multiples of 16."""
        backbone = self.transformer.patch_embed.backbone
        skips = [backbone.stem.norm(backbone.stem.conv(image))]
        x = backbone.stem.pool(skips[0])
        for stage in backbone.stages:
            x = stage(x)
            skips.append(x)
        x = self.bottom(self._transform(skips.pop()))
        for stage in self.decoder:
            x = self.upsample(x)
            x = stage(torch.cat([x, skips.pop()], dim=1) if skips else x)
        return self.head(x)

    def _transform(self, features: Tensor) -> Tensor:
        """The ResNet's last map through the transformer: (B, 1024, h, w) -> (B, 768, h, w)."""
        vit = self.transformer
        x = vit.patch_embed.proj(features)
        tokens = x.flatten(2).transpose(1, 2)  # (B, h·w, 768)
        positions = resample_abs_pos_embed(
            vit.pos_embed, list(x.shape[-2:]), vit.patch_embed.grid_size, num_prefix_tokens=0
        )
        tokens = vit.norm(vit.blocks(vit.pos_drop(tokens + positions)))
        return tokens.transpose(1, 2).reshape(x.shape)
