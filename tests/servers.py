"""Servers of this machine that tests read from and write to: S3 by moto, HTTP by Python itself."""

from __future__ import annotations

import functools
import os
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest


class S3:
    """A server of S3 with one bucket, and fsspec's file system of it."""

    def __init__(self, address: str) -> None:
        import fsspec

        self.address = address
        self.files: Any = fsspec.filesystem("s3", use_listings_cache=False)

    def put(self, folder: Path, url: str) -> None:
        """Write all files below a folder."""
        for path in folder.rglob("*"):
            if path.is_file():
                self.files.pipe_file(f"{url}/{path.relative_to(folder).as_posix()}", path.read_bytes())

    def names(self, url: str) -> list[str]:
        """Names of the files below a URL."""
        root = url.removeprefix("s3://")
        return sorted(one.removeprefix(root + "/") for one in self.files.find(root))

    @contextmanager
    def forbidding(self, after: int = 0) -> Iterator[None]:
        """Refuse every request after so many: nobody whom the server knows has a key."""
        self._allow(str(after))
        try:
            yield
        finally:
            self._allow("inf")

    def _allow(self, requests: str) -> None:
        headers = {"Content-Type": "text/plain"}
        ask = urllib.request.Request(f"{self.address}/moto-api/reset-auth", requests.encode(), headers)
        urllib.request.urlopen(ask).close()


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3]:
    """Start moto's server; the environment names it to all programs, worker processes too."""
    pytest.importorskip("s3fs", reason="S3 needs s3fs")
    server = pytest.importorskip("moto.server", reason="no S3 server: needs moto[s3], flask and flask-cors")
    import logging

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    running = server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    running.start()
    host, port = running.get_host_and_port()
    address = f"http://{host}:{port}"
    own = {
        "AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": address, "AWS_CONFIG_FILE": os.devnull, "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    }  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        for name, value in own.items():
            patch.setenv(name, value)
        yield S3(address)
    running.stop()


@pytest.fixture
def s3(s3_server: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> S3:
    """A server with an empty bucket, ``s3://bucket``; results for it are gathered below ``tmp_path / "cache"``."""
    files = s3_server.files
    if files.exists("bucket"):
        files.rm("bucket", recursive=True)
    files.mkdir("bucket")
    monkeypatch.setattr("inception_rcnn.detect.runs.destination.cache_folder", lambda: tmp_path / "cache")
    return s3_server


@pytest.fixture
def http(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """Address of a server, and the folder whose files it serves."""
    pytest.importorskip("aiohttp", reason="HTTP needs aiohttp")
    folder = tmp_path / "served"
    folder.mkdir()

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def send_head(self) -> Any:
            return self.send_error(403) if "forbidden" in self.path else super().send_head()

    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", folder
    server.shutdown()
    server.server_close()
