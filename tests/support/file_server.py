"""A loopback HTTP server of files in memory: ranges, ETags, lists of folders; it can misbehave."""

from __future__ import annotations

import hashlib
import threading
from dataclasses import dataclass
from urllib.parse import quote, unquote, urlsplit

from support.loopback_server import LoopbackHandler, LoopbackServer
from voxblink2_lib.demo.site import parse_range

_PIECE_BYTES = 1 << 14


@dataclass
class Served:
    """A request for a file, and what it gets; a byte counts before the client has it."""

    path: str
    start: int
    bytes_sent: int
    status: int
    wanted_bytes: int = -1


class FileServer(LoopbackServer):
    """Serve files inside a `with` block.

    Args:
        files: contents by path, without a slash at the beginning.
        handler: answers requests.

    Attributes:
        journal: GET requests that were answered with a part of a file.
        breaks: how many of the next bodies end in their middle.
        accepts: how many GET requests for files are answered before all others are refused.
        refuses: how many of the next GET requests get the status `refusal`.
    """

    def __init__(self, files: dict[str, bytes], handler: type[FileHandler] | None = None) -> None:
        self.files = files
        self.journal: list[Served] = []
        self.breaks = self.refuses = 0
        self.accepts = 1 << 62
        self.refusal = 503
        self.has_ranges = self.has_lists = True
        self._limit = 1 << 62
        self._sent = self._served_on = 0
        self._changed = threading.Condition()
        super().__init__(handler or FileHandler)

    def serve_only(self, count: int) -> None:
        """Send so many bytes more of bodies, and no more until `serve_on`."""
        with self._changed:
            self._limit = self._sent + count

    def serve_on(self) -> None:
        """Send without a limit; whoever waits for it has been killed and gets nothing."""
        with self._changed:
            self._limit = 1 << 62
            self._served_on += 1
            self._changed.notify_all()

    def wait_below_limit(self, count: int) -> None:
        """Count bytes that are to be sent, when they may be."""
        with self._changed:
            before = self._served_on
            while self._sent + count > self._limit and not self.ended.is_set():
                self._changed.wait()
            if before != self._served_on:
                raise ConnectionAbortedError
            self._sent += count

    def __exit__(self, *details: object) -> None:
        self.serve_on()
        super().__exit__(*details)

    def whole_bytes_sent(self, path: str) -> int:
        """Return what was sent for requests that were served whole: none of a killed process."""
        whole = (each for each in self.journal if each.bytes_sent == each.wanted_bytes)
        return sum(request.bytes_sent for request in whole if request.path == path)

    def bytes_sent(self, path: str) -> int:
        return sum(request.bytes_sent for request in self.journal if request.path == path)


class FileHandler(LoopbackHandler):
    server: FileServer
    disable_nagle_algorithm = True  # head and body leave as two writes
    protocol_version = "HTTP/1.1"

    def answer(self) -> None:
        path = unquote(urlsplit(self.path).path).lstrip("/")
        if self.command == "GET" and self.server.refuses:
            self.server.refuses -= 1
            self.reply(self.server.refusal, b"no", {"Content-Type": "text/plain"})
        elif path in self.server.files and self.command == "GET" and not self.server.accepts:
            self.reply(self.server.refusal, b"no", {"Content-Type": "text/plain"})
        elif path in self.server.files:
            self.server.accepts -= self.command == "GET"
            self.send_file(path, self.server.files[path], {})
        elif self.server.has_lists and (names := self._names_in(path)):
            links = "".join(f'<a href="{quote(name)}">{name}</a>\n' for name in names)
            self.reply(200, f"<html>{links}</html>".encode(), {"Content-Type": "text/html"})
        else:
            self.reply(404, b"not there", {"Content-Type": "text/plain"})

    def _names_in(self, path: str) -> list[str]:
        start = f"{path.rstrip('/')}/" if path.strip("/") else ""
        below = [name[len(start) :] for name in self.server.files if name.startswith(start)]
        return sorted({f"{a}{slash}" for a, slash, _ in (name.partition("/") for name in below)})

    def send_file(self, path: str, data: bytes, more: dict[str, str]) -> None:
        etag = f'"{hashlib.md5(data, usedforsecurity=False).hexdigest()}"'
        headers = {"Content-Type": "application/octet-stream", "ETag": etag, **more}
        asked = self.headers.get("Range") if self.server.has_ranges else None
        span = parse_range(asked, len(data)) if asked else None
        start, stop = span or (0, len(data))
        if span:
            headers["Content-Range"] = f"bytes {start}-{stop - 1}/{len(data)}"
        self.send_response(206 if span else 200)
        for name, value in {**headers, "Content-Length": str(stop - start)}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self._send_body(path, data, start, stop, 206 if span else 200)

    def _send_body(self, path: str, data: bytes, start: int, stop: int, status: int) -> None:
        is_broken = self.server.breaks > 0
        end = (start + stop) // 2 if is_broken else stop
        self.server.breaks -= is_broken
        request = Served(path, start, 0, status, wanted_bytes=stop - start)
        self.server.journal.append(request)
        for at in range(start, end, _PIECE_BYTES):
            piece = data[at : min(end, at + _PIECE_BYTES)]
            self.server.wait_below_limit(len(piece))
            request.bytes_sent += len(piece)
            self.wfile.write(piece)
        self.close_connection = is_broken
