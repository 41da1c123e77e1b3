"""What each network costs, how fast it is on this machine, and what others published of it.

What was published stands in the first line of a network's YAML alone.
"""

import io
import re
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass, fields
from typing import Any

import hydra
import torch
from lightning.pytorch.plugins import MixedPrecision, Precision
from omegaconf import DictConfig
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from anatosegnet.config.composition import choices_of, yaml_of_choice
from anatosegnet.config.places import user_path
from anatosegnet.console import plain, progress, rounded, say, say_table
from anatosegnet.errors import UserError, reason
from anatosegnet.files.rows import write_rows
from anatosegnet.files.writing import replacing
from anatosegnet.training.build import build_module, settle_precision
from anatosegnet.training.module import SegmentationModule
from anatosegnet.training.recipes import MIXED

HEADER = re.compile(
    r"# (?P<source>.+?)\. [\d.]+ M parameters"
    r"(?:\. BUSI IoU (?P<iou>.+), F1 (?P<f1>.+) \((?P<protocol>.+)\)\.)?"
)
SECONDS = 3.0
"""As long as steps of one kind are repeated; the fastest counts."""


@dataclass
class Row:
    """What the table says of a network.

    Attributes:
        name: Of ``model=NAME``.
        source: The network and its paper or package.
        parameters: With one class.
        gmac: 1e9 multiply-adds of an image.
        training: Images per second: forward, loss, backward, optimizer.
        inference: Images per second.
        precision: In which they were measured.
        pretrained: Whether it starts from ImageNet weights.
        iou: As published, in %.
        f1: As published, in %.
        protocol: Of the published scores.
        remark: Why something is missing.
    """

    name: str
    source: str = ""
    parameters: int | None = None
    gmac: float | None = None
    training: float | None = None
    inference: float | None = None
    precision: str = ""
    pretrained: bool | None = None
    iou: str = ""
    f1: str = ""
    protocol: str = ""
    remark: str = ""


def print_networks(config: DictConfig) -> None:
    """Print the table that a command asks for, or write it as csv.

    Raises:
        UserError: A network is asked for that there is not, or a size that cannot be.
        OSError: The csv cannot be written.
    """
    known = choices_of("model")
    for name in config.only:
        if name not in known:
            raise UserError(f"only={name}: there is no model/{name}; available: {', '.join(known)}")
    for key, least in (("image_size", 32), ("batch_size", 1)):
        if not isinstance(config[key], int) or config[key] < least:
            raise UserError(f"{key}={plain(str(config[key]))} must be a whole number from {least}")
    path = None if config.csv in (None, "-") else user_path(config.csv)
    # what cannot be written is said before the minutes of measuring
    with replacing(path) if path else nullcontext() as temporary:
        rows = [
            read_row(name, config.image_size, config.batch_size if config.speed else 0)
            for name in progress(list(config.only) or known, "networks")
        ]
        if config.csv is None:
            print_rows(rows, config)
            return
        text = io.StringIO(newline="")
        write_rows(text, [field.name for field in fields(Row)], [asdict(row) for row in rows])
        if temporary is None:
            say(text.getvalue().rstrip("\n"))
            return
        temporary.write_text(text.getvalue(), "utf-8", newline="")
    say(path)


def read_row(name: str, image_size: int, batch_size: int = 0) -> Row:
    """Count, and measure, a network; what fails is a remark. Call it inside a hydra program.

    Args:
        name: Of ``model=NAME``.
        image_size: Edge of the images, in pixels.
        batch_size: Of the images whose speed is measured; 0: none is.
    """
    header = HEADER.match(yaml_of_choice("model", name).read_text("utf-8"))
    published: dict[str, Any] = header.groupdict("") if header else {}
    row = Row(name, **published)
    try:
        config = hydra.compose("train", [f"model={name}", f"data.image_size={image_size}"])
        row.pretrained = bool(config.model.get("pretrained"))
        if "num_classes" in config.model:
            config.model.num_classes = 1
        settle_precision(config)
        module = build_module(config, pretrained=False)
        assert isinstance(module, SegmentationModule)
        row.parameters = sum(parameter.numel() for parameter in module.model.parameters())
        if batch_size:
            row.precision = config.trainer.precision
            row.training, row.inference = speeds(module, config, batch_size)
        row.gmac = multiply_adds(module.model, config.data.in_channels, image_size)
    except Exception as error:  # whatever is wrong with it: the others are listed
        row.remark = reason(error)
    return row


def multiply_adds(network: nn.Module, channels: int, image_size: int) -> float:
    """1e9 multiply-adds of an image, without computing any; the network loses its weights."""
    image = torch.empty(1, channels, image_size, image_size, device="meta")
    with FlopCounterMode(display=False) as counter:
        network.to("meta").eval()(image)
    return counter.get_total_flops() / 2e9


def speeds(module: SegmentationModule, config: DictConfig, count: int) -> tuple[float, float]:
    """Images per second in training and in inference.

    Args:
        module: On any device; it learns.
        config: Of its training: size, channels, precision.
        count: Images of a batch.
    """
    device = the_device()
    size = config.data.image_size
    module.to(device)
    image = torch.rand(count, config.data.in_channels, size, size, device=device)
    mask = (image[:, 0] > 0.5).long()
    made = module.configure_optimizers()
    optimizer = made["optimizer"] if isinstance(made, dict) else made
    name = config.trainer.precision
    precision = MixedPrecision(name, device.type) if name in MIXED else Precision()

    def train() -> None:
        with precision.forward_context():
            loss, _ = module.loss_of(image, mask)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    def infer() -> None:
        with torch.inference_mode(), precision.forward_context():
            module(image)

    training = count / fastest(train, device)
    module.eval()
    return training, count / fastest(infer, device)


def fastest(step: Callable[[], None], device: torch.device) -> float:
    """Seconds of the fastest of the steps that `SECONDS` have room for."""
    times: list[float] = []
    while sum(times) < SECONDS:
        began = time.perf_counter()
        step()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - began)
    return min(times)


def the_device() -> torch.device:
    """Where speed is measured: the GPU, if there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def print_rows(rows: list[Row], config: DictConfig) -> None:
    """The table, then the protocols of the published scores and what is missing."""
    protocols = list(dict.fromkeys(row.protocol for row in rows if row.protocol))
    marks = {protocol: f" [{number}]" for number, protocol in enumerate(protocols, start=1)}
    columns = ["model", "parameters", "GMAC", "train/s", "infer/s", "weights", "published IoU, F1"]
    say_table(
        columns,
        [
            (
                row.name,
                "" if row.parameters is None else f"{row.parameters:,}",
                rounded(row.gmac, 2),
                rounded(row.training, 2),
                rounded(row.inference, 2),
                {None: "", True: "ImageNet", False: "random"}[row.pretrained],
                f"{row.iou}, {row.f1}{marks[row.protocol]}" if row.iou else "",
            )
            for row in rows
        ],
    )
    size = config.image_size
    say(f"one class, images of {size}×{size} px; weights: what a training starts from")
    if config.speed:
        device = the_device()
        where = (
            torch.cuda.get_device_name(device)
            if device.type == "cuda"
            else f"CPU, {torch.get_num_threads()} threads"
        )
        precision = next((row.precision for row in rows if row.precision), "")
        say(
            f"train/s, infer/s: images per second, {where}, batches of {config.batch_size}, "
            f"{precision}"
        )
    for protocol, mark in marks.items():
        say(f"published:{mark} BUSI, in %, {protocol}")
    for row in rows:
        if row.remark:
            say(f"remark: {row.name}: {row.remark}")
