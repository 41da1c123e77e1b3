"""``python -m anatosegnet.predict run=DIR input=… output=DIR``: a mask per image."""

import sys
from pathlib import Path

import numpy as np
from omegaconf import DictConfig

from anatosegnet.config import verb
from anatosegnet.console import say
from anatosegnet.errors import UserError
from anatosegnet.run import Run, replacing


@verb("predict")
def main(config: DictConfig) -> None:
    """Predict masks; exit status 1 if an image could not be done."""
    run = Run.open(config.run, "run=DIR input=IMAGE_OR_FOLDER output=DIR", config.trust)
    for key in ("input", "output"):
        if config[key] is None:
            raise UserError(f"{key}=… is missing: run=DIR input=IMAGE_OR_FOLDER output=DIR")
    failures = predict(run, Path(config.input), Path(config.output), config)
    if failures:
        sys.exit(1)


def predict(run: Run, source: Path, output: Path, config: DictConfig) -> list[str]:
    """Write one mask per image: original size, 0/255 PNG, same stem.

    Args:
        run: The run whose best epoch predicts.
        source: An image, or a folder of images.
        output: Folder of the masks.
        config: batch_size, device, overwrite.

    Returns:
        One line for each image that could not be done; they are printed too.

    Raises:
        UserError: Nothing can be done at all, or a mask would be overwritten.
    """
    from anatosegnet.data.case import CaseError, read_image
    from anatosegnet.inference import Predictor
    from anatosegnet.overlay import encode_png

    targets = masks_to_write(source, output)
    existing = [target for target in targets.values() if target.exists()]
    if existing and not config.overwrite:
        raise UserError(
            f"{existing[0]} exists ({len(existing)} of {len(targets)} masks do); "
            "give another output=DIR, or overwrite=true"
        )
    predictor = Predictor.from_run(run, config.device)
    failures: list[str] = []
    paths = list(targets)
    for start in range(0, len(paths), config.batch_size):
        images: dict[Path, np.ndarray] = {}
        for path in paths[start : start + config.batch_size]:
            try:
                images[path] = read_image(path)
            except CaseError as error:
                failures.append(str(error))
                say(f"error: {error}", error=True)
        if images:
            for path, mask in zip(images, predictor.masks(list(images.values())), strict=True):
                with replacing(targets[path]) as temporary:
                    temporary.write_bytes(encode_png(mask.astype(np.uint8) * 255))
    say(f"{len(paths) - len(failures)} masks in {output}, {len(failures)} images failed")
    return failures


def masks_to_write(source: Path, output: Path) -> dict[Path, Path]:
    """The images to do, each with the path of its mask.

    Raises:
        UserError: There is no image, two images share a stem, or a mask would replace an image.
    """
    from anatosegnet.data.case import IMAGE_SUFFIXES

    if source.is_dir():
        images = sorted(
            path
            for path in source.iterdir()
            if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")
        )
        if not images:
            raise UserError(f"input={source} holds no image ({' '.join(sorted(IMAGE_SUFFIXES))})")
    elif source.exists():
        images = [source]
    else:
        raise UserError(f"input={source}: no such file or folder")
    targets = {image: output / f"{image.stem}.png" for image in images}
    by_stem: dict[Path, Path] = {}
    for image, target in targets.items():
        if target in by_stem:
            raise UserError(
                f"{by_stem[target].name} and {image.name} have the same stem and would write the "
                "same mask; rename one"
            )
        by_stem[target] = image
        if target.exists() and target.resolve() == image.resolve():
            raise UserError(f"output={output} is the folder of the images; give another")
    return targets


if __name__ == "__main__":
    main()
