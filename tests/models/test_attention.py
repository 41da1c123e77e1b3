"""AnatomicalAttention against its definition and the golden numbers of the released code."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from anatosegnet.models import attend
from anatosegnet.models.attention import AnatomicalAttention, forward_difference, row_codes

BIASES = ("rows", "raster", "none")
DIFFERENTIALS = ("spatial", "released", "none")
GOLDEN = Path(__file__).parents[1] / "golden" / "released_attention.npz"


def reference(module: AnatomicalAttention, x: Tensor) -> Tensor:
    """The definition, written with explicit N×N matrices, one image and one head at a time."""
    B, C, H, W = x.shape
    N, heads = H * W, module.num_heads
    d = C // heads
    w_q, w_k, w_v = module.qkv.weight.split(C)
    gammas = module.gammas().expand(heads)
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
                        scores[i, j] += module.beta - gammas[h] * abs(i // W - j // W)
                    elif module.bias == "raster":
                        scores[i, j] += module.beta - gammas[h] * abs(i - j)
            values = inputs[0] @ w_v[rows].T
            output[b, :, rows] = scores.softmax(dim=1) @ values
    projected = output @ module.proj.weight.T + module.proj.bias
    return projected.transpose(1, 2).reshape(B, C, H, W)


@pytest.mark.parametrize("bias", BIASES)
@pytest.mark.parametrize("differential", DIFFERENTIALS)
def test_agrees_with_the_definition(bias: str, differential: str) -> None:
    """Breaks if any term of the formula changes; the map is not square on purpose."""
    module = AnatomicalAttention(12, 3, bias, differential, gamma=0.3, beta=1.5).double()
    x = torch.randn(2, 12, 4, 3, dtype=torch.float64)
    torch.testing.assert_close(module(x), reference(module, x), rtol=0, atol=1e-10)


@pytest.mark.parametrize("bias", BIASES)
@pytest.mark.parametrize("differential", DIFFERENTIALS)
def test_gradients_agree_with_the_definition(bias: str, differential: str) -> None:
    """Breaks if a detached or in-place step falsifies the gradient of input or weights."""
    module = AnatomicalAttention(8, 2, bias, differential, gamma=0.5).double()
    x = torch.randn(1, 8, 3, 4, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(1, 8, 3, 4, dtype=torch.float64)
    variables = [x, *module.parameters()]
    actual = torch.autograd.grad((module(x) * weight).sum(), variables)
    expected = torch.autograd.grad((reference(module, x) * weight).sum(), variables)
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("bias", ["rows", "raster"])
@pytest.mark.parametrize("one_head", [False, True])
def test_learned_gamma(bias: str, one_head: bool) -> None:
    """Breaks if γ of a head gets a wrong gradient, does not start as given, or goes below 0."""
    heads = 1 if one_head else 2
    module = AnatomicalAttention(8, heads, bias, gamma=0.7, learn_gamma=True).double()
    torch.testing.assert_close(module.gammas(), torch.full((heads,), 0.7, dtype=torch.float64))
    assert module.raw_gamma is not None
    with torch.no_grad():
        module.raw_gamma += torch.arange(heads)
    x = torch.randn(1, 8, 3, 4, dtype=torch.float64, requires_grad=True)
    weight = torch.randn_like(x)
    variables = [x, *module.parameters()]
    actual = torch.autograd.grad((module(x) * weight).sum(), variables)
    expected = torch.autograd.grad((reference(module, x) * weight).sum(), variables)
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-10)
    with torch.no_grad():
        module.raw_gamma.fill_(-50.0)
    assert (module.gammas() >= 0).all()


@pytest.mark.parametrize("bias", BIASES)
def test_blocks_of_queries_change_nothing(bias: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks if a block forgets where it stands, or gradients of blocks are not added up."""
    module = AnatomicalAttention(8, 2, bias, gamma=0.3, learn_gamma=bias != "none").double()
    x = torch.randn(2, 8, 10, 9, dtype=torch.float64, requires_grad=True)  # 90 tokens
    variables = [x, *module.parameters()]
    whole = module(x)
    gradients = torch.autograd.grad(whole.square().sum(), variables)
    monkeypatch.setattr(attend, "BLOCK_BYTES", 1)  # blocks of 32, 32 and 26
    blocks = module(x)
    torch.testing.assert_close(blocks, whole, rtol=0, atol=1e-12)
    again = torch.autograd.grad(blocks.square().sum(), variables)
    torch.testing.assert_close(again, gradients, rtol=0, atol=1e-10)


@pytest.mark.parametrize("bias", BIASES)
def test_other_devices_compute_the_same(bias: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks if the path of CUDA and of exported graphs gives other numbers than the CPU's."""
    module = AnatomicalAttention(8, 2, bias, gamma=0.3).double()
    x = torch.randn(2, 8, 5, 7, dtype=torch.float64)
    expected = module(x)
    monkeypatch.setattr(torch.compiler, "is_exporting", lambda: True)
    torch.testing.assert_close(module(x), expected, rtol=0, atol=1e-12)


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
    x = torch.randn(1, 8, 4, 5, dtype=torch.float64)
    module = AnatomicalAttention(8, 2).double()
    first = module(x)
    module.beta = 3.5
    torch.testing.assert_close(module(x), first, rtol=0, atol=1e-12)


@pytest.mark.parametrize("precision", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("bias", BIASES)
@pytest.mark.parametrize("differential", DIFFERENTIALS)
def test_half_precision_stays_close(bias: str, differential: str, precision: torch.dtype) -> None:
    """Breaks if a bias or difference is taken in a precision that loses the order of rows."""
    module = AnatomicalAttention(32, 4, bias, differential)
    x = torch.randn(2, 32, 12, 9, requires_grad=True)
    exact = module(x)
    (exact_gradient,) = torch.autograd.grad(exact.square().sum(), x)
    with torch.autocast("cpu", precision):
        rounded = module(x).float()
    (gradient,) = torch.autograd.grad(rounded.square().sum(), x)
    assert (rounded - exact).norm() / exact.norm() < 2e-2
    assert (gradient - exact_gradient).norm() / exact_gradient.norm() < 3e-2


@pytest.mark.parametrize("precision", [torch.bfloat16, torch.float16, torch.float32])
def test_far_rows_keep_their_order(precision: torch.dtype) -> None:
    """Breaks if the bias of a tall map overflows, or far rows round together."""
    module = AnatomicalAttention(8, 2, "rows", "none", gamma=1.0)
    torch.nn.init.zeros_(module.qkv.weight)  # the bias alone decides
    with torch.autocast("cpu", precision, enabled=precision is not torch.float32):
        weights = module.attention_map(torch.zeros(1, 8, 256, 1))[0, 0]
    assert weights.isfinite().all()
    steps = -weights[0, :64].double().log().diff()  # beyond, float32 underflows
    assert (steps > 0).all()
    torch.testing.assert_close(steps, torch.ones(63).double(), rtol=4e-3, atol=0.13)


def test_row_codes_tell_the_distance_in_rows() -> None:
    """Breaks if the identity t_i · t_j = (H - 1) - 2·|y_i - y_j| fails, on one row as on many."""
    for H, W in ((5, 3), (1, 4)):
        codes = row_codes(H, W, torch.empty(0, dtype=torch.float64))[:, :-1]
        y = torch.arange(H * W) // W
        expected = (H - 1) - 2.0 * (y[:, None] - y).abs()
        torch.testing.assert_close(codes @ codes.T, expected.double(), rtol=0, atol=0)


def test_attention_map_is_what_the_module_uses() -> None:
    """Breaks if the weights shown are not those applied, or their rows do not sum to 1."""
    module = AnatomicalAttention(12, 3).double()
    x = torch.randn(2, 12, 4, 5, dtype=torch.float64)
    weights = module.attention_map(x)
    assert weights.shape == (2, 3, 20, 20)
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 3, 20).double())
    value = module.qkv(x.flatten(2).transpose(1, 2))[..., 24:].unflatten(2, (3, 4))
    out = module.proj((weights @ value.transpose(1, 2)).transpose(1, 2).flatten(2))
    torch.testing.assert_close(out.transpose(1, 2).reshape(x.shape), module(x))


def test_memory_format_is_channels_last() -> None:
    """Breaks if the module hands on a copy in the order of another memory format."""
    x = torch.randn(2, 8, 4, 5).contiguous(memory_format=torch.channels_last)
    assert AnatomicalAttention(8, 2)(x).is_contiguous(memory_format=torch.channels_last)


@pytest.mark.slow
@pytest.mark.parametrize("bias", BIASES)
@pytest.mark.parametrize("differential", DIFFERENTIALS)
def test_compiles_without_graph_breaks(bias: str, differential: str) -> None:
    """Breaks if torch.compile meets something it cannot trace, forward or backward."""
    torch.compiler.reset()  # each case is a network of its own, not a change of the last one
    module = AnatomicalAttention(8, 2, bias, differential)
    x = torch.randn(1, 8, 4, 5, requires_grad=True)
    compiled = torch.compile(module, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(x), module(x))
    (actual,) = torch.autograd.grad(compiled(x).square().sum(), x)
    (expected,) = torch.autograd.grad(module(x).square().sum(), x)
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-5)


def test_no_matrix_of_all_tokens_is_kept() -> None:
    """Breaks if something as large as the N×N weights is saved for the backward pass."""
    saved: list[int] = []

    def note(tensor: torch.Tensor) -> torch.Tensor:
        saved.append(tensor.numel())
        return tensor

    module, x = AnatomicalAttention(8, 2), torch.randn(1, 8, 20, 20, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        module(x)
    assert saved
    assert max(saved) < 400 * 400


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
        ({"learn_gamma": True, "gamma": 0.0}, "learn_gamma"),
        ({"learn_gamma": True, "bias": "none"}, "learn_gamma"),
    ],
)
def test_bad_settings_are_named(settings: dict, message: str) -> None:
    """Breaks if a setting out of range goes through in silence."""
    with pytest.raises(ValueError, match=message):
        AnatomicalAttention(16, **settings)


@pytest.mark.parametrize("axis", [-1, -2, -3])
def test_differences_are_those_of_torch_diff_to_the_bit(axis: int) -> None:
    """Breaks if seeded trainings change: in values, or in the order of the gradients' sum."""
    gradients = []
    for function in (lambda x: forward_difference(x, axis).narrow(axis, 0, x.shape[axis] - 1),
                     lambda x: torch.diff(x, dim=axis)):  # fmt: skip
        x = torch.randn(2, 5, 6, 7, generator=torch.Generator().manual_seed(0), requires_grad=True)
        y = x * 1.1
        cubes = (function(y) ** 3 * 0.3).sum()
        (cubes + y.square().sum()).backward()  # whose part comes first
        gradients.append((function(x).detach(), x.grad))
    for ours, theirs in zip(*gradients, strict=True):
        assert torch.equal(ours, theirs)
