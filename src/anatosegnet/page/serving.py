"""The page and its server: on this machine, without anybody's fonts, and nothing is kept."""

import importlib.util
import ipaddress
import os
import re
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from anatosegnet.console import plain, say
from anatosegnet.errors import UserError, reason
from anatosegnet.page.look import Look
from anatosegnet.page.showing import STYLE, about, sentence, shown
from anatosegnet.prediction.masks import THRESHOLD
from anatosegnet.prediction.opening import file_of, open_predictor, several
from anatosegnet.prediction.predictor import ImagePredictor

IN_MEMORY = Path("/dev/shm")
LEFT_ALONE = 60.0  # seconds that an upload may take to become a picture
LAST_ANSWERS = 2  # seconds at the end; an open tab would hold a connection for ever
MOST_SESSIONS = 16  # tabs whose pictures are kept in memory at once
HEADERS = {
    # nothing is loaded from, or sent to, another host
    "content-security-policy": (
        "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; "
        "frame-ancestors 'none'; form-action 'self'; base-uri 'self'"
    ),
    "cache-control": "no-store",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}
Message = MutableMapping[str, Any]


def serve(config: DictConfig, usage: str) -> None:
    """Serve the page until Ctrl-C or SIGTERM.

    Args:
        config: run (or several) or model, trust, tta, device, host, port, limit_mb.
        usage: How the verb is called.

    Raises:
        UserError: Gradio is missing, the address cannot be had, or there is no such network.
    """
    if importlib.util.find_spec("gradio") is None:
        raise UserError("the page needs gradio: pip install 'anatosegnet[app]'")
    if not isinstance(config.limit_mb, int) or not 1 <= config.limit_mb <= 1024:
        raise UserError(f"limit_mb={plain(config.limit_mb)} must be a whole number from 1 to 1024")
    with listening(config.host, config.port) as listener, private_folder() as folder:
        predictor = open_predictor(config, usage)
        app = application(
            predictor, name_of(config), folder, config.limit_mb, is_loopback(config.host)
        )
        import uvicorn

        address, port = listener.getsockname()[:2]
        shown_address = f"[{address}]" if ":" in address else address
        say(f"http://{shown_address}:{port}   (Ctrl-C ends it; nothing is kept)")
        if not is_loopback(config.host):
            say(f"host={config.host}: anybody who reaches this address can use the page")
        settings = uvicorn.Config(
            app, log_level="critical", access_log=False, timeout_graceful_shutdown=LAST_ANSWERS
        )
        # uvicorn ends in order, then raises the signal again
        signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
        with suppress(KeyboardInterrupt):
            uvicorn.Server(settings).run(sockets=[listener])


def name_of(config: DictConfig) -> str:
    """How the networks are called in the page, without the folders of this machine."""
    named = [file_of(config)] if file_of(config) else config.run
    return ", ".join(Path(str(one)).name for one in (named if several(named) else [named]))


def is_loopback(host: str) -> bool:
    """Whether an address is reached from this machine alone."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


@contextmanager
def listening(host: str, port: int) -> Iterator[socket.socket]:
    """A socket that listens; UserError where the address cannot be had."""
    if not isinstance(port, int) or not 0 <= port < 2**16:
        raise UserError(f"port={plain(port)} must be from 0 to 65535 (0: any that is free)")
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind)
    except (OSError, UnicodeError) as error:
        raise UserError(f"host={plain(host)}: no such address ({reason(error)})") from error
    with listener:
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen()
        except OSError as error:
            raise UserError(
                f"port {port} of {plain(host)} cannot be had ({reason(error)}); give another port=…"
            ) from error
        yield listener


@contextmanager
def private_folder() -> Iterator[Path]:
    """A folder for uploads, in memory where there is such; gone at the end, whatever it is."""
    place = IN_MEMORY if os.access(IN_MEMORY, os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="anatosegnet-page-", dir=place) as folder:
        yield Path(folder)


def application(
    predictor: ImagePredictor, named: str, folder: Path, limit_mb: int, only_here: bool = True
) -> Any:
    """The page as an ASGI application.

    Args:
        predictor: That is tried.
        named: How it is called in the page.
        folder: For uploads, each removed as soon as it is read.
        limit_mb: Of an upload.
        only_here: See `Guarded`.
    """
    os.environ["GRADIO_TEMP_DIR"] = str(folder)
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    import gradio
    from fastapi import FastAPI

    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(Guarded, only_here=only_here)
    app = gradio.mount_gradio_app(
        app,
        blocks(predictor, named, folder, limit_mb),
        path="/",
        footer_links=[],
        run_history=False,
        show_error=False,
        max_file_size=limit_mb * 10**6,
        ssr_mode=False,
        enable_monitoring=False,
        mcp_server=False,
        pwa=False,
        theme=gradio.themes.Default(
            primary_hue="teal",
            font=["system-ui", "sans-serif"],
            font_mono=["ui-monospace", "monospace"],
        ),
        css=STYLE,
    )
    return app


def blocks(predictor: ImagePredictor, named: str, folder: Path, limit_mb: int) -> Any:
    """The page's parts, and what happens when they are used."""
    import gradio

    def take(path: str | None, threshold: float) -> tuple[Look | None, str, None, Any]:
        if path is None:
            return None, "", None, frames_of(None)
        try:
            look = Look.at(Path(path), predictor)
            return look, shown(look, threshold), None, frames_of(look)
        except UserError as error:
            return None, sentence(str(error)), None, frames_of(None)
        finally:
            forget(Path(path), folder)

    def frames_of(look: Look | None) -> Any:
        count = look.frames if look else 1
        return gradio.update(value=1, maximum=max(2, count), visible=count > 1)

    def turn(look: Look | None, number: int, threshold: float) -> Any:
        if look is None:
            return gradio.skip(), gradio.skip()
        try:
            other = look.turned(min(max(1, int(number)), look.frames), predictor)
            return other, shown(other, threshold)
        except UserError as error:
            return look, sentence(str(error))

    def move(look: Look | None, threshold: float) -> Any:
        return gradio.skip() if look is None else shown(look, threshold)

    with gradio.Blocks(title="AnatoSegNet", analytics_enabled=False) as page:
        kept = gradio.State(None)
        gradio.Markdown("# AnatoSegNet\nLesions in breast ultrasound. For research, not diagnosis.")
        with gradio.Row():
            with gradio.Column(scale=1, min_width=260):
                upload = gradio.File(label=f"Image, up to {limit_mb} MB", height=190)
                threshold = gradio.Slider(
                    0.01, 0.99, THRESHOLD, step=0.01, label="Threshold", elem_id="threshold",
                    info="lesion is what is more probable",
                )  # fmt: skip
                frame = gradio.Slider(
                    1, 2, 1, step=1, label="Frame", elem_id="frame", visible=False
                )
                gradio.HTML(about(named))
            with gradio.Column(scale=4):
                output = gradio.HTML("", elem_id="shown")
        # gradio's own leaves an empty file for each
        upload.preprocess = path_of  # type: ignore[assignment, method-assign]
        hidden: dict[str, Any] = {"api_visibility": "private"}
        upload.upload(take, [upload, threshold], [kept, output, upload, frame], **hidden)
        hidden |= {"trigger_mode": "always_last", "show_progress": "hidden"}
        threshold.change(move, [kept, threshold], output, **hidden)
        frame.input(turn, [kept, frame, threshold], [kept, output], **hidden)

        def leave(request: gradio.Request) -> None:
            # else gradio keeps what a closed tab showed for an hour, or longer
            page.state_holder.session_data.pop(request.session_hash or "", None)

        page.unload(leave)
    page.queue(api_open=False)
    page.state_session_capacity = MOST_SESSIONS
    return page


def path_of(upload: Any) -> Any:
    """Where a file lies that was uploaded; gradio has seen to it that it is one."""
    return None if upload is None else str(upload.path)


def forget(path: Path, folder: Path) -> None:
    """Remove an upload, and those of more than a minute ago that never became a picture."""
    shutil.rmtree(path.parent, ignore_errors=True)
    for other in folder.iterdir():
        with suppress(OSError):
            if time.time() - other.stat().st_mtime > LEFT_ALONE:
                shutil.rmtree(other) if other.is_dir() else other.unlink()


class Guarded:
    """An application whose answers carry `HEADERS`.

    Args:
        app: ASGI.
        only_here: Answer to the names of this machine alone, so that no foreign page whose
            address was turned to this one gets in (DNS rebinding).
    """

    def __init__(self, app: Any, only_here: bool) -> None:
        self.app, self.only_here = app, only_here

    async def __call__(self, scope: Message, receive: Any, send: Any) -> None:
        """Answer a request."""
        headers = dict(scope.get("headers", ()))
        host = headers.get(b"host", b"").decode("latin-1")

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                own = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
                message["headers"] = [*message.get("headers", ()), *own]
            await send(message)

        if scope["type"] == "http" and self.only_here and not is_loopback(name_in(host)):
            await sending({"type": "http.response.start", "status": 421})
            await send({"type": "http.response.body", "body": b"another host was asked for"})
            return
        await self.app(scope, receive, sending)


def name_in(host: str) -> str:
    """The host of ``host:port``."""
    return re.sub(r":\d+$", "", host).strip("[]")
