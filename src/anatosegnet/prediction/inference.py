"""The network of a run, in PyTorch, applied to images of any size."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

import numpy as np
import torch
from torch import nn

from anatosegnet.console import plain
from anatosegnet.data.normalization import Normalization
from anatosegnet.data.resizing import two_sizes
from anatosegnet.errors import UserError, reason
from anatosegnet.metrics.logits import lesion_probability
from anatosegnet.network import require_logits, trained_network
from anatosegnet.prediction.predictor import ImagePredictor, Prediction
from anatosegnet.prediction.processing import Processing
from anatosegnet.run import Run

AUTOCAST = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}


class Predictor:
    """The network of a run with everything it saw in training: size, normalisation, precision.

    Args:
        model: Images (B, C, H, W) -> logits (B, K, H, W).
        image_size: (height, width) that the network sees.
        in_channels: 3 or 1.
        normalization: As in training.
        precision: Lightning's name of it, such as ``32-true`` or ``bf16-mixed``.
        device: Where the network runs.
    """

    def __init__(
        self,
        model: nn.Module,
        image_size: tuple[int, int],
        in_channels: int = 3,
        normalization: Normalization = "imagenet",
        precision: str = "32-true",
        device: str = "cpu",
    ) -> None:
        self.model = model.eval().to(device)
        self.image_size = image_size
        self.in_channels = in_channels
        self.normalization: Normalization = normalization
        self.precision = precision
        self.device = torch.device(device)

    @classmethod
    def from_run(cls, run: Run, device: str = "auto") -> "Predictor":
        """The best epoch of a run.

        Raises:
            UserError: The checkpoint is missing, damaged, or not of this run's network; or there
                is no such device.
        """
        device = find_device(device)
        config = run.config
        return cls(
            trained_network(run),
            two_sizes(config.data.image_size),
            config.data.in_channels,
            config.data.normalization,
            str(config.trainer.get("precision", "32-true")),
            device,
        )

    def predict(self, images: Sequence[np.ndarray]) -> Prediction:
        """As `probabilities`, and how sure they are."""
        return Prediction.of(self.probabilities(images))

    def at_size(self, size: tuple[int, int]) -> ImagePredictor:
        """The same network on images of (height, width); UserError where it cannot see those."""
        other = Predictor(
            self.model, size, self.in_channels, self.normalization, self.precision, str(self.device)
        )
        try:
            other.probabilities([np.zeros((*size, 3), np.uint8)])
        except Exception as error:  # whatever a network raises
            raise UserError(
                f"tta=scales: {type(self.model).__name__} cannot see images of "
                "{}×{} px ({}); leave scales out".format(*size, reason(error))
            ) from error
        return other

    @torch.inference_mode()
    def probabilities(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """Lesion probability at the network's size.

        Args:
            images: RGB images (H, W, 3) uint8 of any sizes.

        Returns:
            (B, height, width) float32 in [0, 1]; see `masks.NO_NUMBER` for what else may be there.

        Raises:
            UserError: The network gives something else than logits (B, 2, height, width).
        """
        prepare = Processing(self.image_size, self.in_channels, self.normalization)
        batch = torch.from_numpy(prepare(images)).to(self.device, memory_format=torch.channels_last)
        with self._autocast():
            logits = self.model(batch)
        require_logits(logits, batch, type(self.model).__name__)
        return lesion_probability(logits).cpu().numpy()

    def _autocast(self) -> AbstractContextManager[object]:
        dtype = AUTOCAST.get(self.precision)
        if dtype is None or (dtype is torch.float16 and self.device.type == "cpu"):
            return nullcontext()
        return torch.autocast(self.device.type, dtype)


def find_device(name: object) -> str:
    """The device of a name, or the best one there is for ``auto``.

    Raises:
        UserError: This machine has none of this name.
    """
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.zeros(1, device=str(name)).item()
    except (RuntimeError, AssertionError) as error:  # the latter where torch knows no GPU
        raise UserError(
            f"device={plain(name)} cannot be used ({reason(error)}); give cpu, cuda or auto"
        ) from error
    return str(name)
