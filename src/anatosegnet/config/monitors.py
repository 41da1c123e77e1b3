"""What a training logs, and which callbacks choose by it: the mode follows from the name."""

from omegaconf import DictConfig, open_dict

from anatosegnet.config.checks import types_of
from anatosegnet.config.recorded import locate
from anatosegnet.errors import UserError

# what a callback can monitor, and whether its least or its greatest value is the best
LOGGED = {
    "val/loss": "min", "val/iou": "max", "val/dice": "max", "val/iou_pooled": "max",
    "val/iou_batch_pooled": "max", "train/loss": "min", "train/iou": "max", "train/lr": "min",
}  # fmt: skip


def best_is(monitor: str | None) -> str:
    """``min`` or ``max``: the ``mode`` that suits a monitor, in configs."""
    return LOGGED.get(str(monitor), "max")


def settle_monitors(config: DictConfig) -> None:
    """Let the ``mode`` of every callback that monitors something follow from what it monitors.

    Args:
        config: Changed in place.

    Raises:
        UserError: It monitors what is not logged, or takes its worst value for the best.
    """
    for key, callback in (config.callbacks or {}).items():
        monitor = callback.get("monitor") if isinstance(callback, DictConfig) else None
        if monitor is None:
            continue
        if monitor not in LOGGED:
            raise UserError(f"callbacks.{key}.monitor={monitor} is none of {', '.join(LOGGED)}")
        mode, better = callback.get("mode"), LOGGED[monitor]
        if mode not in (None, better):
            raise UserError(
                f"callbacks.{key}.mode={mode} contradicts monitor={monitor}, whose best value is "
                f"the {'least' if better == 'min' else 'greatest'}; leave mode out"
            )
        if "mode" in types_of(locate(str(callback.get("_target_")))):
            with open_dict(callback):
                callback.mode = better
