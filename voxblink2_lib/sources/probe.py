"""Probe a source's server with one request: whether it answers, and its clock."""

from __future__ import annotations

import contextlib
import email.utils
import time
from typing import Any, NamedTuple

from voxblink2_lib.errors import UnreachableError, first_line
from voxblink2_lib.redaction import redact, secrets_in


class ProbeResult(NamedTuple):
    """The answer of a server.

    Attributes:
        status: HTTP status.
        clock_off_seconds: how far this machine's clock is ahead of the server's; ``None`` if the
            server does not send its time.
    """

    status: int
    clock_off_seconds: float | None


def probe_server(
    url: str, *, proxy: str | None = None, timeout_seconds: float = 10.0
) -> ProbeResult:
    """Send a HEAD request through yt-dlp's networking, like those of a run.

    Args:
        url: an ``http`` or ``https`` URL.
        proxy: URL of a proxy; empty for none; ``None`` for that of the environment.
        timeout_seconds: for connecting, and for each wait for data.

    Raises:
        UnreachableError: the server does not answer. The message contains no secret of either
            URL.
    """
    from yt_dlp import YoutubeDL
    from yt_dlp.networking import HEADRequest
    from yt_dlp.networking.exceptions import HTTPError
    from yt_dlp.utils import YoutubeDLError

    options = {
        "cachedir": False,
        "color": "never",
        "logger": _Silence(),
        "proxy": proxy,
        "socket_timeout": timeout_seconds,
    }
    # Without its 1,800 extractors, which take a tenth of a second.
    with YoutubeDL(options, auto_init=False) as downloader:
        try:
            response = downloader.urlopen(HEADRequest(url))
        except HTTPError as error:
            response = error.response
        except (YoutubeDLError, ValueError) as error:  # ValueError: not a URL
            secrets = secrets_in(url, proxy or "")
            raise UnreachableError(redact(first_line(error), secrets)) from error
        with contextlib.closing(response):
            now = time.time()
            return ProbeResult(response.status, _clock_off(response.headers, now))


def _clock_off(headers: Any, now: float) -> float | None:
    """Compare the header Date (RFC 9110, 6.6.1; whole seconds) with a Unix time."""
    try:
        date = email.utils.parsedate_to_datetime(headers.get("Date"))
        # A cache serves old answers and states their age.
        return now - date.timestamp() - int(headers.get("Age") or 0)
    except (TypeError, ValueError):
        return None


class _Silence:
    """Discards yt-dlp's messages; errors are raised as exceptions as well."""

    def debug(self, message: str) -> None:
        """Discard a message."""

    info = warning = error = debug
