"""A loopback site that misbehaves in the way that is asked for, and proxies before it.

A video has a fault by its id, as one of a site's ``faults``, or by the first part of the path:
``/drop-always/video000001.wav``. Every request is in a journal with its time, video and route.
"""

from __future__ import annotations

import contextlib
import gzip
import http.client
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from http import HTTPStatus
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

from support import plain_corpus
from support.loopback_server import LoopbackHandler, LoopbackServer
from voxblink2_lib.demo.site import parse_range

BLOCKED = 418
# What a user would write down for a site that refuses a route with a status of its own.
REASONS = f"""\
[[reason]]
class = "blocked"
closes_route = true
http = [{BLOCKED}]
"""
HTML = b"<!DOCTYPE html><html><head><title>Log in</title></head><body>Log in</body></html>"
DIRECT = "direct"
CONTENT_TYPES = {
    ".m3u8": "application/vnd.apple.mpegurl",
    ".m4a": "audio/mp4",
    ".mp4": "video/mp4",
    ".ts": "video/mp2t",
    ".wav": "audio/wav",
    ".webm": "video/webm",
}
# Besides those below: a status is answered to all requests, "429 77" with a Retry-After header,
# and with "-once" behind it a fault is one of the first request without and the first with a range.
FAULTS = {
    "good": "answers as it should, ranges and all",
    "later <status>": "has media at first, and answers the status to each range",
    "no-ranges": "ignores Range: 200 and the whole body",
    "no-ranges-drop": "ignores Range, closes in the middle of the first body, then behaves",
    "drop": "closes in the middle of each ranged body",
    "drop-probe": "closes in the middle of the first body without range, then behaves",
    "drop-always": "closes before the first byte of each ranged body",
    "drip": "closes after 50,000 bytes of each ranged body",
    "reset": "resets the connection, after no byte beyond the middle of the file",
    "html": "sends a page with 200",
    "html-later": "has media at first, then sends a page for each range",
    "empty": "sends an empty body with 200",
    "empty-later": "has media at first, then sends an empty body for each range",
    "gzip": "ignores Range and compresses the whole body, requested or not",
    "gzip-parts": "compresses each range, requested or not",
    "redirect": "redirects the client to the good file",
    "moved": "redirects the client to the good file, permanently",
    "redirect-loop": "redirects the client to where it came from",
    "length-too-long": "promises 1,000 bytes more than it sends, then closes",
    "length-too-short": "promises half of the range, and keeps to it",
    "no-length": "sends no Content-Length, and closes at the end",
    "endless": "ignores Range, sends no Content-Length, and goes on with zeros for ever",
    "hang": "takes requests and answers nothing",
    "wrong-start": "sends another range than the requested one",
    "replaced": "has a longer file when the first range is requested",
    "replaced-always": "has a longer file with each request",
    "versioned": "sends ETag and Last-Modified, and honours If-Range",
    "versioned-weakly": "sends an ETag that is weak in each second answer, of one value",
    "edited": "has another version of the same length after the first range",
    "edited-unseen": "the same, but ignores If-Range",
    "edited-always": "sends another ETag with each answer, as nodes of a network do",
    "dated-always": "sends another Last-Modified with each answer",
    "noise": "sends 1,000 zeros as media",
}


class SiteRequest(NamedTuple):
    """A request: when (Unix time), for what, and by which route.

    ``number`` counts those for this video; ``is_first`` holds where no range is requested, which
    is how yt-dlp looks at a URL before it downloads.
    """

    at: float
    video_id: str
    route: str
    is_first: bool
    number: int


class FaultSite(LoopbackServer):
    """Serve one medium under many names, or the files of a folder.

    Args:
        faults: how each video is served; others are good.
        folder: its files are served; without one, every name is a short WAV file.

    Attributes:
        journal: requests, in order.
        refused: routes that are answered `BLOCKED`, whatever they request.
        limited: seconds of ``Retry-After`` (empty: without) that all are answered 429 with.
        before: called before each answer.
    """

    def __init__(
        self, faults: Mapping[str, str] | None = None, *, folder: Path | None = None
    ) -> None:
        self.faults = dict(faults or {})
        self.folder = folder
        self.journal: list[SiteRequest] = []
        self.refused: set[str] = set()
        self.limited: str | None = None
        self.before: Callable[[SiteRequest], object] = lambda _: None
        self._lock = threading.Lock()
        self._counts: Counter[tuple[str, bool]] = Counter()
        super().__init__(_FaultHandler)

    def template(self, fault: str = "", suffix: str = ".wav") -> str:
        """Return the URL template of its videos, all with one fault if it is given."""
        return f"{self.url}/{fault}{'/' * bool(fault)}{{video_id}}{suffix}"

    def record(self, video_id: str, route: str, *, is_first: bool) -> tuple[SiteRequest, int]:
        """Add a request to the journal; also return how many of its kind this video had."""
        with self._lock:
            self._counts[video_id, is_first] += 1
            number = self._counts[video_id, True] + self._counts[video_id, False]
            request = SiteRequest(time.time(), video_id, route, is_first, number)
            self.journal.append(request)
            return request, self._counts[video_id, is_first]

    def count(self, video_id: str | None = None) -> int:
        """Return the number of requests, for one video (or fault in a path) or for all."""
        with self._lock:
            if video_id is None:
                return len(self.journal)
            return self._counts[video_id, True] + self._counts[video_id, False]

    def firsts(self, route: str | None = None) -> list[SiteRequest]:
        """Return the first requests of each try of a video."""
        return [
            request
            for request in self.journal
            if request.is_first and route in {None, request.route}
        ]

    def body(self, name: str) -> bytes | None:
        """Return the content of a file, or ``None``."""
        if self.folder is None:
            return plain_corpus.wav()
        path = self.folder / name
        return path.read_bytes() if ".." not in name and path.is_file() else None


class _Medium(NamedTuple):
    """A requested file: the half-open ``part`` of ``body``, or all of it."""

    name: str
    body: bytes
    part: tuple[int, int] | None
    kind: dict[str, str]

    @property
    def span(self) -> tuple[int, int]:
        return self.part or (0, len(self.body))


class _FaultHandler(LoopbackHandler):
    server: FaultSite
    # One request a connection: an answer that is cut off must not spoil the next one.
    protocol_version = "HTTP/1.0"

    def answer(self) -> None:
        site = self.server
        fault, _, name = unquote(self.path).lstrip("/").rpartition("/")
        body = site.body(name)
        if not name:
            self.reply(204, b"", {})
            return
        if body is None:
            self._refuse(404)
            return
        key = fault or Path(name).stem
        header = self.headers.get("Range")
        route = self.headers.get("X-Via", DIRECT)
        request, number = site.record(key, route, is_first=header is None)
        site.before(request)
        if route in site.refused:
            self._refuse(BLOCKED)
        elif site.limited is not None:
            self._refuse(429, {"Retry-After": site.limited} if site.limited else {})
        else:
            part = parse_range(header, len(body)) if header else None
            kind = {"Content-Type": CONTENT_TYPES.get(Path(name).suffix, "text/plain")}
            fault = fault or site.faults.get(key, "good")
            self._behave(fault, number, _Medium(name, body, part, kind))

    def _behave(self, fault: str, number: int, medium: _Medium) -> None:
        if fault.endswith("-once"):
            fault = fault.removesuffix("-once") if number == 1 else "good"
        if fault.startswith("later "):
            fault = fault.removeprefix("later ") if medium.part else "good"
        status, _, seconds = fault.partition(" ")
        if status.isdigit():
            self._refuse(int(status), {"Retry-After": seconds} if seconds else {})
        elif not (
            self._send_no_media(fault, medium)
            or self._send_broken(fault, number, medium)
            or self._send_wrong(fault, number, medium)
            or self._send_version(fault, number, medium)
        ):
            self._send(medium)

    def _send_no_media(self, fault: str, medium: _Medium) -> bool:
        """Send something else than media and return True, or return False."""
        match fault, medium.part is not None:
            case ("html", _) | ("html-later", True):
                self.reply(200, HTML, {"Content-Type": "text/html"})
            case ("hang", _):
                self.server.ended.wait()
            case ("empty", _) | ("empty-later", True):
                self.reply(200, b"", medium.kind)
            case ("redirect", _):
                self.reply(302, b"", {"Location": f"/good/{medium.name}"})
            case ("moved", _):
                self.reply(301, b"", {"Location": f"/good/{medium.name}"})
            case ("redirect-loop", _):
                self.reply(302, b"", {"Location": self.path})
            case _:
                return False
        return True

    def _send_broken(self, fault: str, number: int, medium: _Medium) -> bool:
        """Send media in a broken way and return True, or return False."""
        start, stop = medium.span
        half = max(1, (stop - start) // 2)
        match fault, number == 1, medium.part is not None:
            case ("no-ranges", _, _) | ("no-ranges-drop", False, _):
                self.reply(200, medium.body, medium.kind)
            case ("no-ranges-drop", True, True):
                self._send(medium._replace(part=None), size=len(medium.body) // 2)
            case ("drop", _, True) | ("drop-probe", True, False):
                self._send(medium, size=half)
            case ("drop-always", _, True):
                self._send(medium, size=0)
            case ("drip", _, True):
                self._send(medium, size=50_000)
            case ("reset", _, _):
                self._send(medium, size=max(0, len(medium.body) // 2 - start))
                # Without lingering a close is a reset.
                linger = struct.pack("ii", 1, 0)
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                self.connection.close()
            case ("length-too-long", _, True):
                self._send(medium, length=stop - start + 1000)
            case ("length-too-short", _, True):
                self._send(medium, size=half, length=half)
            case ("no-length", _, _):
                self._send(medium, length=-1)
            case _:
                return False
        return True

    def _send_wrong(self, fault: str, number: int, medium: _Medium) -> bool:
        """Send something else than the requested range and return True, or return False."""
        body, kind = medium.body, medium.kind
        start, stop = medium.span
        match fault, number == 1, medium.part is not None:
            case ("gzip", _, _):
                packed = gzip.compress(body, 1)
                self.reply(200, packed, {**kind, "Content-Encoding": "gzip"})
            case ("gzip-parts", _, True):
                packed = gzip.compress(body[start:stop], 1)
                encoded = medium._replace(kind={**kind, "Content-Encoding": "gzip"})
                self._send(encoded, content=packed)
            case ("wrong-start", _, True):
                self._send(medium._replace(part=(start + 1, stop)))
            case ("replaced", True, True):
                self._send(medium._replace(body=body + bytes(500_000)))
            case ("replaced-always", _, True):
                self._send(medium._replace(body=body + bytes(number)))
            case ("noise", _, _):
                self._send(_Medium(medium.name, bytes(1000), self._part_of(1000), kind))
            case ("endless", _, _):
                self.reply(200, body, kind, length=-1)
                # A client that leaves ends it.
                while self.command != "HEAD" and not self.server.ended.is_set():
                    self.wfile.write(bytes(1 << 20))
            case _:
                return False
        return True

    def _send_version(self, fault: str, number: int, medium: _Medium) -> bool:
        """Send media with the headers of its version and return True, or return False."""
        version = number if fault in {"edited-always", "dated-always"} else 1
        headers = {"Last-Modified": f"Sat, 01 Jan 2022 00:00:{version % 60:02} GMT"}
        if fault != "dated-always":
            headers["ETag"] = f'"{version}"'
        match fault, number == 1:
            case ("versioned" | "edited-always" | "dated-always", _):
                pass
            case ("versioned-weakly", _):
                headers["ETag"] = 'W/"1"' if number % 2 else '"1"'
            case ("edited" | "edited-unseen", True):
                medium = medium._replace(body=medium.body[:-1] + b"?")
            case ("edited" | "edited-unseen", False):
                headers["ETag"] = '"2"'
            case _:
                return False
        condition = self.headers.get("If-Range")
        if condition and condition not in headers.values() and fault != "edited-unseen":
            medium = medium._replace(part=None)
        self._send(medium._replace(kind={**medium.kind, **headers}))
        return True

    def _part_of(self, size: int) -> tuple[int, int] | None:
        header = self.headers.get("Range")
        return parse_range(header, size) if header else None

    def _send(
        self,
        medium: _Medium,
        *,
        size: int | None = None,
        length: int | None = None,
        content: bytes | None = None,
    ) -> None:
        """Send a range, or the whole, or other content: `size` bytes, promising `length`."""
        start, stop = medium.span
        if medium.part and start >= stop:
            self.reply(416, b"", {"Content-Range": f"bytes */{len(medium.body)}"})
            return
        headers = dict(medium.kind)
        if medium.part:
            headers["Content-Range"] = f"bytes {start}-{stop - 1}/{len(medium.body)}"
        content = medium.body[start:stop] if content is None else content
        length = len(content) if length is None else length
        self.reply(206 if medium.part else 200, content[:size], headers, length=length)

    def _refuse(self, status: int, headers: Mapping[str, str] | None = None) -> None:
        body = f"{status} {HTTPStatus(status).phrase}\n".encode()
        self.reply(status, body, {"Content-Type": "text/plain", **(headers or {})})


# -- Proxies ---------------------------------------------------------------------------------------


@contextlib.contextmanager
def proxy(name: str) -> Iterator[str]:
    """Run a proxy that tells the site its name; yield its URL."""

    class Handler(_Forward):
        route = name

    with LoopbackServer(Handler) as server:
        yield server.url


def dead_proxy() -> str:
    """Return the URL of a proxy that does not exist."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{closed.getsockname()[1]}"


class _Forward(LoopbackHandler):
    route = ""
    protocol_version = "HTTP/1.0"

    def answer(self) -> None:
        url = urlsplit(self.path)
        upstream = http.client.HTTPConnection(url.netloc, timeout=30)
        with contextlib.closing(upstream):
            upstream.request(self.command, url.path, headers={**self.headers, "X-Via": self.route})
            with upstream.getresponse() as response:
                self.send_response(response.status)
                for header, value in response.getheaders():
                    if header not in {"Server", "Date"}:
                        self.send_header(header, value)
                self.end_headers()
                self.wfile.write(response.read())
