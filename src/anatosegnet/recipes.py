"""Settings that must go together, put right or refused before anything is built."""

from omegaconf import DictConfig

from anatosegnet.errors import UserError

MIXED = ("16-mixed", "bf16-mixed")


def settle(config: DictConfig) -> list[str]:
    """Put right in the config what has one right answer, and refuse what has none.

    Args:
        config: The composed config of a training; changed in place, so that what is written
            down is what was done.

    Returns:
        A line for each change.

    Raises:
        UserError: The chosen callbacks write no checkpoint.
    """
    lacking = [key for key in ("best", "last") if key not in (config.callbacks or {})]
    if lacking:
        raise UserError(
            f"callbacks: the chosen ones have no {' and no '.join(lacking)}; choose "
            "callbacks=[default,…], or switch one off by callbacks.best=null"
        )
    lines = []
    clips = config.trainer.get("gradient_clip_val")
    if clips and config.trainer.precision in MIXED and config.optimizer.get("fused"):
        # Lightning refuses: in float16 a fused step undoes the scaling after the clipping
        config.optimizer.fused = False
        lines.append(
            f"optimizer.fused=false, as trainer.gradient_clip_val={clips} with "
            f"trainer.precision={config.trainer.precision} needs; slower, the same numbers to "
            "rounding"
        )
    return lines
