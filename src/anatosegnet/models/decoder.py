"""The U-shaped decoder."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class UpStage(nn.Module):
    """Transposed conv 2×2, concatenation of the skip, then twice (conv 3×3, BN, ReLU).

    Args:
        in_channels: Channels of the deeper features.
        skip_channels: Channels of the skip.
        out_channels: Channels of the result.

    Shape:
        deeper (B, in_channels, h, w) and skip (B, skip_channels, H, W), h ≈ H/2, w ≈ W/2 ->
        (B, out_channels, H, W).
    """

    def __init__(self, in_channels: int, skip_channels: int, out_channels: int) -> None:
        super().__init__()
        self.upsample = nn.ConvTranspose2d(in_channels, out_channels, 2, stride=2)
        self.convolutions = nn.Sequential(
            nn.Conv2d(out_channels + skip_channels, out_channels, 3, padding=1),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(inplace=True),
            nn.Conv2d(out_channels, out_channels, 3, padding=1),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(inplace=True),
        )

    def forward(self, deeper: Tensor, skip: Tensor) -> Tensor:
        """Join the upsampled deeper features with the skip."""
        upsampled = crop_or_pad(self.upsample(deeper), skip.shape[-2], skip.shape[-1])
        return self.convolutions(torch.cat([upsampled, skip], dim=1))


class Decoder(nn.Module):
    """Four up stages, a last transposed convolution, and the segmentation head.

    Args:
        channels: Channels of the encoder's levels 1..5.
        num_classes: Channels of the logits: 2 (background, lesion), or 1 (lesion).

    Shape:
        Features of levels 1..5 and the image's size -> logits (B, K, H, W).
    """

    def __init__(self, channels: tuple[int, ...], num_classes: int) -> None:
        super().__init__()
        deeper, skips = channels[:0:-1], channels[-2::-1]  # levels 5..2 and 4..1
        self.stages = nn.ModuleList(
            UpStage(below, skip, skip) for below, skip in zip(deeper, skips, strict=True)
        )
        self.upsample = nn.ConvTranspose2d(channels[0], channels[0], 2, stride=2)
        self.head = nn.Conv2d(channels[0], num_classes, 1)

    def forward(self, features: list[Tensor], size: tuple[int, int]) -> Tensor:
        """Decode features of levels 1..5 to logits of the given (H, W)."""
        *skips, x = features
        for stage, skip in zip(self.stages, reversed(skips), strict=True):
            x = stage(x, skip)
        return self.head(crop_or_pad(self.upsample(x), *size))


def crop_or_pad(x: Tensor, height: int, width: int) -> Tensor:
    """Cut or zero-pad a map at its right and bottom edge to (height, width).

    An odd size s becomes (s+1)/2 on the way down (or (s-1)/2 in some encoders) and comes back
    one pixel too large (or small) on the way up.
    """
    rows, columns = height - x.shape[-2], width - x.shape[-1]
    if rows == 0 and columns == 0:
        return x
    return F.pad(x, (0, columns, 0, rows))
