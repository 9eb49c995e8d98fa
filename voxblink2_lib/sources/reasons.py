"""Why a video did not come, told from words and statuses by a list that is data.

The list is ``reasons.toml`` beside this file; its head says what an entry is.
"""

from __future__ import annotations

import functools
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast, get_args

from voxblink2_lib.errors import SourceError
from voxblink2_lib.outcomes import Status

_OWN = Path(__file__).with_name("reasons.toml")

# "done" and "excluded" are no reasons why a video did not come.
_CLASSES = tuple(one for one in get_args(Status) if one not in {"done", "excluded"})
_FIELDS = ("class", "texts", "http", "pause_seconds", "closes_route")
# Names of an earlier version, in files of users.
_OLD_FIELDS = {"closes_address": "closes_route"}
_STRAIGHT = str.maketrans("\u2018\u2019\u201b\u02bc\u201c\u201d\u201f", "''''\"\"\"")
_STATUS_IN_WORDS = re.compile(r"\bhttp error ([1-5][0-9]{2})\b")
_GROUP = re.compile(r"[1-5]xx")


@dataclass(frozen=True, slots=True)
class FailureClass:
    """Why a video did not come.

    Attributes:
        status: the class of the outcome.
        pause_seconds: ask nothing more of this address for so long; ``None`` means go on.
        closes_route: ask nothing more of it until the user has done something.
    """

    status: Status
    pause_seconds: float | None = None
    closes_route: bool = False


@dataclass(frozen=True, slots=True)
class _Entry:
    """One entry: what fits, and what that means. `http` holds every status by its number."""

    reason: FailureClass
    texts: tuple[str, ...]
    http: frozenset[int]


class Reasons:
    """An ordered list of reasons; the first one that fits decides.

    Example:
        >>> reasons = Reasons.load(None)
        >>> reasons.classify("Private video. Sign in if you've been granted access")
        Reason(status='private', pause_seconds=None, closes_route=False)
        >>> reasons.classify("HTTP Error 503: Service Unavailable").status
        'transient'
        >>> reasons.classify("Video unavailable").status
        'ambiguous'
    """

    def __init__(self, entries: Iterable[_Entry]) -> None:
        self._entries = tuple(entries)

    @staticmethod
    @functools.lru_cache(maxsize=8)
    def load(extra: Path | None) -> Reasons:
        """Read the list that comes with the library, once.

        Args:
            extra: a file of the same form whose entries are looked at first.

        Raises:
            SourceError: the file cannot be read, or an entry is not one.
        """
        return Reasons((*(_read(extra) if extra else ()), *_read(_OWN)))

    def classify(self, words: str, *, http_status: int | None = None) -> FailureClass:
        """Return the reason of the first entry that fits; ``transient`` if none does.

        Args:
            words: the source's own.
            http_status: what a server answered; else what the words say after "HTTP Error".
        """
        plain = _plain(words)
        if http_status is None and (found := _STATUS_IN_WORDS.search(plain)):
            http_status = int(found[1])
        for entry in self._entries:
            if http_status in entry.http or any(text in plain for text in entry.texts):
                return entry.reason
        return FailureClass("transient")


def _plain(text: str) -> str:
    """Make capitals, curly quotes and white space the same everywhere."""
    return " ".join(text.translate(_STRAIGHT).casefold().split())


def _read(path: Path) -> tuple[_Entry, ...]:
    try:
        held = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SourceError(f"{path} cannot be read as a list of reasons: {error}") from error
    entries = held.pop("reason", None)
    if held or not isinstance(entries, list):
        others = ", ".join(sorted(held)) or "none of them"
        raise SourceError(f"{path} must hold [[reason]] entries and nothing else, got {others}")
    return tuple(_entry(f"{path}, entry {number}", one) for number, one in enumerate(entries, 1))


def _entry(place: str, fields: Any) -> _Entry:
    if not isinstance(fields, Mapping):
        raise SourceError(f"{place}: expected a table that begins with [[reason]], got {fields!r}")
    fields = {_OLD_FIELDS.get(name, name): value for name, value in fields.items()}
    unknown = sorted(set(fields) - set(_FIELDS))
    if unknown:
        raise SourceError(f"{place}: unknown {', '.join(unknown)}; known are {', '.join(_FIELDS)}")
    named = fields.get("class")
    if named not in _CLASSES:
        raise SourceError(f"{place}: class is {named!r}, must be one of {', '.join(_CLASSES)}")
    pause = fields.get("pause_seconds")
    if pause is not None and not _is_pause(pause):
        raise SourceError(f"{place}: pause_seconds is {pause!r}, must be a number above 0")
    closes = fields.get("closes_route", False)
    if not isinstance(closes, bool):
        raise SourceError(f"{place}: closes_route is {closes!r}, must be true or false")
    texts = tuple(_text(place, one) for one in _list(place, fields, "texts"))
    http = [_statuses(place, one) for one in _list(place, fields, "http")]
    if not texts and not http:
        raise SourceError(f"{place}: fits nothing; texts or http must hold something")
    reason = FailureClass(cast(Status, named), None if pause is None else float(pause), closes)
    return _Entry(reason, texts, frozenset().union(*http))


def _list(place: str, fields: Mapping[str, Any], name: str) -> list[Any]:
    held = fields.get(name, [])
    if not isinstance(held, list):
        raise SourceError(f"{place}: {name} is {held!r}, must be a list")
    return held


def _is_pause(value: Any) -> bool:
    return (
        isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < float("inf")
    )


def _text(place: str, text: Any) -> str:
    if not isinstance(text, str) or not _plain(text):
        raise SourceError(f"{place}: {text!r} in texts must be words; empty ones would fit all")
    return _plain(text)


def _statuses(place: str, status: Any) -> frozenset[int]:
    if isinstance(status, str) and _GROUP.fullmatch(status):
        first = int(status[0]) * 100
        return frozenset(range(first, first + 100))
    if isinstance(status, int) and not isinstance(status, bool) and 100 <= status <= 599:
        return frozenset({status})
    raise SourceError(f"{place}: {status!r} in http must be 100 to 599, or a group as '5xx'")
