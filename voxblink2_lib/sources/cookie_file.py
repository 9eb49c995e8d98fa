"""Read a cookie file as yt-dlp reads it. No message contains a cookie's value."""

from __future__ import annotations

import contextlib
import http.cookiejar
import io
import re
import warnings
from pathlib import Path
from typing import Any, NamedTuple

from voxblink2_lib.sources.standard_error import STANDARD_ERROR

_SKIPPED = re.compile(r"^WARNING: skipping cookie file entry", re.MULTILINE)


class CookieFile(NamedTuple):
    """What is in a cookie file.

    Attributes:
        cookies: all cookies, those that have expired as well.
        skipped: lines that are not in Netscape format.
        problem: why there are no cookies; empty if the file can be used.
    """

    cookies: tuple[Any, ...] = ()
    skipped: int = 0
    problem: str = ""


def read_cookie_file(path: Path) -> CookieFile:
    """Read a cookie file in Netscape format.

    Args:
        path: the file. One that cannot be read has a problem; nothing is raised.
    """
    try:
        # Read once before: yt-dlp's message about a bad file would quote the line.
        path.read_text(encoding="utf-8")
        cookies, skipped = _load(path)
    except UnicodeDecodeError:
        return CookieFile(problem="is not a text file in UTF-8")
    except http.cookiejar.LoadError:
        return CookieFile(problem="is not a cookie file in Netscape format")
    except OSError as error:
        return CookieFile(problem=f"cannot be read: {error.strerror}")
    if skipped and not cookies:
        return CookieFile(
            (), skipped, f"is not a cookie file in Netscape format: {skipped} lines and no cookie"
        )
    return CookieFile(cookies, skipped)


def _load(path: Path) -> tuple[tuple[Any, ...], int]:
    from yt_dlp.cookies import YoutubeDLCookieJar

    jar = YoutubeDLCookieJar(path)
    output = io.StringIO()
    # yt-dlp prints the lines that it skips, and the standard library warns about others. Both
    # would reveal secrets.
    with STANDARD_ERROR, contextlib.redirect_stderr(output), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        jar.load(ignore_discard=True, ignore_expires=True)
    return tuple(jar), len(_SKIPPED.findall(output.getvalue()))
