"""Options of downloading, validated on construction: routes, cookies, budget, speed."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from voxblink2_lib.errors import SourceError
from voxblink2_lib.records import (
    Rule,
    check_options,
    has_control_character,
    is_video_id,
    option,
    options_of,
    real_number,
    switch,
    whole_number,
)
from voxblink2_lib.redaction import redact, secrets_in

# Unauthenticated clients of YouTube may request about 300 videos per hour.
GUEST_BUDGET = 300.0
_DEFAULT_FETCHES = 8
_DAY_SECONDS = 86_400
# A route that may request one video a day, and one that may request 280 in a second.
_BUDGETS = (1 / 24, 1e6)
# A download that is slower is given up; see `voxblink2_lib/sources/range_reader.py`.
_LEAST_RATE, _GREATEST_RATE = 4 * 1024, 2**40
_RATE = re.compile(r"(\d+(?:\.\d+)?)([KMG]?)", re.IGNORECASE | re.ASCII)
_SCHEMES = ("http", "https", "socks4", "socks4a", "socks5", "socks5h")


@dataclass(frozen=True, slots=True)
class Route:
    """A proxy with its cookies, or the direct connection: a way to the source with its own budget.

    Attributes:
        name: its name in messages and in the ledger; contains no password.
        proxy: URL of a proxy, or ``None`` for the direct connection.
        cookies: a file of cookies, or ``None``.
    """

    name: str = "direct"
    proxy: str | None = None
    cookies: str | None = None


def _parse_rate(rate: str) -> float | None:
    """Return the bytes a second that ``500K`` means; ``None`` if no download can have the rate."""
    match = _RATE.fullmatch(str(rate))
    if match is None:
        return None
    rate_bytes = float(match[1]) * 1024.0 ** " KMG".index(match[2].upper() or " ")
    return rate_bytes if _LEAST_RATE <= rate_bytes <= _GREATEST_RATE else None


@dataclass(frozen=True, slots=True)
class FetchOptions:
    """How media are downloaded. The options change nothing in the clips.

    Raises:
        SourceError: a value is not allowed, or two do not fit together.
    """

    proxy: tuple[str, ...] = option(
        (),
        "URL of a proxy; each is a route with its own budget",
        metavar="URL",
        values="repeat",
        may_be_secret=True,
    )
    cookies: tuple[str, ...] = option(
        (),
        "file of cookies in Netscape format: one for all proxies, or one for each, in order",
        metavar="FILE",
        values="repeat",
    )
    cookies_from_browser: str | None = option(
        None,
        "browser to read cookies from, as yt-dlp takes it, for example firefox",
        metavar="BROWSER",
    )
    budget: float | None = option(
        None,
        "videos per hour for each route, 0 for no limit",
        default=f"{GUEST_BUDGET:g} for YouTube, otherwise no limit",
        parse=float,
        metavar="N",
        rule=Rule(
            f"0 for no limit, or a number of videos per hour from 1/24 to {_BUDGETS[1]:,.0f}",
            lambda value: value == 0 or real_number(*_BUDGETS).allows(value),
        ),
    )
    sleep: float = option(
        0.0,
        "least number of seconds between two videos of a route",
        parse=float,
        metavar="SECONDS",
        rule=real_number(0, _DAY_SECONDS, text=f"of seconds from 0 to {_DAY_SECONDS:,}, a day"),
    )
    limit_rate: str | None = option(
        None,
        "bytes per second of one download, for example 500K or 2M",
        default="no limit",
        metavar="RATE",
        rule=Rule(
            "bytes per second from 4K to 1024G, for example 500K or 2M",
            lambda value: _parse_rate(value) is not None,
        ),
    )
    extractor_args: tuple[str, ...] = option(
        (),
        "arguments of yt-dlp's extractors, also for PO token providers, for example "
        "youtube:player_client=web",
        metavar="ARGS",
        values="repeat",
        may_be_secret=True,
    )
    yt_dlp: str | None = option(
        None,
        "further options of yt-dlp in one text: --yt-dlp='--sleep-requests 1 --force-ipv4'",
        metavar="OPTIONS",
        may_be_secret=True,
    )
    fetches: int | None = option(
        None,
        "videos downloaded at the same time",
        default=str(_DEFAULT_FETCHES),
        parse=int,
        metavar="N",
        rule=whole_number(1, 256),
    )
    reasons: str | None = option(
        None,
        "TOML file of further error patterns and their classes, applied first",
        metavar="FILE",
    )
    canary: tuple[str, ...] = option(
        (),
        "id of a video that is known to work; it is requested where all others fail, to tell the "
        "source's state from theirs",
        default="the first video of YouTube; else those that were downloaded before",
        metavar="ID",
        values="repeat",
        rule=Rule(
            "ids of videos: 11 characters of A-Z a-z 0-9 _ - each",
            lambda value: all(map(is_video_id, value)),
        ),
    )
    no_plugins: bool = switch("turn off the plugins of yt-dlp that are installed")

    def __post_init__(self) -> None:
        for name in options_of(type(self)):
            _check_texts(name, getattr(self, name))
        for proxy in self.proxy:
            check_proxy(proxy)
        _check_files([*self.cookies, *([self.reasons] if self.reasons else [])])
        _check_cookies(self)
        check_options(self, SourceError)

    @classmethod
    def of(cls, **given: Any) -> FetchOptions:
        """Make options from what users write; ``None`` means the default, a single text a list.

        >>> FetchOptions.of(proxy="http://10.0.0.1:8080", budget=None).proxy
        ('http://10.0.0.1:8080',)
        """
        values = {name: value for name, value in given.items() if value is not None}
        for name in values.keys() & _REPEATABLE:
            value = values[name]
            is_single = isinstance(value, str | os.PathLike)
            if not is_single and not isinstance(value, list | tuple | set | frozenset):
                raise SourceError(
                    f"{name} must be a text or a list of texts, got {type(value).__name__}."
                )
            values[name] = tuple(map(_text, (value,) if is_single else value))
        if isinstance(values.get("reasons"), os.PathLike):
            values["reasons"] = os.fspath(values["reasons"])
        return cls(**values)

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """Return the names of all options."""
        return tuple(options_of(cls))

    @property
    def bytes_a_second(self) -> float | None:
        """The limit of one download, if there is one."""
        return None if self.limit_rate is None else _parse_rate(self.limit_rate)

    @property
    def fetch_count(self) -> int:
        """Number of videos that are downloaded at the same time."""
        return self.fetches or _DEFAULT_FETCHES

    def per_hour(self, *, is_youtube: bool) -> float:
        """Return the videos per hour of one route; infinity for no limit."""
        budget = (GUEST_BUDGET if is_youtube else 0.0) if self.budget is None else self.budget
        return budget or math.inf

    def routes(self) -> tuple[Route, ...]:
        """Return the routes: a proxy each, or a file of cookies each, or the direct connection."""
        proxies: list[str | None] = list(self.proxy) or [None]
        cookies: list[str | None] = list(self.cookies) or [None]
        if len(cookies) == 1:
            cookies *= len(proxies)
        elif len(proxies) == 1:
            proxies *= len(cookies)
        return tuple(
            Route(_route_name(proxy, file), proxy, str(Path(file).expanduser()) if file else None)
            for proxy, file in zip(proxies, cookies, strict=True)
        )


_REPEATABLE = {
    name for name, declared in options_of(FetchOptions).items() if declared.values == "repeat"
}


def _route_name(proxy: str | None, cookies: str | None) -> str:
    name = "direct"
    if proxy:
        parts = urlsplit(proxy)
        name = f"{parts.hostname}:{parts.port}" if parts.port else f"{parts.hostname}"
    return f"{name} with {Path(cookies).name}" if cookies else name


# -- Checks ---------------------------------------------------------------------------------------


def _text(value: Any) -> Any:
    """Return a path as a text, and anything else as it is."""
    return os.fspath(value) if isinstance(value, os.PathLike) else value


def _check_texts(name: str, value: Any) -> None:
    """Refuse what is no text where one is needed; values are not shown, they may be secret."""
    declared = options_of(FetchOptions)[name]
    is_text = declared.parse is str and declared.rule is None and value is not None
    for text in value if declared.values == "repeat" else [value] * is_text:
        if not isinstance(text, str):
            raise SourceError(f"{name} must be a text, got {type(text).__name__}.")
        if not text.strip() and name != "yt_dlp":
            raise SourceError(f"{name} is an empty text. Leave it out, or give a value.")
        # Options of yt-dlp may be on several lines; their values are checked later.
        if has_control_character(text) and name != "yt_dlp":
            raise SourceError(
                f"{name} contains a control character, such as a line break or NUL. Remove it."
            )


def check_proxy(proxy: str, *, name: str = "A proxy") -> None:
    """Refuse what is no URL of a proxy.

    Args:
        proxy: it.
        name: of the option that it belongs to.

    Raises:
        SourceError: the message does not repeat the URL.
    """
    try:
        parts = urlsplit(proxy)
        is_valid = parts.scheme in _SCHEMES and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_valid = False
    if not is_valid:
        raise SourceError(
            f"{name} must be a URL such as http://host:8080 or socks5://user:password@host:1080 "
            f"({', '.join(_SCHEMES)}), got {redact(proxy, secrets_in(proxy))!r}."
        )


def _check_files(files: Iterable[str]) -> None:
    for file in files:
        if not os.path.isfile(os.path.expanduser(file)):  # False for names that cannot be
            raise SourceError(f"The file {file!r} does not exist. Check its path.")


def _check_cookies(options: FetchOptions) -> None:
    if options.cookies and options.cookies_from_browser:
        raise SourceError("Both cookies and cookies_from_browser are given. Leave one of them out.")
    files, proxies = len(options.cookies), len(options.proxy)
    if files > 1 and proxies and files != proxies:
        raise SourceError(
            f"{files} files of cookies do not fit {proxies} proxies. Give one file for all "
            "proxies, or as many files as proxies, in the same order."
        )
