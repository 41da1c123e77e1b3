"""The network of a run as it is exported: from prepared images to the lesion's probability."""

from importlib.metadata import version
from typing import Any

import numpy as np
import torch
from omegaconf import OmegaConf
from torch import Tensor, nn

from anatosegnet.config.recorded import with_strings
from anatosegnet.data.checksum import sha256
from anatosegnet.data.resizing import two_sizes
from anatosegnet.evaluation.published import without_folders
from anatosegnet.metrics.logits import lesion_probability
from anatosegnet.network import require_logits, trained_network
from anatosegnet.prediction.processing import Processing
from anatosegnet.run import Run


class LesionProbability(nn.Module):
    """A network with its answer as a probability.

    Args:
        network: Images (B, C, H, W) -> logits (B, 1 or 2, H, W).
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, H, W) in [0, 1]."""
        return lesion_probability(self.network(image))


class Original:
    """The best epoch of a run in float32, on the CPU.

    Args:
        run: The run.

    Attributes:
        processing: What its images go through before.
        network: Of class `LesionProbability`, in evaluation mode.

    Raises:
        UserError: As `trained_network`, or it gives no logits.
    """

    def __init__(self, run: Run) -> None:
        data = run.config.data
        self.run = run
        self.processing = Processing(
            two_sizes(data.image_size), data.in_channels, data.normalization
        )
        network = trained_network(run).eval().requires_grad_(False)
        with torch.inference_mode():
            require_logits(network(self.example), self.example, type(network).__name__)
        self.network = LesionProbability(network).eval()

    @property
    def example(self) -> Tensor:
        """Two images (2, C, h, w): of one, an exporter would take the batch for fixed."""
        shape = (2, self.processing.in_channels, *self.processing.image_size)
        return torch.linspace(-1, 1, 2 * int(np.prod(shape[1:]))).reshape(shape)

    @torch.inference_mode()
    def probabilities(self, batch: np.ndarray) -> np.ndarray:
        """(B, C, h, w) float32, prepared -> (B, h, w) float32 in [0, 1]."""
        return self.network(torch.from_numpy(batch)).numpy()

    @property
    def described(self) -> dict[str, Any]:
        """What an exported file says of itself: its processing, and where it comes from.

        No folder of a machine is named in it.
        """
        summary, config = self.run.summary, self.run.config
        told = {
            "run": self.run.directory.resolve().name,
            "name": str(config.name),
            "model": OmegaConf.to_container(config.model),
            "data": str(config.data.name),
            "split": summary.get("split_description"),
            "split_fingerprint": summary.get("split_fingerprint"),
            "best_epoch": summary.get("best_epoch"),
            "weights_sha256": sha256(self.run.best_path),
            "git_commit": summary.get("git_commit"),
            "trained_with": summary.get("versions"),
        }
        return {
            "format": 1,
            "version": version("anatosegnet"),
            **self.processing.described,
            "provenance": with_strings(told, without_folders),
        }
