"""Attention U-Net (Oktay et al., MIDL 2018) as the public 2-D benchmark has it."""

from torch import Tensor, nn

from anatosegnet.models.unet_classic import UNet


class AttentionUNet(UNet):
    """U-Net whose upsampled features gate each skip; see `AttentionGate`.

    Args and shape as `UNet`.
    """

    def build_skip(self, channels: int) -> nn.Module:
        """A gate at this width."""
        return AttentionGate(channels)


class AttentionGate(nn.Module):
    """The skip times sigmoid(BN(conv(ReLU(BN(conv g) + BN(conv x))))), all conv 1×1.

    Args:
        channels: Of the skip x and of the upsampled features g; half as many inside.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.features, self.upsampled = (_pointwise(channels, channels // 2) for _ in range(2))
        self.gate = nn.Sequential(nn.ReLU(inplace=True), _pointwise(channels // 2, 1), nn.Sigmoid())

    def forward(self, features: Tensor, upsampled: Tensor) -> Tensor:
        """Both (B, C, H, W) -> the gated features, of the same shape."""
        return features * self.gate(self.upsampled(upsampled) + self.features(features))


def _pointwise(in_channels: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(in_channels, out_channels, 1), nn.BatchNorm2d(out_channels))
