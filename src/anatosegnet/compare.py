"""``python -m anatosegnet.compare runs=[A,B,…]``: a row per setting, tested against a baseline."""

from omegaconf import DictConfig

from anatosegnet.cli import verb
from anatosegnet.config.overrides import is_own_data


@verb("compare")
def main(config: DictConfig) -> None:
    """Compare runs."""
    from anatosegnet.evaluation.compare import compare

    compare(config, is_own_data())


if __name__ == "__main__":
    main()
