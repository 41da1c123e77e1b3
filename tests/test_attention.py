"""AnatomicalAttention against its definition and the golden numbers of the released code."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from anatosegnet.models.attention import AnatomicalAttention, forward_difference

BIASES = ("rows", "raster", "none")
DIFFERENTIALS = ("spatial", "released", "none")
GOLDEN = Path(__file__).parent / "golden" / "released_attention.npz"


def reference(module: AnatomicalAttention, x: Tensor) -> Tensor:
    """The definition, written with explicit N×N matrices, one image and one head at a time."""
    B, C, H, W = x.shape
    N, heads = H * W, module.num_heads
    d = C // heads
    w_q, w_k, w_v = module.qkv.weight.split(C)
    output = torch.empty(B, N, C, dtype=x.dtype)
    for b in range(B):
        maps = [x[b]]
        if module.differential == "spatial":
            horizontal, vertical = torch.zeros_like(x[b]), torch.zeros_like(x[b])
            horizontal[:, :, :-1] = x[b][:, :, 1:] - x[b][:, :, :-1]
            vertical[:, :-1] = x[b][:, 1:] - x[b][:, :-1]
            maps += [horizontal, vertical]
        inputs = [m.reshape(C, N).T for m in maps]
        if module.differential == "released":
            flat = inputs[0].contiguous().flatten().reshape(C, H, W)
            horizontal, vertical = torch.zeros_like(flat), torch.zeros_like(flat)
            horizontal[:, :, :-1] = flat[:, :, 1:] - flat[:, :, :-1]
            vertical[:, :-1] = flat[:, 1:] - flat[:, :-1]
            inputs += [horizontal.reshape(C, N).T, vertical.reshape(C, N).T]
        for h in range(heads):
            rows = slice(h * d, (h + 1) * d)
            scores = torch.zeros(N, N, dtype=x.dtype)
            for tokens in inputs:
                scores += (tokens @ w_q[rows].T) @ (tokens @ w_k[rows].T).T
            scores /= math.sqrt(d)
            for i in range(N):
                for j in range(N):
                    if module.bias == "rows":
                        scores[i, j] += module.beta - module.gamma * abs(i // W - j // W)
                    elif module.bias == "raster":
                        scores[i, j] += module.beta - module.gamma * abs(i - j)
            values = inputs[0] @ w_v[rows].T
            output[b, :, rows] = scores.softmax(dim=1) @ values
    projected = output @ module.proj.weight.T + module.proj.bias
    return projected.transpose(1, 2).reshape(B, C, H, W)


@pytest.mark.parametrize("bias", BIASES)
@pytest.mark.parametrize("differential", DIFFERENTIALS)
def test_agrees_with_the_definition(bias: str, differential: str) -> None:
    """Breaks if any term of the formula changes; the map is not square on purpose."""
    torch.manual_seed(0)
    module = AnatomicalAttention(12, 3, bias, differential, gamma=0.3, beta=1.5).double()
    x = torch.randn(2, 12, 4, 3, dtype=torch.float64)
    torch.testing.assert_close(module(x), reference(module, x), rtol=0, atol=1e-10)


@pytest.mark.parametrize("bias", BIASES)
@pytest.mark.parametrize("differential", DIFFERENTIALS)
def test_gradients_agree_with_the_definition(bias: str, differential: str) -> None:
    """Breaks if a detached or in-place step falsifies the gradient of input or weights."""
    torch.manual_seed(1)
    module = AnatomicalAttention(8, 2, bias, differential, gamma=0.5).double()
    x = torch.randn(1, 8, 3, 4, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(1, 8, 3, 4, dtype=torch.float64)
    variables = [x, *module.parameters()]
    actual = torch.autograd.grad((module(x) * weight).sum(), variables)
    expected = torch.autograd.grad((reference(module, x) * weight).sum(), variables)
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-10)


def test_reproduces_the_released_code() -> None:
    """Breaks if raster + released stops being the arithmetic of the authors' code."""
    golden = np.load(GOLDEN)
    x = torch.from_numpy(golden["feature_map"])
    module = AnatomicalAttention(
        x.shape[1],
        int(golden["num_heads"]),
        bias="raster",
        differential="released",
        gamma=float(golden["gamma"]),
        beta=float(golden["beta"]),
    ).double()
    module.load_state_dict(
        {
            "qkv.weight": torch.from_numpy(golden["qkv_weight"]),
            "proj.weight": torch.from_numpy(golden["proj_weight"]),
            "proj.bias": torch.from_numpy(golden["proj_bias"]),
        }
    )
    expected = torch.from_numpy(golden["expected"])
    torch.testing.assert_close(module(x), expected, rtol=0, atol=1e-10)


def test_without_bias_and_differences_it_is_softmax_attention() -> None:
    """Breaks if the switched-off parts leave something behind."""
    torch.manual_seed(2)
    module = AnatomicalAttention(16, 4, bias="none", differential="none").double()
    x = torch.randn(2, 16, 5, 6, dtype=torch.float64)
    tokens = x.flatten(2).transpose(1, 2)
    expected, _ = F.multi_head_attention_forward(
        *(tokens.transpose(0, 1),) * 3,
        embed_dim_to_check=16,
        num_heads=4,
        in_proj_weight=module.qkv.weight,
        in_proj_bias=None,
        bias_k=None,
        bias_v=None,
        add_zero_attn=False,
        dropout_p=0.0,
        out_proj_weight=module.proj.weight,
        out_proj_bias=module.proj.bias,
    )
    expected = expected.permute(1, 2, 0).reshape(x.shape)
    torch.testing.assert_close(module(x), expected, rtol=0, atol=1e-10)


def test_every_ablation_changes_the_output() -> None:
    """Breaks if a setting is accepted and then ignored."""
    torch.manual_seed(3)
    x = torch.randn(1, 8, 4, 5)
    settings = [{"bias": b, "differential": d} for b in BIASES for d in DIFFERENTIALS]
    settings += [{"gamma": 0.2}, {"num_heads": 4}]
    outputs = []
    for setting in settings:
        torch.manual_seed(4)
        outputs.append(AnatomicalAttention(8, **{"num_heads": 2, **setting})(x))
    for i, first in enumerate(outputs):
        for second in outputs[:i]:
            assert not torch.allclose(first, second, atol=1e-6)


def test_beta_is_without_effect() -> None:
    """Breaks if the constant stops cancelling in the softmax."""
    torch.manual_seed(5)
    x = torch.randn(1, 8, 4, 5, dtype=torch.float64)
    module = AnatomicalAttention(8, 2).double()
    first = module(x)
    module.beta = 3.5
    torch.testing.assert_close(module(x), first, rtol=0, atol=1e-12)


@pytest.mark.parametrize("bias", BIASES)
@pytest.mark.parametrize("differential", DIFFERENTIALS)
def test_bf16_stays_close(bias: str, differential: str) -> None:
    """Breaks if a bias or difference is taken in a precision that loses the order of rows."""
    torch.manual_seed(6)
    module = AnatomicalAttention(32, 4, bias, differential)
    x = torch.randn(2, 32, 12, 9)
    exact = module(x)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = module(x).float()
    assert (rounded - exact).norm() / exact.norm() < 2e-2


def test_forward_difference_ends_in_zero() -> None:
    """Breaks if the difference becomes backward or circular."""
    x = torch.tensor([[1.0, 4.0, 9.0], [2.0, 2.0, 5.0]])
    assert forward_difference(x, -1).tolist() == [[3, 5, 0], [0, 3, 0]]
    assert forward_difference(x, -2).tolist() == [[1, -2, -4], [0, 0, 0]]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_heads": 3}, "divide"),
        ({"bias": "columns"}, "columns"),
        ({"differential": "diagonal"}, "diagonal"),
        ({"gamma": -1.0}, "gamma"),
    ],
)
def test_bad_settings_are_named(settings: dict, message: str) -> None:
    """Breaks if a setting out of range goes through in silence."""
    with pytest.raises(ValueError, match=message):
        AnatomicalAttention(16, **settings)
