"""yt-dlp's downloader as this library uses it: it counts what pages take, and keeps secrets."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from yt_dlp import YoutubeDL
from yt_dlp.networking import Request

from voxblink2_lib.foreign_text import visible
from voxblink2_lib.sources.host_headers import HostHeaders
from voxblink2_lib.sources.range_reader import AvailableBytes
from voxblink2_lib.sources.segments import HLS_PROTOCOLS, are_served
from voxblink2_lib.sources.transfer_meter import TransferBudget, TransferMeter

_log = logging.getLogger(__name__)

# Pages and manifests that are read before the first byte of media.
PAGES_BUDGET = TransferBudget.of(0.0)
_PAGE_BLOCK_BYTES = 1 << 16


class Downloader(YoutubeDL):  # type: ignore[misc]  # no type hints there
    """A ``YoutubeDL`` that reports its first answer, and the language of the video at hand.

    Args:
        params: options of yt-dlp. Of their ``http_headers`` each goes to the source's host only.

    Attributes:
        answered: called once, when the first request for a video is answered or fails.
        language: of the video as a whole, where the site states it.
        pages: counts the bytes of all answers, while there is one.
    """

    pages: TransferMeter | None = None
    answered: Callable[[], None] | None = None
    language: str | None = None

    def __init__(self, params: dict[str, Any]) -> None:
        headers = dict(params.pop("http_headers", None) or {})
        cookies = [headers.pop(name) for name in [*headers] if name.lower() == "cookie"]
        self._cookie_header = "; ".join(cookies)
        self._host_headers = HostHeaders(headers)
        super().__init__(params)

    def begin(self, url: str) -> None:
        """Send the user's headers to the host of this URL from now on."""
        self._host_headers.begin(url)
        if self._cookie_header:
            self._load_cookies(self._cookie_header, autoscope=url)

    def build_request_director(self, handlers: Any, preferences: Any = None) -> Any:
        """Return what sends requests; its handlers keep the user's headers to the source's host."""
        director = super().build_request_director(handlers, preferences)
        for handler in director.handlers.values():
            self._host_headers.guard(handler)
        return director

    def urlopen(self, req: Any) -> Any:
        """Send a request."""
        if isinstance(req, str):
            req = Request(req)
        self._host_headers.add_to(req, self.params["http_headers"])
        try:
            response = super().urlopen(req)
            if self.pages is None:
                return response
            # The user's pause between two requests is not the server's time.
            self.pages.extend(0, self.params.get("sleep_interval_requests") or 0.0)
            response.fp = _MeteredBytes(response.fp, self.pages)
            return response
        finally:
            if self.answered is not None:
                answered, self.answered = self.answered, None
                answered()

    def process_video_result(self, info_dict: Any, download: bool = True) -> Any:
        """Select formats of a video."""
        # What selects formats is given nothing but the formats.
        self.language = info_dict.get("language")
        return super().process_video_result(info_dict, download)

    def can_play(self, form: dict[str, Any]) -> bool:
        """Return whether a format can be downloaded; tested where yt-dlp doubts it."""
        is_doubtful = form.get("has_drm") or form.get("__needs_testing")
        if is_doubtful and is_segmented(form):
            # yt-dlp's own test may start ffmpeg.
            return are_served(self, form, TransferMeter(PAGES_BUDGET))
        return not is_doubtful or bool(list(self._check_formats([form])))


def is_segmented(form: dict[str, Any]) -> bool:
    """Return whether a format is a list of segments."""
    return form.get("protocol") in HLS_PROTOCOLS or bool(form.get("fragments"))


class _MeteredBytes(AvailableBytes):
    """A response's stream that is read within a budget, block by block.

    The response must not refer to itself: yt-dlp leaves it open, and drops it.
    """

    def __init__(self, stream: Any, meter: TransferMeter) -> None:
        super().__init__(stream)
        self._meter = meter

    def read(self, amount: int | None = None, **options: Any) -> Any:
        """Read an amount, or all that is left."""
        body = bytearray()
        while amount is None or len(body) < amount:
            self._meter.start()
            most = _PAGE_BLOCK_BYTES if amount is None else amount - len(body)
            block = super().read(min(most, _PAGE_BLOCK_BYTES), **options)
            self._meter.add(len(block))
            if not block:
                break
            body += block
        return bytes(body)


class Logger:
    """Sends yt-dlp's messages to the library's log; errors are raised as exceptions as well.

    Args:
        redacted: returns a message without secrets.

    Attributes:
        warnings: yt-dlp's warnings since this list was cleared.
    """

    def __init__(self, redacted: Callable[[str], str]) -> None:
        self.warnings: list[str] = []
        self._redacted = redacted

    def debug(self, message: str) -> None:
        """Log a message."""
        _log.debug("%s", visible(self._redacted(message)))

    info = debug
    error = debug

    def warning(self, message: str) -> None:
        """Keep a warning, and log it."""
        self.warnings.append(message)
        _log.info("%s", visible(self._redacted(message)))
