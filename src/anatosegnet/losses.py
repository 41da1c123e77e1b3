"""Losses on (logits (B, 2, H, W), mask (B, H, W) int64) -> scalar.

Cross-entropy is ``torch.nn.CrossEntropyLoss`` itself. The default, Dice + cross-entropy, is
written here, because importing MONAI takes longer than many a first step; the others are MONAI's.
All but cross-entropy compute in float32 whatever the precision of training, and none is NaN where
a mask is empty or full.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

SMOOTHING = 1e-5  # of the soft Dice, as in MONAI


def deeply_supervised(
    loss: nn.Module, outputs: Sequence[Tensor], mask: Tensor, ratio: float
) -> Tensor:
    r"""A loss of several logits of the same images: deep supervision.

    .. math:: \sum_k r^k\,L(x_k, y_k) \Big/ \sum_k r^k

    y_k is the mask at the size of x_k, by nearest neighbour, as nnU-Net's is (Isensee et al.,
    Nature Methods 2021): a coarse output is asked for what it can show, at the cost of its own
    pixels, while logits made larger are blurred and cost the full size each.

    Args:
        loss: (logits (B, 2, h, w), mask (B, h, w) int64) -> scalar.
        outputs: x_k, logits (B, 2, h, w) of any sizes, finest first.
        mask: (B, H, W) int64 in {0, 1}, at the size of the first.
        ratio: r, weight of each output beside the finer one before it; 0 is the first alone.

    Example:
        >>> x, y = torch.zeros(1, 2, 4, 4), torch.ones(1, 4, 4, dtype=torch.int64)
        >>> deeply_supervised(nn.CrossEntropyLoss(), [x, x[..., ::2, ::2]], y, 0.5)
        tensor(0.6931)
    """
    if len(outputs) == 1:  # to the bit what the loss itself is
        return loss(outputs[0], mask)
    weights = [ratio**level for level in range(len(outputs))]
    terms = (loss(logits, mask_at_size_of(logits, mask)) for logits in outputs)
    total = sum(weight * term for weight, term in zip(weights, terms, strict=True))
    return total / sum(weights)


def mask_at_size_of(logits: Tensor, mask: Tensor) -> Tensor:
    """A mask (B, H, W) at the size of logits (B, K, h, w), by nearest neighbour: (B, h, w)."""
    if logits.shape[2:] == mask.shape[1:]:
        return mask
    resized = F.interpolate(mask[:, None].float(), logits.shape[2:], mode="nearest-exact")
    return resized[:, 0].to(mask.dtype)


class MonaiLoss(nn.Module):
    """A loss of MONAI as this project calls them; see ``configs/loss`` for examples.

    Args:
        loss: Takes (logits (B, 2, H, W), mask (B, 1, H, W)): ``to_onehot_y`` and ``softmax`` on.

    Shape:
        logits (B, 2, H, W), mask (B, H, W) int64 in {0, 1} -> what ``loss`` returns.

    Example:
        >>> import monai.losses
        >>> loss = MonaiLoss(monai.losses.DiceLoss(to_onehot_y=True, softmax=True))
        >>> loss(torch.zeros(1, 2, 4, 4), torch.ones(1, 4, 4, dtype=torch.int64)).shape
        torch.Size([])
    """

    def __init__(self, loss: nn.Module) -> None:
        super().__init__()
        self.loss = loss

    def forward(self, logits: Tensor, mask: Tensor) -> Tensor:
        """The loss in float32: sums over an image overflow float16 and drown in bfloat16."""
        with torch.autocast(logits.device.type, enabled=False):
            return self.loss(logits.float(), mask[:, None])


class DiceCELoss(nn.Module):
    r"""Soft Dice of the lesion plus cross-entropy; equals MONAI's ``DiceCELoss``.

    .. math:: 1 - \frac{2 \sum p\,y + \epsilon}{\sum p + \sum y + \epsilon} + \mathrm{CE}(x, y)

    The cross-entropy of the softmax of two logits *is* the binary cross-entropy of their
    difference, and p the sigmoid of that difference:

    .. math:: -\log \frac{e^{x_1}}{e^{x_0} + e^{x_1}} = -\log \sigma(x_1 - x_0)

    so ``ce_weight=0.5`` is the 0.5·BCE + Dice of the public 2-D segmentation benchmark.

    Args:
        dice_weight: Weight of the Dice term.
        ce_weight: Weight of the cross-entropy.

    Shape:
        logits (B, 2, H, W), mask (B, H, W) int64 in {0, 1} -> scalar.

    Example:
        >>> logits = torch.tensor([[[[9.0]], [[-9.0]]]])  # one background pixel, sure of it
        >>> DiceCELoss()(logits, torch.tensor([[[0]]])).item() < 0.01
        True
    """

    def __init__(self, dice_weight: float = 1.0, ce_weight: float = 1.0) -> None:
        super().__init__()
        self.dice_weight, self.ce_weight = dice_weight, ce_weight

    def forward(self, logits: Tensor, mask: Tensor) -> Tensor:
        """The loss; Dice per image, averaged over the batch."""
        with torch.autocast(logits.device.type, enabled=False):
            logits = logits.float()
            p, y = logits.softmax(dim=1)[:, 1], mask.float()
            hits = (p * y).sum(dim=(1, 2))
            both = p.sum(dim=(1, 2)) + y.sum(dim=(1, 2))
            dice = 1 - (2 * hits + SMOOTHING) / (both + SMOOTHING)
            return self.dice_weight * dice.mean() + self.ce_weight * F.cross_entropy(logits, mask)


class FocalLoss(MonaiLoss):
    r"""Cross-entropy that looks away from pixels that are right already.

    .. math:: -\alpha_y\,(1 - p_y)^\gamma \log p_y

    averaged over pixels; p_y is the probability of the pixel's true class. γ = 0 without alpha is
    the cross-entropy. Lin et al., ICCV 2017 (arXiv 1708.02002); MONAI's ``FocalLoss``, which
    averages over the classes too, so that its value is half of it.

    Args:
        gamma: Strength of the focus: 0, or at least 1 (between them the gradient is infinite at
            p = 1).
        alpha: Weight of the lesion in 0..1, the background has 1 - alpha; None weighs nothing.

    Shape:
        logits (B, 2, H, W), mask (B, H, W) int64 in {0, 1} -> scalar.

    Example:
        >>> logits = torch.tensor([[[[0.0]], [[1.3863]]]])  # p = 0.2, 0.8
        >>> round(FocalLoss()(logits, torch.tensor([[[1]]])).item(), 6)  # -0.2² ln 0.8
        0.008926
    """

    def __init__(self, gamma: float = 2.0, alpha: float | None = None) -> None:
        if gamma != 0 and gamma < 1:
            raise ValueError(f"gamma={gamma} must be 0 or at least 1")
        import monai.losses

        super().__init__(
            monai.losses.FocalLoss(to_onehot_y=True, use_softmax=True, gamma=gamma, alpha=alpha)
        )

    def forward(self, logits: Tensor, mask: Tensor) -> Tensor:
        """The loss, averaged over all pixels of the batch."""
        return super().forward(logits, mask) * 2


class TverskyLoss(MonaiLoss):
    r"""Dice with separate prices for false alarms and misses.

    .. math:: 1 - \frac{\sum p\,y + \epsilon}
        {\sum p\,y + \alpha \sum p\,(1 - y) + \beta \sum (1 - p)\,y + \epsilon}

    of the lesion in each image, averaged over images; 0.5 and 0.5 is the soft Dice loss. Salehi
    et al., MLMI 2017 (arXiv 1706.05721), whose best was 0.3 and 0.7; MONAI's ``TverskyLoss``.

    Args:
        alpha: Price of a false alarm.
        beta: Price of a miss.

    Shape:
        logits (B, 2, H, W), mask (B, H, W) int64 in {0, 1} -> scalar.

    Example:
        >>> logits = torch.tensor([[[[0.0, 0.0]], [[1.3863, -1.3863]]]])  # p = 0.8, 0.2
        >>> mask = torch.tensor([[[1, 0]]])
        >>> round(TverskyLoss()(logits, mask).item(), 4)  # 1 - 0.8 / (0.8 + 0.06 + 0.14)
        0.2
    """

    def __init__(self, alpha: float = 0.3, beta: float = 0.7) -> None:
        import monai.losses

        super().__init__(
            monai.losses.TverskyLoss(
                include_background=False, to_onehot_y=True, softmax=True, alpha=alpha, beta=beta
            )
        )


class HausdorffLoss(MonaiLoss):
    r"""Dice + cross-entropy, plus errors weighted by their distance from the outlines.

    .. math:: \mathrm{DiceCE} + w \log\Big(1 + \tfrac1N \sum_i (p_i - y_i)^2
        \big(d_P(i)^\alpha + d_Y(i)^\alpha\big)\Big)

    d_P and d_Y are the distances of pixel i from the outline of the prediction (p > 0.5) and of
    the truth, pixels at the network's size; 0 where there is none. The term is taken per image
    and averaged. Karimi & Salcudean, IEEE TMI 2019 (arXiv 1904.10030); MONAI's
    ``LogHausdorffDTLoss``: the logarithm keeps it at the scale of the other terms. Alone it does
    not train from random weights, beside them it does. The distance transforms run on the CPU
    (with MONAI and cuCIM installed, on the GPU), one image at a time.

    Args:
        hausdorff_weight: w.
        alpha: Exponent of the distances.
        dice_weight: Weight of the Dice term.
        ce_weight: Weight of the cross-entropy.

    Shape:
        logits (B, 2, H, W), mask (B, H, W) int64 in {0, 1} -> scalar.

    Example:
        >>> far = torch.tensor([[[[9.0, 9, 9, 9, -9]], [[-9.0, -9, -9, -9, 9]]]])
        >>> near = far[..., [0, 4, 1, 2, 3]]  # a lesion pixel predicted beside the true one
        >>> mask = torch.tensor([[[1, 0, 0, 0, 0]]])
        >>> bool(HausdorffLoss()(far, mask) > HausdorffLoss()(near, mask))
        True
    """

    def __init__(
        self,
        hausdorff_weight: float = 0.1,
        alpha: float = 2.0,
        dice_weight: float = 1.0,
        ce_weight: float = 1.0,
    ) -> None:
        import monai.losses

        super().__init__(
            monai.losses.LogHausdorffDTLoss(
                alpha=alpha, to_onehot_y=True, softmax=True, reduction="none"
            )
        )
        self.hausdorff_weight = hausdorff_weight
        self.dice_ce = DiceCELoss(dice_weight, ce_weight)

    def forward(self, logits: Tensor, mask: Tensor) -> Tensor:
        """The loss, averaged over the batch."""
        hausdorff = super().forward(logits, mask).mean()
        return self.dice_ce(logits, mask) + self.hausdorff_weight * hausdorff
