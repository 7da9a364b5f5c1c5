"""A local web server that gives pictures, or misbehaves, each in its way: for the tests of downloads."""

from __future__ import annotations

import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import cv2
import numpy as np
import pytest
from places import DATA_PREP

FOLDER = DATA_PREP
sys.path.insert(0, str(FOLDER))

import download  # noqa: E402

FAST = download.Fetcher(timeout=0.4, tries=2, backoff=0.01, most_bytes=200_000)


def picture(number: int, kind: str = ".jpg") -> bytes:
    """A small image that no other number has."""
    pixels = np.random.default_rng(number).integers(0, 256, (24, 18, 3)).astype(np.uint8)
    return cv2.imencode(kind, pixels)[1].tobytes()


class Handler(BaseHTTPRequestHandler):
    """/ok/N gives image N; the other folders misbehave each in its way."""

    def do_GET(self) -> None:
        server = self.server
        with server.lock:
            server.asked[self.path] += 1
        kind, _, rest = self.path.strip("/").partition("/")
        getattr(self, f"give_{kind}")(rest)

    def answer(self, body: bytes, code: int = 200, length: int | None = None, **headers: str) -> None:
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        self.wfile.write(body)

    def give_ok(self, rest: str) -> None:
        self.answer(picture(int(rest)))

    def give_gone(self, rest: str) -> None:
        self.answer(b"<html>no such item</html>", 404)

    def give_page(self, rest: str) -> None:  # what a shop answers for an item it no longer has
        self.answer(b"\n<!DOCTYPE html><html>this item is sold out</html>")

    def give_short(self, rest: str) -> None:
        self.answer(picture(1)[:200], length=len(picture(1)))

    def give_broken(self, rest: str) -> None:  # the announced length, and half of an image
        self.answer(picture(1)[:-300])

    def give_empty(self, rest: str) -> None:
        self.answer(b"")

    def give_loop(self, rest: str) -> None:
        self.answer(b"", 302, Location=f"/loop/{int(rest) + 1}")

    def give_local(self, rest: str) -> None:
        self.answer(b"", 302, Location="file:///etc/hostname")

    def give_ftp(self, rest: str) -> None:
        self.answer(b"", 302, Location="ftp://127.0.0.1/image.jpg")

    def give_moved(self, rest: str) -> None:
        self.answer(b"", 301, Location=f"/ok/{rest}")

    def give_big(self, rest: str) -> None:
        self.answer(bytes(400_000))

    def give_slow(self, rest: str) -> None:
        time.sleep(1.2)
        self.answer(picture(1))

    def give_drip(self, rest: str) -> None:  # never silent for long, and never done
        self.send_response(200)
        self.end_headers()
        for _ in range(100):
            self.wfile.write(b"x")
            self.wfile.flush()
            time.sleep(0.1)

    def give_busy(self, rest: str) -> None:  # once
        if self.server.asked[self.path] == 1:
            self.answer(b"", 503)
        else:
            self.give_ok(rest)

    def log_message(self, *arguments: object) -> None:
        pass


class Server(ThreadingHTTPServer):
    def handle_error(self, request: object, client_address: object) -> None:
        pass  # clients that hang up are part of the test


@contextmanager
def serving(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A server on this machine, asked without a proxy, which counts what it is asked."""
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    made = Server(("127.0.0.1", 0), Handler)
    made.asked, made.lock = Counter(), threading.Lock()
    made.url = f"http://127.0.0.1:{made.server_port}"
    thread = threading.Thread(target=made.serve_forever, daemon=True)
    thread.start()
    yield made
    made.shutdown()
    made.server_close()
    thread.join()
