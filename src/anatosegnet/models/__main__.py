"""``python -m anatosegnet.models [csv=FILE]``: what each network costs, and how fast it is here."""

import sys

from omegaconf import DictConfig

from anatosegnet.cli import verb
from anatosegnet.network_table import print_networks


@verb("models")
def program(config: DictConfig) -> None:
    """Print the table of all choices of ``model=``."""
    print_networks(config)


def main() -> None:
    """Run the verb; ``--csv`` is short for ``csv=-``."""
    sys.argv = ["csv=-" if argument == "--csv" else argument for argument in sys.argv]
    program()


if __name__ == "__main__":
    main()
