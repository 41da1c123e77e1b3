"""The list of encoders in docs/models.md: what each gives, forward and backward tried.

python scripts/try_encoders.py [NAME …]
"""

import sys
from datetime import date

import timm
import torch

from anatosegnet.errors import UserError
from anatosegnet.models import AnatoSegNet

NAMES = """
resnet18 resnet50 resnetv2_18 resnest14d res2net50_14w_8s skresnet18 legacy_seresnet18 selecsls42
regnety_002 regnetz_b16 gernet_s repvgg_a0 mobileone_s0 nf_regnet_b0 dm_nfnet_f0 dpn48b
cs3darknet_focus_s cspdarknet53 darknet53 cspnext_s densenet121 vgg11_bn dla34 ese_vovnet19b_dw
inception_v4 xception41 efficientnet_b0 tf_efficientnetv2_b0 tf_efficientnet_lite0 mixnet_s
mobilenetv3_large_100 mobilenetv4_conv_small lcnet_050 lcnetv2_base ghostnet_050 repghostnet_050
rexnet_100 hardcorenas_a mobilevit_xxs mobilevitv2_050 halonet26t botnet26t_256 lambda_resnet26t
coatnet_nano_rw_224 maxvit_pico_rw_256 hrnet_w18_small convnext_atto convnextv2_atto
inception_next_atto poolformer_s12 caformer_s18 convformer_s18 fastvit_t8 repvit_m0_9 starnet_s1
fasternet_t0 hgnetv2_b0 hgnet_tiny rdnet_tiny tresnet_m edgenext_xx_small efficientvit_b0
efficientvit_l1 efficientformer_l1 efficientformerv2_s0 swiftformer_xs iformer_t lowformer_b0
nextvit_small mambaout_femto swin_tiny_patch4_window7_224 swin_s3_tiny_224 swinv2_tiny_window8_256
swinv2_cr_tiny_224 focalnet_tiny_srf davit_tiny gcvit_xxtiny tiny_vit_5m_224 pvt_v2_b0
twins_pcpvt_small twins_svt_small coat_lite_tiny mvitv2_tiny hiera_tiny_224 hieradet_small
vit_tiny_patch16_224 xcit_nano_12_p16_224 levit_128 nest_tiny visformer_tiny sequencer2d_s
"""


def main() -> None:
    """Print the names by what they take; exit status 1 if one is neither taken nor refused."""
    print(f"timm {timm.__version__}, torch {torch.__version__}, {date.today()}\n")
    groups: dict[str, list[str]] = {}
    for name in sys.argv[1:] or NAMES.split():
        try:
            group = tried(name)
        except UserError:
            group = "refused"
        except Exception as error:
            group = f"FAILED {type(error).__name__}: {error}"
        groups.setdefault(group, []).append(f"`{name}`")
    for group, names in sorted(groups.items()):
        print(f"- {group} ({len(names)}): {', '.join(names)}")
    sys.exit(any(group.startswith("FAILED") for group in groups))


def tried(name: str) -> str:
    """What an encoder takes, after a step on two images with attention at the deepest level.

    Raises:
        UserError: The encoder is refused.
        ValueError: A parameter has no gradient.
    """
    attention = {"levels": [5], "heads": 1}
    network = AnatoSegNet(name, pretrained=False, attention=attention)
    encoder = network.encoder
    size = (encoder.unit, encoder.unit) if encoder.unit > 1 else (90, 131)
    logits = network(torch.randn(2, 3, *size))
    if logits.shape != (2, 2, *size):
        raise ValueError(f"gives {tuple(logits.shape)} for {size}")
    logits.square().mean().backward()
    unused = [key for key, parameter in network.named_parameters() if parameter.grad is None]
    if unused:
        raise ValueError(f"{len(unused)} parameters have no gradient, first {unused[0]}")
    levels = ", ".join(map(str, encoder.attended))
    sizes = "" if encoder.unit == 1 else f", images of {encoder.unit}×{encoder.unit}"
    return f"attention at {levels}{sizes}"


if __name__ == "__main__":
    main()
