"""Networks of MONAI (Apache-2.0) in 2-D, as it computes them."""

from collections.abc import Sequence

from torch import Tensor

from anatosegnet.models.libraries import LibraryNetwork, library
from anatosegnet.models.nnunet import PlannedNetwork

NETS = "monai.networks.nets"


class MONAIAttentionUNet(LibraryNetwork):
    """MONAI's ``AttentionUnet``: convolutions of stride 2, transposed ones, gated skips.

    Args:
        num_classes: Channels of the logits: 2 (background, lesion), or 1 (lesion).
        in_channels: Channels of the image.
        channels: Of the levels, from the image's size down.

    Shape:
        (B, in_channels, H, W) -> logits (B, num_classes, H, W).
    """

    def __init__(
        self,
        num_classes: int = 2,
        in_channels: int = 3,
        channels: Sequence[int] = (64, 128, 256, 512, 1024),
    ) -> None:
        super().__init__()
        strides = [2] * (len(channels) - 1)
        self.stride = 2 ** len(strides)
        self.network = library(NETS).AttentionUnet(
            spatial_dims=2,
            in_channels=in_channels,
            out_channels=num_classes,
            channels=channels,
            strides=strides,
        )


class SegResNet(LibraryNetwork):
    """MONAI's ``SegResNet``: residual blocks with GroupNorm, bilinear upsampling, added skips.

    Args:
        num_classes: Channels of the logits: 2 (background, lesion), or 1 (lesion).
        in_channels: Channels of the image.
        init_filters: Channels at the image's size; twice as many each level down.
        dropout: Probability that a value of the first map is zeroed in training.

    Shape:
        (B, in_channels, H, W) -> logits (B, num_classes, H, W).
    """

    stride = 8

    def __init__(
        self,
        num_classes: int = 2,
        in_channels: int = 3,
        init_filters: int = 32,
        dropout: float = 0.2,
    ) -> None:
        super().__init__()
        self.network = library(NETS).SegResNet(
            spatial_dims=2,
            init_filters=init_filters,
            in_channels=in_channels,
            out_channels=num_classes,
            dropout_prob=dropout,
        )


class DynUNet(PlannedNetwork):
    """MONAI's ``DynUNet``: the plain U-Net of nnU-Net, planned and supervised as `NNUNet` is.

    Args:
        num_classes: Channels of the logits: 2 (background, lesion), or 1 (lesion).
        in_channels: Channels of the image.
        image_size: Edge, or height and width, of the images to plan for, in pixels.

    Shape:
        (B, in_channels, H, W) -> logits (B, num_classes, H, W); in training a list of them and
        of (B, num_classes, H/2^i, W/2^i).

    Raises:
        UserError: The images are too small to plan for.
    """

    def __init__(
        self, num_classes: int = 2, in_channels: int = 3, image_size: int | Sequence[int] = 256
    ) -> None:
        super().__init__(image_size)
        coarse = len(self.strides) - 3  # all levels of the decoder but the first and the deepest
        self.network = library(NETS).DynUNet(
            spatial_dims=2,
            in_channels=in_channels,
            out_channels=num_classes,
            kernel_size=[3] * len(self.strides),
            strides=self.strides,
            upsample_kernel_size=self.strides[1:],
            deep_supervision=coarse > 0,
            deep_supr_num=max(coarse, 1),
        )

    def segment(self, image: Tensor) -> Tensor | list[Tensor]:
        """The logits of images whose sides are multiples of `stride`.

        MONAI's ``forward`` gives the same, but enlarges the coarse ones and keeps them.
        """
        network, x, skips = self.network, image, []
        for stage in (network.input_block, *network.downsamples):
            x = stage(x)
            skips.append(x)
        x = network.bottleneck(x)
        maps = []
        for stage in network.upsamples:
            x = stage(x, skips.pop())
            maps.append(x)
        logits = network.output_block(maps.pop())
        if not self.training or not network.deep_supervision:
            return logits
        heads = network.deep_supervision_heads
        return [logits, *(head(x) for head, x in zip(heads, reversed(maps), strict=False))]


class SwinUNETR(LibraryNetwork):
    """MONAI's ``SwinUNETR``: a Swin transformer whose features a convolutional decoder joins.

    Args:
        num_classes: Channels of the logits: 2 (background, lesion), or 1 (lesion).
        in_channels: Channels of the image.
        feature_size: Channels at the image's size, a multiple of 12.

    Shape:
        (B, in_channels, H, W) -> logits (B, num_classes, H, W).

    Raises:
        ValueError: ``feature_size`` is no multiple of 12.
        UserError: The package einops, which it needs, is missing.
    """

    stride = 32
    least = 2

    def __init__(self, num_classes: int = 2, in_channels: int = 3, feature_size: int = 48) -> None:
        super().__init__()
        library("einops")  # MONAI would fail in the middle of an image
        self.network = library(NETS).SwinUNETR(
            spatial_dims=2,
            in_channels=in_channels,
            out_channels=num_classes,
            feature_size=feature_size,
        )
