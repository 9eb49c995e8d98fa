"""Tell failures of a route from failures of videos, where the source's words do not.

A bare "Video unavailable" may be about the video, or about whoever asks. So answers without clear
words are held back, not written, until something else is known of their route:

    held answers      1 .. limit-1        limit reached
                      |                   |
    a video came      those before it     |
                      are written         |
    clear words       written             ask canaries: videos that came before, videos of other
                                          speakers, ids that the user named
                                          |                     |
                                          one comes             none comes
                                          written; limit x 2    the route is closed, and its
                                                                held videos count as not tried

Likewise the first final verdict of a run waits for a canary, where one is known.
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
    _released: int = 0

    @property
    def is_in_question(self) -> bool:
        """Whether canaries are asked, and no other video."""
        return self.canaries is not None

    @property
    def needs_canaries(self) -> bool:
        """Whether canaries are to be asked, and were not named yet."""
        return self.canaries is None and (len(self.held) >= self.limit or bool(self.finals))

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
        return key

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
        answers = self._pop_held(position - self._released) + self._pop_finals()
        if len(self.held) < self.limit:
            self.canaries = None
        return answers

    def record_canary(self) -> list[Item]:
        """Return what is written now that a canary came: these videos are at fault themselves."""
        if len(self.held) >= self.limit:
            self.limit = min(MAX_LIMIT, 2 * self.limit)
        return self.record_success(self.position)

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
