"""``python -m anatosegnet.tune search=default``: the best settings, found with Optuna.

Each trial is a ``train`` process of its own; the validation IoU of its epochs is what is searched
by. A split that validates on its test cases is refused.
"""

from omegaconf import DictConfig

from anatosegnet.cli import verb
from anatosegnet.tuning.search import given_overrides, tune


@verb("tune")
def main(config: DictConfig) -> None:
    """Search, or go on with a search, and show what was found."""
    tune(config, given_overrides())


if __name__ == "__main__":
    main()
