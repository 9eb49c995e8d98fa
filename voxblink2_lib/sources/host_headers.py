"""Headers that a user gives for yt-dlp: they go to the source's host, and to no other.

yt-dlp would send them with every request: to a server that the source redirects to, and to the one
that a page names for its media.
"""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from typing import Any, NamedTuple
from urllib.parse import SplitResult, urlsplit

from yt_dlp.networking import Request

_DEFAULT_PORTS = {"http": 80, "https": 443}
_YOUTUBE = "youtube.com"


class _Origin(NamedTuple):
    scheme: str
    host: str
    port: int | None


class HostHeaders:
    """The headers of a user, and which requests have them.

    Args:
        headers: names and values; without ``Cookie``, which yt-dlp keeps to a host itself.
    """

    def __init__(self, headers: Mapping[str, str]) -> None:
        self._headers = dict(headers)
        self._home = _Origin("", "", None)

    def begin(self, url: str) -> None:
        """Take the host of this URL for the source's host from now on."""
        self._home = _origin(url)

    def add_to(self, request: Request, defaults: Mapping[str, str]) -> None:
        """Add the headers to a request for the source; hide the source's URL from others.

        Args:
            request: the request. Headers that an extractor chose for it stay.
            defaults: headers that yt-dlp sends with every request.
        """
        if self._is_home(request.url):
            for name, value in self._headers.items():
                if request.headers.get(name) in {None, defaults.get(name)}:
                    request.headers[name] = value
        elif (referer := request.headers.get("Referer")) and self._is_home(referer):
            # As browsers do, since the query may hold a token.
            request.headers["Referer"] = _front_page(referer)

    def guard(self, handler: Any) -> None:
        """Let one of yt-dlp's handlers of requests drop the headers on the way to another host."""
        make = getattr(type(handler), "_create_instance", None)
        if make is not None:
            this = weakref.proxy(handler)  # a circle of references would keep connections open
            handler._create_instance = lambda **options: self._guarded(make(this, **options))

    def _guarded(self, client: Any) -> Any:
        if hasattr(client, "rebuild_auth"):
            self._guard_session(client)
        for part in getattr(client, "handlers", ()):
            if hasattr(part, "redirect_request"):
                self._guard_redirects(part)
        return client

    def _guard_session(self, session: Any) -> None:
        """Guard a session of requests, which calls this for each redirect."""
        this, rebuild = weakref.proxy(session), type(session).rebuild_auth

        def rebuild_auth(prepared: Any, response: Any) -> None:
            for name in self._private(prepared.url):
                prepared.headers.pop(name, None)
            rebuild(this, prepared, response)

        session.rebuild_auth = rebuild_auth

    def _guard_redirects(self, part: Any) -> None:
        """Guard the part of an opener of urllib that follows redirects."""
        this, follow = weakref.proxy(part), type(part).redirect_request

        def redirect_request(*details: Any) -> Any:
            request = follow(this, *details)
            if request is not None:
                for name in self._private(request.full_url):
                    request.remove_header(name.capitalize())
            return request

        part.redirect_request = redirect_request

    def _private(self, url: str) -> tuple[str, ...]:
        """Return the names of headers that must not go to a URL."""
        return () if self._is_home(url) else (*self._headers, "Authorization", "Referer")

    def _is_home(self, url: str) -> bool:
        origin = _origin(url)
        if origin == self._home:
            return True
        if self._home.scheme == "http":
            return origin == _Origin("https", self._home.host, 443) and self._home.port == 80
        return origin.scheme == "https" and all(
            f".{host}".endswith(f".{_YOUTUBE}") for host in (origin.host, self._home.host)
        )


def _origin(url: str) -> _Origin:
    parts = urlsplit(url)
    return _Origin(parts.scheme, parts.hostname or "", _port(parts))


def _port(parts: SplitResult) -> int | None:
    try:
        return parts.port or _DEFAULT_PORTS.get(parts.scheme)
    except ValueError:  # no number
        return None


def _front_page(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}/"
