"""Learning rates that torch does not have under one name."""

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, LRScheduler, SequentialLR

from anatosegnet.errors import UserError


def cosine_warmup(optimizer: Optimizer, epochs: int, warmup: int = 5) -> LRScheduler:
    r"""Rise in equal steps to the full rate, then fall along a cosine; stepped every epoch.

    .. math:: \eta_e = \eta \cdot \begin{cases} (e + 1) / (W + 1) & e < W \\
        \tfrac12 \big(1 + \cos \pi \tfrac{e - W}{E - W}\big) & e \ge W \end{cases}

    Goyal et al. 2017 (arXiv 1706.02677) for the warm-up, Loshchilov & Hutter, ICLR 2017 for the
    cosine.

    Args:
        optimizer: Its learning rate is the full one.
        epochs: E, of the whole training.
        warmup: W, epochs below the full rate; 0 is ``scheduler=cosine``.

    Raises:
        UserError: The warm-up takes the whole training or is negative.
    """
    if not 0 <= warmup < epochs:
        raise UserError(
            f"scheduler.warmup={warmup} must be at least 0 and less than "
            f"trainer.max_epochs={epochs}"
        )
    if warmup == 0:
        return CosineAnnealingLR(optimizer, T_max=epochs)
    rise = LinearLR(optimizer, start_factor=1 / (warmup + 1), total_iters=warmup)
    fall = CosineAnnealingLR(optimizer, T_max=epochs - warmup)
    return SequentialLR(optimizer, [rise, fall], milestones=[warmup])


class PolyStepLR(LRScheduler):
    r"""A rate that falls after every step of the optimizer, by the share of the training done.

    .. math:: \eta \cdot (1 - i / I)^p

    after batch i of I. What is counted is epochs and fractions of one, so that a training that is
    resumed with other batches, or for longer, goes on at the rate of its epoch; past the end the
    rate stays 0. `SegmentationModule` tells it how far training is, before each step of it.

    Args:
        optimizer: Its learning rate is the full one.
        epochs: Of the whole training.
        power: p.

    Attributes:
        epochs_done: How far training is.
    """

    interval = "step"  # in Lightning's words: when it is to be stepped

    def __init__(self, optimizer: Optimizer, epochs: int, power: float = 0.9) -> None:
        self.epochs, self.power, self.epochs_done = epochs, power, 0.0
        super().__init__(optimizer)

    def get_lr(self) -> list[float | Tensor]:
        """The rate of each group; UserError if nobody says how far training is."""
        if self.last_epoch > 0 and self.epochs_done == 0:
            raise UserError(
                "scheduler: a PolyStepLR must be told its epochs_done before each step; "
                "SegmentationModule.lr_scheduler_step does, a module of yours must too"
            )
        left = max(0.0, 1 - self.epochs_done / self.epochs)
        return [rate * left**self.power for rate in self.base_lrs]
