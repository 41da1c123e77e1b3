"""HTML pages of one file each that load nothing from elsewhere."""

import json
from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from anatosegnet.files.writing import replacing

TEMPLATE = Path(__file__).parent / "template"
STYLES = ("style.css", "cases.css")


def render(
    template: str,
    scripts: Iterable[str],
    data: Mapping[str, Any],
    pictures: Iterable[Mapping[str, str]],
    **context: Any,
) -> str:
    """A page with its styles, scripts, data and pictures inside.

    Args:
        template: Name of the page's template.
        scripts: Names of its scripts, in order.
        data: What the scripts read; JSON.
        pictures: For each case the base64 texts of its JPEG pictures by kind.
        **context: What the template shows; text, which is escaped.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATE),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(
        style=_sources(STYLES),
        script=_sources(scripts),
        data=embed(data),
        pictures=(embed(texts) for texts in pictures),
        version=_version(),
        **context,
    )


def embed(content: Any) -> Markup:
    """JSON that may stand inside ``<script>``: no text in it can end the element."""
    text = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return Markup(text.replace("<", "\\u003c"))


def write(path: Path, page: str) -> Path:
    """Write a page whole or not at all; returns the path."""
    with replacing(path) as temporary:
        # a name the system gave us may hold bytes that are no text
        temporary.write_bytes(page.encode("utf-8", "replace"))
    return path


def _sources(names: Iterable[str]) -> Markup:
    return Markup("\n".join((TEMPLATE / name).read_text("utf-8") for name in names))


def _version() -> str:
    try:
        return version("anatosegnet")
    except PackageNotFoundError:
        return "(not installed)"
