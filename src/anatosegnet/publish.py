"""``python -m anatosegnet.publish runs=[A,B,…] out=DIR``: scores for others, without the images."""

from omegaconf import DictConfig

from anatosegnet.cli import verb


@verb("publish")
def main(config: DictConfig) -> None:
    """Publish runs; nothing is sent anywhere."""
    from anatosegnet.evaluation.published import publish

    publish(config.runs, config.out, config.trust)


if __name__ == "__main__":
    main()
