"""What it looks like when a source refuses all videos alike, and what to do about it."""

from __future__ import annotations

import datetime
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from voxblink2_lib.outcomes import Outcome


class _Cause(NamedTuple):
    """A cause, by words in yt-dlp's warnings or in the messages.

    Attributes:
        texts: any of these, in lower case, means it.
        looks_like: what it is, after "this looks like".
        remedy: what to do.
        is_of_version: an old yt-dlp may be the cause as well.
    """

    texts: tuple[str, ...]
    looks_like: str
    remedy: str
    is_of_version: bool = False


_OTHER_CLIENT = (
    "Install a PO token provider for yt-dlp, or request another client with "
    "--extractor-args youtube:player_client=CLIENT."
)
# The first that fits is named.
_BY_WARNING = (
    _Cause(
        ("sabr", "po token", "po_token"),
        "YouTube wanting SABR or a PO token from this client",
        _OTHER_CLIENT,
        is_of_version=True,
    ),
)
_BY_MESSAGE = (
    _Cause(
        ("a page of html", "gzip archive", "unsupported url"),
        "a network that answers everybody with a page of its own, such as a log-in",
        "Open the source in a browser on this machine, log in to the network, or use another "
        "route with --proxy.",
    ),
    _Cause(
        ("requested format is not available", "no video formats found"),
        "YouTube wanting SABR or a PO token from this client, or a yt-dlp that is too old",
        _OTHER_CLIENT,
        is_of_version=True,
    ),
    _Cause(
        ("http error 403", "forbidden"),
        "a source that refuses this address or account, or a yt-dlp that is too old",
        "Wait some hours, use another route with --proxy, or other cookies with --cookies.",
        is_of_version=True,
    ),
    _Cause(
        ("http error 5", "timed out", "time-out", "timeout"),
        "a server that is failing",
        "Try again later.",
    ),
    _Cause(
        ("unavailable", "not available", "sign in", "log in", "login"),
        "an account or an address that the source has flagged",
        "Wait a day, use another route with --proxy, or the cookies of another account with "
        "--cookies.",
        is_of_version=True,
    ),
    _Cause(
        ("file is empty", "did not get any data", "stopped sending", "more expected", "too slowly"),
        "a server, or a proxy before it, that breaks off what it sends",
        "Try another route with --proxy, or later.",
    ),
    _Cause(
        ("could not be cropped", "cannot be decoded", "cannot be read", "of audio"),
        "a proxy that truncates media, or sends something else in their place",
        "Use another route with --proxy.",
    ),
)
_UNKNOWN = _Cause((), "a yt-dlp that is too old for the source", "Update it.", is_of_version=True)


def diagnose(
    failures: Sequence[Outcome], *, warnings: Sequence[str] = (), canaries: int = 0
) -> str:
    """Return what failures without clear words look like, and what to do.

    Args:
        failures: in a row, without a success in between; one at least.
        warnings: what yt-dlp warned of.
        canaries: videos that were requested to find out, and did not come.
    """
    messages = Counter(
        outcome.reason.replace(outcome.key.video_id, "<video>") for outcome in failures
    )
    message, _ = messages.most_common(1)[0]
    cause, warning = _cause(message, warnings)
    seen = f"{len(failures):,} videos in a row failed alike ({message})"
    if canaries:
        seen += f", and so did {canaries:,} more that were requested to find out"
    if warning:
        seen += f"; yt-dlp warned: {warning}"
    text = f"{seen}. This looks like {cause.looks_like}. {cause.remedy}"
    return f"{text} {_version_text()}" if cause.is_of_version else text


def _cause(message: str, warnings: Sequence[str]) -> tuple[_Cause, str]:
    """Return the cause, and the warning of yt-dlp that a person should see with it."""
    for warning in warnings:
        for cause in _BY_WARNING:
            if any(text in warning.lower() for text in cause.texts):
                return cause, warning.strip()
    plain = message.lower()
    matching = (cause for cause in _BY_MESSAGE if any(text in plain for text in cause.texts))
    return next(matching, _UNKNOWN), warnings[0].strip() if warnings else ""


def _version_text(today: datetime.date | None = None) -> str:
    """Return how old yt-dlp is, and how to update it."""
    from yt_dlp.version import __version__

    year, month, day = (int(part) for part in __version__.split(".")[:3])
    age = (
        (today or datetime.datetime.now(datetime.UTC).date()) - datetime.date(year, month, day)
    ).days
    return f"yt-dlp is {__version__}, {max(0, age):,} days old: pip install -U yt-dlp"
