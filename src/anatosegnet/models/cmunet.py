"""CMU-Net (Tang et al., ISBI 2023) as the public 2-D benchmark has it."""

import torch
from torch import Tensor, nn

from anatosegnet.models.blocks import mixer
from anatosegnet.models.unet_classic import UNet

MIXER_LAYERS = 7


class CMUNet(UNet):
    """U-Net with ConvMixer layers at the bottom and multi-scale gates on its skips.

    Args and shape as `UNet`.
    """

    def build_bottom(self, channels: int) -> nn.Module:
        """Seven ConvMixer layers."""
        return nn.Sequential(*(_mixer_layer(channels) for _ in range(MIXER_LAYERS)))

    def build_skip(self, channels: int) -> nn.Module:
        """A gate at this width."""
        return MultiScaleGate(channels)


class MultiScaleGate(nn.Module):
    """x + x·a; a sees x through a 1×1, a 3×3 and a dilated 3×3 convolution.

    Args:
        channels: Of the skip.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.scales = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(
                    channels, channels, kernel, padding=dilation * (kernel // 2), dilation=dilation
                ),
                nn.BatchNorm2d(channels),
            )
            for kernel, dilation in ((1, 1), (3, 1), (3, 2))
        )
        self.gate = nn.Sequential(
            nn.ReLU(inplace=True),
            nn.Conv2d(3 * channels, channels, 1),
            nn.BatchNorm2d(channels),
            nn.Sigmoid(),
        )

    def forward(self, features: Tensor, upsampled: Tensor) -> Tensor:
        """Features (B, C, H, W) -> the same, gated; the upsampled ones are not looked at."""
        return features + features * self.gate(
            torch.cat([scale(features) for scale in self.scales], dim=1)
        )


def _mixer_layer(channels: int) -> nn.Sequential:
    return nn.Sequential(
        mixer(channels, kernel=7),
        nn.Conv2d(channels, channels, 1),
        nn.GELU(),
        nn.BatchNorm2d(channels),
    )
