"""What every download needs, tried before the first video: options, cookies, addresses, reasons."""

from __future__ import annotations

import socket
from dataclasses import replace
from pathlib import Path

from yt_dlp import YoutubeDL
from yt_dlp.utils import YoutubeDLError

from voxblink2_lib.errors import SourceError, next_command
from voxblink2_lib.redaction import is_redacted
from voxblink2_lib.sources.base import SourceSpec
from voxblink2_lib.sources.cookie_file import read_cookie_file
from voxblink2_lib.sources.options import FetchOptions, Route
from voxblink2_lib.sources.reasons import Reasons
from voxblink2_lib.sources.standard_error import STANDARD_ERROR
from voxblink2_lib.sources.ytdlp_options import ydl_options


def check_downloads(source: SourceSpec) -> None:
    """Refuse options with which every video would fail, on any of the routes.

    Nothing is requested from the source, and nothing is written.

    Args:
        source: a source over the network.

    Raises:
        SourceError: an option is not possible; the message names it.
    """
    options = source.options
    Reasons.load(Path(options.reasons).expanduser() if options.reasons else None)
    for path in dict.fromkeys(options.cookies):
        if problem := read_cookie_file(Path(path).expanduser()).problem:
            raise SourceError(
                f"cookies: {path} {problem}. Export it again as cookies.txt from a browser; "
                f"{next_command('doctor', source=_named(source), cookies=path)} shows more."
            )
    for route in options.routes():
        # Without its file, which yt-dlp would write to when the downloader is closed.
        _check_downloader(options, replace(route, cookies=None))


def _named(source: SourceSpec) -> str | None:
    """Return a source as a command may name it, without its secrets."""
    return None if is_redacted(source.label) else source.label


def _check_downloader(options: FetchOptions, route: Route) -> None:
    """Make the downloader of a route, and drop it."""
    parameters = ydl_options(options, route)
    if address := parameters.get("source_address"):
        _check_address(address)
    try:
        with STANDARD_ERROR:
            settings = {**parameters, "quiet": True, "logger": _Silent()}
            downloader = YoutubeDL(settings, auto_init=False)  # without extractors
            downloader.cookiejar  # noqa: B018  # it is read here, from the browser
            downloader.close()
    except YoutubeDLError as error:
        cause: BaseException = error
        while cause.__context__ is not None:  # yt-dlp's own says only that cookies failed to load
            cause = cause.__context__
        name = "cookies_from_browser" if options.cookies_from_browser else "yt_dlp"
        raise SourceError(f"{name}: these options are not possible: {cause}") from None


def _check_address(address: str) -> None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.bind((address, 0))
    except OSError as error:
        raise SourceError(
            f"yt_dlp: requests cannot be sent from the address {address} (--source-address, "
            f"--force-ipv4 or --force-ipv6): {error.strerror}. 'ip address' lists the addresses "
            "of this machine."
        ) from None


class _Silent:
    """Drops yt-dlp's messages; what is wrong is raised as well."""

    def debug(self, message: str) -> None:
        del message

    warning = error = debug
