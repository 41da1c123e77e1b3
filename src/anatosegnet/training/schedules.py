"""Learning rates per epoch that torch does not have under one name."""

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
