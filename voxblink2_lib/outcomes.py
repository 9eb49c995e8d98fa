"""Classes of outcome: what each means, and when a video of it is retried.

A run repeats a video a few times at once (``materialize``); the policies here also say when later
runs retry it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from types import MappingProxyType
from typing import Any, Literal, NamedTuple, get_args

from voxblink2_lib.records import VideoKey
from voxblink2_lib.redaction import redact

_HOUR_SECONDS = 3600.0
_DAY_SECONDS = 24 * _HOUR_SECONDS

# Another day, also for a user who starts a run at the same hour every day.
CONFIRM_SECONDS = 20 * _HOUR_SECONDS

# No route is paused for longer, whatever a source or a pattern states.
MAX_PAUSE_SECONDS = _DAY_SECONDS

# No retry lies further ahead: a back-off of a day, with the greatest :func:`jitter`. A stored time
# beyond that is of a clock that was wrong.
GREATEST_WAIT_SECONDS = 1.25 * _DAY_SECONDS

# A failure that is the video's own is tried so often within one run.
RUN_TRIES = 3

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
    "not-original",
    "gone",
    "ambiguous",
    "media-unusable",
]
STATUSES: tuple[str, ...] = get_args(Status)
Scope = Literal["video", "route", "machine"]


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """What follows from a class of outcome.

    Attributes:
        description: human-readable description of a video of this class.
        wait_seconds: later runs retry after so long; ``None`` means only when the user says so.
        doubles: each further wait is twice the last one, up to a day.
        max_tries: give up after so many; ``None`` means never.
        scope: what is at fault, so that others of it would fail as well.
        run_tries: tries within one run, waiting in between or for the route.
        closes_after: close a route after so many in a row on it; ``None`` means pause it.
        other_route_confirms: a second answer counts on the same day, too, by another route.
    """

    description: str
    wait_seconds: float | None = None
    doubles: bool = False
    max_tries: int | None = None
    scope: Scope = "video"
    run_tries: int = 1
    closes_after: int | None = None
    other_route_confirms: bool = False


POLICIES: Mapping[Status, RetryPolicy] = MappingProxyType(
    {
        "done": RetryPolicy("its clips are in the store"),
        "excluded": RetryPolicy("left out by the user"),
        # A source that states no time may limit a route for hours. After so many pauses, one video
        # that alone is refused is left to the next run.
        "rate-limited": RetryPolicy(
            "the source limits the rate of requests", 0, scope="route", run_tries=8
        ),
        "blocked": RetryPolicy(
            "the source refuses the route that was used", 0, scope="route", closes_after=1
        ),
        # One video may require another account; eight in a row are the cookies' fault.
        "credentials": RetryPolicy(
            "the source requires a log-in, or rejects the cookies",
            0,
            scope="route",
            closes_after=8,
        ),
        "environment": RetryPolicy(
            "this machine lacks something that downloading needs", 0, scope="machine"
        ),
        "transient": RetryPolicy(
            "temporary failure", 900, doubles=True, max_tries=8, run_tries=RUN_TRIES
        ),
        "ambiguous": RetryPolicy(
            "the source gives no clear reason; retried on another day", _DAY_SECONDS
        ),
        "not-yet": RetryPolicy("not published yet", _DAY_SECONDS, max_tries=30),
        # A site may list the original again another day, or to another client.
        "not-original": RetryPolicy(
            "offered only dubbed or upscaled, not as it was uploaded", _DAY_SECONDS, max_tries=30
        ),
        "age-or-membership": RetryPolicy("only for adults or members who are logged in"),
        "private": RetryPolicy("private"),
        "geo": RetryPolicy("not available in the country of the route"),
        "gone": RetryPolicy("permanently gone"),
        # A proxy may truncate what it passes on, or a network send its login page as media.
        "media-unusable": RetryPolicy(
            "downloaded, but no utterance could be cropped", other_route_confirms=True
        ),
    }
)

# Whatever the words of these, they may as well be about the route as about the video.
UNCLEAR: frozenset[Status] = frozenset({"transient", "ambiguous", "media-unusable"})

# The answer of the best source is shown: the nearer to the media, the earlier in this list.
BEST_FIRST: tuple[Status, ...] = (
    *("done", "media-unusable", "not-original", "geo", "age-or-membership", "not-yet"),
    *("private", "credentials", "rate-limited", "blocked", "environment", "transient"),
    *("ambiguous", "gone", "excluded"),
)


@dataclass(frozen=True, slots=True)
class RouteAction:
    """What a failure means for the route on which it happened.

    Attributes:
        pause_seconds: send no request on the route for so long; ``None`` means go on.
        pause_grows: the source stated no time; each further pause in a row is longer.
        closes_route: send no request on the route until the user has changed something.
    """

    pause_seconds: float | None = None
    pause_grows: bool = False
    closes_route: bool = False


NO_ACTION = RouteAction()


class Evidence(NamedTuple):
    """What is known of a video at one source besides its latest outcome.

    Attributes:
        tries: how often in a row it answered so, the latest time included, since it was planned or
            the user requested a retry.
        since: Unix time of the first answer of the present class without the source's explicit
            words, if all since were such answers; ``None`` without one.
        is_witnessed: since then, another video was downloaded and cropped by the same route.
        is_other_route: the answer before came by another route.
    """

    tries: int = 1
    since: float | None = None
    is_witnessed: bool = False
    is_other_route: bool = False


class RetryDecision(NamedTuple):
    """What the ledger stores about a video.

    Attributes:
        status: the class; an ambiguous one that was confirmed is ``gone``.
        next_at: Unix time from which it may be retried; ``None`` means never by itself.
        since: Unix time of the first answer that waits for a confirmation; ``None`` if none does.
    """

    status: Status
    next_at: float | None
    since: float | None = None


def needs_confirmation(outcome: Outcome) -> bool:
    """Return whether one answer is too little evidence: it would be final, without clear words.

    >>> key = VideoKey("id000001", "abcdefghijk")
    >>> needs_confirmation(Outcome(key, "private", "HTTP Error 451", is_explicit=False))
    True
    >>> needs_confirmation(Outcome(key, "private", "This video is private"))
    False
    """
    if outcome.status in {"done", "excluded"}:
        return False
    is_final = POLICIES[outcome.status].wait_seconds is None
    return outcome.status == "ambiguous" or (is_final and not outcome.is_explicit)


def next_attempt(outcome: Outcome, evidence: Evidence, *, now: float) -> RetryDecision:
    """Decide when a video is retried by later runs.

    Args:
        outcome: what happened to it.
        evidence: what is known besides.
        now: Unix time in seconds.

    Example:
        >>> outcome = Outcome(VideoKey("id000001", "abcdefghijk"), "ambiguous", is_explicit=False)
        >>> next_attempt(outcome, Evidence(2, since=0.0, is_witnessed=True), now=90_000.0)
        RetryDecision(status='gone', next_at=None, since=None)
        >>> next_attempt(outcome, Evidence(2, since=0.0), now=90_000.0)
        RetryDecision(status='ambiguous', next_at=176400.0, since=0.0)
    """
    status, policy = outcome.status, POLICIES[outcome.status]
    if needs_confirmation(outcome):
        return _unconfirmed(status, policy, evidence, now)
    if policy.wait_seconds is None or (policy.max_tries and evidence.tries >= policy.max_tries):
        return RetryDecision(status, None)
    wait = policy.wait_seconds
    if policy.doubles:
        factor = jitter(outcome.key, evidence.tries)
        wait = min(_DAY_SECONDS, wait * 2 ** (evidence.tries - 1)) * factor
    return RetryDecision(status, now + wait)


def _unconfirmed(
    status: Status, policy: RetryPolicy, evidence: Evidence, now: float
) -> RetryDecision:
    # A clock that was set back confirms nothing.
    since = now if evidence.since is None else min(evidence.since, now)
    is_another_day = now - since >= CONFIRM_SECONDS
    is_second = evidence.since is not None and (
        is_another_day or (policy.other_route_confirms and evidence.is_other_route)
    )
    if is_second and evidence.is_witnessed:
        return RetryDecision("gone" if status == "ambiguous" else status, None)
    # Asked again a day after the first answer, or tomorrow if nothing worked since.
    first = since + _DAY_SECONDS
    return RetryDecision(status, first if first > now else now + _DAY_SECONDS, since)


def jitter(key: VideoKey, tries: int) -> float:
    """Return a factor from 0.75 to 1.25 that spreads retries out, the same in every run.

    >>> jitter(VideoKey("id000001", "abcdefghijk"), 1) == jitter(("id000001", "abcdefghijk"), 1)
    True
    """
    digest = hashlib.sha256("/".join((*key, str(tries))).encode()).digest()
    return 0.75 + 0.5 * int.from_bytes(digest[:4], "big") / 2**32


class MissingUtterance(NamedTuple):
    """An utterance that could not be cropped although its video was downloaded."""

    utterance_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class MediaFacts:
    """What one attempt learned of a video's media. The ledger keeps it with the attempt.

    Attributes:
        audio_id: the source's name of the audio rendition that was downloaded.
        video_id: the same of the video rendition.
        language: language of the audio, as the source states it.
        height: lines of the video rendition that was downloaded; 0 if unknown.
        reference_height: lines of the rendition that boxes refer to; 0 if unknown.
        client: the client by which yt-dlp got the renditions.
        audio_tracks: audio streams in the file; 0 if it was not opened.
        audio_track: the one that was cropped, counted from 0.
        clipped_samples: samples of the clips that exceeded full scale.
        louder_channel: channel that was used alone, counted from 1, since the channels cancel each
            other; 0 if they do not.
    """

    audio_id: str = ""
    video_id: str = ""
    language: str = ""
    height: int = 0
    reference_height: int = 0
    client: str = ""
    audio_tracks: int = 0
    audio_track: int = 0
    clipped_samples: int = 0
    louder_channel: int = 0

    def as_dict(self) -> dict[str, Any]:
        """Return what is known; the rest is left out."""
        values = ((entry.name, getattr(self, entry.name)) for entry in fields(self))
        return {name: value for name, value in values if value}

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> MediaFacts:
        """Read what :meth:`as_dict` returned.

        Raises:
            TypeError: these are no facts.
        """
        return cls(**stored)


NO_FACTS = MediaFacts()


@dataclass(frozen=True, slots=True)
class Outcome:
    """What happened to one video.

    Attributes:
        key: the video.
        status: its class, from the closed list.
        reason: the message of the source or the decoder, without secrets by their shape; empty
            when all went well.
        clips: number of utterances cropped.
        samples: their length, samples at 16 kHz.
        missing: utterances that could not be cropped.
        bytes_fetched: bytes that were downloaded, or the size of the file read.
        seconds_taken: wall time.
        route: name of the route that was used; empty for media on this machine.
        digest: hash of the annotations that the clips were cropped by.
        facts: what was learned of its media.
        is_explicit: the source's own words say so of this very video, or what was looked at is on
            this machine; otherwise one such answer is too little for a final verdict.
    """

    key: VideoKey
    status: Status
    reason: str = ""
    clips: int = 0
    samples: int = 0
    missing: tuple[MissingUtterance, ...] = ()
    bytes_fetched: int = 0
    seconds_taken: float = field(default=0.0, compare=False)
    route: str = ""
    digest: int = 0
    facts: MediaFacts = NO_FACTS
    is_explicit: bool = True

    def __post_init__(self) -> None:
        # The one door to the ledger, to part files and to every message that quotes a reason.
        object.__setattr__(self, "reason", redact(self.reason))

    def as_dict(self) -> dict[str, Any]:
        """Return what a part file stores, where the route has the name of the first format."""
        values = asdict(self)
        # Without facts a part file is as the versions before read it; it holds no verdict.
        del values["facts"], values["is_explicit"]
        if self.facts != NO_FACTS:
            values["facts"] = self.facts.as_dict()
        return {"address" if name == "route" else name: values[name] for name in values}

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> Outcome:
        """Read what a part file stores.

        Raises:
            KeyError, TypeError, ValueError: it is no outcome.
        """
        values = dict(stored)
        values["key"] = VideoKey(*values["key"])
        values["missing"] = tuple(MissingUtterance(*row) for row in values["missing"])
        values["route"] = values.pop("address", "")
        values["facts"] = MediaFacts.from_dict(values.get("facts", {}))
        return cls(**values)
