"""Parts that several of the comparison networks share; maps are (B, C, H, W)."""

import math
from collections.abc import Iterable

from torch import Tensor, nn
from torch.nn import functional as F

from anatosegnet.models.decoder import crop_or_pad


class PaddedNetwork(nn.Module):
    """A network for images whose sides are multiples of its `stride`, made to take any.

    Images are padded with zeros at the right and bottom edge, and the logits cut back.
    """

    stride: int | tuple[int, int] = 16
    """Or one each for rows and columns."""
    least = 1
    """Images are at least so many strides high and wide; InstanceNorm needs more than one value."""

    def forward(self, image: Tensor) -> Tensor | list[Tensor]:
        """Segment a batch of images.

        Args:
            image: (B, in_channels, H, W) normalised images.

        Returns:
            (B, num_classes, H, W) logits; in training of some networks a list of such, coarser ones
            behind the first.
        """
        height, width = image.shape[-2:]
        strides = (self.stride, self.stride) if isinstance(self.stride, int) else self.stride
        fitting = [
            max(side + -side % stride, self.least * stride)
            for side, stride in zip((height, width), strides, strict=True)
        ]
        output = self.segment(crop_or_pad(image, *fitting))
        if isinstance(output, Tensor):
            return crop_or_pad(output, height, width)
        return [
            crop_or_pad(
                logits,
                math.ceil(height * logits.shape[-2] / fitting[0]),
                math.ceil(width * logits.shape[-1] / fitting[1]),
            )
            for logits in output
        ]

    def segment(self, image: Tensor) -> Tensor | list[Tensor]:
        """The logits of images whose sides are multiples of `stride`."""
        raise NotImplementedError


class Residual(nn.Module):
    """x + f(x)."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """Add what the layers make of a map (B, C, H, W) to it."""
        return x + self.layers(x)


class UpConvolution(nn.Sequential):
    """Twice the size, then conv 3×3, BN, ReLU.

    Args:
        in_channels: Channels of the map.
        out_channels: Channels of the result.
        mode: Of the interpolation; see `nn.Upsample`.
        align_corners: The same, for bilinear.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        mode: str = "nearest",
        align_corners: bool | None = None,
    ) -> None:
        super().__init__(
            nn.Upsample(scale_factor=2, mode=mode, align_corners=align_corners),
            *convolution(in_channels, out_channels),
        )


class ChannelNorm(nn.LayerNorm):
    """LayerNorm over the channels of a map (B, C, H, W)."""

    def forward(self, x: Tensor) -> Tensor:
        """The normalised map, of the shape of x."""
        return super().forward(x.movedim(1, -1)).movedim(-1, 1)


def convolution(
    in_channels: int, out_channels: int, kernel: int = 3, stride: int = 1, bias: bool = True
) -> nn.Sequential:
    """Conv, BN, ReLU at the same size, or at 1/stride of it."""
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel, stride, kernel // 2, bias=bias),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
    )


def double_convolution(in_channels: int, out_channels: int, bias: bool = True) -> nn.Sequential:
    """Twice (conv 3×3, BN, ReLU): the block of the U-Net."""
    return nn.Sequential(
        *convolution(in_channels, out_channels, bias=bias),
        *convolution(out_channels, out_channels, bias=bias),
    )


def pyramid(image: Tensor, stages: Iterable[nn.Module]) -> list[Tensor]:
    """The features of stages in a row with max-pool 2 between them, from the image's size down."""
    features: list[Tensor] = []
    for stage in stages:
        features.append(stage(F.max_pool2d(features[-1], 2) if features else image))
    return features


def depthwise(channels: int, kernel: int) -> nn.Conv2d:
    """A convolution of each channel by itself, at the same size."""
    return nn.Conv2d(channels, channels, kernel, padding=kernel // 2, groups=channels)


def mixer(channels: int, kernel: int) -> Residual:
    """The spatial half of a ConvMixer layer: x + BN(GELU(depthwise x))."""
    return Residual(depthwise(channels, kernel), nn.GELU(), nn.BatchNorm2d(channels))


def inverted(channels: int, expansion: int = 4, out_channels: int | None = None) -> nn.Sequential:
    """Conv 1×1 to ``expansion`` times the result's width, GELU, BN; conv 1×1 back, GELU, BN."""
    out_channels = out_channels or channels
    hidden = expansion * out_channels
    return nn.Sequential(
        nn.Conv2d(channels, hidden, 1),
        nn.GELU(),
        nn.BatchNorm2d(hidden),
        nn.Conv2d(hidden, out_channels, 1),
        nn.GELU(),
        nn.BatchNorm2d(out_channels),
    )


def mixer_stage(
    in_channels: int, out_channels: int, depth: int, kernel: int, residual: bool
) -> nn.Sequential:
    """Layers of a `mixer` and an `inverted` bottleneck, then conv 3×3, BN, ReLU to a new width.

    Args:
        in_channels: Channels of the map and of the layers.
        out_channels: Channels of the result.
        depth: How many layers.
        kernel: Of the depthwise convolutions.
        residual: Add the input of each bottleneck to its result.
    """
    layers: list[nn.Module] = []
    for _ in range(depth):
        layers.append(mixer(in_channels, kernel))
        bottleneck = inverted(in_channels)
        layers.append(Residual(bottleneck) if residual else bottleneck)
    return nn.Sequential(*layers, convolution(in_channels, out_channels))


def initialize_tokens(network: nn.Module) -> None:
    """Weights of tokenised stages: linear normal 0.02 (truncated), conv normal √(2/fan_out)."""
    for module in network.modules():
        if isinstance(module, nn.Linear):
            nn.init.trunc_normal_(module.weight, std=0.02)
        elif isinstance(module, nn.Conv2d):
            fan_out = math.prod(module.kernel_size) * module.out_channels // module.groups
            nn.init.normal_(module.weight, std=math.sqrt(2 / fan_out))
        else:
            continue
        if module.bias is not None:
            nn.init.zeros_(module.bias)
