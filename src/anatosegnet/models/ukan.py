"""U-KAN (Li et al., AAAI 2025), written from its description."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from anatosegnet.models.blocks import convolution, depthwise, double_convolution
from anatosegnet.models.unext import UNeXt

LAYERS = 3
"""KAN layers in a row at each level of tokens."""
INTERVALS = 5
"""Of the grid of the splines, over [-1, 1]."""
ORDER = 3


class UKAN(UNeXt):
    """U-KAN: UNeXt's shape with double convolutions, and KAN layers on its tokens.

    No reference numbers were at hand: 6.4 M parameters, as published, is all that is known to fit.

    Args and shape as `UNeXt`.
    """

    def build_down(self, in_channels: int, out_channels: int) -> nn.Module:
        """A convolutional level, which halves the map."""
        return nn.Sequential(double_convolution(in_channels, out_channels), nn.MaxPool2d(2))

    def build_mixer(self, width: int) -> nn.Module:
        """Three times: KAN layer, depthwise conv, BN, ReLU."""
        layers = [
            nn.Sequential(
                KANLinear(width, width),
                depthwise(width, 3),
                nn.BatchNorm2d(width),
                nn.ReLU(inplace=True),
            )
            for _ in range(LAYERS)
        ]
        return nn.Sequential(*layers)

    def build_up(self, in_channels: int, out_channels: int) -> nn.Module:
        """What comes before the upsampling of a decoder level."""
        return nn.Sequential(
            convolution(in_channels, in_channels), convolution(in_channels, out_channels)
        )

    def build_last(self, width: int) -> nn.Module:
        """What comes before the last upsampling."""
        return self.build_up(width, width)


class KANLinear(nn.Module):
    """A Kolmogorov-Arnold layer on the channels of a map: one learned function per connection.

    y_o = Σ_i w_oi·SiLU(x_i) + s_oi·Σ_g c_oig·B_g(x_i), with the cubic B-splines B_g of a uniform
    grid over [-1, 1] (Liu et al., "KAN: Kolmogorov-Arnold Networks", ICLR 2025, and its start
    values: splines near zero).

    Args:
        in_channels: Of the map.
        out_channels: Of the result.

    Shape:
        (B, in_channels, H, W) -> (B, out_channels, H, W).
    """

    centers: Tensor

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        splines = INTERVALS + ORDER
        self.base = nn.Parameter(torch.empty(out_channels, in_channels))
        self.scale = nn.Parameter(torch.ones(out_channels, in_channels))
        self.coefficients = nn.Parameter(torch.empty(out_channels, in_channels, splines))
        nn.init.xavier_uniform_(self.base)
        nn.init.normal_(self.coefficients, std=0.1)
        centers = torch.arange(splines) - (splines - 1) / 2  # in intervals of the grid
        self.register_buffer("centers", centers, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """The functions of each channel, summed."""
        x = x.movedim(1, -1)
        splines = self.scale.unsqueeze(-1) * self.coefficients
        inputs = torch.cat([F.silu(x), self.basis(x).flatten(-2)], dim=-1)
        weight = torch.cat([self.base, splines.flatten(1)], dim=1)
        return F.linear(inputs, weight).movedim(-1, 1)

    def basis(self, x: Tensor) -> Tensor:
        """The cubic B-splines at x: (…) -> (…, INTERVALS + ORDER)."""
        distance = (x.unsqueeze(-1) * (INTERVALS / 2) - self.centers).abs()
        return (F.relu(2 - distance) ** 3 - 4 * F.relu(1 - distance) ** 3) / 6
