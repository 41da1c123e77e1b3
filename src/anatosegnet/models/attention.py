"""Anatomical attention: multi-head self-attention that knows that breast tissue lies in layers.

Definition (AnatoSegNet, ISBI 2025; N = H·W tokens in row-major order, d = C/heads)::

    S   = ( Q(x)K(x)ᵀ + Q(Δₕx)K(Δₕx)ᵀ + Q(Δᵥx)K(Δᵥx)ᵀ ) / √d + G
    out = proj( softmax(S) · V(x) )

Δₕ and Δᵥ are forward differences along the width and the height. G is the bias matrix:
``rows`` G_ij = β - γ·|y_i - y_j|, ``raster`` G_ij = β - γ·|i - j|, ``none`` G = 0.

The word "differential" means these image differences. It has nothing to do with Microsoft's
"Differential Transformer", which subtracts two softmax maps.
"""

import math
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from anatosegnet.models.attend import attend, attention_weights

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
    length = x.shape[axis] - 1
    # torch.diff, which older exporters to ONNX lack: to the bit, in the gradients' sums too
    here, there = x.narrow(axis, 0, length), x.narrow(axis, 1, length)
    difference = there - here
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


def row_codes(height: int, width: int, like: Tensor) -> Tensor:
    """Codes of ±1 whose dot products tell the distance in rows.

    Code r of a token in row y is +1 if y > r, else -1, so two tokens disagree in as many codes
    as rows lie between them: t_i · t_j = (H - 1) - 2·|y_i - y_j|. One more entry, 1 for keys,
    lets the query take the constant H - 1 away, so that low precision is spent on the distance.
    All entries are exact in half precision.

    Args:
        height: H of the map.
        width: W of the map.
        like: Gives dtype and device.

    Returns:
        (N, H), N = height·width: H - 1 codes and a last column of ones.
    """
    rows = torch.arange(height, device=like.device)
    codes = torch.where(rows[:, None] > rows[: height - 1], 1.0, -1.0)
    codes = torch.cat([codes, torch.ones_like(rows, dtype=codes.dtype)[:, None]], dim=1)
    return codes.repeat_interleave(width, dim=0).to(like.dtype)


class AnatomicalAttention(nn.Module):
    """Multi-head self-attention on a feature map, its differences, and a tissue-layer bias.

    There is no residual connection and no normalisation: the output replaces the features. No
    N×N matrix is kept for the backward pass (on the CPU none is ever made; see `attend`).

    Args:
        dim: Channels C of the feature map.
        num_heads: Heads; must divide dim.
        bias: ``rows`` = distance in rows (the described bias), ``raster`` = distance of the
            flattened indices (what the released code computes), ``none``.
        differential: ``spatial`` = differences of the feature map (the described ones),
            ``released`` = those of the released code (see `released_differences`), ``none``.
        gamma: Strength γ ≥ 0 of the bias, in logits per row (or per raster step).
        beta: Additive constant β of the bias. Softmax ignores it, and so does this module; it
            is kept so that a released configuration can be written down.
        learn_gamma: Learn one γ per head, starting at ``gamma`` and always positive.

    Shape:
        (B, dim, H, W) -> (B, dim, H, W), any H and W.

    Raises:
        ValueError: num_heads does not divide dim, gamma is negative, a name is unknown, or a γ
            is to be learned that has no effect or starts at 0.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int = 8,
        bias: Bias = "rows",
        differential: Differential = "spatial",
        gamma: float = 1.0,
        beta: float = 0.0,
        learn_gamma: bool = False,
        spread: float = 1.0,
        unit: str = "rows",
        local: bool = False,
    ) -> None:
        super().__init__()
        if num_heads < 1 or dim % num_heads:
            raise ValueError(f"attention heads={num_heads} must divide the {dim} channels")
        if bias not in get_args(Bias):
            raise ValueError(f"attention bias={bias!r} must be one of {', '.join(get_args(Bias))}")
        if differential not in get_args(Differential):
            names = ", ".join(get_args(Differential))
            raise ValueError(f"attention differential={differential!r} must be one of {names}")
        if gamma < 0:
            raise ValueError(f"attention gamma={gamma} must not be negative")
        if learn_gamma and (bias == "none" or gamma == 0):
            raise ValueError("attention learn_gamma=true needs a bias and a gamma above 0")
        self.num_heads = num_heads
        self.bias = bias
        self.differential = differential
        self.gamma = gamma
        self.beta = beta
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.proj = nn.Linear(dim, dim)
        self.raw_gamma: nn.Parameter | None = None
        if learn_gamma:  # γ = softplus(raw): positive, and about linear where it matters
            g = gamma * torch.logspace(-1, 1, num_heads, base=spread)
            raw = g + torch.log(-torch.expm1(-g))
            self.raw_gamma = nn.Parameter(raw)
        self.unit = unit
        self.local = nn.Conv2d(dim, dim, 3, padding=1, groups=dim) if local else None

    def extra_repr(self) -> str:
        """The settings, for ``print(model)``."""
        return (
            f"num_heads={self.num_heads}, bias={self.bias}, differential={self.differential}, "
            f"gamma={self.gamma}, beta={self.beta}, learn_gamma={self.raw_gamma is not None}"
        )

    def gammas(self) -> Tensor:
        """γ of the heads: (heads,) where it is learned, else (1,); at least float32."""
        if self.raw_gamma is not None:
            return F.softplus(self.raw_gamma)
        exact = torch.promote_types(self.qkv.weight.dtype, torch.float32)
        return torch.full((1,), self.gamma, dtype=exact, device=self.qkv.weight.device)

    def forward(self, x: Tensor) -> Tensor:
        """Attend over all positions of the map.

        Args:
            x: (B, dim, H, W) features.

        Returns:
            (B, dim, H, W) attended features.
        """
        _, C, H, W = x.shape
        query, key, value, slope = self.query_key_value(x)
        attended = attend(query, key, value, (C // self.num_heads) ** -0.5, slope)
        tokens = attended.transpose(1, 2).flatten(2)  # (B, heads, N, d) -> (B, N, C)
        if self.local is not None:
            v = value.transpose(1, 2).flatten(2).transpose(1, 2).unflatten(2, (H, W))
            tokens = tokens + self.local(v).flatten(2).transpose(1, 2)
        # (B, N, C) -> (B, C, H, W) without a copy: the memory format is channels_last
        return self.proj(tokens).transpose(1, 2).unflatten(2, (H, W))

    @torch.no_grad()
    def attention_map(self, x: Tensor) -> Tensor:
        """Where each position looks: (B, dim, H, W) -> weights (B, heads, N, N), rows sum to 1.

        For inspection; this does make the N×N matrices.
        """
        query, key, _, slope = self.query_key_value(x)
        return attention_weights(query, key, (x.shape[1] // self.num_heads) ** -0.5, slope)

    def query_key_value(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """Queries and keys with their differences and row codes side by side, and values.

        Three dot products of width d are one of width 3d on concatenated vectors, and the row
        bias is one more of width H. For ``spatial``, Q(Δx) = ΔQ(x) because the projection is
        linear and has no bias, so the features are projected once and the differences taken
        after it.

        Args:
            x: (B, dim, H, W) features.

        Returns:
            query and key (B, heads, N, D), value (B, heads, N, d), and the slope of the raster
            bias (None for the others). D = d, plus 2d with differences, plus H with row codes.
        """
        _, C, H, W = x.shape
        tokens = x.flatten(2).transpose(1, 2)  # (B, C, H, W) -> (B, N, C)
        query, key, value = self._split_heads(self.qkv(tokens), 3)  # rows ordered q, k, v
        value = value.contiguous()  # else it would keep the whole projection in memory
        queries, keys = [query], [key]
        if self.differential == "spatial":
            for parts, projected in ((queries, query), (keys, key)):
                maps = projected.unflatten(2, (H, W))  # (B, heads, H, W, d)
                parts += [forward_difference(maps, axis).flatten(2, 3) for axis in (-2, -3)]
        elif self.differential == "released":
            weight = self.qkv.weight[: 2 * C]
            for difference in released_differences(tokens, H, W):
                q, k = self._split_heads(F.linear(difference, weight), 2)
                queries.append(q)
                keys.append(k)
        slope = None
        if self.bias == "raster":
            slope = self.gammas()
        elif self.bias == "rows":
            codes = row_codes(H, W, query)
            # γ/2 of each code, and back to 0 for tokens of one row; attend() divides by √d
            strength = (self.gammas() * ((16 / H) if self.unit == "height" else 1.0) * (0.5 * (C // self.num_heads) ** 0.5)).to(query.dtype)
            coded = codes.new_tensor([1.0] * (H - 1) + [-(H - 1.0)]) * codes
            queries.append((strength[:, None, None] * coded).expand(*query.shape[:3], -1))
            keys.append(codes.expand(*key.shape[:3], -1))
        return torch.cat(queries, dim=-1), torch.cat(keys, dim=-1), value, slope

    def _split_heads(self, projected: Tensor, parts: int) -> tuple[Tensor, ...]:
        """(B, N, parts·C) -> ``parts`` tensors (B, heads, N, d)."""
        B, N, channels = projected.shape
        d = channels // parts // self.num_heads
        return projected.reshape(B, N, parts, self.num_heads, d).permute(2, 0, 3, 1, 4).unbind(0)
