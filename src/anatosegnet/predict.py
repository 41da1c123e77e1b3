"""``python -m anatosegnet.predict run=DIR input=… output=DIR``: masks and measurements."""

import sys

from omegaconf import DictConfig

from anatosegnet.cli import verb
from anatosegnet.config.places import user_path
from anatosegnet.errors import UserError

USAGE = "run=DIR input=IMAGES output=DIR"


@verb("predict")
def main(config: DictConfig) -> None:
    """Predict masks and measure lesions; exit status 1 if an image could not be done."""
    from anatosegnet.prediction.opening import file_of, open_runs
    from anatosegnet.prediction.predict import predict

    if file_of(config) is None:
        open_runs(config.run, USAGE, config.trust)
    for key in ("input", "output"):
        if config[key] is None:
            raise UserError(f"{key}=… is missing: {USAGE}")
    if predict(config.input, user_path(config.output), config):
        sys.exit(1)


if __name__ == "__main__":
    main()
