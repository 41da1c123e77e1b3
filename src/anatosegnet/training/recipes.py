"""Settings that must go together, put right or refused before anything is built."""

from pathlib import Path

from omegaconf import DictConfig

from anatosegnet.errors import UserError

MIXED = ("16-mixed", "bf16-mixed")
ENDS = ("T_max", "total_iters", "epochs")  # of schedules: the length of the training


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
    for key in ("best", "last"):
        place, checkpoints = config.callbacks[key], Path(str(config.run_dir), "checkpoints")
        if not place:
            continue
        if not isinstance(place, DictConfig):
            raise UserError(f"callbacks.{key}={place} must be settings of its own, or null")
        if (Path(str(place.get("dirpath"))), place.get("filename")) != (checkpoints, key):
            raise UserError(
                f"callbacks.{key}: its dirpath and filename are fixed, {checkpoints}/{key}.ckpt is "
                "where the other programs look; a callback of another name keeps more"
            )
    refuse_endless(config)
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


def refuse_endless(config: DictConfig) -> None:
    """UserError for a schedule without an end, or a training without a sensible one."""
    epochs = config.trainer.get("max_epochs")
    if not (type(epochs) is int and (epochs >= 1 or epochs == -1)):
        raise UserError(
            f"trainer.max_epochs={epochs} must be a whole number of at least 1, or -1 for no end"
        )
    for key in ENDS:
        end = (config.scheduler or {}).get(key, 1)
        if not (type(end) is int and end >= 1):
            raise UserError(
                f"scheduler.{key}={end} must be a number of epochs (trainer.max_epochs={epochs}); "
                "give one, or take scheduler=constant"
            )
