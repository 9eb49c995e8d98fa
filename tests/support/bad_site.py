"""A loopback site that serves one folder of media, and misbehaves in the way asked for.

The first part of a path names the manners, the rest the file: `/drop-once/clip.m4a`.
"""

from __future__ import annotations

import gzip
import socketserver
import threading
from collections import Counter
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

from voxblink2_lib.demo.site import parse_range

CONTENT_TYPES = {
    ".m3u8": "application/vnd.apple.mpegurl",
    ".m4a": "audio/mp4",
    ".mp4": "video/mp4",
    ".ts": "video/mp2t",
    ".webm": "video/webm",
}
HTML = b"<!DOCTYPE html><html><head><title>Log in</title></head><body>Log in</body></html>"
STATUSES = ("401", "403", "404", "410", "429", "451", "500", "502", "503", "504")
MANNERS = {
    "good": "answers as it should, ranges and all",
    "no-ranges": "ignores Range: 200 and the whole body",
    "no-ranges-drop": "ignores Range, closes in the middle of the first body, then behaves",
    "drop-once": "closes in the middle of the first ranged body, then behaves",
    "drop-probe": "closes in the middle of the first body without range, then behaves",
    "drop-always": "closes before the first byte of each ranged body",
    "drip": "closes after 50,000 bytes of each ranged body",
    "html": "sends a page with 200",
    "html-later": "says it has media, then sends a page for each range",
    "503-later": "says it has media, then answers 503 to each range",
    "503-once": "answers 503 to the first range, then behaves",
    "429-retry-after": "answers 429 and asks to come back in 77 s",
    "404-later": "says it has media, then answers 404 to each range",
    "429-later": "says it has media, then answers 429 to each range",
    "empty": "sends an empty body with 200",
    "empty-later": "says it has media, then sends an empty body for each range",
    "gzip": "ignores Range and packs the whole body, asked for or not",
    "gzip-parts": "packs each range, asked for or not",
    "redirect": "sends the client on to `good`",
    "moved": "sends the client on to `good`, for ever",
    "redirect-loop": "sends the client back to where it came from",
    "length-too-long": "promises 1,000 bytes more than it sends, then closes",
    "length-too-short": "promises half of the range, and keeps to it",
    "no-length": "says no Content-Length, and closes at the end",
    "endless": "ignores Range, says no Content-Length, and goes on with zeros for ever",
    "hang": "takes requests and answers nothing",
    "wrong-start": "sends another range than the one asked for",
    "replaced": "holds a longer file when it is first asked for a range",
    "replaced-always": "holds a longer file each time it is asked",
    **{status: f"answers {status}" for status in STATUSES},
}


class BadSite:
    """Serve a folder inside a `with` block.

    Args:
        folder: holds the files.
    """

    def __init__(self, folder: Path) -> None:
        self._server = _Server(folder)

    def __enter__(self) -> BadSite:
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.ended.set()
        self._server.shutdown()
        self._server.server_close()

    def template(self, manners: str, suffix: str) -> str:
        """Return the address template of files in the folder, served with these manners."""
        if manners not in MANNERS:
            raise ValueError(f"{manners!r} is not one of {', '.join(MANNERS)}")
        return f"http://127.0.0.1:{self._server.server_port}/{manners}/{{video_id}}{suffix}"

    def ranged(self, manners: str) -> int:
        """Return how many requests with a range came."""
        return self._server.seen[manners, True]

    def count(self, manners: str) -> int:
        """Return how many requests came, with a range or without."""
        return self._server.seen[manners, True] + self._server.seen[manners, False]


class _Asked(NamedTuple):
    """A request: `number` of its kind, for the half-open `part` of `body` or all of it."""

    manners: str
    name: str
    number: int
    body: bytes
    part: tuple[int, int] | None
    kind: dict[str, str]


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 32

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.seen: Counter[tuple[str, bool]] = Counter()
        self.lock = threading.Lock()
        self.ended = threading.Event()
        super().__init__(("127.0.0.1", 0), _Handler)

    def server_bind(self) -> None:
        # HTTPServer would look up the host's name, which can take seconds without a network.
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = "127.0.0.1", self.socket.getsockname()[1]

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Keep quiet: clients of a bad site leave early."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    # One request a connection: an answer that is cut off must not spoil the next one.
    protocol_version = "HTTP/1.0"

    def log_message(self, format: str, *args: Any) -> None:
        """Keep quiet."""

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        manners, _, name = self.path.lstrip("/").partition("/")
        path = self.server.folder / name
        if ".." in name or not path.is_file():
            self._send(404, b"404 Not Found\n", {"Content-Type": "text/plain"})
            return
        asked = self.headers.get("Range")
        with self.server.lock:
            self.server.seen[manners, asked is not None] += 1
            number = self.server.seen[manners, asked is not None]
        body = path.read_bytes()
        part = parse_range(asked, len(body)) if asked else None
        kind = {"Content-Type": CONTENT_TYPES.get(path.suffix, "application/octet-stream")}
        one = _Asked(manners, name, number, body, part, kind)
        if not (self._refuse(one) or self._garble(one) or self._mistake(one)):
            self._serve(body, part, kind)

    def _refuse(self, one: _Asked) -> bool:
        """Send something else than media and return True, or return False."""
        match one.manners, one.number == 1, one.part is not None:
            case ("html", _, _) | ("html-later", _, True):
                self._send(200, HTML, {"Content-Type": "text/html"})
            case ("503-later", _, True) | ("503-once", True, True):
                self._send_status(503)
            case (("404-later" | "429-later") as manners, _, True):
                self._send_status(int(manners[:3]))
            case ("429-retry-after", _, _):
                self._send_status(429, {"Retry-After": "77"})
            case (manners, _, _) if manners in STATUSES:
                self._send_status(int(manners))
            case ("hang", _, _):
                self.server.ended.wait()
            case ("empty", _, _) | ("empty-later", _, True):
                self._send(200, b"", one.kind)
            case ("redirect", _, _):
                self._send(302, b"", {"Location": f"/good/{one.name}"})
            case ("moved", _, _):
                self._send(301, b"", {"Location": f"/good/{one.name}"})
            case ("redirect-loop", _, _):
                self._send(302, b"", {"Location": self.path})
            case _:
                return False
        return True

    def _garble(self, one: _Asked) -> bool:
        """Send media, but not as asked, and return True, or return False."""
        body, part, kind = one.body, one.part, one.kind
        start, stop = part or (0, len(body))
        half = max(1, (stop - start) // 2)
        match one.manners, one.number == 1, part is not None:
            case ("no-ranges", _, _) | ("no-ranges-drop", False, _):
                self._send(200, body, kind)
            case ("no-ranges-drop", True, True):
                self._serve(body, None, kind, send=len(body) // 2)
            case ("drop-once", True, True) | ("drop-probe", True, False):
                self._serve(body, part, kind, send=half)
            case ("drop-always", _, True):
                self._serve(body, part, kind, send=0)
            case ("drip", _, True):
                self._serve(body, part, kind, send=50_000)
            case ("gzip", _, _):
                self._send(200, gzip.compress(body, 1), {**kind, "Content-Encoding": "gzip"})
            case ("length-too-long", _, True):
                self._serve(body, part, kind, length=stop - start + 1000)
            case ("length-too-short", _, True):
                self._serve(body, part, kind, send=half, length=half)
            case ("no-length", _, _):
                self._serve(body, part, kind, length=-1)
            case _:
                return False
        return True

    def _mistake(self, one: _Asked) -> bool:
        """Send something else than the range that was asked for, or return False."""
        body, part, kind = one.body, one.part, one.kind
        start, stop = part or (0, len(body))
        match one.manners, one.number == 1, part is not None:
            case ("gzip-parts", _, True):
                packed = gzip.compress(body[start:stop], 1)
                self._serve(body, part, {**kind, "Content-Encoding": "gzip"}, content=packed)
            case ("wrong-start", _, True):
                self._serve(body, (start + 1, stop), kind)
            case ("replaced", True, True):
                self._serve(body + bytes(500_000), part, kind)
            case ("replaced-always", _, True):
                self._serve(body + bytes(one.number), part, kind)
            case ("endless", _, _):
                self._send(200, body, kind, length=-1)
                # A client that leaves ends it.
                while self.command != "HEAD" and not self.server.ended.is_set():
                    self.wfile.write(bytes(1 << 20))
            case _:
                return False
        return True

    def _serve(
        self,
        body: bytes,
        part: tuple[int, int] | None,
        kind: dict[str, str],
        *,
        send: int | None = None,
        length: int | None = None,
        content: bytes | None = None,
    ) -> None:
        """Send a range, or the whole, or other content; `send` bytes of it, promising `length`."""
        start, stop = part or (0, len(body))
        if part and start >= stop:
            self._send(416, b"", {"Content-Range": f"bytes */{len(body)}"})
            return
        headers = dict(kind)
        if part:
            headers["Content-Range"] = f"bytes {start}-{stop - 1}/{len(body)}"
        content = body[start:stop] if content is None else content
        length = len(content) if length is None else length
        self._send(206 if part else 200, content[:send], headers, length=length)

    def _send_status(self, status: int, headers: dict[str, str] | None = None) -> None:
        """Refuse in the usual words."""
        body = f"{status} {HTTPStatus(status).phrase}\n".encode()
        self._send(status, body, {"Content-Type": "text/plain", **(headers or {})})

    def _send(
        self, status: int, body: bytes, headers: dict[str, str], *, length: int | None = None
    ) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        length = len(body) if length is None else length
        if length >= 0:
            self.send_header("Content-Length", str(length))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
