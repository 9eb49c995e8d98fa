"""Whether a file of cookies will do for a source. No message ever holds a cookie's value."""

from __future__ import annotations

import contextlib
import http.cookiejar
import io
import os
import re
import time
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal, NamedTuple

_YOUTUBE = "youtube.com"

# What yt-dlp takes for a login at YouTube: this one and any of the others.
_LOGIN = "LOGIN_INFO"
_LOGIN_KEYS = frozenset({"SAPISID", "__Secure-1PAPISID", "__Secure-3PAPISID"})
_EXPORT = (
    "Export them again, in Netscape format (cookies.txt), from a browser that is logged in there"
)

_SKIPPED = re.compile(r"^WARNING: skipping cookie file entry", re.MULTILINE)
_DAY_SECONDS = 86_400


class CookieCheck(NamedTuple):
    """What is to be said about a file of cookies.

    Attributes:
        level: ``"error"``: it is of no use; ``"warning"``: of less use than it should be.
        says: what was seen.
        remedy: what to do; empty when all is well.
    """

    level: Literal["ok", "warning", "error"]
    says: str
    remedy: str = ""


def check_cookies(
    path: str | os.PathLike[str], *, host: str, now: float | None = None
) -> CookieCheck:
    """Look at a file of cookies in Netscape format, as yt-dlp reads it.

    Args:
        path: the file.
        host: name of the source's server, such as ``www.youtube.com``.
        now: Unix time; the machine's clock by default.

    Returns:
        What is to be said about it. A file that cannot be read is an error in there, not an
        exception.
    """
    now = time.time() if now is None else now
    try:
        # Read once before: yt-dlp's words about a bad file would quote the line.
        Path(path).expanduser().read_text(encoding="utf-8")
        cookies, skipped = _load(Path(path).expanduser())
    except UnicodeDecodeError:
        return CookieCheck("error", "is not a text file in UTF-8", f"{_EXPORT}.")
    except http.cookiejar.LoadError:
        return CookieCheck("error", "is not a file of cookies in Netscape format", f"{_EXPORT}.")
    except OSError as error:
        remedy = "Check the name, and that you may read it."
        return CookieCheck("error", f"cannot be read: {error.strerror}", remedy)
    return _judge(cookies, skipped, host, now)


def _load(path: Path) -> tuple[list[Any], int]:
    """Return all cookies of a file, and the number of lines that yt-dlp skips."""
    from yt_dlp.cookies import YoutubeDLCookieJar

    jar = YoutubeDLCookieJar(path)
    said = io.StringIO()
    # yt-dlp prints the lines that it skips, and the standard library warns about others. Both
    # would show secrets.
    with contextlib.redirect_stderr(said), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        jar.load(ignore_discard=True, ignore_expires=True)
    return list(jar), len(_SKIPPED.findall(said.getvalue()))


def _judge(cookies: Iterable[Any], skipped: int, host: str, now: float) -> CookieCheck:
    ours = [one for one in cookies if _is_for(one.domain, host)]
    if not ours:
        domains = ", ".join(sorted({one.domain.lstrip(".") for one in cookies})[:5]) or "nobody"
        return CookieCheck("error", f"has no cookie for {host}, but for {domains}", f"{_EXPORT}.")
    alive = [one for one in ours if not one.is_expired(now)]
    expired = len(ours) - len(alive)
    if not alive:
        days = (now - max(one.expires for one in ours)) / _DAY_SECONDS
        says = f"all {expired} cookies for {host} have expired, the last {days:,.0f} days ago"
        return CookieCheck("error", says, f"{_EXPORT}.")
    says = f"{len(alive)} cookies for {host}" + _first_end(alive, now)
    problems = []
    if _is_for(_YOUTUBE, host) and not _is_login(alive):
        problems.append("no login to YouTube among them")
    if expired:
        names = ", ".join(sorted(one.name for one in ours if one.is_expired(now))[:5])
        problems.append(f"{expired} more have expired ({names})")
    if skipped:
        problems.append(f"{skipped} lines are not in Netscape format and are skipped")
    if problems:
        return CookieCheck("warning", "; ".join([says, *problems]), f"{_EXPORT}.")
    return CookieCheck("ok", says)


def _is_for(domain: str, host: str) -> bool:
    """Say whether a cookie of a domain is sent to a host."""
    bare = domain.lstrip(".").lower()
    return host.lower() == bare or host.lower().endswith(f".{bare}")


def _is_login(cookies: Iterable[Any]) -> bool:
    names = {one.name for one in cookies}
    return _LOGIN in names and bool(names & _LOGIN_KEYS)


def _first_end(cookies: Iterable[Any], now: float) -> str:
    ends = [one.expires - now for one in cookies if one.expires is not None]
    return f", the first ends in {min(ends) / _DAY_SECONDS:,.1f} days" if ends else ""
