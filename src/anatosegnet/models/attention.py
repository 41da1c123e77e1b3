"""Anatomical attention: multi-head self-attention that knows that breast tissue lies in layers.

Definition (AnatoSegNet, ISBI 2025; N = H·W tokens in row-major order, d = C/heads)::

    S   = ( Q(x)K(x)ᵀ + Q(Δₕx)K(Δₕx)ᵀ + Q(Δᵥx)K(Δᵥx)ᵀ ) / √d + G
    out = proj( softmax(S) · V(x) )

Δₕ and Δᵥ are forward differences along the width and the height. G is the bias matrix:
``rows`` G_ij = β - γ·|y_i - y_j|, ``raster`` G_ij = β - γ·|i - j|, ``none`` G = 0.

The word "differential" means these image differences. It has nothing to do with Microsoft's
"Differential Transformer", which subtracts two softmax maps.
"""

from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Bias = Literal["rows", "raster", "none"]
Differential = Literal["spatial", "released", "none"]


def forward_difference(x: Tensor, axis: int) -> Tensor:
    """Forward difference x[i+1] - x[i] along an axis; the last element is 0.

    Args:
        x: Any tensor.
        axis: The axis, counted from the end (negative).

    Returns:
        A tensor of the shape of x.
    """
    difference = torch.diff(x, dim=axis)
    padding = [0, 0] * (-axis - 1) + [0, 1]
    return F.pad(difference, padding)


def released_differences(tokens: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
    """The differences that the authors' released code takes, which are not spatial.

    The (N, C) tokens of an image are flattened in memory order, the flat array is read as
    (C, H, W), differences are taken along its last two axes, and the result is read as (C, N)
    and transposed back. Channels and positions are mixed by the first reinterpretation.

    Args:
        tokens: (B, N, C), N = height·width in row-major order.
        height: H of the map.
        width: W of the map.

    Returns:
        The "horizontal" and the "vertical" difference, each (B, N, C).
    """
    B, N, C = tokens.shape
    # (B, N, C) -> the same memory read as (B, C, H, W): deliberately not a transpose
    image = tokens.reshape(B, C, height, width)
    horizontal = forward_difference(image, -1).reshape(B, C, N).transpose(1, 2)  # (B, N, C)
    vertical = forward_difference(image, -2).reshape(B, C, N).transpose(1, 2)  # (B, N, C)
    return horizontal, vertical


class AnatomicalAttention(nn.Module):
    """Multi-head self-attention on a feature map, its differences, and a tissue-layer bias.

    There is no residual connection and no normalisation: the output replaces the features.

    Args:
        dim: Channels C of the feature map.
        num_heads: Heads; must divide dim.
        bias: ``rows`` = distance in rows (the described bias), ``raster`` = distance of the
            flattened indices (what the released code computes), ``none``.
        differential: ``spatial`` = differences of the feature map (the described ones),
            ``released`` = those of the released code (see `released_differences`), ``none``.
        gamma: Strength γ ≥ 0 of the bias, in logits per row (or per raster step).
        beta: Additive constant β of the bias. Softmax ignores it; it is kept so that a
            released configuration can be written down.

    Shape:
        (B, dim, H, W) -> (B, dim, H, W), any H and W.

    Raises:
        ValueError: num_heads does not divide dim, gamma is negative, or a name is unknown.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int = 8,
        bias: Bias = "rows",
        differential: Differential = "spatial",
        gamma: float = 1.0,
        beta: float = 0.0,
    ) -> None:
        super().__init__()
        if num_heads < 1 or dim % num_heads:
            raise ValueError(f"attention heads={num_heads} must divide the {dim} channels")
        if bias not in get_args(Bias):
            raise ValueError(f"attention bias={bias!r} is none of {', '.join(get_args(Bias))}")
        if differential not in get_args(Differential):
            names = ", ".join(get_args(Differential))
            raise ValueError(f"attention differential={differential!r} is none of {names}")
        if gamma < 0:
            raise ValueError(f"attention gamma={gamma} must not be negative")
        self.num_heads = num_heads
        self.bias = bias
        self.differential = differential
        self.gamma = gamma
        self.beta = beta
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.proj = nn.Linear(dim, dim)

    def extra_repr(self) -> str:
        """The settings, for ``print(model)``."""
        return (
            f"num_heads={self.num_heads}, bias={self.bias}, differential={self.differential}, "
            f"gamma={self.gamma}, beta={self.beta}"
        )

    def bias_matrix(self, height: int, width: int, like: Tensor) -> Tensor | None:
        """The bias matrix G, (N, N) with N = height·width, or None for ``bias="none"``."""
        if self.bias == "none":
            return None
        position = torch.arange(height * width, device=like.device)
        if self.bias == "rows":
            position = position // width
        distance = (position[:, None] - position[None, :]).abs()
        # at least float32: half precision would round the distances of far rows together
        exact = torch.promote_types(like.dtype, torch.float32)
        return (self.beta - self.gamma * distance.to(exact)).to(like.dtype)

    def forward(self, x: Tensor) -> Tensor:
        """Attend over all positions of the map.

        Args:
            x: (B, dim, H, W) features.

        Returns:
            (B, dim, H, W) attended features.
        """
        B, C, H, W = x.shape
        query, key, value = self.query_key_value(x)
        attended = F.scaled_dot_product_attention(
            query,
            key,
            value,
            attn_mask=self.bias_matrix(H, W, query),
            scale=(C // self.num_heads) ** -0.5,
        )
        tokens = attended.transpose(1, 2).reshape(B, H * W, C)  # (B, heads, N, d) -> (B, N, C)
        return self.proj(tokens).transpose(1, 2).reshape(B, C, H, W)

    def query_key_value(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries and keys with their differences side by side, and values.

        Three dot products of width d are one of width 3d on concatenated vectors. For
        ``spatial``, Q(Δx) = ΔQ(x) because the projection is linear and has no bias, so the
        features are projected once and the differences taken after it.

        Args:
            x: (B, dim, H, W) features.

        Returns:
            query and key (B, heads, N, 3d) (d without differences), value (B, heads, N, d).
        """
        B, C, H, W = x.shape
        N, d = H * W, C // self.num_heads
        tokens = x.flatten(2).transpose(1, 2)  # (B, C, H, W) -> (B, N, C)
        # (B, N, 3C) -> (3, B, heads, N, d): the rows of the weight are ordered q, k, v
        query, key, value = self._split_heads(self.qkv(tokens), 3)
        if self.differential == "spatial":
            maps = torch.stack([query, key]).reshape(2 * B, self.num_heads, H, W, d)
            horizontal = forward_difference(maps, -2).reshape(2, B, self.num_heads, N, d)
            vertical = forward_difference(maps, -3).reshape(2, B, self.num_heads, N, d)
            query = torch.cat([query, horizontal[0], vertical[0]], dim=-1)
            key = torch.cat([key, horizontal[1], vertical[1]], dim=-1)
        elif self.differential == "released":
            weight = self.qkv.weight[: 2 * C]
            differences = [
                self._split_heads(F.linear(difference, weight), 2)
                for difference in released_differences(tokens, H, W)
            ]
            query = torch.cat([query, *(q for q, _ in differences)], dim=-1)
            key = torch.cat([key, *(k for _, k in differences)], dim=-1)
        return query, key, value

    def _split_heads(self, projected: Tensor, parts: int) -> tuple[Tensor, ...]:
        """(B, N, parts·C) -> ``parts`` tensors (B, heads, N, d)."""
        B, N, channels = projected.shape
        d = channels // parts // self.num_heads
        return projected.reshape(B, N, parts, self.num_heads, d).permute(2, 0, 3, 1, 4).unbind(0)
