"""What a network's logits say: probabilities, masks and their counts of pixels, in torch."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torchmetrics import Metric


def two_logits(logits: Tensor) -> Tensor:
    """Logits (B, 1, ...) of the lesion alone as those of background and lesion (B, 2, ...).

    The background's are 0, so that the softmax of both is the sigmoid of the one; two logits are
    given back as they are.
    """
    return logits if logits.shape[1] > 1 else torch.cat([torch.zeros_like(logits), logits], dim=1)


def lesion_probability(logits: Tensor) -> Tensor:
    """Probability of the lesion: logits (B, 1 or 2, ...) -> (B, ...) float32 in [0, 1]."""
    return 1 - torch.softmax(two_logits(logits).float(), dim=1)[:, 0]


def count_pixels(prediction: Tensor, truth: Tensor) -> Tensor:
    """Hits, false alarms and misses of each image.

    Args:
        prediction: (B, H, W) bool.
        truth: (B, H, W) bool.

    Returns:
        (B, 3) int64: true positives, false positives, false negatives.
    """
    pairs = (prediction & truth, prediction & ~truth, ~prediction & truth)
    return torch.stack([pair.sum(dim=(1, 2)) for pair in pairs], dim=1)


class PixelCounts(Metric):
    """Collects (index, hits, false alarms, misses) of every image over batches and processes."""

    full_state_update = False
    rows: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        self.add_state("rows", default=[], dist_reduce_fx="cat")

    def update(self, logits: Tensor, mask: Tensor, index: Sequence[int]) -> None:
        """Add a batch: logits (B, K, H, W), mask (B, H, W), and the B indices of the cases."""
        counts = count_pixels(lesion_probability(logits) > 0.5, mask > 0)
        cases = torch.tensor(index, device=counts.device)
        self.rows.append(torch.cat([cases[:, None], counts], dim=1))

    def compute(self) -> Tensor:
        """(N, 4) int64, a row per case in order of its index; a repeated case counts once."""
        rows = torch.cat(self.rows) if isinstance(self.rows, list) else self.rows
        return torch.unique(rows, dim=0)
