"""Networks of other packages, which are loaded when one of their networks is built."""

import importlib
from types import ModuleType
from typing import Any

from torch import Tensor

from anatosegnet.errors import UserError
from anatosegnet.models.blocks import PaddedNetwork


class LibraryNetwork(PaddedNetwork):
    """A network of another package, in `network`."""

    network: Any

    def segment(self, image: Tensor) -> Tensor | list[Tensor]:
        """The logits of images whose sides are multiples of `stride`."""
        return self.network(image)


def library(module: str) -> ModuleType:
    """A module of a package, which the extra ``networks`` brings.

    Raises:
        UserError: It is not installed.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise UserError(
            f"this network needs the package {error.name}: pip install 'anatosegnet[networks]'"
        ) from error
