"""Whether a cookie file is usable for a source. No message contains a cookie's value."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal, NamedTuple

from voxblink2_lib.sources.cookie_file import read_cookie_file

_YOUTUBE = "youtube.com"

# What yt-dlp takes for a login at YouTube: this one and any of the others.
_LOGIN = "LOGIN_INFO"
_LOGIN_KEYS = frozenset({"SAPISID", "__Secure-1PAPISID", "__Secure-3PAPISID"})
_EXPORT = (
    "Export them again, in Netscape format (cookies.txt), from a browser that is logged in there."
)

_DAY_SECONDS = 86_400


class CookieCheck(NamedTuple):
    """The result of checking a cookie file.

    Attributes:
        level: ``"error"``: it is useless; ``"warning"``: less useful than it should be.
        message: what was observed.
        remedy: what to do; empty if there is no problem.
    """

    level: Literal["ok", "warning", "error"]
    message: str
    remedy: str = ""


def check_cookies(
    path: str | os.PathLike[str], *, host: str, now: float | None = None
) -> CookieCheck:
    """Check a cookie file in Netscape format, parsed as yt-dlp parses it.

    Args:
        path: the file.
        host: name of the source's server, such as ``www.youtube.com``.
        now: Unix time; the machine's clock by default.

    Returns:
        The result. A file that cannot be read is an error in it, not an exception.
    """
    now = time.time() if now is None else now
    file = read_cookie_file(Path(path).expanduser())
    if file.problem.startswith("cannot be read"):
        remedy = "Check the file name and your permission to read it."
        return CookieCheck("error", file.problem, remedy)
    if file.problem:
        return CookieCheck("error", file.problem, _EXPORT)
    return _judge(file.cookies, file.skipped, host, now)


def _judge(cookies: Iterable[Any], skipped: int, host: str, now: float) -> CookieCheck:
    ours = [cookie for cookie in cookies if _is_for(cookie.domain, host)]
    if not ours:
        domains = sorted({cookie.domain.lstrip(".") for cookie in cookies})[:5]
        message = f"has no cookie for {host}, only for {', '.join(domains) or 'no domain'}"
        return CookieCheck("error", message, _EXPORT)
    valid = [cookie for cookie in ours if not cookie.is_expired(now)]
    expired = [cookie for cookie in ours if cookie.is_expired(now)]
    if not valid:
        days = (now - max(cookie.expires for cookie in expired)) / _DAY_SECONDS
        message = f"cookies for {host}: {len(expired)}, all expired, the last {days:,.0f} days ago"
        return CookieCheck("error", message, _EXPORT)
    message = f"cookies for {host}: {len(valid)}{_first_expiry(valid, now)}"
    problems = _problems(valid, expired, skipped, host)
    if problems:
        return CookieCheck("warning", "; ".join([message, *problems]), _EXPORT)
    return CookieCheck("ok", message)


def _problems(valid: list[Any], expired: list[Any], skipped: int, host: str) -> list[str]:
    problems = []
    if _is_for(_YOUTUBE, host) and not _is_login(valid):
        problems.append("no YouTube login among them")
    if expired:
        names = ", ".join(sorted(cookie.name for cookie in expired)[:5])
        problems.append(f"expired: {len(expired)} ({names})")
    if skipped:
        problems.append(f"skipped lines that are not in Netscape format: {skipped}")
    return problems


def _is_for(domain: str, host: str) -> bool:
    """Return whether a cookie of a domain is sent to a host."""
    bare = domain.lstrip(".").lower()
    return host.lower() == bare or host.lower().endswith(f".{bare}")


def _is_login(cookies: Iterable[Any]) -> bool:
    names = {cookie.name for cookie in cookies}
    return _LOGIN in names and bool(names & _LOGIN_KEYS)


def _first_expiry(cookies: Iterable[Any], now: float) -> str:
    lifetimes = [cookie.expires - now for cookie in cookies if cookie.expires is not None]
    if not lifetimes:
        return ""
    return f", the first expires in {min(lifetimes) / _DAY_SECONDS:,.1f} days"
