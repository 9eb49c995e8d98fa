"""Exceptions of yt-dlp as one error, with the original message and the class it means."""

from __future__ import annotations

import email.utils
import re
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace

from yt_dlp.networking.exceptions import HTTPError, IncompleteRead, TransportError
from yt_dlp.utils import DownloadError, GeoRestrictedError

from voxblink2_lib.errors import FetchError, UnreachableError
from voxblink2_lib.outcomes import (
    MAX_PAUSE_SECONDS,
    NO_FACTS,
    UNCLEAR,
    MediaFacts,
    RouteAction,
    Status,
)
from voxblink2_lib.sources.advice import own_advice
from voxblink2_lib.sources.reasons import FailureClass, Reasons

# yt-dlp asks for bug reports after errors that it does not know; ours are not its bugs.
_ADVICE = re.compile(r"[;.]?\s*please report this issue on .*", re.DOTALL | re.IGNORECASE)
_PREFIX = re.compile(r"^(?:ERROR: ?)+")

# Errors of these classes state so little that a warning before them is more precise.
_UNSPECIFIC: frozenset[Status] = frozenset({"transient", "ambiguous"})

# These depend on who is logged in: with cookies that have run out, nobody is.
_LOGGED_IN: frozenset[Status] = frozenset({"credentials", "age-or-membership"})

# Only warnings of these classes count: they affect all videos.
_DECISIVE: frozenset[Status] = frozenset({"rate-limited", "blocked", "credentials", "environment"})

# Statuses whose response may state when to retry (RFC 9110, 10.2.3; RFC 6585, 4).
_WITH_RETRY_AFTER = {429, 503}


def fetch_error(
    error: Exception,
    reasons: Reasons,
    *,
    warnings: Sequence[str] = (),
    facts: MediaFacts = NO_FACTS,
    explicit_http: Collection[int] = (),
    now: Callable[[], float] = time.time,
) -> FetchError:
    """Return why a video is unavailable, with the original message.

    Args:
        error: the exception of yt-dlp.
        reasons: what messages and statuses mean.
        warnings: warnings of yt-dlp for this video. Where the error itself is unspecific, they
            decide; a specific error about the video (private, gone, ...) always has precedence.
        facts: which renditions were chosen before.
        explicit_http: statuses by which this source speaks of the very video.
        now: Unix time in seconds, for dates in responses.
    """
    message = _PREFIX.sub("", _ADVICE.sub("", str(error)).strip()).strip() or type(error).__name__
    chain = list(_chain(error))
    response = next((cause for cause in chain if isinstance(cause, HTTPError)), None)
    failure = reasons.classify(message, http_status=response.status if response else None)
    if failure.status in _UNSPECIFIC and any(
        isinstance(cause, GeoRestrictedError) for cause in chain
    ):
        failure = FailureClass("geo")
    warning, decisive = _decisive(warnings, reasons, failure)
    if decisive is not None:
        failure = decisive
        message = f"{own_advice(message)} (yt-dlp warned before: {own_advice(warning)})"
    else:
        message = own_advice(message)
    is_unreachable = failure.status == "transient" and _is_unanswered(chain)
    kind = UnreachableError if is_unreachable else FetchError
    is_status_clear = response is not None and response.status in explicit_http
    return kind(
        message,
        status=failure.status,
        action=_action(failure.action, response, now),
        facts=facts,
        is_explicit=failure.is_explicit or (is_status_clear and failure.status not in UNCLEAR),
        warnings=tuple(map(own_advice, warnings)),
    )


def retry_after_seconds(header: str | None, *, now: float) -> float | None:
    """Read a ``Retry-After`` header: seconds, or an HTTP date (RFC 9110, 10.2.3).

    Args:
        header: its value.
        now: Unix time in seconds.

    Returns:
        Seconds from now, a day at most; ``None`` for what is no time in the future.

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
        # Beyond a day all are the same, also those too large for a number.
        seconds = float(text[-6:]) if not text[:-6].strip("0") else MAX_PAUSE_SECONDS
    else:
        try:
            seconds = email.utils.parsedate_to_datetime(text).timestamp() - now
        except (ValueError, OverflowError, TypeError):
            return None
    return min(seconds, MAX_PAUSE_SECONDS) if seconds > 0 else None


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and its causes, each once; yt-dlp stores causes in attributes of its own."""
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


def _is_unanswered(chain: Sequence[BaseException]) -> bool:
    """Return whether no server answered at all."""
    is_answered = any(isinstance(cause, HTTPError | IncompleteRead) for cause in chain)
    return not is_answered and any(isinstance(cause, TransportError) for cause in chain)


def _decisive(
    warnings: Sequence[str], reasons: Reasons, failure: FailureClass
) -> tuple[str, FailureClass | None]:
    """Return the first warning that is more precise than the error, and its class."""
    for warning in warnings:
        warned = reasons.classify(warning)
        is_logged_out = warned.status == "credentials" and warned.action.closes_route
        if warned.status in _DECISIVE and (
            failure.status in _UNSPECIFIC
            or (is_logged_out and failure.status in _LOGGED_IN and not failure.action.closes_route)
        ):
            return _ADVICE.sub("", warning).strip(), warned
    return "", None


def _action(
    action: RouteAction, response: HTTPError | None, now: Callable[[], float]
) -> RouteAction:
    """Return an action with the time that the response states, where it does."""
    if response is None or response.status not in _WITH_RETRY_AFTER:
        return action
    seconds = retry_after_seconds(response.response.get_header("Retry-After"), now=now())
    if seconds is None:
        return action
    return replace(action, pause_seconds=seconds, pause_grows=False)
