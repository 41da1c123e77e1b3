"""``python -m anatosegnet.export run=DIR format=onnx out=DIR``: a run as a file for others."""

from omegaconf import DictConfig

from anatosegnet.cli import verb
from anatosegnet.config.overrides import is_own_data
from anatosegnet.run import Run


@verb("export")
def main(config: DictConfig) -> None:
    """Export a run; what computes something else than the run is not kept."""
    from anatosegnet.deployment.exporting import export

    export(Run.open(config.run, "run=DIR format=onnx out=DIR", config.trust), config, is_own_data())


if __name__ == "__main__":
    main()
