"""nnU-Net's residual-encoder U-Net (Isensee et al., Nature Methods 2021, MICCAI 2024)."""

import math
from collections.abc import Sequence

from torch import Tensor, nn

from anatosegnet.errors import UserError
from anatosegnet.models.libraries import LibraryNetwork, library

SMALLEST = 4
"""The deepest map has at least so many rows and columns."""
BLOCKS = (1, 3, 4, 6)
"""Residual blocks of the stages; all the deeper ones have as many as the last."""


class PlannedNetwork(LibraryNetwork):
    """A network whose stages are planned for its images; see `planned_strides`.

    Attributes:
        strides: Of its stages.
    """

    least = 2

    def __init__(self, image_size: int | Sequence[int]) -> None:
        super().__init__()
        self.strides = planned_strides(image_size)
        rows, columns = zip(*self.strides, strict=True)
        self.stride = math.prod(rows), math.prod(columns)


class NNUNet(PlannedNetwork):
    """nnU-Net's ``ResidualEncoderUNet`` as nnU-Net v2 plans it for a 2-D patch.

    Its presets M, L and XL differ in patch size and batch size alone. Widths are 32·2^i up to
    512, with InstanceNorm and LeakyReLU; weights start as nnU-Net starts them. In training it gives
    the logits of all levels of the decoder but the deepest, whose weight nnU-Net sets to zero.

    Args:
        num_classes: Channels of the logits: 2 (background, lesion), or 1 (lesion).
        in_channels: Channels of the image.
        image_size: Edge, or height and width, of the images to plan for, in pixels.

    Shape:
        (B, in_channels, H, W) -> logits (B, num_classes, H, W); in training a list of them and
        of (B, num_classes, H/2^i, W/2^i).

    Raises:
        UserError: The images are too small to plan for, or the library is missing.
    """

    def __init__(
        self, num_classes: int = 2, in_channels: int = 3, image_size: int | Sequence[int] = 256
    ) -> None:
        super().__init__(image_size)
        stages = len(self.strides)
        unet = library("dynamic_network_architectures.architectures.unet")
        self.network = unet.ResidualEncoderUNet(
            input_channels=in_channels,
            num_classes=num_classes,
            n_stages=stages,
            strides=self.strides,
            kernel_sizes=3,
            features_per_stage=[min(32 * 2**level, 512) for level in range(stages)],
            n_blocks_per_stage=[*BLOCKS, *[BLOCKS[-1]] * stages][:stages],
            n_conv_per_stage_decoder=1,
            conv_op=nn.Conv2d,
            conv_bias=True,
            norm_op=nn.InstanceNorm2d,
            norm_op_kwargs={"eps": 1e-5, "affine": True},
            nonlin=nn.LeakyReLU,
            nonlin_kwargs={"inplace": True},
            deep_supervision=True,
        )
        self.network.apply(self.network.initialize)
        self.network.decoder.seg_layers[0] = nn.Identity()  # of the deepest level

    def segment(self, image: Tensor) -> Tensor | list[Tensor]:
        """The logits of images whose sides are multiples of `stride`."""
        *outputs, _ = self.network(image)
        return outputs if self.training else outputs[0]


def planned_strides(image_size: int | Sequence[int]) -> list[tuple[int, int]]:
    """The strides of nnU-Net v2's stages for images of one spacing, the first being 1.

    Each stage halves the sides that leave at least `SMALLEST` rows and columns; a side alone is
    halved only from three times that on (``get_pool_and_conv_props`` of nnunetv2).

    Args:
        image_size: Edge, or height and width, in pixels.

    Raises:
        UserError: They allow less than two stages below the first.
    """
    sides = [image_size, image_size] if isinstance(image_size, int) else list(image_size)
    strides = [(1, 1)]
    while True:
        halved = [side >= 2 * SMALLEST for side in sides]
        if not any(halved) or (sum(halved) == 1 and max(sides) < 3 * SMALLEST):
            break
        rows, columns = (2 if half else 1 for half in halved)
        strides.append((rows, columns))
        sides = [math.ceil(sides[0] / rows), math.ceil(sides[1] / columns)]
    if len(strides) < 3:
        raise UserError(
            f"image_size={image_size} is too small for this network: 16 pixels and more"
        )
    return strides
