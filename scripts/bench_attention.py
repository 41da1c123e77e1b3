"""Speed and memory of anatomical attention beside a straightforward implementation of it.

    python scripts/bench_attention.py [--output bench_attention.csv] [--repeats 7] [--quick]
                                      [--only attention|memory|network]

The baseline projects the features and their two differences one after the other and writes the
three N×N score matrices and the bias matrix out, as the formula reads. Both run in this process,
alternating; times are medians of forward + backward, and the ratio is the median of the ratios
pair by pair. Memory is what the process (CPU) or the device (CUDA) holds at its peak beyond what
it held before, each case in a process of its own. On a CUDA device half precision,
``torch.compile`` and the share of the device's measured matmul rate are added.
"""

import argparse
import csv
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from anatosegnet.models import AnatomicalAttention, AnatoSegNet
from anatosegnet.models.attention import forward_difference
from anatosegnet.training.build import cpu_has_bf16

Step = Callable[[], Any]
MAPS = ((8, 1024, 16), (8, 2048, 8), (2, 1024, 32))  # batch, channels, edge
MEMORY_EDGES = (32, 64)  # of a 1024-channel map, batch 1


class StraightforwardAttention(nn.Module):
    """The formula as it reads: three projections, three score matrices, a bias matrix."""

    def __init__(self, dim: int, num_heads: int = 8, gamma: float = 1.0) -> None:
        super().__init__()
        self.num_heads, self.gamma = num_heads, gamma
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.proj = nn.Linear(dim, dim)

    def project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(B, C, H, W) -> q, k, v, each (B, heads, N, d)."""
        B, C, H, W = x.shape
        tokens = x.flatten(2).transpose(1, 2)
        qkv = self.qkv(tokens).reshape(B, H * W, 3, self.num_heads, C // self.num_heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        return q, k, v

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        B, C, H, W = x.shape
        q, k, v = self.project(x)
        q_h, k_h, _ = self.project(forward_difference(x, -1))
        q_v, k_v, _ = self.project(forward_difference(x, -2))
        scores = q @ k.transpose(-2, -1) + q_h @ k_h.transpose(-2, -1) + q_v @ k_v.transpose(-2, -1)
        scores = scores * (C // self.num_heads) ** -0.5
        rows = torch.arange(H * W, device=x.device) // W
        scores = scores - self.gamma * (rows[:, None] - rows[None, :]).abs()
        out = scores.softmax(dim=-1) @ v
        return self.proj(out.transpose(1, 2).reshape(B, H * W, C)).transpose(1, 2).reshape(x.shape)


def main() -> None:
    """Measure, print the tables, write the csv."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("bench_attention.csv"))
    parser.add_argument("--repeats", type=int, default=7, help="timed pairs of each case")
    parser.add_argument("--quick", action="store_true", help="small maps, to try the script")
    parser.add_argument("--only", choices=("attention", "memory", "network"))
    parser.add_argument("--memory-case", help=argparse.SUPPRESS)  # a process of its own
    arguments = parser.parse_args()
    if arguments.memory_case:
        print(json.dumps(peak_memory(**json.loads(arguments.memory_case))))
        return
    device = "cuda" if torch.cuda.is_available() else "cpu"
    parts = {"attention": attention_speed, "memory": memory, "network": network_speed}
    chosen = [arguments.only] if arguments.only else list(parts)
    rows = [row for part in chosen for row in parts[part](device, arguments)]
    with arguments.output.open("w", newline="", encoding="utf-8") as file:
        columns = list(dict.fromkeys(key for row in rows for key in row))
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    print(f"{machine(device)}, torch {torch.__version__}; written {arguments.output}")


def machine(device: str) -> str:
    """The machine, in words."""
    if device == "cuda":
        return torch.cuda.get_device_name()
    names = [
        line for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line
    ]
    processor = names[0].split(":")[1].strip() if names else platform.processor()
    bf16 = "with" if has_bf16(device) else "without"
    threads = torch.get_num_threads()
    return f"{processor}, {os.cpu_count()} cores ({threads} used), {bf16} bf16 instructions"


def has_bf16(device: str) -> bool:
    """Whether bf16 is computed and not emulated, which would take minutes and tell nothing."""
    return device == "cuda" or cpu_has_bf16()


def attention_speed(device: str, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Forward + backward of the module beside the baseline."""
    rows = []
    precisions = ["float32", "bf16"] if device == "cuda" else ["float32"]
    for batch, channels, edge in [(1, 64, 8)] if arguments.quick else MAPS:
        for precision in precisions:
            x = torch.randn(batch, channels, edge, edge, device=device)
            x = x.contiguous(memory_format=torch.channels_last)
            modules: dict[str, nn.Module] = {
                "straightforward": StraightforwardAttention(channels),
                "ours": AnatomicalAttention(channels),
            }
            modules["ours"].load_state_dict(modules["straightforward"].state_dict())
            steps = {
                name: training_step(module.to(device), x, precision)
                for name, module in modules.items()
            }
            if device == "cuda":
                compiled = torch.compile(modules["ours"])
                steps["ours, compiled"] = training_step(compiled, x, precision)
            case = f"{batch}×{channels}×{edge}×{edge} {precision}"
            rows += compare("attention", case, steps, device, arguments.repeats)
            if device == "cuda":
                work = attention_flops(batch, channels, edge**2, edge)
                rate = matmul_rate(precision, device)
                for row in rows[-len(steps) :]:
                    row["share_of_matmul_rate"] = round(work / row["seconds"] / rate, 3)
    show("Attention, forward + backward", rows)
    return rows


def network_speed(device: str, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """The whole network at 256 px: what each of memory format, module and bf16 gains."""
    edge, batch = (64, 1) if arguments.quick else (256, 16 if device == "cuda" else 2)
    encoder = "resnet18" if arguments.quick else "resnet50.tv_in1k"
    x = torch.randn(batch, 3, edge, edge, device=device)
    nhwc = x.contiguous(memory_format=torch.channels_last)

    def network(ours: bool, channels_last: bool) -> nn.Module:
        torch.manual_seed(0)
        model = AnatoSegNet(encoder, pretrained=False)
        if not ours:
            for level, module in model.attentions.items():
                plain = StraightforwardAttention(module.proj.in_features, module.num_heads)
                plain.load_state_dict(module.state_dict())
                model.attentions[level] = plain
        form = torch.channels_last if channels_last else torch.contiguous_format
        return model.to(device, memory_format=form)

    steps = {
        "straightforward, contiguous": training_step(network(False, False), x, "float32"),
        "+ channels_last": training_step(network(False, True), nhwc, "float32"),
        "+ our attention": training_step(network(True, True), nhwc, "float32"),
    }
    if has_bf16(device):
        steps["+ bf16"] = training_step(network(True, True), nhwc, "bf16")
    if device == "cuda":
        steps["+ compiled"] = training_step(torch.compile(network(True, True)), nhwc, "bf16")
    case = f"AnatoSegNet {encoder}, {batch}×3×{edge}×{edge}"
    rows = compare("network", case, steps, device, max(3, arguments.repeats // 2))
    show("Whole network, forward + backward; each line adds to the one before", rows)
    return rows


def training_step(module: nn.Module, x: Tensor, precision: str) -> Step:
    """A forward and a backward pass, gradients of input and weights included."""
    x = x.detach().requires_grad_()
    autocast = (
        torch.autocast(x.device.type, torch.bfloat16) if precision == "bf16" else nullcontext()
    )

    def step() -> None:
        module.zero_grad(set_to_none=True)
        x.grad = None
        with autocast:
            output = module(x)
        output.float().square().mean().backward()

    return step


def compare(
    kind: str, case: str, steps: dict[str, Step], device: str, repeats: int
) -> list[dict[str, Any]]:
    """Time the steps in turn; the first is the baseline."""
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for repeat in range(-2, repeats):  # two rounds to warm up
        for name, step in steps.items():
            start = time.perf_counter()
            step()
            if device == "cuda":
                torch.cuda.synchronize()
            if repeat >= 0:
                seconds[name].append(time.perf_counter() - start)
    baseline = seconds[next(iter(steps))]
    return [
        {
            "kind": kind,
            "case": case,
            "implementation": name,
            "seconds": round(statistics.median(times), 6),
            "speedup": round(ratio(baseline, times), 2),
        }
        for name, times in seconds.items()
    ]


def ratio(baseline: list[float], times: list[float]) -> float:
    """The median of baseline / time, pair by pair."""
    return statistics.median(b / t for b, t in zip(baseline, times, strict=True))


def attention_flops(batch: int, channels: int, tokens: int, rows: int) -> float:
    """Multiplications and additions that the module needs for forward + backward."""
    projections = 4 * channels**2
    products = tokens * (3 * channels + 8 * rows + channels)
    return 3 * 2.0 * batch * tokens * (projections + products)


def matmul_rate(precision: str, device: str, size: int | None = None) -> float:
    """Multiplications and additions a second in a large matrix product on this device."""
    size = size or (8192 if device == "cuda" else 4096)
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    a = torch.randn(size, size, device=device, dtype=dtype)
    seconds = []
    for _ in range(8):
        start = time.perf_counter()
        torch.mm(a, a)
        if device == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    return 2.0 * size**3 / statistics.median(seconds[2:])


def memory(device: str, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Peak extra memory of forward + backward, 1024 channels, batch 1."""
    rows: list[dict[str, Any]] = []
    for edge in (8, 16) if arguments.quick else MEMORY_EDGES:
        baseline = 0.0
        for name in ("straightforward", "ours"):
            case = json.dumps({"name": name, "edge": edge, "device": device})
            command = [sys.executable, __file__, "--memory-case", case]
            answer = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            megabytes = json.loads(answer)
            baseline = baseline or megabytes
            rows.append(
                {
                    "kind": "memory",
                    "case": f"1×1024×{edge}×{edge} float32",
                    "implementation": name,
                    "megabytes": round(megabytes, 1),
                    "share_of_baseline": round(megabytes / baseline, 3),
                }
            )
    for row, earlier in zip(rows[2:], rows[:2], strict=True):
        row["growth"] = round(row["megabytes"] / earlier["megabytes"], 2)
    show("Peak extra memory, forward + backward", rows)
    return rows


def peak_memory(name: str, edge: int, device: str) -> float:
    """Megabytes held at the peak of a step beyond those held before it."""
    torch.manual_seed(0)
    module = (
        StraightforwardAttention(1024) if name == "straightforward" else AnatomicalAttention(1024)
    )
    module = module.to(device)
    # a small step first: what libraries allocate once is not counted
    training_step(module, torch.randn(1, 1024, 4, 4, device=device), "float32")()
    x = torch.randn(1, 1024, edge, edge, device=device)
    x = x.contiguous(memory_format=torch.channels_last)
    step = training_step(module, x, "float32")
    if device == "cuda":
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        step()
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    before = resident("VmRSS")
    step()
    return resident("VmHWM") - before


def resident(field: str) -> float:
    """Megabytes of this process that lie in memory: now (VmRSS), or at the peak (VmHWM)."""
    # not getrusage: its peak remembers the process that started this one
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(field))


def show(title: str, rows: list[dict[str, Any]]) -> None:
    """Print a table of the rows."""
    columns = [c for c in dict.fromkeys(key for row in rows for key in row) if c != "kind"]
    table = Table(*columns, title=title, title_justify="left")
    for row in rows:
        table.add_row(*(str(row.get(column, "")) for column in columns))
    Console(highlight=False, width=120).print(table)


if __name__ == "__main__":
    main()
