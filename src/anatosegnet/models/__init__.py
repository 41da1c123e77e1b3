"""Networks: plain ``nn.Module`` from images (B, C, H, W) to logits (B, K, H, W)."""

from anatosegnet.models.anatosegnet import AnatoSegNet, AttentionSettings
from anatosegnet.models.attention import AnatomicalAttention

__all__ = ["AnatoSegNet", "AnatomicalAttention", "AttentionSettings"]
