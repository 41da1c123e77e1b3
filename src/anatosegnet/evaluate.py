"""``python -m anatosegnet.evaluate run=DIR``: scores a row per image, tables, and pictures."""

from omegaconf import DictConfig

from anatosegnet.cli import verb
from anatosegnet.config.overrides import is_own_data
from anatosegnet.run import Run


@verb("evaluate")
def main(config: DictConfig) -> None:
    """Evaluate a run on its test cases, or on another dataset."""
    from anatosegnet.evaluation.evaluate import evaluate

    evaluate(Run.open(config.run, trust=config.trust), config, is_own_data())


if __name__ == "__main__":
    main()
