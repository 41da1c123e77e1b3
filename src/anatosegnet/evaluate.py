"""``python -m anatosegnet.evaluate run=DIR``: scores a row per image, tables, and pictures."""

from omegaconf import DictConfig

from anatosegnet.cli import verb
from anatosegnet.config.overrides import is_own_data


@verb("evaluate")
def main(config: DictConfig) -> None:
    """Evaluate a run, or several as one, on its test cases, or on another dataset."""
    from anatosegnet.evaluation.evaluate import evaluate, evaluate_together
    from anatosegnet.prediction.opening import open_runs

    runs = open_runs(config.run, "run=DIR", config.trust)
    if len(runs) > 1:
        evaluate_together(runs, config, is_own_data())
    else:
        evaluate(runs[0], config, is_own_data(), config.out)


if __name__ == "__main__":
    main()
