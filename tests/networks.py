"""Networks small enough to train in a test."""

import torch
from torch import Tensor, nn


class Tiny(nn.Module):
    """What a resume may forget, in one small network: batch statistics and dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 6, 5, padding=2), nn.BatchNorm2d(6), nn.ReLU(), nn.Dropout(0.3),
            nn.Conv2d(6, 2, 1),
        )  # fmt: skip

    def forward(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, 2, H, W)."""
        return self.layers(image)


class Plain(nn.Module):
    """Each image goes its own way: no batch statistics, nothing drawn."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 6, 5, padding=2), nn.ReLU(), nn.Conv2d(6, 2, 1))

    def forward(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, 2, H, W)."""
        return self.layers(image)


class Deep(Plain):
    """In training a second, coarser output beside the logits; two channels, or one."""

    def __init__(self, channels: int = 2) -> None:
        super().__init__()
        self.layers[2] = nn.Conv2d(6, channels, 1)
        self.coarse = nn.Conv2d(6, channels, 2, stride=2)

    def forward(self, image: Tensor) -> Tensor | list[Tensor]:
        """(B, 3, H, W) -> (B, K, H, W), in training with (B, K, H/2, W/2) behind it."""
        features = self.layers[:2](image)
        logits = self.layers[2](features)
        return [logits, self.coarse(features)] if self.training else logits


def fill(value: float) -> nn.Module:
    """A network whose weights are all one value; NaN gives NaN losses."""
    network = Plain()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.fill_(value)
    return network
