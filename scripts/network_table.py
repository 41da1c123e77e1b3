"""The table of docs/models.md: what each comparison network costs, and its published score."""

import re

import hydra
import torch
from omegaconf import OmegaConf
from torch.utils.flop_counter import FlopCounterMode

from anatosegnet.config.composition import config_directory

HEADER = re.compile(
    r"# (?P<source>.+?)\. [\d.]+ M parameters\."
    r"(?: BUSI IoU (?P<iou>.+), F1 (?P<f1>.+) \((?P<protocol>.+)\)\.)?"
)


def main() -> None:
    """Print a row for each YAML that opens with a network's source and parameters."""
    print("| `model=` | network | parameters | GMAC | IoU | F1 | protocol of the scores |")
    print("|---|---|---|---|---|---|---|")
    for path in sorted((config_directory() / "model").glob("*.yaml")):
        header = HEADER.match(path.read_text())
        if header is None:
            continue
        config = OmegaConf.load(path)
        config.num_classes, config.in_channels = 1, 3
        named = re.search(r"(\d+) px", header["protocol"] or "")
        size = int(named[1]) if named else 256
        if "image_size" in config:
            config.image_size = size
        with torch.device("meta"):  # shapes alone, no weights
            network = hydra.utils.instantiate(config).eval()
            with FlopCounterMode(display=False) as counter:
                network(torch.empty(1, 3, size, size))
        parameters = sum(parameter.numel() for parameter in network.parameters())
        gmac = counter.get_total_flops() / 2e9
        iou, f1, protocol = (header[name] or "" for name in ("iou", "f1", "protocol"))
        print(
            f"| `{path.stem}` | {header['source']} | {parameters:,} | {gmac:.2f} | "
            f"{iou} | {f1} | {protocol or 'none quoted'} |"
        )


if __name__ == "__main__":
    main()
