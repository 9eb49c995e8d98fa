"""What each class of outcome means, and when a video is asked for again.

A run tries a video at once a few times (``materialize``); what is here decides about later runs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal, NamedTuple, get_args

from voxblink2_lib.records import VideoKey

_HOUR_SECONDS = 3600.0
_DAY_SECONDS = 24 * _HOUR_SECONDS

# Another day, also for who starts a run at the same hour every day.
CONFIRM_SECONDS = 20 * _HOUR_SECONDS

# What can become of a video; outcomes.py says what each means and what follows from it.
Status = Literal[
    "done",
    "excluded",
    "rate-limited",
    "blocked",
    "credentials",
    "transient",
    "environment",
    "age-or-membership",
    "private",
    "geo",
    "not-yet",
    "gone",
    "ambiguous",
    "media-unusable",
]
STATUSES: tuple[str, ...] = get_args(Status)


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """What follows from a class of outcome.

    Attributes:
        means: what it says of the video, for people.
        wait_seconds: ask again after so long; ``None`` means only when the user says so.
        doubles: each further wait is twice the last one, up to a day.
        max_tries: give up after so many; ``None`` means never.
    """

    means: str
    wait_seconds: float | None = None
    doubles: bool = False
    max_tries: int | None = None


POLICIES: Mapping[Status, RetryPolicy] = MappingProxyType(
    {
        "done": RetryPolicy("its clips are in the store"),
        "excluded": RetryPolicy("left out by the user"),
        # These four say something of the address or the machine, not of the video.
        "rate-limited": RetryPolicy("the source asked to wait", 0),
        "blocked": RetryPolicy("the source refuses the address it was asked from", 0),
        "credentials": RetryPolicy("the source wants a log-in, or no longer takes the cookies", 0),
        "environment": RetryPolicy("this machine lacks something", 0),
        "transient": RetryPolicy("it failed for now", 900, doubles=True, max_tries=8),
        "ambiguous": RetryPolicy(
            "the source does not say why; asked again another day", _DAY_SECONDS
        ),
        "not-yet": RetryPolicy("it is not published yet", _DAY_SECONDS, max_tries=30),
        "age-or-membership": RetryPolicy("only for adults or members who are logged in"),
        "private": RetryPolicy("private"),
        "geo": RetryPolicy("not available in the country of the address"),
        "gone": RetryPolicy("gone for good"),
        "media-unusable": RetryPolicy("it came, and no utterance could be cut from it"),
    }
)


class RetryDecision(NamedTuple):
    """What the ledger writes about a video.

    Attributes:
        status: the class; an ambiguous one that was confirmed on another day is ``gone``.
        next_at: Unix time from which it may be asked for again; ``None`` means never by itself.
    """

    status: Status
    next_at: float | None


def next_attempt(
    key: VideoKey,
    status: Status,
    *,
    tries: int,
    ambiguous_since: float | None,
    now: float,
) -> RetryDecision:
    """Decide what an outcome means for a video.

    Args:
        key: the video.
        status: the outcome's class.
        tries: how often it was tried, this time included, since it was planned or the user
            asked for it again.
        ambiguous_since: when it was first found ambiguous, if that is what it is since then.
        now: Unix time in seconds.

    Example:
        >>> key = VideoKey("id000001", "abcdefghijk")
        >>> judge(key, "ambiguous", tries=2, ambiguous_since=0.0, now=90_000.0)
        Verdict(status='gone', next_at=None)
    """
    if (
        status == "ambiguous"
        and ambiguous_since is not None
        and now - ambiguous_since >= CONFIRM_SECONDS
    ):
        return RetryDecision("gone", None)
    policy = POLICIES[status]
    if policy.wait_seconds is None or (policy.max_tries and tries >= policy.max_tries):
        return RetryDecision(status, None)
    if status == "ambiguous" and ambiguous_since is not None:
        return RetryDecision(status, ambiguous_since + policy.wait_seconds)
    wait = policy.wait_seconds
    if policy.doubles:
        wait = min(_DAY_SECONDS, wait * 2 ** (tries - 1)) * jitter(key, tries)
    return RetryDecision(status, now + wait)


def jitter(key: VideoKey, tries: int) -> float:
    """Return a factor from 0.75 to 1.25 that spreads retries out, the same in every run.

    >>> jitter(VideoKey("id000001", "abcdefghijk"), 1) == jitter(("id000001", "abcdefghijk"), 1)
    True
    """
    digest = hashlib.sha256("/".join((*key, str(tries))).encode()).digest()
    return 0.75 + 0.5 * int.from_bytes(digest[:4], "big") / 2**32


class MissingUtterance(NamedTuple):
    """An utterance that could not be cut although its video came."""

    utterance_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """What happened to one video.

    Attributes:
        key: the video.
        status: its class, from the closed list.
        reason: the source's or decoder's own words; empty when all went well.
        clips: number of utterances cut.
        samples: their length, samples at 16 kHz.
        missing: utterances that could not be cut.
        bytes_fetched: bytes that came over the network, or the size of the file read.
        seconds_taken: wall time.
        address: name of the outgoing address that was used; empty for what is on this machine.
        digest: hash of the annotations that the clips were cut by.
    """

    key: VideoKey
    status: Status
    reason: str = ""
    clips: int = 0
    samples: int = 0
    missing: tuple[MissingUtterance, ...] = ()
    bytes_fetched: int = 0
    seconds_taken: float = field(default=0.0, compare=False)
    address: str = ""
    digest: int = 0
