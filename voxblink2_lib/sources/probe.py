"""One question to a source's server, to see whether it answers and what time it has."""

from __future__ import annotations

import contextlib
import email.utils
import re
import time
from typing import Any, NamedTuple
from urllib.parse import urlsplit, urlunsplit

from voxblink2_lib.errors import UnreachableError, first_line

_SECRET = re.compile(r"(?<=//)[^/@\s]+@")


class ProbeResult(NamedTuple):
    """What a server answered.

    Attributes:
        status: of HTTP.
        clock_off_seconds: how far this machine's clock is ahead of the server's; ``None`` if the
            server does not tell the time.
    """

    status: int
    clock_off_seconds: float | None


def probe_server(
    address: str, *, proxy: str | None = None, timeout_seconds: float = 10.0
) -> ProbeResult:
    """Send a HEAD request through yt-dlp's networking, as a run would send its own.

    Args:
        address: an ``http`` or ``https`` address.
        proxy: address of a proxy; empty for none; ``None`` for what the environment says.
        timeout_seconds: for connecting, and for each wait for data.

    Raises:
        UnreachableError: no answer came. The text never holds the proxy's password.
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
    with YoutubeDL(options) as downloader:
        try:
            response = downloader.urlopen(HEADRequest(address))
        except HTTPError as error:
            response = error.response
        except (YoutubeDLError, ValueError) as error:  # ValueError: no address at all
            raise UnreachableError(hide_secrets(first_line(error), proxy)) from error
        with contextlib.closing(response):
            now = time.time()
            return ProbeResult(response.status, _clock_off(response.headers, now))


def _clock_off(headers: Any, now: float) -> float | None:
    """Compare the header Date (RFC 9110, 6.6.1; whole seconds) with a Unix time."""
    try:
        date = email.utils.parsedate_to_datetime(headers.get("Date"))
        # A cache hands on old answers and says how old.
        return now - date.timestamp() - int(headers.get("Age") or 0)
    except (TypeError, ValueError):
        return None


def shown_proxy(proxy: str) -> str:
    """Return a proxy's address without its password.

    Example:
        >>> shown_proxy("http://me:secret@proxy.example.org:3128")
        'http://me:***@proxy.example.org:3128'
    """
    whole = proxy if "://" in proxy else f"http://{proxy}"
    try:
        parts = urlsplit(whole)
    except ValueError:
        return _SECRET.sub("***@", whole)
    user, found, place = parts.netloc.rpartition("@")
    if found:
        user = f"{user.partition(':')[0]}:***" if ":" in user else user
        return urlunsplit((parts.scheme, f"{user}@{place}", "", "", ""))
    return urlunsplit((parts.scheme, place, "", "", ""))


def hide_secrets(words: str, proxy: str | None) -> str:
    """Take a proxy's password out of what somebody said."""
    words = _SECRET.sub("***@", words)
    if proxy and "@" in proxy:
        secret = proxy.rpartition("@")[0].rpartition("://")[2]
        for one in {secret, secret.partition(":")[2]} - {""}:
            words = words.replace(one, "***")
    return words


class _Silence:
    """Takes yt-dlp's messages; what matters comes as an exception."""

    def debug(self, message: str) -> None:
        """Say nothing."""

    info = warning = error = debug
