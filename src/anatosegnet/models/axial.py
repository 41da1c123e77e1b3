"""Gated axial attention (Valanarasu et al., MICCAI 2021): along the columns, then the rows."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from anatosegnet.models.blocks import convolution

HEADS = 8
GATES = (0.1, 0.1, 0.1, 1.0)
"""At the start: of the queries' and the keys' positions, the values' positions, the values."""


class AxialBlock(nn.Module):
    """A bottleneck block whose middle is attention along columns and rows.

    Args:
        in_channels: Channels of the map.
        width: Channels inside; the result has twice as many.
        stride: Of the result.
        length: Longest column or row that attention knows relative positions in; None: it
            knows no positions.

    Shape:
        (B, in_channels, H, W) -> (B, 2·width, H/stride, W/stride).
    """

    def __init__(self, in_channels: int, width: int, stride: int, length: int | None) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            convolution(in_channels, width, kernel=1, bias=False),
            AxialAttention(width, -2, length),
            AxialAttention(width, -1, length),
            nn.AvgPool2d(stride),
            nn.ReLU(inplace=True),
            nn.Conv2d(width, 2 * width, 1, bias=False),
            nn.BatchNorm2d(2 * width),
        )
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1 or in_channels != 2 * width:
            self.shortcut = nn.Sequential(
                nn.Conv2d(in_channels, 2 * width, 1, stride, bias=False),
                nn.BatchNorm2d(2 * width),
            )

    def forward(self, x: Tensor) -> Tensor:
        """Attend and add."""
        return F.relu(self.layers(x) + self.shortcut(x))


class AxialAttention(nn.Module):
    """Self-attention of each column (axis -2) or row (axis -1) with itself, 8 heads.

    With relative positions r, learned for queries, keys and values, and gates G::

        S   = BN(q·k) + BN(G₁ q·r_q) + BN(G₂ k·r_k)
        out = BN(G₄ softmax(S)·v) + BN(G₃ softmax(S)·r_v)

    Args:
        channels: Of the map; queries and keys have half as many.
        axis: -2 or -1.
        length: Most pixels along the axis, or None for no positions and no gates.

    Shape:
        (B, channels, H, W) -> the same.
    """

    def __init__(self, channels: int, axis: int, length: int | None) -> None:
        super().__init__()
        self.axis, self.length = axis, length
        d = channels // HEADS
        self.widths = (d // 2, d // 2, d)  # of a query, a key, a value
        self.qkv = nn.Conv1d(channels, 2 * channels, 1, bias=False)
        self.qkv_norm = nn.BatchNorm1d(2 * channels)
        self.scores_norm = nn.BatchNorm2d(HEADS if length is None else 3 * HEADS)
        self.output_norm = nn.BatchNorm1d(channels if length is None else 2 * channels)
        nn.init.normal_(self.qkv.weight, std=channels**-0.5)
        if length is not None:
            self.positions = nn.Parameter(torch.randn(2 * d, 2 * length - 1) * d**-0.5)
            self.gates = nn.Parameter(torch.tensor(GATES))

    def forward(self, x: Tensor) -> Tensor:
        """Attend along the axis."""
        lines = x.transpose(1, 2) if self.axis == -1 else x.permute(0, 3, 1, 2)  # (B, n, C, L)
        B, n, C, L = lines.shape
        qkv = self.qkv_norm(self.qkv(lines.flatten(0, 1))).unflatten(1, (HEADS, -1))
        query, key, value = qkv.split(self.widths, dim=2)  # each (B·n, heads, ·, L)
        scores = [torch.einsum("ngci,ngcj->ngij", query, key)]
        if self.length is not None:
            r_query, r_key, r_value = self._relative(L)
            scores.append(self.gates[0] * torch.einsum("ngci,cij->ngij", query, r_query))
            scores.append(self.gates[1] * torch.einsum("ngcj,cji->ngij", key, r_key))
        normed = self.scores_norm(torch.cat(scores, dim=1))
        weights = normed.unflatten(1, (-1, HEADS)).sum(1).softmax(-1)
        outputs = [torch.einsum("ngij,ngcj->ngci", weights, value)]
        if self.length is not None:
            located = torch.einsum("ngij,cij->ngci", weights, r_value)
            outputs = [self.gates[3] * outputs[0], self.gates[2] * located]
        joined = torch.cat(outputs, dim=1).flatten(1, 2)  # (B·n, C or 2·C, L)
        result = self.output_norm(joined).reshape(B, n, -1, C, L).sum(2)
        return result.transpose(1, 2) if self.axis == -1 else result.permute(0, 2, 3, 1)

    def _relative(self, length: int) -> tuple[Tensor, ...]:
        """Positions of pixel i relative to j for queries, keys and values: (·, L, L) each."""
        assert self.length is not None
        i = torch.arange(length, device=self.positions.device)
        return self.positions[:, i[:, None] - i + self.length - 1].split(self.widths)
