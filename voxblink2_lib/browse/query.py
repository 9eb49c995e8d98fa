"""What is searched for, and what is found: validated before it touches a file."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from voxblink2_lib.errors import SelectionError
from voxblink2_lib.foreign_files import shortened
from voxblink2_lib.outcomes import STATUSES
from voxblink2_lib.records import (
    UTTERANCE_ID,
    UtteranceKey,
    VideoKey,
    check_ids,
    is_speaker_id,
    is_video_id,
)
from voxblink2_lib.store.ledger_search import ALL_VIDEOS, ListedVideo, VideoFilter

# Longer ones are no words: an expression that finds them is too large for Arrow and SQLite.
_MOST_CHARACTERS = 500
# What a video may be in the ledger: a class of outcome, or not tried yet.
CLASSES = ("planned", *STATUSES)


@dataclass(frozen=True, slots=True)
class Query:
    """What is searched for; an empty value allows all.

    Attributes:
        videos: which videos.
        utterance_id: with this id.
        language: of this language, as the transcripts name it.
        text: with all of these words, or parts of words, in the transcript.
    """

    videos: VideoFilter = ALL_VIDEOS
    utterance_id: str = ""
    language: str = ""
    text: str = ""

    @classmethod
    def of(
        cls,
        ids: str = "",
        *,
        statuses: Iterable[str] = (),
        reason: str = "",
        language: str = "",
        text: str = "",
    ) -> Query:
        """Make a query of what users write.

        Args:
            ids: a speaker, a video, an utterance, or ``speaker/video/utterance`` or parts of it.
            statuses: classes of videos.
            reason: words in the reason why there is no clip.
            language: of the transcript.
            text: words in the transcript.

        Raises:
            SelectionError: there are no such ids, or no such class, or a text is too long or has
                what is no character.

        >>> Query.of("id000002/-JUT3czS6OI").videos.video_id
        '-JUT3czS6OI'
        """
        for value in (ids, reason, language, text):
            _check_text(value)
        wanted = tuple(statuses)
        if unknown := [status for status in wanted if status not in CLASSES]:
            raise SelectionError(
                f"{shortened(unknown[0])} is no class of outcome. Choose among "
                f"{', '.join(CLASSES)}."
            )
        speaker_id, video_id, utterance_id = _parts(ids.strip())
        videos = VideoFilter(speaker_id, video_id, wanted, reason.strip())
        return cls(videos, utterance_id, language.strip(), text.strip())

    @property
    def is_of_transcripts(self) -> bool:
        """Whether only utterances with a transcript can be meant."""
        return bool(self.language or self.text)


def _check_text(text: str) -> None:
    if len(text) > _MOST_CHARACTERS:
        raise SelectionError(
            f"{shortened(text)} is too long to search for. Write at most {_MOST_CHARACTERS:,} "
            "characters."
        )
    if not _has_only_characters(text):
        raise SelectionError(
            f"{shortened(text)} has what is no character. Write it again, or leave it out."
        )


def _has_only_characters(text: str) -> bool:
    """Return whether a text can be written, and does not end for SQLite before its end."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return "\0" not in text


def _parts(ids: str) -> tuple[str, str, str]:
    """Return the speaker, the video and the utterance that ids name; empty if they do not."""
    speaker_id = video_id = utterance_id = ""
    words = ids.removesuffix("/").split("/") if ids else []
    if words and is_speaker_id(words[0]):
        speaker_id = words.pop(0)
    if words and is_video_id(words[0]):
        video_id = words.pop(0)
    if words and UTTERANCE_ID.fullmatch(words[0]):
        utterance_id = words.pop(0)
    if words:
        raise SelectionError(
            f"{shortened(ids)} is no id. Write a speaker (id000002), a video (11 characters), an "
            "utterance (00001), or several of them with slashes: id000002/VIDEO/00001."
        )
    return speaker_id, video_id, utterance_id


def utterance_of(name: str) -> UtteranceKey:
    """Return the utterance of a name that comes from a page or a file.

    Raises:
        SelectionError: it is no name of an utterance.

    >>> utterance_of("id000002/-JUT3czS6OI/00001").utterance_id
    '00001'
    """
    try:
        key = UtteranceKey(*name.split("/"))
        check_ids(*key)
    except (TypeError, ValueError) as error:
        raise SelectionError(
            f"{shortened(name)} is no name of an utterance. Expected is speaker/video/utterance, "
            "such as id000002/-JUT3czS6OI/00001."
        ) from error
    return key


class ListedUtterance(NamedTuple):
    """An utterance in a list.

    Attributes:
        video: what the ledger has of its video.
        utterance_id: its id; empty if no utterance of the video is known.
        start_seconds: its time in the video; ``None`` if it is not known.
        end_seconds: likewise.
        has_clip: there is a clip of it, as the ledger says.
        language: of its transcript.
        transcript: what is said.
    """

    video: ListedVideo
    utterance_id: str
    start_seconds: float | None = None
    end_seconds: float | None = None
    has_clip: bool = False
    language: str | None = None
    transcript: str | None = None

    @property
    def key(self) -> UtteranceKey:
        """Its ids."""
        return UtteranceKey(self.video.speaker_id, self.video.video_id, self.utterance_id)


class Cursor(NamedTuple):
    """Where a search goes on.

    Attributes:
        after: the last video that was looked at entirely; ``None`` before the first.
        within: the video of which some utterances were shown; ``None`` if of none.
        shown: how many of it.
        row: of all transcripts, the one that is looked at next.
    """

    after: VideoKey | None = None
    within: VideoKey | None = None
    shown: int = 0
    row: int = 0


class Page(NamedTuple):
    """Some of what is found.

    Attributes:
        rows: utterances, in order.
        cursor: where the search goes on; ``None`` if all was searched.
        notes: what of the store could not be read, and how much was searched.
    """

    rows: tuple[ListedUtterance, ...]
    cursor: Cursor | None
    notes: tuple[str, ...] = ()


def time_text(start_seconds: float | None, end_seconds: float | None) -> str:
    """Return a time in a video as text.

    >>> time_text(1.0, 2.5), time_text(None, None)
    ('1.00-2.50 s', 'unknown time')
    """
    if start_seconds is None or end_seconds is None:
        return "unknown time"
    return f"{start_seconds:.2f}-{end_seconds:.2f} s"
