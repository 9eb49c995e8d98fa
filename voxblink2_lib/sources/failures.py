"""What yt-dlp raises, as one error with its own words and the class they mean."""

from __future__ import annotations

import email.utils
import re
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from yt_dlp.networking.exceptions import HTTPError, IncompleteRead, TransportError
from yt_dlp.utils import DownloadError, GeoRestrictedError

from voxblink2_lib.errors import FetchError, UnreachableError
from voxblink2_lib.outcomes import Status
from voxblink2_lib.sources.reasons import FailureClass, Reasons

MAX_PAUSE_SECONDS: Final = 86_400.0

# yt-dlp asks for bug reports after errors that it does not know; ours are not its bugs.
_ADVICE = re.compile(r"[;.]?\s*please report this issue on .*", re.DOTALL | re.IGNORECASE)
_PREFIX = re.compile(r"^(?:ERROR: ?)+")

# Errors of these classes say so little that a warning before them says more.
_UNSPECIFIC: frozenset[Status] = frozenset({"transient", "ambiguous"})

# These depend on who is logged in: with cookies that have run out, nobody is.
_LOGGED_IN: frozenset[Status] = frozenset({"credentials", "age-or-membership"})

# And of these classes warnings are worth hearing: they say what all videos will suffer from.
_DECISIVE: frozenset[Status] = frozenset({"rate-limited", "blocked", "credentials", "environment"})

# Statuses whose answer may say when to come back (RFC 9110, 10.2.3; RFC 6585, 4).
_WITH_RETRY_AFTER = {429, 503}


def fetch_error(
    error: Exception,
    reasons: Reasons,
    *,
    warnings: Sequence[str] = (),
    now: Callable[[], float] = time.time,
) -> FetchError:
    """Say why a video did not come, in yt-dlp's own words.

    Args:
        error: what yt-dlp raised.
        reasons: what words and statuses mean.
        warnings: what yt-dlp warned of for this video. Where the error itself says little, they
            decide; a clear word on the video (private, gone, ...) always stands.
        now: Unix time in seconds, for dates in answers.
    """
    words = _PREFIX.sub("", _ADVICE.sub("", str(error)).strip()).strip() or type(error).__name__
    chain = list(_chain(error))
    answer = next((one for one in chain if isinstance(one, HTTPError)), None)
    reason = reasons.classify(words, http_status=answer.status if answer else None)
    if reason.status in _UNSPECIFIC and any(isinstance(one, GeoRestrictedError) for one in chain):
        reason = FailureClass("geo")
    warning, decisive = _decisive(warnings, reasons, reason)
    if decisive is not None:
        reason, words = decisive, f"{words} (yt-dlp warned before: {warning})"
    pause_seconds = _pause_seconds(reason, answer, now)
    kind = UnreachableError if reason.status == "transient" and _silent(chain) else FetchError
    return kind(
        words,
        status=reason.status,
        pause_seconds=pause_seconds,
        pause_grows=pause_seconds is not None and pause_seconds == reason.pause_seconds,
        closes_route=reason.closes_route,
    )


def retry_after_seconds(header: str | None, *, now: float) -> float | None:
    """Read a `Retry-After` header: seconds, or an HTTP date (RFC 9110, 10.2.3).

    Args:
        header: its value.
        now: Unix time in seconds.

    Returns:
        Seconds from now, a day at most; ``None`` for what is no time to come.

    Example:
        >>> retry_after_seconds("120", now=0.0)
        120.0
        >>> retry_after_seconds("Thu, 01 Jan 1970 00:10:00 GMT", now=0.0)
        600.0
        >>> retry_after_seconds("-5", now=0.0), retry_after_seconds("soon", now=0.0)
        (None, None)
    """
    text = (header or "").strip()
    if text.isascii() and text.isdigit():
        # Beyond a day all are the same, also those that no number could hold.
        seconds = float(text[-6:]) if not text[:-6].strip("0") else MAX_PAUSE_SECONDS
    else:
        try:
            seconds = email.utils.parsedate_to_datetime(text).timestamp() - now
        except (ValueError, OverflowError, TypeError):
            return None
    return min(seconds, MAX_PAUSE_SECONDS) if seconds > 0 else None


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and what caused it, each once; yt-dlp keeps causes in its own places."""
    cause: BaseException | None = error
    seen: set[int] = set()
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        yield cause
        cause = _cause(cause)


def _cause(error: BaseException) -> BaseException | None:
    if isinstance(error, DownloadError) and error.exc_info and error.exc_info[1]:
        inner = error.exc_info[1]
        return inner if isinstance(inner, BaseException) else None
    # Of a RequestError it may be a text.
    cause = getattr(error, "cause", None)
    return cause if isinstance(cause, BaseException) else error.__cause__ or error.__context__


def _silent(chain: Sequence[BaseException]) -> bool:
    """Say whether nothing answered at all."""
    answered = any(isinstance(one, HTTPError | IncompleteRead) for one in chain)
    return not answered and any(isinstance(one, TransportError) for one in chain)


def _decisive(
    warnings: Sequence[str], reasons: Reasons, reason: FailureClass
) -> tuple[str, FailureClass | None]:
    """Return the first warning that says more than the error does, and its reason."""
    for warning in warnings:
        heard = reasons.classify(warning)
        logged_out = heard.status == "credentials" and heard.closes_route
        if heard.status in _DECISIVE and (
            reason.status in _UNSPECIFIC
            or (logged_out and reason.status in _LOGGED_IN and not reason.closes_route)
        ):
            return _ADVICE.sub("", warning).strip(), heard
    return "", None


def _pause_seconds(
    reason: FailureClass, answer: HTTPError | None, now: Callable[[], float]
) -> float | None:
    if answer is None or answer.status not in _WITH_RETRY_AFTER:
        return reason.pause_seconds
    asked = retry_after_seconds(answer.response.get_header("Retry-After"), now=now())
    return reason.pause_seconds if asked is None else asked
