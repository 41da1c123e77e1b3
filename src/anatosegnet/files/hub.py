"""Packages on the Hugging Face hub, by address: ``hf://owner/name``, or ``…@revision``.

Only the files that a package has are fetched, by names that stand here, into the hub's own cache.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from anatosegnet.console import plain, say, some
from anatosegnet.errors import UserError, reason
from anatosegnet.files import opening, weights

SCHEME = "hf://"
ADDRESS = re.compile(r"hf://(\w[\w.-]{0,95}/\w[\w.-]{0,95})(?:@(\w[\w./-]{0,99}))?", re.ASCII)
NEEDED = ("config.yaml", weights.NAME)
# of a package, and the most bytes of each
FILES = {
    weights.NAME: opening.LARGEST_WEIGHTS,
    **dict.fromkeys(("config.yaml", "summary.json", "README.md"), opening.LARGEST_TEXT),
    **dict.fromkeys(("split.csv.gz", "duplicates.csv.gz", "metrics.csv.gz"), opening.LARGEST_TEXT),
}
WAY_OUT = "look at the name and the network, and log in (hf auth login) where it is private"


class Address(NamedTuple):
    """A repository of the hub, and which state of it."""

    repository: str
    revision: str | None

    @classmethod
    def of(cls, text: str) -> "Address":
        """The address in a text; raises UserError where it is none."""
        found = ADDRESS.fullmatch(text)
        if not found:
            raise UserError(f"{plain(text)} must be hf://OWNER/NAME or hf://OWNER/NAME@REVISION")
        return cls(found[1], found[2])


def fetch(text: str) -> Path:
    """The folder of a package of the hub, on this machine; what is there already is not fetched.

    Args:
        text: Its address.

    Raises:
        UserError: There is no such package, it is larger than packages are, or the hub does not
            answer and it is not in the cache.
    """
    import huggingface_hub
    from huggingface_hub.errors import HfHubHTTPError

    address = Address.of(text)
    api = huggingface_hub.HfApi(library_name="anatosegnet")
    with naming(text):
        try:
            found = api.model_info(
                address.repository, revision=address.revision, files_metadata=True, timeout=20
            )
        except HfHubHTTPError:  # it answered: there is none
            raise
        except Exception as error:  # no network, of many kinds
            if (cached := in_cache(address)) is not None:
                say(f"{plain(text)}: from the cache, the hub does not answer ({reason(error)})")
                return cached
            raise
        sizes = {one.rfilename: one.size or 0 for one in found.siblings or ()}
        require_package(text, sizes)
        names = [name for name in FILES if name in sizes]
        paths = [
            api.hf_hub_download(address.repository, name, revision=address.revision)
            for name in names
        ]
    folders = {Path(str(path)).parent for path in paths}
    if len(folders) > 1:
        raise UserError(f"{plain(text)} changed while it was fetched; give the command again")
    return folders.pop()


def require_package(text: str, sizes: dict[str, int]) -> None:
    """UserError unless a repository has what a package needs, none of it too large."""
    if missing := [name for name in NEEDED if name not in sizes]:
        raise UserError(f"{plain(text)} is no package of AnatoSegNet: it has no {some(missing)}")
    for name, most in FILES.items():
        if sizes.get(name, 0) > most:
            raise UserError(f"{plain(text)}: its {name} has more than {most / 1e6:.0f} MB")


def in_cache(address: Address) -> Path | None:
    """The folder of a package that was fetched before."""
    import huggingface_hub

    found = [
        huggingface_hub.try_to_load_from_cache(address.repository, name, revision=address.revision)
        for name in NEEDED
    ]
    paths = [Path(path) for path in found if isinstance(path, str)]
    return paths[0].parent if len(paths) == len(NEEDED) else None


@contextmanager
def naming(text: str) -> Iterator[None]:
    """Whatever the hub's library raises as one line that names the address."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # of the network, the hub and its library, of many kinds
        raise UserError(f"{plain(text)}: the hub says no ({reason(error)}); {WAY_OUT}") from error
