"""Classes of failure, by message patterns and HTTP statuses; the patterns are data.

The list is ``reasons.toml`` beside this file; its head describes an entry.
"""

from __future__ import annotations

import functools
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from voxblink2_lib.errors import SourceError
from voxblink2_lib.outcomes import (
    MAX_PAUSE_SECONDS,
    NO_ACTION,
    STATUSES,
    UNCLEAR,
    RouteAction,
    Status,
)

_OWN = Path(__file__).with_name("reasons.toml")

# "done" and "excluded" are no failures.
_CLASSES = tuple(status for status in STATUSES if status not in {"done", "excluded"})
_FIELDS = ("class", "texts", "http", "pause_seconds", "closes_route")
# Names of an earlier version, which files of users may have.
_OLD_FIELDS = {"closes_address": "closes_route"}
_STRAIGHT = str.maketrans("\u2018\u2019\u201b\u02bc\u201c\u201d\u201f", "''''\"\"\"")
_STATUS_IN_MESSAGE = re.compile(r"\bhttp error ([1-5][0-9]{2})\b")
_GROUP = re.compile(r"[1-5]xx")


@dataclass(frozen=True, slots=True)
class FailureClass:
    """Why a video is unavailable.

    Attributes:
        status: the class of the outcome.
        action: what it means for the route.
        is_explicit: known words, or a list of the user, say so; a status alone does not.
    """

    status: Status
    action: RouteAction = NO_ACTION
    is_explicit: bool = False


@dataclass(frozen=True, slots=True)
class _Entry:
    """One entry: what matches, and what that means. ``http`` holds every status by its number."""

    failure: FailureClass
    texts: tuple[str, ...]
    http: frozenset[int]
    is_of_user: bool


class Reasons:
    """An ordered list of failure patterns; the first one that matches decides.

    Example:
        >>> reasons = Reasons.load(None)
        >>> reasons.classify("Private video. Sign in if you've been granted access").status
        'private'
        >>> reasons.classify("HTTP Error 503: Service Unavailable").status
        'transient'
        >>> reasons.classify("Video unavailable").status
        'ambiguous'
        >>> reasons.classify("Too Many Requests").action.pause_seconds
        600.0
    """

    def __init__(self, entries: Iterable[_Entry]) -> None:
        self._entries = tuple(entries)

    @staticmethod
    @functools.lru_cache(maxsize=8)
    def load(extra: Path | None) -> Reasons:
        """Read the list that comes with the library, once.

        Args:
            extra: a file of the same form whose entries go first.

        Raises:
            SourceError: the file cannot be read, or an entry is malformed.
        """
        of_user = _read(extra, is_of_user=True) if extra else ()
        return Reasons((*of_user, *_read(_OWN, is_of_user=False)))

    def classify(self, message: str, *, http_status: int | None = None) -> FailureClass:
        """Return the class of the first entry that matches; ``transient`` if none does.

        Args:
            message: the original message of the source.
            http_status: of a server's response; else the number after "HTTP Error" in the message.
        """
        plain = _plain(message)
        if http_status is None and (match := _STATUS_IN_MESSAGE.search(plain)):
            http_status = int(match[1])
        for entry in self._entries:
            has_words = any(text in plain for text in entry.texts)
            if has_words or http_status in entry.http:
                is_explicit = entry.failure.status not in UNCLEAR and (
                    has_words or entry.is_of_user
                )
                return replace(entry.failure, is_explicit=is_explicit)
        return FailureClass("transient")


def _plain(text: str) -> str:
    """Make capitals, curly quotes and white space the same everywhere."""
    return " ".join(text.translate(_STRAIGHT).casefold().split())


def _read(path: Path, *, is_of_user: bool) -> tuple[_Entry, ...]:
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise SourceError(f"{path} cannot be read as a list of reasons: {error}") from error
    entries = content.pop("reason", None)
    if content or not isinstance(entries, list):
        others = ", ".join(sorted(content)) or "none of them"
        raise SourceError(f"{path} must hold [[reason]] entries and nothing else, got {others}")
    return tuple(
        _entry(f"{path}, entry {number}", fields, is_of_user=is_of_user)
        for number, fields in enumerate(entries, 1)
    )


def _entry(place: str, fields: Any, *, is_of_user: bool) -> _Entry:
    if not isinstance(fields, Mapping):
        raise SourceError(f"{place}: expected a table that begins with [[reason]], got {fields!r}")
    fields = {_OLD_FIELDS.get(name, name): value for name, value in fields.items()}
    unknown = sorted(set(fields) - set(_FIELDS))
    if unknown:
        raise SourceError(f"{place}: unknown {', '.join(unknown)}; known are {', '.join(_FIELDS)}")
    status = fields.get("class")
    if status not in _CLASSES:
        raise SourceError(f"{place}: class is {status!r}, must be one of {', '.join(_CLASSES)}")
    texts = tuple(_text(place, text) for text in _list(place, fields, "texts"))
    http = [_statuses(place, value) for value in _list(place, fields, "http")]
    if not texts and not http:
        raise SourceError(f"{place}: matches nothing; texts or http must not be empty")
    failure = FailureClass(cast(Status, status), _action(place, fields))
    return _Entry(failure, texts, frozenset().union(*http), is_of_user)


def _action(place: str, fields: Mapping[str, Any]) -> RouteAction:
    pause = fields.get("pause_seconds")
    if pause is not None and not _is_pause(pause):
        raise SourceError(
            f"{place}: pause_seconds is {pause!r}, must be a number of seconds above 0 "
            f"and at most {MAX_PAUSE_SECONDS:,.0f}, a day"
        )
    closes = fields.get("closes_route", False)
    if not isinstance(closes, bool):
        raise SourceError(f"{place}: closes_route is {closes!r}, must be true or false")
    # A pause from a list is a guess.
    return RouteAction(
        None if pause is None else float(pause),
        pause_grows=pause is not None,
        closes_route=closes,
    )


def _list(place: str, fields: Mapping[str, Any], name: str) -> list[Any]:
    values = fields.get(name, [])
    if not isinstance(values, list):
        raise SourceError(f"{place}: {name} is {values!r}, must be a list")
    return values


def _is_pause(value: Any) -> bool:
    return (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and 0 < value <= MAX_PAUSE_SECONDS
    )


def _text(place: str, text: Any) -> str:
    if not isinstance(text, str) or not _plain(text):
        raise SourceError(f"{place}: {text!r} in texts must be text; empty text would match all")
    return _plain(text)


def _statuses(place: str, status: Any) -> frozenset[int]:
    if isinstance(status, str) and _GROUP.fullmatch(status):
        first = int(status[0]) * 100
        return frozenset(range(first, first + 100))
    if isinstance(status, int) and not isinstance(status, bool) and 100 <= status <= 599:
        return frozenset({status})
    raise SourceError(f"{place}: {status!r} in http must be 100 to 599, or a group as '5xx'")
