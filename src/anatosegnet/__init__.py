"""AnatoSegNet: lesion segmentation in breast ultrasound with anatomical attention."""

__version__ = "0.1.0"
