"""How media are asked for over the network: addresses, cookies, budget, speed."""

from __future__ import annotations

import math
import os
import re
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from voxblink2_lib.errors import SourceError

# Guests of YouTube may ask for about 300 videos an hour.
GUEST_BUDGET = 300.0
_DEFAULT_FETCHES = 8
_MAX_FETCHES = 256
_RATE = re.compile(r"(\d+(?:\.\d+)?)([KMG]?)", re.IGNORECASE | re.ASCII)
_SCHEMES = ("http", "https", "socks4", "socks4a", "socks5", "socks5h")


@dataclass(frozen=True, slots=True)
class Route:
    """One outgoing address: a way to the source with a budget of its own.

    Attributes:
        name: what it is called in messages and in the ledger; holds no password.
        proxy: address of a proxy, or ``None`` for the machine's own.
        cookies: a file of cookies, or ``None``.
    """

    name: str = "direct"
    proxy: str | None = None
    cookies: str | None = None


@dataclass(frozen=True, slots=True)
class FetchOptions:
    """Options of fetching. They change nothing in the clips.

    Attributes:
        proxy: proxies, each an outgoing address of its own. Default: none.
        cookies: files of cookies in Netscape's form. One serves all proxies; several need as
            many proxies, in the same order, or none.
        cookies_from_browser: as yt-dlp takes it, for example ``"firefox"``.
        budget: videos an hour for each address; 0 means no limit. Default: 300 for YouTube,
            no limit for other sources.
        sleep: least seconds between two videos of one address.
        limit_rate: bytes a second of one download, as ``"500K"`` or ``"2M"``.
        extractor_args: as yt-dlp takes them, for example ``"youtube:player_client=web"``.
        yt_dlp: further options of yt-dlp, as on its command line.
        fetches: videos that are fetched at the same time. Default: 8.
        reasons: a file of patterns in the form of ``sources/reasons.toml`` that go first.

    Raises:
        SourceError: one of them is not allowed.
    """

    proxy: tuple[str, ...] = ()
    cookies: tuple[str, ...] = ()
    cookies_from_browser: str | None = None
    budget: float | None = None
    sleep: float = 0.0
    limit_rate: str | None = None
    extractor_args: tuple[str, ...] = ()
    yt_dlp: str | None = None
    fetches: int | None = None
    reasons: str | None = None

    def __post_init__(self) -> None:
        for proxy in self.proxy:
            _check_proxy(proxy)
        for file in (*self.cookies, *([self.reasons] if self.reasons else [])):
            if not Path(file).expanduser().is_file():
                raise SourceError(f"The file {file!r} is not there. Check its path.")
        if self.cookies and self.cookies_from_browser:
            raise SourceError("Give cookies or cookies_from_browser, not both.")
        if len(self.cookies) > 1 and self.proxy and len(self.proxy) != len(self.cookies):
            raise SourceError(
                f"There are {len(self.cookies)} files of cookies and {len(self.proxy)} proxies. "
                "Give one file for all, or as many files as proxies, in the same order."
            )
        for name in ("budget", "sleep"):
            value = getattr(self, name)
            if value is not None and not (type(value) in {int, float} and 0 <= value < math.inf):
                raise SourceError(f"{name} must be a number of 0 or more, got {value!r}.")
        if self.fetches is not None and (
            type(self.fetches) is not int or not 1 <= self.fetches <= _MAX_FETCHES
        ):
            raise SourceError(
                f"fetches must be a whole number from 1 to {_MAX_FETCHES}, got {self.fetches!r}."
            )
        _ = self.bytes_a_second

    @classmethod
    def of(cls, **given: Any) -> FetchOptions:
        """Make options from what users write; ``None`` means the default, one text a list of one.

        >>> FetchOptions.of(proxy="http://10.0.0.1:8080", budget=None).proxy
        ('http://10.0.0.1:8080',)
        """
        several = {one.name for one in fields(cls) if one.type == "tuple[str, ...]"}
        taken: dict[str, Any] = {}
        for name, value in given.items():
            if value is None:
                continue
            if name not in several:
                taken[name] = value
            else:
                one = isinstance(value, str | os.PathLike)
                taken[name] = tuple(map(str, (value,) if one else value))
        return cls(**taken)

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """Return the names of all options."""
        return tuple(one.name for one in fields(cls))

    @property
    def bytes_a_second(self) -> float | None:
        """The limit of one download."""
        if self.limit_rate is None:
            return None
        found = _RATE.fullmatch(str(self.limit_rate))
        if found is None or not float(found[1]):
            raise SourceError(
                f"limit_rate must be bytes a second, as 500K or 2M, got {self.limit_rate!r}."
            )
        return float(found[1]) * 1024.0 ** " KMG".index(found[2].upper() or " ")

    @property
    def fetch_count(self) -> int:
        """Videos that are fetched at the same time."""
        return self.fetches or _DEFAULT_FETCHES

    def per_hour(self, *, is_youtube: bool) -> float:
        """Return the videos an hour of one address; infinity for no limit."""
        budget = (GUEST_BUDGET if is_youtube else 0.0) if self.budget is None else self.budget
        return budget or math.inf

    def vias(self) -> tuple[Route, ...]:
        """Return the outgoing addresses."""
        proxies: list[str | None] = list(self.proxy) or [None]
        cookies: list[str | None] = list(self.cookies) or [None]
        if len(cookies) == 1:
            cookies *= len(proxies)
        elif len(proxies) == 1:
            proxies *= len(cookies)
        return tuple(
            Route(_name(proxy, file), proxy, str(Path(file).expanduser()) if file else None)
            for proxy, file in zip(proxies, cookies, strict=True)
        )


def _name(proxy: str | None, cookies: str | None) -> str:
    place = "direct"
    if proxy:
        parts = urlsplit(proxy)
        place = f"{parts.hostname}:{parts.port}" if parts.port else f"{parts.hostname}"
    return f"{place} with {Path(cookies).name}" if cookies else place


def _check_proxy(proxy: str) -> None:
    try:
        parts = urlsplit(proxy)
        is_one = parts.scheme in _SCHEMES and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_one = False
    if not is_one:
        # The text may hold a password.
        raise SourceError(
            "A proxy must be an address such as http://host:8080 or socks5://user:word@host:1080; "
            f"allowed are {', '.join(_SCHEMES)}. Got one of {len(proxy)} characters that begins "
            f"with {proxy.partition(':')[0][:6]!r}."
        )
