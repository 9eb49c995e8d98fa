"""A loopback site of many small videos, each with a manner of its own, and proxies before it.

What is asked of it lies in a journal with the time, the video and the way it came.
"""

from __future__ import annotations

import contextlib
import gzip
import http.client
import socket
import socketserver
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from support import plain_corpus
from voxblink2_lib.demo.site import parse_range

BLOCKED = 418
# What a user would write down for a site that refuses an address with a status of its own.
REASONS = f"""\
[[reason]]
class = "blocked"
closes_route = true
http = [{BLOCKED}]
"""
_HTML = b"<!DOCTYPE html><html><head><title>Log in</title></head><body>Log in</body></html>"
_DIRECT = "direct"
# What each manner ends in, when it is asked for in one run until all is settled.
MANNERS = {
    "good": "done",
    "401": "credentials",
    "403": "transient",
    "404": "gone",
    "410": "gone",
    "451": "geo",
    "500": "transient",
    "502-once": "done",
    "503": "transient",
    "503-once": "done",
    "504-once": "done",
    "429-once": "done",
    "reset": "transient",
    "reset-once": "done",
    "truncated": "transient",
    "truncated-once": "done",
    "hang": "transient",
    "hang-once": "done",
    "429": "rate-limited",
    "html": "ambiguous",
    "html-later": "ambiguous",
    "empty": "transient",
    "redirect-loop": "transient",
    "moved": "done",
    "gzip": "done",
    "gzip-parts": "ambiguous",
    "length-too-long": "done",
    "length-too-short": "done",
    "wrong-start": "transient",
    "noise": "media-unusable",
}
FOR_GOOD = ("gone", "geo", "ambiguous", "media-unusable")


class Asked(NamedTuple):
    """A request that came: when (Unix time), for what, and by which way.

    ``number`` counts those for this video; ``is_first`` holds where no range is asked for, which
    is how yt-dlp looks at an address before it fetches.
    """

    at: float
    video_id: str
    via: str
    is_first: bool
    number: int


class StormySite:
    """Serve one medium under many names inside a ``with`` block.

    Args:
        manners: how each video is served; others are good.
        body: the medium; one that is cut without PyTorch by default.

    Attributes:
        journal: what was asked for, in order.
        refused: ways that are answered `BLOCKED`, whatever they ask for.
        limited: seconds of ``Retry-After`` (empty: without) that all are answered 429 with.
    """

    def __init__(self, manners: Mapping[str, str] | None = None, *, body: bytes = b"") -> None:
        self.manners = dict(manners or {})
        self.body = body or plain_corpus.wav()
        self.journal: list[Asked] = []
        self.refused: set[str] = set()
        self.limited: str | None = None
        self.before: Callable[[Asked], object] = lambda _: None
        self.ended = threading.Event()
        self._lock = threading.Lock()
        self._counts: Counter[tuple[str, bool]] = Counter()
        self._server = _Server(self)

    def __enter__(self) -> StormySite:
        self._server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.ended.set()
        self._server.stop()

    @property
    def template(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}/{{video_id}}.wav"

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self._server.server_port}"

    def write_down(self, video_id: str, via: str, *, is_first: bool) -> tuple[Asked, int]:
        """Note a request; also return how many of its kind came for this video."""
        with self._lock:
            self._counts[video_id, is_first] += 1
            number = self._counts[video_id, True] + self._counts[video_id, False]
            one = Asked(time.time(), video_id, via, is_first, number)
            self.journal.append(one)
            return one, self._counts[video_id, is_first]

    def count(self, video_id: str | None = None) -> int:
        """Return how many requests came, for one video or for all."""
        with self._lock:
            if video_id is None:
                return len(self.journal)
            return self._counts[video_id, True] + self._counts[video_id, False]

    def firsts(self, via: str | None = None) -> list[Asked]:
        """Return the first requests of each try of a video."""
        return [one for one in self.journal if one.is_first and via in {None, one.via}]


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, site: StormySite, handler: type[BaseHTTPRequestHandler] | None = None):
        self.site = site
        super().__init__(("127.0.0.1", 0), handler or _Handler)

    def start(self) -> None:
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        self.shutdown()
        self.server_close()

    def server_bind(self) -> None:
        # HTTPServer would look up the host's name, which can take seconds without a network.
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = "127.0.0.1", self.socket.getsockname()[1]

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Keep quiet: clients leave early, and are killed."""


class _Quiet(BaseHTTPRequestHandler):
    server: _Server
    # One request a connection: an answer that is cut off must not spoil the next one.
    protocol_version = "HTTP/1.0"

    def log_message(self, format: str, *args: Any) -> None:
        """Keep quiet."""


class _Handler(_Quiet):
    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        site = self.server.site
        folder, _, name = self.path.lstrip("/").rpartition("/")
        if not name:
            self._reply(204, b"", {})
            return
        video_id = name.removesuffix(".wav")
        asked = self.headers.get("Range")
        via = self.headers.get("X-Via", _DIRECT)
        one, number = site.write_down(video_id, via, is_first=asked is None)
        site.before(one)
        if via in site.refused:
            self._refuse(BLOCKED)
        elif site.limited is not None:
            self._refuse(429, {"Retry-After": site.limited} if site.limited else {})
        else:
            manner = site.manners.get(video_id, "good")
            if manner.endswith("-once"):
                # Once of each kind, with a range or without.
                manner = manner.removesuffix("-once") if number == 1 else "good"
            self._behave("good" if folder == "moved" else manner, asked)

    def _behave(self, manner: str, asked: str | None) -> None:  # noqa: PLR0912  # a table
        body = self.server.site.body
        start, stop = (parse_range(asked, len(body)) if asked else None) or (0, len(body))
        half = max(start + 1, (start + stop) // 2)
        match manner, asked is None:
            case (status, _) if status.isdigit():
                self._refuse(int(status), {"Retry-After": "1"} if status == "429" else {})
            case (asks, _) if asks.startswith("503 "):
                self._refuse(503, {"Retry-After": asks.removeprefix("503 ")})
            case ("hang", _):
                self.server.site.ended.wait()
            case ("reset", _):
                # Never a byte beyond the middle, however often it is asked for.
                content = body[start : len(body) // 2]
                self._send(asked, body, promise=stop - start, content=content)
                self._reset()
            case ("truncated", False):
                self._send(asked, body, promise=stop - start, content=b"")
            case ("html", _) | ("html-later", False):
                self._reply(200, _HTML, {"Content-Type": "text/html"})
            case ("empty", False):
                self._reply(200, b"", {"Content-Type": "audio/wav"})
            case ("redirect-loop", _):
                self._reply(302, b"", {"Location": self.path})
            case ("moved", _):
                self._reply(301, b"", {"Location": f"/moved{self.path}"})
            case ("gzip", _):
                packed = gzip.compress(body, 1)
                kind = {"Content-Type": "audio/wav", "Content-Encoding": "gzip"}
                self._reply(200, packed, kind)
            case ("gzip-parts", False):
                packed = gzip.compress(body[start:stop], 1)
                self._send(asked, body, content=packed, more={"Content-Encoding": "gzip"})
            case ("length-too-long", False):
                self._send(asked, body, promise=stop - start + 1000)
            case ("length-too-short", False):
                self._send(asked, body, promise=half - start, content=body[start:half])
            case ("wrong-start", False):
                self._send(f"bytes={start + 1}-{stop - 1}", body)
            case ("noise", _):
                self._send(asked, bytes(1000))
            case _:
                self._send(asked, body)

    def _refuse(self, status: int, headers: Mapping[str, str] | None = None) -> None:
        body = f"{status} {HTTPStatus(status).phrase}\n".encode()
        self._reply(status, body, {"Content-Type": "text/plain", **(headers or {})})

    def _send(
        self,
        asked: str | None,
        body: bytes,
        *,
        promise: int | None = None,
        content: bytes | None = None,
        more: Mapping[str, str] | None = None,
    ) -> None:
        part = parse_range(asked, len(body)) if asked else None
        start, stop = part or (0, len(body))
        if part and start >= stop:
            self._reply(416, b"", {"Content-Range": f"bytes */{len(body)}"})
            return
        headers = {"Content-Type": "audio/wav", **(more or {})}
        if part:
            headers["Content-Range"] = f"bytes {start}-{stop - 1}/{len(body)}"
        content = body[start:stop] if content is None else content
        self._reply(206 if part else 200, content, headers, promise=promise)

    def _reply(
        self, status: int, body: bytes, headers: Mapping[str, str], *, promise: int | None = None
    ) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body) if promise is None else promise))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
        self.wfile.flush()

    def _reset(self) -> None:
        # Without lingering a close is a reset.
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()


@contextlib.contextmanager
def proxy(site: StormySite, name: str) -> Iterator[str]:
    """Run a proxy that tells the site its name; yield its address."""

    class Handler(_Forward):
        via = name

    server = _Server(site, Handler)
    server.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.stop()


def dead_proxy() -> str:
    """Return the address of a proxy that is not there."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{closed.getsockname()[1]}"


class _Forward(_Quiet):
    via = ""

    def do_HEAD(self) -> None:
        self._pass_on()

    def do_GET(self) -> None:
        self._pass_on()

    def _pass_on(self) -> None:
        where = urlsplit(self.path)
        there = http.client.HTTPConnection(where.netloc, timeout=30)
        with contextlib.closing(there):
            there.request(self.command, where.path, headers={**self.headers, "X-Via": self.via})
            with there.getresponse() as answer:
                self.send_response(answer.status)
                for header, value in answer.getheaders():
                    if header not in {"Server", "Date"}:
                        self.send_header(header, value)
                self.end_headers()
                self.wfile.write(answer.read())
