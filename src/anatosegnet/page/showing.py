"""What the page shows of a picture, as HTML that holds its pictures and files itself."""

import base64
from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

import cv2
import numpy as np

from anatosegnet.console import rounded
from anatosegnet.files.rows import row_text
from anatosegnet.page.look import Look, View
from anatosegnet.prediction.measurements import COLUMNS
from anatosegnet.report.overlay import (
    OVERLAY_JPEG,
    encode_jpeg,
    encode_png,
    lesions_on,
    one_if_grey,
)

LARGEST_EDGE = 1024  # px of what is shown; what is downloaded has the picture's own size
HEADS = {
    "lesion": "lesion",
    "long_axis": "long axis",
    "short_axis": "short axis",
    "area": "area",
    "perimeter": "perimeter",
    "depth": "depth",
    "mean_probability": "mean probability",
    "uncertainty": "uncertainty, bits",
}
STYLE = """
.pictures { display: grid; grid-template-columns: 3.3fr 1fr; gap: 4px 12px; align-items: start }
.pictures figure { margin: 0 }
.pictures figure:first-child { grid-row: span 3 }
.pictures img { width: 100%; border-radius: 4px; background: #000 }
.pictures figcaption { font-size: 13px; opacity: .75; margin-top: 2px }
.shown .measured { overflow-x: auto; margin: 14px 0 }
.shown table { border-collapse: collapse; font-variant-numeric: tabular-nums }
.shown table th, .shown table td { padding: 4px 24px 4px 0; text-align: right; white-space: nowrap }
.shown table, .shown table * { border: 0 !important }
.shown table tr { border-bottom: 1px solid #8884 !important }
.shown table th { font-weight: 600 }
.shown .files a { display: inline-block; margin-right: 10px; padding: 6px 14px; border-radius: 6px;
  border: 1px solid #8888; text-decoration: none; color: inherit }
.shown h2 { margin: 0 0 8px; font-size: 17px; overflow-wrap: anywhere }
.about { font-size: 13px; overflow-wrap: anywhere }
.sorry { padding: 10px 14px; border-left: 4px solid #c62828; background: #c6282818 }
"""


def shown(look: Look, threshold: float) -> str:
    """Pictures, measurements and files of a look at a threshold."""
    view = look.view(threshold)
    return (
        f'<div class="shown">{_head(look, view)}<div class="pictures">'
        + "".join(
            f'<figure><img alt="{name}" src="{source}"><figcaption>{name}</figcaption></figure>'
            for name, source in _pictures(look, view)
        )
        + f"</div>{_table(view)}{_files(look, view)}</div>"
    )


def sentence(text: str) -> str:
    """What cannot be done, as a sentence in the page."""
    return f'<p class="sorry" role="alert">{escape(text)}</p>'


def about(named: str) -> str:
    """What is being tried, and what becomes of a picture."""
    return (
        f'<p class="about">Network: <b>{escape(named)}</b></p>'
        '<p class="about">PNG, JPEG, TIFF, BMP or DICOM. Files stay on the machine that runs this '
        "page and are not stored there: a picture is forgotten with its tab.</p>"
    )


def _head(look: Look, view: View) -> str:
    picture = look.picture
    height, width = picture.size
    told = [f"{width}×{height} px"]
    if picture.frame:
        told.append(f"frame {picture.frame} of {look.frames}; predict does them all")
    if not picture.regions:
        told.append("its scale is not known: measured in pixels")
    sure = dict(zip(COLUMNS, view.rows[0], strict=True))["image_uncertainty"]
    number = len(view.sizes)
    told.append(
        f"{number} lesion{'' if number == 1 else 's'}, "
        f"uncertainty of the whole {rounded(sure)} (0 = sure, 1 = not at all)"
    )
    return f"<h2>{escape(picture.source.path.name)}</h2><p>{escape('; '.join(told))}</p>"


def _pictures(look: Look, view: View) -> Iterator[tuple[str, str]]:
    """Captions, and pictures as data: addresses; the first is shown large."""
    image = look.picture.image
    assert image is not None
    ends = [size.ends for size in view.sizes]
    yield "lesion, its outline and axes", _jpeg(lesions_on(image, view.mask, ends))
    yield "image", _jpeg(image)
    unsure = cv2.applyColorMap(np.rint(view.entropy * 255).astype(np.uint8), cv2.COLORMAP_INFERNO)
    yield "uncertainty, 0 to 1 bit", _jpeg(cv2.cvtColor(unsure, cv2.COLOR_BGR2RGB))
    yield "mask", _data("image/png", encode_png(_small(_mask(view))))


def _table(view: View) -> str:
    rows = [dict(zip(COLUMNS, row, strict=True)) for row in view.rows]
    if not view.sizes:
        return "<p>No lesion at this threshold.</p>"
    heads = "".join(f"<th>{head}</th>" for head in HEADS.values())
    body = "".join(
        "<tr>" + "".join(f"<td>{_cell(row, name)}</td>" for name in HEADS) + "</tr>" for row in rows
    )
    return (
        f'<div class="measured"><table class="lesions"><thead><tr>{heads}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def _cell(row: Mapping[str, Any], name: str) -> str:
    """A measurement in mm and pixels, in pixels where that is all; or a number."""
    if f"{name}_px" not in row:
        return str(row[name]) if name == "lesion" else rounded(row[name])
    power = "²" if name == "area" else ""
    pixels = f"{rounded(row[f'{name}_px'], 1)} px{power}"
    mm = row[f"{name}_mm2" if power else f"{name}_mm"]
    return pixels if mm is None else f"<b>{rounded(mm, 2)} mm{power}</b><br>{pixels}"


def _files(look: Look, view: View) -> str:
    table = (row_text(COLUMNS) + "".join(map(row_text, view.rows))).encode("utf-8", "replace")
    files = {
        f"{look.picture.name}.png": ("mask (PNG)", "image/png", encode_png(_mask(view))),
        "measurements.csv": ("measurements.csv", "text/csv", table),
    }
    links = "".join(
        f'<a download="{escape(name)}" href="{_data(kind, content)}">{text}</a>'
        for name, (text, kind, content) in files.items()
    )
    return f'<p class="files">{links}</p>'


def _mask(view: View) -> np.ndarray:
    return view.mask.view(np.uint8) * np.uint8(255)


def _small(pixels: np.ndarray) -> np.ndarray:
    """Pixels at most `LARGEST_EDGE` long."""
    height, width = pixels.shape[:2]
    scale = LARGEST_EDGE / max(height, width)
    if scale >= 1:
        return pixels
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)


def _jpeg(pixels: np.ndarray) -> str:
    return _data("image/jpeg", encode_jpeg(one_if_grey(_small(pixels)), OVERLAY_JPEG))


def _data(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
