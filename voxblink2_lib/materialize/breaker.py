"""Tell failures of a route from failures of videos, where the source's words do not.

A bare "Video unavailable" may be about the video, or about whoever asks. So answers without clear
words are held back, not written, until something else is known of their route:

    held answers      1 .. limit-1        limit reached
                      |                   |
    a video came      those before it     |
                      are written         |
    clear words,      written             ask canaries: videos that came before, videos of other
    if none ever came                     speakers, ids that the user named
                                          |                     |
                                          one comes             none comes
                                          written; limit x 2    the route is closed, and its
                                                                held videos count as not tried

Where videos have come before, clear words are no evidence: a source that has flagged an account
still says of removed videos that they are removed.

Likewise the first final verdict of a run waits for a canary, where one is known; and one without
clear words waits until a video came that was requested after it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from voxblink2_lib.outcomes import POLICIES, Outcome
from voxblink2_lib.records import VideoKey

# So many videos in a row without one success are no chance.
FIRST_LIMIT = 12
MAX_LIMIT = 200

# Videos of so many other speakers are asked for where none is known to have come.
OTHER_SPEAKERS = 5

Item = TypeVar("Item")


def is_wordless(outcome: Outcome) -> bool:
    """Return whether a failure may as well be that of its route.

    >>> key = VideoKey("id000001", "abcdefghijk")
    >>> is_wordless(Outcome(key, "ambiguous", "Video unavailable", is_explicit=False))
    True
    >>> is_wordless(Outcome(key, "private", "Private video"))
    False
    """
    # The others pause or close the route by themselves.
    return POLICIES[outcome.status].scope == "video" and not outcome.is_explicit


@dataclass(slots=True)
class Breaker(Generic[Item]):
    """What is known of one route in this run. ``Item`` is an answer and whatever belongs to it.

    Attributes:
        limit: so many answers without clear words in a row put the route in question.
        has_worked: a video came in this run.
        held: answers without clear words since anything else came, in order.
        finals: answers that would be final, while no video came yet.
        canaries: what is still to be asked; ``None`` while nothing is in question.
        asked: canaries that did not come, in order.
    """

    limit: int = FIRST_LIMIT
    has_worked: bool = False
    held: list[Item] = field(default_factory=list)
    finals: list[Item] = field(default_factory=list)
    canaries: list[VideoKey] | None = None
    asked: list[VideoKey] = field(default_factory=list)
    # The position when the canary was requested that is on its way.
    _canary_position: int | None = None
    _released: int = 0

    @property
    def is_in_question(self) -> bool:
        """Whether canaries are asked, and no other video."""
        return self.canaries is not None

    @property
    def needs_canaries(self) -> bool:
        """Whether canaries are to be asked, and were not named yet."""
        return self.canaries is None and (len(self.held) >= self.limit or bool(self.finals))

    @property
    def has_canary(self) -> bool:
        """Whether a canary is to be requested now; one is on its way at a time."""
        return bool(self.canaries) and self._canary_position is None

    def hold(self, item: Item) -> None:
        """Keep an answer without clear words."""
        self.held.append(item)

    def hold_final(self, item: Item) -> None:
        """Keep an answer that would be final until a canary came."""
        self.finals.append(item)

    def ask(self, canaries: Iterable[VideoKey]) -> None:
        """Put the route in question until one of these videos comes."""
        self.canaries = list(canaries)
        self.asked = []

    def next_canary(self) -> VideoKey | None:
        """Return the canary to ask now; ``None`` if none is left."""
        if not self.canaries:
            return None
        key = self.canaries.pop(0)
        self.asked.append(key)
        self._canary_position = self.position
        return key

    def ask_later(self, key: VideoKey) -> None:
        """Ask a canary again after all others, since its answer was not about the videos."""
        if self.canaries is not None:
            self.canaries.append(key)

    @property
    def position(self) -> int:
        """How many answers were held so far: what is requested now is evidence for those alone."""
        return self._released + len(self.held)

    def record_words(self, position: int) -> list[Item]:
        """Return what is written now that the source has answered with clear words.

        Args:
            position: the :attr:`position` when it was requested.
        """
        return [] if self.is_in_question else self._pop_held(position - self._released)

    def record_success(self, position: int) -> list[Item]:
        """Return what is written now that a video is cropped.

        Args:
            position: the :attr:`position` when it was requested.
        """
        self.has_worked = True
        is_about_held = self.is_in_question and len(self.held) >= self.limit
        answers = self._pop_held(position - self._released) + self._pop_finals()
        if len(self.held) < self.limit:
            self.canaries = None
            if is_about_held:
                # These videos were at fault themselves.
                self.limit = min(MAX_LIMIT, 2 * self.limit)
        return answers

    def record_canary(self, *, has_come: bool) -> list[Item]:
        """Return what is written now that the canary is answered that was on its way.

        Args:
            has_come: it came, so those that failed before are at fault themselves.
        """
        position, self._canary_position = self._canary_position, None
        if not has_come or position is None:
            return []
        answers = self.record_success(position)
        # Those that failed since are a question of their own.
        self.canaries = None
        return answers

    def release(self) -> list[Item]:
        """Return everything that is held, in order, and hold nothing."""
        self.canaries = None
        return self._pop_held(len(self.held)) + self._pop_finals()

    def _pop_held(self, count: int) -> list[Item]:
        count = max(0, count)
        answers, self.held = self.held[:count], self.held[count:]
        self._released += len(answers)
        return answers

    def _pop_finals(self) -> list[Item]:
        answers, self.finals = self.finals, []
        return answers
