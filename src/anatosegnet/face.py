"""What a package shows of its modules, imported when it is asked for.

Configs name objects by the face of their package (``anatosegnet.data.BUSISource``), so that a
later move breaks no recorded run; lazily, so that a program loads only what it uses.
"""

import importlib
from collections.abc import Callable, Mapping
from typing import Any


def face(
    package: str, shown: Mapping[str, str]
) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """``__getattr__``, ``__dir__`` and ``__all__`` of a package (PEP 562).

    Args:
        package: Its ``__name__``.
        shown: Names, space-separated, by the module below the package that defines them.
    """
    home = {name: module for module, names in shown.items() for name in names.split()}

    def get(name: str) -> Any:
        if name not in home:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(importlib.import_module(f"{package}.{home[name]}"), name)

    return get, lambda: sorted(home), sorted(home)
