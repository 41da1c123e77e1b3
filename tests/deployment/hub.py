"""A model hub on this machine: what of its HTTP API packages need, and nothing else."""

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import huggingface_hub
import pytest

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class FakeHub:
    """Repositories by name, each of files by name; what was asked of it."""

    def __init__(self) -> None:
        self.repositories: dict[str, dict[str, bytes]] = {}
        self.asked: list[str] = []
        self.private: dict[str, bool] = {}
        self.sizes: dict[str, int] = {}  # to lie about

    def info(self, repository: str) -> dict[str, Any]:
        """What the hub tells of a repository."""
        files = self.repositories[repository]
        siblings = [
            {"rfilename": name, "size": self.sizes.get(name, len(content)), "blobId": "0" * 40}
            for name, content in files.items()
        ]
        return {"id": repository, "sha": COMMIT, "siblings": siblings, "private": True}

    def commit(self, repository: str, lines: bytes) -> None:
        """Take what is sent."""
        for line in map(json.loads, lines.splitlines()):
            if line["key"] == "file":
                value = line["value"]
                assert value["encoding"] == "base64"
                content = base64.b64decode(value["content"])
                self.repositories[repository][value["path"]] = content


def handler(hub: FakeHub) -> type[BaseHTTPRequestHandler]:
    """Answers for a hub."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            """Say nothing."""

        def answer(self, content: object, status: int = 200, **headers: str) -> None:
            body = content if isinstance(content, bytes) else json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def do_GET(self) -> None:
            path = unquote(urlsplit(self.path).path)
            hub.asked.append(f"{self.command} {path}")
            parts = path.strip("/").split("/")
            repository = "/".join(parts[2:4] if parts[0] == "api" else parts[:2])
            if repository not in hub.repositories:
                self.answer({"error": "no"}, 404, X_Error_Code="RepoNotFound")
            elif parts[0] == "api":
                self.answer(hub.info(repository))
            else:  # owner/name/resolve/revision/file
                content = hub.repositories[repository].get("/".join(parts[4:]))
                if content is None:
                    self.answer(b"", 404, X_Error_Code="EntryNotFound")
                    return
                etag = f'"{hashlib.sha1(content).hexdigest()}"'
                self.answer(content, ETag=etag, X_Repo_Commit=COMMIT)

        do_HEAD = do_GET

        def do_POST(self) -> None:
            path = unquote(urlsplit(self.path).path)
            hub.asked.append(f"POST {path}")
            if self.headers.get("Transfer-Encoding") == "chunked":
                body = b""
                while length := int(self.rfile.readline(), 16):
                    body += self.rfile.read(length)
                    self.rfile.readline()
                self.rfile.readline()
            else:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            parts = path.strip("/").split("/")
            if path == "/api/repos/create":
                given = json.loads(body)
                name = f"{given['organization']}/{given['name']}"
                hub.repositories.setdefault(name, {})
                hub.private[name] = given.get("private", given.get("visibility") == "private")
                self.answer({"url": f"http://{self.headers['Host']}/{name}"})
            elif "preupload" in parts:
                files = [
                    {"path": file["path"], "uploadMode": "regular", "shouldIgnore": False}
                    for file in json.loads(body)["files"]
                ]
                self.answer({"files": files})
            elif "commit" in parts:
                name = "/".join(parts[2:4])
                hub.commit(name, body)
                url = f"http://{self.headers['Host']}/{name}/commit/{COMMIT}"
                self.answer({"commitUrl": url, "commitOid": COMMIT, "pullRequestUrl": None})
            elif path == "/api/validate-yaml":
                self.answer({"errors": [], "warnings": []})
            else:
                self.answer({"error": "unknown"}, 404)

    return Handler


@contextmanager
def running(hub: FakeHub, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The library asks this hub alone, and keeps what it fetches in a folder."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler(hub))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    constants = huggingface_hub.constants
    here = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(constants, "ENDPOINT", here)
    files = f"{here}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", files)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setenv("HF_TOKEN", "hf_of_nobody")
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
