"""A loopback HTTP site that serves the demo's media like a video host.

It has real sockets and real HTTP/1.1 (ranges, keep-alive, HEAD), so that downloaders run against it
unchanged. Ranges follow RFC 9110, section 14.
"""

from __future__ import annotations

import contextlib
import re
import socket
import socketserver
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any
from urllib.parse import unquote, urlsplit

CHUNK_BYTES = 64 * 1024
CONTENT_TYPES = {
    ".m4a": "audio/mp4",
    ".mp4": "video/mp4",
    ".wav": "audio/wav",
    ".webm": "video/webm",
}
NO_FAULTS: Mapping[str, int] = MappingProxyType({})


@dataclass(frozen=True)
class Request:
    """A request, and how the site responded.

    Attributes:
        method: ``GET`` or ``HEAD``.
        video_id: the requested video; empty for a path that names none.
        byte_range: the half-open range [start, stop) of a 206 response, ``None`` for any other.
        status: HTTP status of the response.
        bytes_sent: bytes of the body handed to the socket, counted in whole chunks. If the client
            disconnects early that may be fewer than the response's length.
    """

    method: str
    video_id: str
    byte_range: tuple[int, int] | None
    status: int
    bytes_sent: int


class MediaSite:
    """Serve ``/watch/<video id>`` from a media folder, inside a ``with`` block.

    Args:
        media: folder with ``<speaker>/<video id>.<extension>``.
        faults: video id -> status sent instead of the media, from 400 to 599.
        port: TCP port of 127.0.0.1; 0 takes a free one.

    Raises:
        NotADirectoryError: ``media`` is no folder.
        ValueError: a fault is no error status.

    Example:
        >>> from urllib.request import urlopen
        >>> from voxblink2_lib.release.builtin import MEDIA
        >>> with MediaSite(MEDIA) as site:
        ...     with urlopen(site.url_template.format(video_id="demoHarbour")) as response:
        ...         response.headers["Content-Type"], site.count("demoHarbour")
        ('video/mp4', 1)
    """

    def __init__(
        self, media: Path, *, faults: Mapping[str, int] = NO_FAULTS, port: int = 0
    ) -> None:
        if not media.is_dir():
            raise NotADirectoryError(
                f"media must be a folder with <speaker>/<video id>.<extension>, got {media}"
            )
        for video_id, status in faults.items():
            if not 400 <= status <= 599:
                raise ValueError(f"fault of {video_id} must be a status 400 to 599, got {status}")
        self._media = media
        self._faults = dict(faults)
        self._port = port
        self._journal = _Journal()
        self._server: _Server | None = None

    def __enter__(self) -> MediaSite:
        """Open the site."""
        address = ("127.0.0.1", self._port)
        self._server = _Server(address, self._media, self._faults, self._journal)
        self._port = self._server.server_port
        # The server checks once per poll whether to end, so a short poll closes fast.
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the site and its connections; ``requests`` stays readable."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server.close_connections()
            self._server = None

    @property
    def url_template(self) -> str:
        """URL of a video, with ``{video_id}`` to fill in.

        Raises:
            RuntimeError: the site has no port yet.
        """
        if self._port == 0:
            raise RuntimeError("MediaSite has no port yet: use it inside `with MediaSite(...)`")
        return f"http://127.0.0.1:{self._port}/watch/{{video_id}}"

    @property
    def requests(self) -> list[Request]:
        """The requests so far, in order of arrival (a copy)."""
        return self._journal.read()

    def count(self, video_id: str) -> int:
        """Count the GET requests for a video, whatever their status."""
        return sum((made.method, made.video_id) == ("GET", video_id) for made in self.requests)


def parse_range(header: str, size_bytes: int) -> tuple[int, int] | None:
    """Parse a ``Range`` header with one range.

    Args:
        header: the value, as ``bytes=0-99``, ``bytes=100-`` or ``bytes=-100`` (the last 100 bytes).
        size_bytes: length of the file.

    Returns:
        The half-open range [start, stop), empty if it cannot be satisfied; ``None`` for a header
        that must be ignored (another unit, several ranges, not a range at all).

    Example:
        >>> parse_range("bytes=0-99", 1000), parse_range("bytes=-100", 1000)
        ((0, 100), (900, 1000))
    """
    match = re.fullmatch(r"bytes=\s*(\d{0,18})-(\d{0,18})\s*", header, re.ASCII)
    if match is None or not (match[1] or match[2]):
        return None
    if not match[1]:
        return max(0, size_bytes - int(match[2])), size_bytes
    start = int(match[1])
    last = int(match[2]) if match[2] else max(start, size_bytes - 1)
    if last < start:
        return None
    return min(start, size_bytes), min(last + 1, size_bytes)


class _Journal:
    """The requests of a site. Safe to call from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._requests: list[Request] = []

    def add(self, request: Request) -> int:
        with self._lock:
            self._requests.append(request)
            return len(self._requests) - 1

    def replace(self, index: int, request: Request) -> None:
        with self._lock:
            self._requests[index] = request

    def read(self) -> list[Request]:
        with self._lock:
            return list(self._requests)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128  # many downloaders may connect at once

    def __init__(
        self, address: tuple[str, int], media: Path, faults: Mapping[str, int], journal: _Journal
    ) -> None:
        self.media = media
        self.faults = faults
        self.journal = journal
        self._connections: set[socket.socket] = set()
        self._lock = threading.Lock()
        super().__init__(address, _Handler)

    def server_bind(self) -> None:
        # HTTPServer would look up the host's name, which can take seconds without a network.
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = self.socket.getsockname()

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._lock:
            self._connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self._lock:
            self._connections.discard(request)
        super().shutdown_request(request)

    def close_connections(self) -> None:
        """Close connections that clients keep alive: a closed site must not respond."""
        with self._lock:
            for connection in self._connections:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        # That a client disconnects is no error; anything else is.
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)

    def find(self, video_id: str) -> Path | None:
        # The pattern keeps wildcards and path separators out of glob.
        if re.fullmatch(r"[A-Za-z0-9_-]+", video_id) is None:
            return None
        return next(iter(sorted(self.media.glob(f"*/{video_id}.*"))), None)


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # head and body leave as two writes

    def do_GET(self) -> None:
        self._respond()

    def do_HEAD(self) -> None:
        self._respond()

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing."""

    def _respond(self) -> None:
        path = unquote(urlsplit(self.path).path)
        video_id = path.removeprefix("/watch/") if path.startswith("/watch/") else ""
        fault = self.server.faults.get(video_id)
        media = self.server.find(video_id)
        if fault is not None or media is None:
            self._send_text(video_id, fault or HTTPStatus.NOT_FOUND)
        else:
            self._send_media(video_id, media)

    def _send_text(self, video_id: str, status: int) -> None:
        phrases = {http_status.value: http_status.phrase for http_status in HTTPStatus}
        body = f"{int(status)} {phrases.get(status, 'Fault')}\n".encode()
        headers = {"Content-Type": "text/plain; charset=utf-8", "Content-Length": str(len(body))}
        self._send(video_id, status, headers, [body])

    def _send_media(self, video_id: str, media: Path) -> None:
        size = media.stat().st_size
        # The site sends no validator, so no If-Range can match and its range has to be ignored.
        header = None if "If-Range" in self.headers else self.headers.get("Range")
        part = parse_range(header, size) if header and self.command == "GET" else None
        start, stop = part or (0, size)
        if part and start >= stop:
            headers = {"Content-Range": f"bytes */{size}", "Content-Length": "0"}
            self._send(video_id, HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, headers)
            return
        headers = {
            "Content-Type": CONTENT_TYPES.get(media.suffix, "application/octet-stream"),
            "Content-Length": str(stop - start),
            "Accept-Ranges": "bytes",
        }
        if part:
            headers["Content-Range"] = f"bytes {start}-{stop - 1}/{size}"
        status = HTTPStatus.PARTIAL_CONTENT if part else HTTPStatus.OK
        self._send(video_id, status, headers, _chunks(media, start, stop), part)

    def _send(
        self,
        video_id: str,
        status: int,
        headers: Mapping[str, str],
        body: Iterable[bytes] = (),
        part: tuple[int, int] | None = None,
    ) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        # Added before it is sent: a client that has the response finds it in the journal.
        done = Request(self.command, video_id, part, int(status), 0)
        index = self.server.journal.add(done)
        try:
            self.end_headers()
            for chunk in body if self.command == "GET" else ():
                ahead = replace(done, bytes_sent=done.bytes_sent + len(chunk))
                self.server.journal.replace(index, ahead)
                self.wfile.write(chunk)
                done = ahead
        except ConnectionError:  # the client has disconnected, or the site is closing
            self.server.journal.replace(index, done)
            self.close_connection = True


def _chunks(media: Path, start: int, stop: int) -> Iterator[bytes]:
    """Read the bytes [start, stop) of a file."""
    with media.open("rb") as file:
        file.seek(start)
        while chunk := file.read(min(CHUNK_BYTES, stop - start)):
            yield chunk
            start += len(chunk)
