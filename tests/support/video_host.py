"""A loopback host of videos with pages, an extractor of yt-dlp for it, and days that are bad.

A page says of each video what YouTube would: that it can be played, or why not, in the real words.
On a bad day it says the same of all.
"""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import pytest
import yt_dlp.extractor
import yt_dlp.globals
from yt_dlp.extractor.common import InfoExtractor
from yt_dlp.utils import ExtractorError

from support import plain_corpus
from support.fault_site import HTML
from support.loopback_server import LoopbackHandler, LoopbackServer
from voxblink2_lib.demo.site import parse_range

REMOVED = "This video has been removed by the uploader"
BARE = "Video unavailable"
SABR = (
    "Some web client https formats have been skipped as they are missing a URL. YouTube is forcing "
    "SABR streaming for this client."
)


class VideoHost(LoopbackServer):
    """Serve ``/watch/<id>`` as JSON and ``/media/<id>.wav`` with ranges.

    Args:
        reasons: why some videos cannot be played.

    Attributes:
        storm: of a bad day, what all pages say: a reason, or one of ``forbidden`` (403), ``log-in``
            (HTML in place of everything), ``sabr`` (no formats, with yt-dlp's warning), ``unknown``
            (something that no program expects), ``junk`` (media that are none).
        pages: requests of pages, by video.
        stormy: those of them that a bad day answered.
        before: called with the id before each page.
    """

    def __init__(self, reasons: Mapping[str, str] | None = None) -> None:
        self.reasons = dict(reasons or {})
        self.storm = ""
        self.pages: Counter[str] = Counter()
        self.stormy: Counter[str] = Counter()
        self.before: Callable[[str], object] = lambda _: None
        self._lock = threading.Lock()
        super().__init__(_HostHandler)

    @property
    def template(self) -> str:
        """The source, as a user names it."""
        return f"{self.url}/watch/{{video_id}}"

    def page(self, video_id: str) -> str:
        """Count a request of a page; return the storm that answers it."""
        with self._lock:
            self.pages[video_id] += 1
            self.before(video_id)
            if self.storm:
                self.stormy[video_id] += 1
            return self.storm


class _HostHandler(LoopbackHandler):
    server: VideoHost
    protocol_version = "HTTP/1.0"

    def answer(self) -> None:
        kind, _, name = self.path.lstrip("/").partition("/")
        video_id = name.partition(".")[0]
        if kind == "watch":
            self._answer_page(video_id)
        elif self.server.storm == "log-in":
            self.reply(200, HTML, {"Content-Type": "text/html"})
        elif kind == "media":
            self._send_media()
        else:
            self.reply(204, b"", {})

    def _answer_page(self, video_id: str) -> None:
        storm = self.server.page(video_id)
        if storm == "forbidden":
            self.reply(403, b"", {})
        elif storm == "log-in":
            self.reply(200, HTML, {"Content-Type": "text/html"})
        else:
            reason = storm or self.server.reasons.get(video_id, "")
            body = json.dumps(
                {"reason": reason, "media": f"{self.server.url}/media/{video_id}.wav"}
            )
            self.reply(200, body.encode(), {"Content-Type": "application/json"})

    def _send_media(self) -> None:
        body = bytes(30_000) if self.server.storm == "junk" else plain_corpus.wav()
        header = self.headers.get("Range")
        part = parse_range(header, len(body)) if header else None
        start, stop = part or (0, len(body))
        headers = {"Content-Type": "audio/wav"}
        if part:
            headers["Content-Range"] = f"bytes {start}-{stop - 1}/{len(body)}"
        self.reply(206 if part else 200, body[start:stop], headers)


class VideoHostIE(InfoExtractor):  # type: ignore[misc]  # no type hints there
    """yt-dlp's knowledge of the host."""

    _VALID_URL = r"http://127\.0\.0\.1:\d+/watch/(?P<id>[A-Za-z0-9_-]{11})"
    _TESTS: ClassVar[list[Any]] = []

    def _real_extract(self, url: str) -> dict[str, Any]:
        video_id = self._match_id(url)
        page, handle = self._download_webpage_handle(url, video_id)
        if "html" in handle.headers.get("Content-Type", ""):
            # As the generic extractor, which gets pages of networks as any other.
            return self.url_result(url.replace("/watch/", "/login/"), ie="Generic")  # type: ignore[no-any-return]
        values = json.loads(page)
        reason = values["reason"]
        if reason == "sabr":
            self.report_warning(SABR, video_id=video_id)
            return {"id": video_id, "title": video_id, "formats": []}
        if reason == "unknown":
            raise TypeError("'NoneType' object is not subscriptable")
        if reason and reason != "junk":
            raise ExtractorError(reason, expected=True)
        return {"id": video_id, "title": video_id, "url": values["media"], "ext": "wav"}


def install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let yt-dlp know the host, in this process."""
    known = yt_dlp.extractor.gen_extractor_classes()
    classes = {
        VideoHostIE.__name__: VideoHostIE,
        **{known_ie.__name__: known_ie for known_ie in known},
    }
    monkeypatch.setattr(yt_dlp.globals.extractors, "value", classes)
