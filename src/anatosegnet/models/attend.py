"""Exact softmax attention whose memory grows with the number of tokens, not with its square.

``attend`` gives the same numbers on every device. On CUDA it is PyTorch's own
``scaled_dot_product_attention``. The fused CPU kernels of that function want queries and values
of one width; ours differ (the differences and the row codes ride in queries and keys), and it
would fall back to a kernel that keeps the N×N matrices of all heads for the backward pass. On
the CPU the queries are therefore taken in blocks, and the weights of a block are computed again
in the backward pass.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

BLOCK_BYTES = 8 * 2**20
"""Size of the weights of one block of queries, over all images and heads."""


def attend(
    query: Tensor, key: Tensor, value: Tensor, scale: float, slope: Tensor | None = None
) -> Tensor:
    """softmax(scale · query keyᵀ - slope·|i - j|) value.

    Args:
        query: (B, heads, N, D).
        key: (B, heads, N, D).
        value: (B, heads, N, d).
        scale: Of the dot products.
        slope: (heads,) or (1,): loss per step of distance between the indices of query and key.

    Returns:
        (B, heads, N, d).
    """
    exporting = (  # into a graph, which holds no function of our own
        torch.compiler.is_exporting() or torch.onnx.is_in_onnx_export() or torch.jit.is_tracing()
    )
    if query.device.type == "cpu" and not exporting:
        return _BlockedAttention.apply(query, key, value, scale, slope)
    mask = None
    if slope is not None:
        mask = raster_bias(slope, 0, query.shape[-2], query.shape[-2]).to(query.dtype)
    return F.scaled_dot_product_attention(query, key, value, mask, scale=scale)


def attention_weights(
    query: Tensor, key: Tensor, scale: float, slope: Tensor | None = None
) -> Tensor:
    """The weights that `attend` gives the values: (B, heads, N, N), at least float32."""
    return _weights(query, key, scale, slope, 0)


def raster_bias(slope: Tensor, start: int, stop: int, tokens: int) -> Tensor:
    """-slope·|i - j| for queries i in start..stop-1 and all keys j: (heads, stop-start, N)."""
    i = torch.arange(start, stop, device=slope.device)
    j = torch.arange(tokens, device=slope.device)
    # at least float32: half precision would round the distances of far tokens together
    distance = (i[:, None] - j).abs().to(torch.promote_types(slope.dtype, torch.float32))
    return -slope[:, None, None] * distance


def _weights(query: Tensor, key: Tensor, scale: float, slope: Tensor | None, start: int) -> Tensor:
    """Softmax weights (B, heads, n, N), at least float32, of the n queries from start on."""
    exact = torch.promote_types(query.dtype, torch.float32)
    scores = _product(query, key.transpose(-1, -2), scale)
    if slope is not None:
        scores = scores + raster_bias(slope, start, start + query.shape[-2], key.shape[-2])
    return torch.softmax(scores, dim=-1, dtype=exact)


def _product(left: Tensor, right: Tensor, scale: float) -> Tensor:
    """Scale · left right over the last two axes, scaled inside the matrix product."""
    first, second = left.flatten(0, 1), right.flatten(0, 1)
    nothing = left.new_empty(())  # beta = 0: not read
    product = torch.baddbmm(nothing, first, second, beta=0, alpha=scale)
    return product.unflatten(0, left.shape[:2])


class _BlockedAttention(torch.autograd.Function):
    """`attend` for one block of queries after another; keeps its inputs, not the weights."""

    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, scale: float, slope: Tensor | None
    ) -> Tensor:
        ctx.save_for_backward(query, key, value, slope)
        ctx.scale = scale
        output = torch.empty_like(value)
        for rows in _blocks(query):
            weights = _weights(query[..., rows, :], key, scale, slope, rows.start)
            output[..., rows, :] = weights.to(value.dtype) @ value
        return output

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, slope = ctx.saved_tensors
        (d_output,) = gradients
        d_query = torch.empty_like(query)
        d_key, d_value = torch.zeros_like(key), torch.zeros_like(value)
        d_slope = torch.zeros_like(slope) if ctx.needs_input_grad[4] else None
        for rows in _blocks(query):
            block, d_block = query[..., rows, :], d_output[..., rows, :]
            weights = _weights(block, key, ctx.scale, slope, rows.start)
            _add_product(d_value, weights.to(value.dtype).transpose(-1, -2), d_block)
            d_weights = (d_block @ value.transpose(-1, -2)).to(weights.dtype)
            d_scores = torch.ops.aten._softmax_backward_data(d_weights, weights, -1, weights.dtype)
            if d_slope is not None:
                slopes = raster_bias(torch.ones_like(slope), rows.start, rows.stop, key.shape[-2])
                per_head = (d_scores * slopes).sum((0, 2, 3))
                d_slope += per_head if len(slope) > 1 else per_head.sum()
            d_scores = d_scores.to(key.dtype)
            d_query[..., rows, :] = _product(d_scores, key, ctx.scale)
            _add_product(d_key, d_scores.transpose(-1, -2), block, ctx.scale)
        return d_query, d_key, d_value, None, d_slope


def _add_product(total: Tensor, left: Tensor, right: Tensor, scale: float = 1.0) -> None:
    """Add scale · left right to total, without a temporary of its size."""
    total.flatten(0, 1).baddbmm_(left.flatten(0, 1), right.flatten(0, 1), alpha=scale)


def _blocks(query: Tensor) -> list[slice]:
    """Blocks of queries; N keys each."""
    B, heads, N, _ = query.shape
    size = max(32, BLOCK_BYTES // (4 * B * heads * N))
    return [slice(start, min(start + size, N)) for start in range(0, N, size)]
