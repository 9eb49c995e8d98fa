"""Turn the user's options into those of yt-dlp; refuse those that run programs or write files."""

from __future__ import annotations

import contextlib
import io
import optparse
import shlex
from typing import Any

import yt_dlp
from yt_dlp.utils import DownloadError, YoutubeDLError

from voxblink2_lib.errors import SourceError
from voxblink2_lib.redaction import redact, secrets_in
from voxblink2_lib.sources.javascript import JS_RUNTIMES
from voxblink2_lib.sources.options import FetchOptions, Route
from voxblink2_lib.sources.standard_error import STANDARD_ERROR
from voxblink2_lib.sources.ytdlp_values import check_values

# Options of yt-dlp's command line that are passed on, and their names in Python. They concern its
# requests; none runs a program, reads a configuration or sets a path to write to.
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
_SHORT_OPTIONS = {"-4": "--force-ipv4", "-6": "--force-ipv6", "-R": "--retries", "-u": "--username"}

# Options that voxblink2 has itself.
_OWN_OPTIONS = ("--cookies", "--cookies-from-browser", "--proxy", "--limit-rate", "--sleep")

_DEFAULTS: dict[str, Any] = {
    "noprogress": True,
    "noplaylist": True,
    "cachedir": False,
    "retries": 3,
    "fragment_retries": 3,
    "socket_timeout": 30,
    "color": "never",
}


def ydl_options(options: FetchOptions, route: Route) -> dict[str, Any]:
    """Return options for ``YoutubeDL``.

    Args:
        options: the user's options.
        route: proxy and cookies of requests.

    Raises:
        SourceError: an option of yt-dlp is not allowed, or its value is not.
    """
    arguments = [f"--extractor-args={value}" for value in options.extractor_args]
    if options.cookies_from_browser:
        arguments += [f"--cookies-from-browser={options.cookies_from_browser}"]
    # At the end, where an option without its value cannot take another argument for it.
    arguments += _checked(_split(options.yt_dlp or ""))
    given = {_name(argument): ALLOWED.get(_name(argument), ()) for argument in arguments}
    if options.cookies_from_browser:
        given["--cookies-from-browser"] = ("cookiesfrombrowser",)
    parsed = _parse(arguments) if arguments else {}
    check_values(parsed, given)
    names = {name for of_option in given.values() for name in of_option}
    result = {
        **_DEFAULTS,
        **{name: parsed[name] for name in names},
        "js_runtimes": {name: dict(runtime) for name, runtime in JS_RUNTIMES.items()},
    }
    if result.get("impersonate"):
        if result.get("http_headers"):
            raise SourceError(
                "yt_dlp: --add-headers does not go with --impersonate, by which headers would also "
                "go to other hosts after a redirect. Leave one of them out."
            )
        _check_impersonation(result["impersonate"])
    if route.proxy:
        result["proxy"] = route.proxy
    if route.cookies:
        result["cookiefile"] = route.cookies
    if options.bytes_a_second:
        result["ratelimit"] = options.bytes_a_second
    return result


def _check_impersonation(target: Any) -> None:
    try:
        yt_dlp.YoutubeDL({"impersonate": target, "quiet": True}).close()
    except YoutubeDLError as error:
        raise SourceError(
            f"yt_dlp: --impersonate {target} is not possible: {error} The package curl_cffi "
            "supports most browsers."
        ) from None


def _split(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError as error:
        raise SourceError(
            f"yt_dlp: the options cannot be split: {error}. Quote them as in a shell."
        ) from None


def _name(argument: str) -> str:
    """Return the full name of an option, without its value."""
    option = argument.partition("=")[0]
    return _SHORT_OPTIONS.get(option, option)


def _checked(arguments: list[str]) -> list[str]:
    """Return the arguments; refuse every option that is not in the list."""
    for argument in arguments:
        if not argument.startswith("-") or _name(argument) in ALLOWED:
            continue
        hint = (
            f"Use voxblink2's own {_name(argument)} instead"
            if _name(argument) in _OWN_OPTIONS
            else "Options that run programs, read configurations or write files are refused"
        )
        name = redact(_name(argument), secrets_in(argument))
        raise SourceError(
            f"yt_dlp: the option {name!r} is not passed on. {hint}; allowed are "
            f"{', '.join(ALLOWED)}, in full."
        )
    return arguments


def _parse(arguments: list[str]) -> dict[str, Any]:
    output = io.StringIO()
    options = {_name(argument) for argument in arguments}
    if "--username" in options and "--password" not in options:
        # yt-dlp would prompt for it at the terminal, in the middle of the run.
        raise SourceError("yt_dlp: --username also needs --password.")
    try:
        # The parser prints errors and exits. The URL is first: as the last argument it would be
        # taken for the value of an option without one.
        with STANDARD_ERROR, contextlib.redirect_stderr(output):
            parsed = yt_dlp.parse_options(["--ignore-config", "x", *arguments])
    except (SystemExit, DownloadError, ValueError, optparse.OptParseError) as error:
        lines = (output.getvalue().strip() or str(error).strip()).splitlines()
        last = lines[-1] if lines else type(error).__name__
        cause = last.partition("error: ")[2] or last
        text = shlex.join(arguments)
        message = redact(f"yt-dlp cannot parse {text}: {cause}", secrets_in(text))
        raise SourceError(f"yt_dlp: {message}") from None
    if len(parsed.urls) != 1:
        text = shlex.join(arguments)
        raise SourceError(
            f"yt_dlp: {redact(text, secrets_in(text))} contains arguments that belong to no "
            "option. Give options only, each with its value."
        )
    return dict(parsed.ydl_opts)
