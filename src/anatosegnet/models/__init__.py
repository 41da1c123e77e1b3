"""Networks: plain ``nn.Module`` from images (B, C, H, W) to logits (B, K, H, W)."""

from anatosegnet.models.anatosegnet import AnatoSegNet, AttentionSettings
from anatosegnet.models.attention import AnatomicalAttention
from anatosegnet.models.attention_unet import AttentionUNet
from anatosegnet.models.cmunet import CMUNet
from anatosegnet.models.cmunext import CMUNeXt
from anatosegnet.models.medt import MedT
from anatosegnet.models.mobile_uvit import MobileUViT
from anatosegnet.models.monai_networks import DynUNet, MONAIAttentionUNet, SegResNet, SwinUNETR
from anatosegnet.models.nnunet import NNUNet
from anatosegnet.models.smp import SMP
from anatosegnet.models.swin_unet import SwinUnet
from anatosegnet.models.transunet import TransUNet
from anatosegnet.models.ukan import UKAN
from anatosegnet.models.unet_3_plus import UNet3Plus
from anatosegnet.models.unet_classic import UNet
from anatosegnet.models.unet_plus_plus import UNetPlusPlus
from anatosegnet.models.unext import UNeXt

__all__ = [
    "SMP",
    "UKAN",
    "AnatoSegNet",
    "AnatomicalAttention",
    "AttentionSettings",
    "AttentionUNet",
    "CMUNeXt",
    "CMUNet",
    "DynUNet",
    "MONAIAttentionUNet",
    "MedT",
    "MobileUViT",
    "NNUNet",
    "SegResNet",
    "SwinUNETR",
    "SwinUnet",
    "TransUNet",
    "UNeXt",
    "UNet",
    "UNet3Plus",
    "UNetPlusPlus",
]
