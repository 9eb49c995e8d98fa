"""From what a user chose to the options of yt-dlp. What runs programs or writes is refused."""

from __future__ import annotations

import contextlib
import io
import optparse
import shlex
import threading
from typing import Any

import yt_dlp
from yt_dlp.utils import DownloadError, YoutubeDLError

from voxblink2_lib.errors import SourceError
from voxblink2_lib.sources.javascript import JS_RUNTIMES
from voxblink2_lib.sources.options import FetchOptions, Route

# Options of yt-dlp's command line that may be passed on, and what they are called in Python. They
# say how it asks; none runs a program, reads a configuration or names a place to write to.
ALLOWED: dict[str, tuple[str, ...]] = {
    "--sleep-requests": ("sleep_interval_requests",),
    "--socket-timeout": ("socket_timeout",),
    "--source-address": ("source_address",),
    "--force-ipv4": ("source_address",),
    "--force-ipv6": ("source_address",),
    "--impersonate": ("impersonate",),
    "--add-headers": ("http_headers",),
    "--extractor-args": ("extractor_args",),
    "--extractor-retries": ("extractor_retries",),
    "--retries": ("retries",),
    "--fragment-retries": ("fragment_retries",),
    "--geo-verification-proxy": ("geo_verification_proxy",),
    "--xff": ("geo_bypass", "geo_bypass_country", "geo_bypass_ip_block"),
    "--username": ("username",),
    "--password": ("password",),
    "--no-check-certificates": ("nocheckcertificate",),
    "--legacy-server-connect": ("legacyserverconnect",),
}
_SHORT = {"-4": "--force-ipv4", "-6": "--force-ipv6", "-R": "--retries", "-u": "--username"}

# Ours, by their own names.
_OURS = ("--cookies", "--cookies-from-browser", "--proxy", "--limit-rate", "--sleep")

# yt-dlp's parser prints, and its downloader looks at where it prints to, when it is made: of these
# only one at a time may be at work in a process, since standard error is one for all threads.
STANDARD_ERROR = threading.RLock()
_BASE: dict[str, Any] = {
    "noprogress": True,
    "noplaylist": True,
    "cachedir": False,
    "retries": 3,
    "fragment_retries": 3,
    "socket_timeout": 30,
    "color": "never",
}


def ydl_options(options: FetchOptions, via: Route) -> dict[str, Any]:
    """Return options for ``YoutubeDL``.

    Args:
        options: what the user chose.
        via: the outgoing address.

    Raises:
        SourceError: an option of yt-dlp is not allowed, or yt-dlp does not understand it.
    """
    words = [f"--extractor-args={one}" for one in options.extractor_args]
    if options.cookies_from_browser:
        words += [f"--cookies-from-browser={options.cookies_from_browser}"]
    # At the end, where an option without its value finds none.
    words += _checked(_split(options.yt_dlp or ""))
    passed = {*(name for word in words for name in ALLOWED.get(_name(word), ()))}
    passed |= {"cookiesfrombrowser"} if options.cookies_from_browser else set()
    parsed = _parse(words) if words else {}
    given = {
        **_BASE,
        **{name: parsed[name] for name in passed},
        "js_runtimes": {name: dict(one) for name, one in JS_RUNTIMES.items()},
    }
    if given.get("impersonate"):
        _check_impersonation(given["impersonate"])
    if via.proxy:
        given["proxy"] = via.proxy
    if via.cookies:
        given["cookiefile"] = via.cookies
    if options.bytes_a_second:
        given["ratelimit"] = options.bytes_a_second
    return given


def _check_impersonation(target: Any) -> None:
    try:
        yt_dlp.YoutubeDL({"impersonate": target, "quiet": True}).close()
    except YoutubeDLError as error:
        raise SourceError(
            f"yt_dlp: --impersonate {target} is not possible: {error} The package curl_cffi has "
            "most browsers."
        ) from None


def _split(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError as error:
        raise SourceError(
            f"yt_dlp: the options cannot be told apart: {error}. Quote them as in a shell."
        ) from None


def _name(word: str) -> str:
    word = word.partition("=")[0]
    return _SHORT.get(word, word)


def _checked(words: list[str]) -> list[str]:
    """Refuse every option that is not in the list."""
    for word in words:
        if not word.startswith("-") or _name(word) in ALLOWED:
            continue
        hint = (
            f"Use voxblink2's own {_name(word)} instead"
            if _name(word) in _OURS
            else "Options that run programs, read configurations or write files are refused"
        )
        raise SourceError(
            f"yt_dlp: the option {_name(word)!r} is not passed on. {hint}; allowed are "
            f"{', '.join(ALLOWED)}, in full."
        )
    return words


def _parse(words: list[str]) -> dict[str, Any]:
    said = io.StringIO()
    named = {_name(word) for word in words}
    if "--username" in named and "--password" not in named:
        # It would ask for one at the terminal, in the middle of the run.
        raise SourceError("yt_dlp: --username needs --password beside it.")
    try:
        # Its parser prints and ends the program where it finds a mistake. The address goes first:
        # a last option without its value would take it for one.
        with STANDARD_ERROR, contextlib.redirect_stderr(said):
            parsed = yt_dlp.parse_options(["--ignore-config", "x", *words])
    except (SystemExit, DownloadError, ValueError, optparse.OptParseError) as error:
        text = (said.getvalue().strip() or str(error).strip()).splitlines()
        last = text[-1] if text else type(error).__name__
        what = last.partition("error: ")[2] or last
        raise SourceError(
            f"yt_dlp: yt-dlp does not understand {shlex.join(words)}: {what}"
        ) from None
    if len(parsed.urls) != 1:
        raise SourceError(
            f"yt_dlp: there are words that belong to no option in {shlex.join(words)}. Give "
            "options only, each with its value."
        )
    return dict(parsed.ydl_opts)
