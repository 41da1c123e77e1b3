"""Draw where each head looks from one pixel, with the row, raster and no bias side by side.

    python scripts/show_attention.py run=DIR image=FILE [at=x,y] [level=4] [size=EDGE] [output=FILE]

The weights are the run's own; only the bias is exchanged, so the columns differ by it alone. The
pixel, in the image's own coordinates, is the centre unless at=x,y says where. The network sees the
image at the run's size, or at size=EDGE (more tokens, finer maps). Brightness is a head's weight
relative to its largest; the last column is the mean of the heads.
"""

import sys
from pathlib import Path

import cv2
import numpy as np
import torch

from anatosegnet.cli import errors_in_one_line
from anatosegnet.data.case import CaseError, read_image
from anatosegnet.data.resizing import resize_image, two_sizes
from anatosegnet.data.transforms import image_to_tensor
from anatosegnet.errors import UserError
from anatosegnet.models import AnatomicalAttention, AnatoSegNet
from anatosegnet.prediction.inference import Predictor
from anatosegnet.report.grid import Cell, grid, page, scaled
from anatosegnet.report.overlay import encode_png
from anatosegnet.run import Run

BIASES = ("rows", "raster", "none")
BOX = (200, 200)  # px, of a picture
LIGHT, CROSS = (255, 184, 26), (0, 255, 255)  # RGB
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
    output.write_bytes(encode_png(draw(image, pixel, maps, level)))
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
    image: np.ndarray, pixel: tuple[int, int], maps: dict[str, np.ndarray], level: str
) -> np.ndarray:
    """A row per bias, a column per head, the mean of the heads last: (height, width, 3) uint8."""
    rows = [
        [Cell(overlay(image, pixel, one)) for one in (*weights, weights.mean(axis=0))]
        for weights in maps.values()
    ]
    heads = [f"head {number}" for number in range(1, len(rows[0]))]
    drawn = grid(rows, BOX, row_names=list(maps), column_names=[*heads, "mean of the heads"])
    return page(
        f"Attention at level {level} from the marked pixel, by bias (same weights)", [drawn]
    )


def overlay(image: np.ndarray, pixel: tuple[int, int], weights: np.ndarray) -> np.ndarray:
    """The image dimmed, the weights as light on it, the pixel as a cross."""
    height, width = image.shape[:2]
    dimmed = scaled(image // 2 + image // 8, BOX)  # so that the light is seen
    size = dimmed.shape[1::-1]
    light = cv2.resize(weights / weights.max(), size, interpolation=cv2.INTER_NEAREST)
    alpha = 0.85 * np.sqrt(light)[..., None]
    drawn = ((1 - alpha) * dimmed + alpha * np.array(LIGHT)).round().astype(np.uint8)
    place = pixel[0] * size[0] // width, pixel[1] * size[1] // height
    return cv2.drawMarker(drawn, place, CROSS, cv2.MARKER_CROSS, 13, 2)


if __name__ == "__main__":
    with errors_in_one_line():
        main()
