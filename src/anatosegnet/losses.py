"""Losses on (logits (B, K, H, W), mask (B, H, W) int64) -> scalar.

Cross-entropy is ``torch.nn.CrossEntropyLoss`` itself; see ``configs/loss``.
"""

import monai.losses
from torch import Tensor, nn


class DiceCELoss(nn.Module):
    r"""Soft Dice of the lesion plus cross-entropy, after MONAI's ``DiceCELoss``.

    .. math:: 1 - \frac{2 \sum p\,y + \epsilon}{\sum p + \sum y + \epsilon} + \mathrm{CE}(x, y)

    Args:
        dice_weight: Weight of the Dice term.
        ce_weight: Weight of the cross-entropy.

    Shape:
        logits (B, K, H, W), mask (B, H, W) int64 in 0..K-1 -> scalar.

    Example:
        >>> import torch
        >>> logits = torch.tensor([[[[9.0]], [[-9.0]]]])  # one background pixel, sure of it
        >>> DiceCELoss()(logits, torch.tensor([[[0]]])).item() < 0.01
        True
    """

    def __init__(self, dice_weight: float = 1.0, ce_weight: float = 1.0) -> None:
        super().__init__()
        self.loss = monai.losses.DiceCELoss(
            include_background=False,
            to_onehot_y=True,
            softmax=True,
            lambda_dice=dice_weight,
            lambda_ce=ce_weight,
        )

    def forward(self, logits: Tensor, mask: Tensor) -> Tensor:
        """The loss, averaged over the batch."""
        return self.loss(logits, mask[:, None])
