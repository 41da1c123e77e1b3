"""From a config to a trained run."""

from anatosegnet.face import face

__getattr__, __dir__, __all__ = face(
    __name__,
    {
        "callbacks": "Divergence History progress_bar",
        "ema": "EMA",
        "module": "SegmentationModule",
        "panels": "ValidationPanels",
        "schedules": "PolyStepLR cosine_warmup",
    },
)
