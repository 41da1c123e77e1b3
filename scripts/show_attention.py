"""Draw where each head looks from one pixel, with the row, raster and no bias side by side.

    python scripts/show_attention.py run=DIR image=FILE [at=x,y] [level=4] [size=EDGE] [output=FILE]

The weights are the run's own; only the bias is exchanged, so the columns differ by it alone. The
pixel, in the image's own coordinates, is the centre unless at=x,y says where. The network sees the
image at the run's size, or at size=EDGE (more tokens, finer maps). Brightness is a head's weight
relative to its largest; the last column is the mean of the heads.
"""

import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import cv2
import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes

from anatosegnet.cli import errors_in_one_line
from anatosegnet.data.case import CaseError, read_image
from anatosegnet.data.transforms import image_to_tensor, resize_image, two_sizes
from anatosegnet.errors import UserError
from anatosegnet.evaluation.inference import Predictor
from anatosegnet.models import AnatomicalAttention, AnatoSegNet
from anatosegnet.run import Run, replacing

BIASES = ("rows", "raster", "none")
USAGE = "run=DIR image=FILE [at=x,y] [level=4] [size=EDGE] [output=attention.png]"


def main() -> None:
    """Read the arguments, compute the maps, write the picture."""
    settings = {"at": "", "level": "", "size": "", "output": "attention.png"}
    for argument in sys.argv[1:]:
        key, _, value = argument.partition("=")
        if not value or key not in ("run", "image", *settings):
            raise UserError(f"{argument} is not understood; usage: {USAGE}")
        settings[key] = value
    missing = [key for key in ("run", "image") if key not in settings]
    if missing:
        raise UserError(f"{missing[0]}=… is missing; usage: {USAGE}")
    predictor = Predictor.from_run(Run.open(settings["run"]), "cpu")
    if settings["size"]:
        if not settings["size"].isdigit():
            raise UserError(f"size={settings['size']} must be a whole number of pixels")
        predictor.image_size = two_sizes(int(settings["size"]))
    model = predictor.model
    if not isinstance(model, AnatoSegNet) or not len(model.attentions):
        raise UserError(f"the network of {settings['run']} has no attention to show")
    level = settings["level"] or next(iter(model.attentions))
    if level not in model.attentions:
        raise UserError(f"level={level} has no attention; take {' or '.join(model.attentions)}")
    try:
        image = read_image(Path(settings["image"]))
    except CaseError as error:
        raise UserError(str(error)) from error
    pixel = pixel_of(settings["at"], image)
    maps = head_maps(predictor, model, level, image, pixel)
    output = Path(settings["output"])
    with replacing(output) as temporary:
        draw(image, pixel, maps, level, temporary)
    print(f"written {output}")


def pixel_of(text: str, image: np.ndarray) -> tuple[int, int]:
    """(x, y) of the chosen pixel; the centre by default."""
    height, width = image.shape[:2]
    if not text:
        return width // 2, height // 2
    try:
        x, y = (int(part) for part in text.split(","))
    except ValueError as error:
        raise UserError(f"at={text} must be x,y in pixels") from error
    if not (0 <= x < width and 0 <= y < height):
        raise UserError(f"at={text} lies outside the image of {width}×{height} pixels")
    return x, y


@torch.inference_mode()
def head_maps(
    predictor: Predictor,
    model: AnatoSegNet,
    level: str,
    image: np.ndarray,
    pixel: tuple[int, int],
) -> dict[str, np.ndarray]:
    """Weights (heads, H, W) from the pixel's position, for each bias."""
    attention = model.attentions[level]
    assert isinstance(attention, AnatomicalAttention)
    features: list[torch.Tensor] = []
    handle = attention.register_forward_pre_hook(lambda _, inputs: features.append(inputs[0]))
    resized = resize_image(image, predictor.image_size)
    model(image_to_tensor(resized, predictor.in_channels, predictor.normalization)[None])
    handle.remove()
    height, width = features[0].shape[-2:]
    row = pixel[1] * height // image.shape[0]
    column = pixel[0] * width // image.shape[1]
    own, maps = attention.bias, {}
    for bias in BIASES:
        attention.bias = bias
        weights = attention.attention_map(features[0])[0, :, row * width + column]
        maps[bias + (" (the run's own)" if bias == own else "")] = weights.unflatten(
            1, (height, width)
        ).numpy()
    attention.bias = own
    return maps


def draw(
    image: np.ndarray,
    pixel: tuple[int, int],
    maps: dict[str, np.ndarray],
    level: str,
    path: Path,
) -> None:
    """A row per bias, a column per head, the mean of the heads last."""
    heads = len(next(iter(maps.values())))
    aspect = image.shape[0] / image.shape[1]
    figure, axes = plt.subplots(
        len(maps),
        heads + 1,
        figsize=(1.7 * (heads + 1), 1.7 * aspect * len(maps) + 0.7),
        squeeze=False,
        layout="constrained",
    )
    for row, (bias, weights) in enumerate(maps.items()):
        panels = [*weights, weights.mean(axis=0)]
        for column, panel in enumerate(panels):
            axis = axes[row][column]
            overlay(axis, image, pixel, panel)
            if row == 0:
                axis.set_title(f"head {column + 1}" if column < heads else "mean", fontsize=10)
        axes[row][0].set_ylabel(bias.replace(" (", "\n("), fontsize=10)
    figure.suptitle(
        f"Attention at level {level} from the marked pixel, by bias (same weights)", fontsize=12
    )
    figure.savefig(path, dpi=110)
    plt.close(figure)


def overlay(axis: Axes, image: np.ndarray, pixel: tuple[int, int], weights: np.ndarray) -> None:
    """The image dimmed, the weights as light on it, the pixel as a cross."""
    height, width = image.shape[:2]
    light = cv2.resize(weights / weights.max(), (width, height), interpolation=cv2.INTER_NEAREST)
    axis.imshow(image // 2 + image // 8)  # dimmed, so that the light is seen
    layer = np.ones((height, width, 4)) * (1.0, 0.72, 0.1, 1.0)
    layer[..., 3] = 0.85 * np.sqrt(light)
    axis.imshow(layer)
    axis.plot(*pixel, "+", color="cyan", markersize=9, markeredgewidth=1.6)
    axis.set_xticks([])
    axis.set_yticks([])


if __name__ == "__main__":
    with errors_in_one_line():
        main()
