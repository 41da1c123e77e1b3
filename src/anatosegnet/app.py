"""``python -m anatosegnet.app run=DIR|model=FILE.onnx``: a page to try a network on images."""

from omegaconf import DictConfig

from anatosegnet.cli import verb


@verb("app")
def main(config: DictConfig) -> None:
    """Serve the page until Ctrl-C."""
    from anatosegnet.page.serving import serve

    serve(config, "run=DIR or model=FILE.onnx")


if __name__ == "__main__":
    main()
