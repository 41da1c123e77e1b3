"""What a training logs, and which callbacks choose by it: the mode follows from the name."""

from omegaconf import DictConfig, open_dict

from anatosegnet.config.checks import types_of
from anatosegnet.config.recorded import locate, require_admitted
from anatosegnet.errors import UserError

# what `SegmentationModule` logs of an epoch, and whether its least or greatest value is the best
LOGGED = {
    "val/loss": "min", "val/iou": "max", "val/dice": "max", "val/iou_pooled": "max",
    "val/iou_batch_pooled": "max", "train/loss": "min", "train/iou": "max", "train/lr": "min",
}  # fmt: skip


def best_is(monitor: str | None) -> str | None:
    """``min`` or ``max``: the ``mode`` that suits a monitor, in configs; None for others' names."""
    return "max" if monitor is None else LOGGED.get(str(monitor))


def settle_monitors(config: DictConfig) -> None:
    """Let the ``mode`` of every callback that monitors something follow from what it monitors.

    Args:
        config: Changed in place.

    Raises:
        UserError: It takes the worst value of its monitor for the best, or monitors what others
            log and does not say which value is the best.
    """
    for key, callback in (config.callbacks or {}).items():
        monitor = callback.get("monitor") if isinstance(callback, DictConfig) else None
        if monitor is None:
            continue
        mode, better = callback.get("mode"), best_is(monitor)
        if mode is not None and better not in (None, mode):
            raise UserError(
                f"callbacks.{key}.mode={mode} contradicts monitor={monitor}, whose best value is "
                f"the {'least' if better == 'min' else 'greatest'}; leave mode out"
            )
        require_admitted(config, f"callbacks.{key}")  # before anything is imported
        if "mode" not in types_of(locate(str(callback.get("_target_")))):
            continue
        if better is None and mode not in ("min", "max"):
            raise UserError(
                f"callbacks.{key}.monitor={monitor} is not one of {', '.join(LOGGED)}; if it is "
                f"logged by a module or callback of yours, give callbacks.{key}.mode=min or max"
            )
        with open_dict(callback):
            callback.mode = better or mode
