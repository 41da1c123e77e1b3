"""Medical Transformer (Valanarasu et al., MICCAI 2021) as the public 2-D benchmark has it."""

import math
from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from anatosegnet.errors import UserError
from anatosegnet.models.axial import AxialBlock
from anatosegnet.models.blocks import PaddedNetwork, convolution
from anatosegnet.models.decoder import crop_or_pad

WIDTHS = (16, 32, 64, 128)
"""Channels inside the blocks of each level; twice as many between them."""
DEPTHS = (1, 2, 4, 1)
GRID = 4
"""The local branch sees so many rows and columns of patches."""
PATCH_STRIDE = 32


class MedT(PaddedNetwork):
    """Medical Transformer: a shallow branch on the image, a deep one on its patches, added.

    Only the shallow branch knows relative positions, as far apart as the image size that the
    network is built for has them. All patches pass the deep branch in one batch.

    Args:
        num_classes: Channels of the logits: 2 (background, lesion), or 1 (lesion).
        in_channels: Channels of the image.
        image_size: Edge, or height and width, of the largest images it takes, in pixels.
        patch_size: Edge of the patches, a multiple of 32 pixels. The 4×4 patches start at the
            upper left corner; what they do not cover, the deep branch does not see. None: as
            large as it takes to cover the image.

    Shape:
        (B, in_channels, H, W), not larger than ``image_size`` -> logits (B, num_classes, H, W).

    Raises:
        ValueError: The patches' size is no multiple of 32.
        UserError: An image is larger.
    """

    stride = 4

    def __init__(
        self,
        num_classes: int = 2,
        in_channels: int = 3,
        image_size: int | Sequence[int] = 256,
        patch_size: int | None = 32,
    ) -> None:
        super().__init__()
        self.image_size = (
            [image_size, image_size] if isinstance(image_size, int) else list(image_size)
        )
        longest = max(self.image_size)
        if patch_size is None:
            patch_size = math.ceil(longest / (GRID * PATCH_STRIDE)) * PATCH_STRIDE
        if patch_size < PATCH_STRIDE or patch_size % PATCH_STRIDE:
            raise ValueError(f"patch_size={patch_size} must be a multiple of {PATCH_STRIDE}")
        self.covered = GRID * patch_size
        half = (longest + -longest % self.stride) // 2  # longest side of the stem's map
        self.image_branch = Branch(in_channels, 8, [[half], [half, half // 2]])
        self.patch_branch = Branch(in_channels, 64, [[None] * depth for depth in DEPTHS])
        self.last = nn.Conv2d(WIDTHS[0], WIDTHS[0], 3, padding=1)
        self.head = nn.Conv2d(WIDTHS[0], num_classes, 1)

    def segment(self, image: Tensor) -> Tensor:
        """The logits of images whose sides are multiples of 4."""
        height, width = image.shape[-2:]
        limits = [side + -side % self.stride for side in self.image_size]
        if height > limits[0] or width > limits[1]:
            raise UserError(
                f"this network takes images up to {self.image_size[0]}×{self.image_size[1]} "
                "pixels; train it with a larger model.image_size=…"
            )
        patches = to_patches(crop_or_pad(image, self.covered, self.covered))
        local = from_patches(self.patch_branch(patches))
        x = self.image_branch(image) + crop_or_pad(local, height, width)
        return self.head(F.relu(self.last(x)))


class Branch(nn.Module):
    """A U-shape of axial attention, skips added; its stem halves the map.

    A branch of all four levels has a convolution at half the size of the deepest one below it.

    Args:
        in_channels: Channels of the image.
        width: Of the stem.
        lengths: Of each block of each level; see `AxialBlock`.

    Shape:
        (B, in_channels, H, W) -> (B, 16, H, W).
    """

    def __init__(
        self, in_channels: int, width: int, lengths: Sequence[Sequence[int | None]]
    ) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            *convolution(in_channels, width, kernel=7, stride=2, bias=False),
            *convolution(width, 128, bias=False),
            *convolution(128, width, bias=False),
        )
        self.encoder, self.decoder = nn.ModuleList(), nn.ModuleList()
        for level, of_blocks in enumerate(lengths):
            stage = nn.Sequential()
            for block, length in enumerate(of_blocks):
                stride = 2 if level > 0 and block == 0 else 1
                stage.append(AxialBlock(width, WIDTHS[level], stride, length))
                width = 2 * WIDTHS[level]
            self.encoder.append(stage)
            self.decoder.insert(0, nn.Conv2d(width, WIDTHS[level], 3, padding=1))
        self.bottom: nn.Module | None = None
        if len(lengths) == len(WIDTHS):
            self.bottom = nn.Conv2d(width, width, 3, stride=2, padding=1)

    def forward(self, image: Tensor) -> Tensor:
        """Features at the image's size."""
        x, features = self.stem(image), []
        for stage in self.encoder:
            x = stage(x)
            features.append(x)
        if self.bottom is not None:
            x = _resized(self.bottom(x), x) + x
        features.pop()
        for stage in self.decoder:
            x = stage(x)
            x = _resized(x, features[-1]) + features.pop() if features else _resized(x, image)
        return x


def to_patches(image: Tensor) -> Tensor:
    """(B, C, 4h, 4w) -> (16·B, C, h, w)."""
    patches = image.unflatten(-2, (GRID, -1)).unflatten(-1, (GRID, -1))  # (B, C, 4, h, 4, w)
    return patches.permute(2, 4, 0, 1, 3, 5).flatten(0, 2)


def from_patches(patches: Tensor) -> Tensor:
    """(16·B, C, h, w) -> (B, C, 4h, 4w)."""
    grid = patches.unflatten(0, (GRID, GRID, -1))  # (4, 4, B, C, h, w)
    return grid.permute(2, 3, 0, 4, 1, 5).flatten(-2).flatten(-3, -2)


def _resized(x: Tensor, like: Tensor) -> Tensor:
    return F.relu(F.interpolate(x, like.shape[-2:], mode="bilinear"))
