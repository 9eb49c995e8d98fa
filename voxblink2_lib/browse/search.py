"""Search the utterances of a store, a page at a time and for no longer than is allowed."""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from typing import NamedTuple

from voxblink2_lib.browse.annotations import Annotations, Matches, Transcript, Transcripts
from voxblink2_lib.browse.clips import Clips
from voxblink2_lib.browse.query import Cursor, ListedUtterance, Page, Query
from voxblink2_lib.browse.quiet_ledger import QuietLedger
from voxblink2_lib.errors import StoreError
from voxblink2_lib.records import UtteranceKey, VideoKey
from voxblink2_lib.store.ledger import Ledger
from voxblink2_lib.store.ledger_search import ListedVideo

ROWS_A_PAGE = 25
# The page is to answer within a second.
_SEARCH_SECONDS = 0.6
_BEGIN = Cursor()


class _Step(NamedTuple):
    """What was found by a part of a search, and where it goes on; ``None`` at its end."""

    rows: list[ListedUtterance]
    cursor: Cursor | None


class _Known(NamedTuple):
    """What the ledger has of a video: itself, and the reasons of the utterances without a clip."""

    video: ListedVideo
    missing: dict[str, str]


class Search:
    """Searches a store that may be being written.

    Args:
        ledger: the ledger.
    """

    def __init__(self, ledger: QuietLedger) -> None:
        self._ledger = ledger
        self._annotations = Annotations(ledger.store.index)
        self._transcripts = Transcripts(ledger.store.index)
        self._clips = Clips(ledger)

    def page(
        self,
        query: Query,
        *,
        cursor: Cursor = _BEGIN,
        most: int = ROWS_A_PAGE,
        seconds: float = _SEARCH_SECONDS,
    ) -> Page:
        """Return the next utterances that are searched for.

        Videos without a known utterance are rows of their own. A search that takes longer ends
        with what it has, and goes on from the cursor.

        Args:
            query: what is searched for.
            cursor: where to go on.
            most: rows of the page.
            seconds: after which no further part of the store is looked at.

        Raises:
            StoreError: the ledger cannot be read.
        """
        until = time.monotonic() + seconds
        notes: dict[str, None] = {}
        rows: list[ListedUtterance] = []
        following: Cursor | None = cursor
        while following is not None and len(rows) < most:
            room = most - len(rows)
            if query.is_of_transcripts:
                step = self._by_transcript(query, following, room, until, notes)
            else:
                step = self._by_video(query, following, room, notes)
            rows += step.rows
            following = step.cursor
            if time.monotonic() >= until:
                break
        return Page(tuple(rows), following, tuple(notes))

    # -- By what the ledger has --------------------------------------------------------------------

    def _by_video(self, query: Query, cursor: Cursor, most: int, notes: dict[str, None]) -> _Step:
        def videos_of(ledger: Ledger) -> tuple[list[_Known], VideoKey | None]:
            page = ledger.search.page(query.videos, after=cursor.after, most=most)
            known = [_Known(video, ledger.search.missing(video.key)) for video in page.videos]
            return known, page.reached

        videos, reached = self._ledger.read(videos_of)
        utterances = self._utterances(videos, notes)
        rows: list[ListedUtterance] = []
        after = cursor.after
        for known in videos:
            key, own = known.video.key, utterances[known.video.key]
            own = [row for row in own if query.utterance_id in {"", row.utterance_id}]
            shown = cursor.shown if key == cursor.within else 0
            room = most - len(rows)
            rows += own[shown : shown + room]
            if len(own) - shown > room:
                return _Step(self._with_texts(rows, notes), Cursor(after, key, shown + room))
            after = key
        following = None if reached is None else Cursor(after=reached)
        return _Step(self._with_texts(rows, notes), following)

    def _utterances(
        self, videos: Sequence[_Known], notes: dict[str, None]
    ) -> dict[VideoKey, list[ListedUtterance]]:
        """Return the utterances of videos: those that are annotated, else those with a clip."""
        try:
            annotated = self._annotations.of({known.video.key for known in videos})
        except StoreError as error:
            notes[str(error)] = None
            annotated = {}
        rows = {}
        for video, missing in videos:
            rows[video.key] = [
                ListedUtterance(
                    video,
                    utterance.utterance_id,
                    *utterance.seconds,
                    has_clip=video.status == "done" and utterance.utterance_id not in missing,
                )
                for utterance in annotated.get(video.key, ())
            ] or self._cut_utterances(video, notes)
        return rows

    def _cut_utterances(self, video: ListedVideo, notes: dict[str, None]) -> list[ListedUtterance]:
        try:
            clips = self._clips.of_video(video.key) if video.clips else []
        except (StoreError, ValueError) as error:
            notes[str(error)] = None
            clips = []
        return [
            ListedUtterance(
                video, clip.utterance_id, clip.start_seconds, clip.end_seconds, has_clip=True
            )
            for clip in clips
        ] or [ListedUtterance(video, "")]

    def _with_texts(
        self, rows: list[ListedUtterance], notes: dict[str, None]
    ) -> list[ListedUtterance]:
        try:
            known = self._transcripts.of([row.key for row in rows])
        except StoreError as error:
            notes[str(error)] = None
            return rows
        return [
            row._replace(transcript=entry.text, language=entry.language)
            if (entry := known.get(row.key))
            else row
            for row in rows
        ]

    # -- By what is said ---------------------------------------------------------------------------

    def _by_transcript(
        self, query: Query, cursor: Cursor, most: int, until: float, notes: dict[str, None]
    ) -> _Step:
        matches = self._matches(query, cursor, most, until)
        kept = [
            entry
            for entry in matches.transcripts
            if query.videos.video_id in {"", entry.key.video_id}
            and query.utterance_id in {"", entry.key.utterance_id}
        ]
        rows = self._rows_of(query, kept, notes)
        if matches.following is None:
            return _Step(rows, None)
        if matches.share < 1:
            notes.pop(next((note for note in notes if note.startswith("Searched ")), ""), None)
            notes[f"Searched {100 * matches.share:.0f} % of the transcripts."] = None
        return _Step(rows, Cursor(row=matches.following))

    def _matches(self, query: Query, cursor: Cursor, most: int, until: float) -> Matches:
        return self._transcripts.match(
            text=query.text,
            language=query.language,
            speaker_id=query.videos.speaker_id,
            first=cursor.row,
            most=most,
            until=until,
        )

    def _rows_of(
        self, query: Query, entries: Sequence[Transcript], notes: dict[str, None]
    ) -> list[ListedUtterance]:
        """Return the utterances of transcripts whose videos are wanted as well."""
        keys = list(dict.fromkeys(VideoKey(*entry.key[:2]) for entry in entries))
        videos = self.videos(keys)
        utterances = self._utterances(
            [known for known in videos if query.videos.allows(known.video)], notes
        )
        rows = {row.key: row for own in utterances.values() for row in own}
        return [
            row._replace(transcript=entry.text, language=entry.language)
            for entry in entries
            if (row := rows.get(entry.key))
        ]

    # -- Some videos and utterances ----------------------------------------------------------------

    def videos(self, keys: Collection[VideoKey]) -> list[_Known]:
        """Return what the ledger has of some videos; those that it does not have are left out."""

        def known_of(ledger: Ledger) -> list[_Known]:
            return [
                _Known(video, ledger.search.missing(key))
                for key in keys
                if (video := ledger.search.video(key))
            ]

        return self._ledger.read(known_of) if keys else []

    def utterances(self, keys: Collection[UtteranceKey]) -> Page:
        """Return some utterances, in the order of their names here; unknown ones are left out.

        Args:
            keys: which; without an id of an utterance, all of the video.
        """
        notes: dict[str, None] = {}
        videos = list(dict.fromkeys(VideoKey(*key[:2]) for key in keys))
        of_videos = self._utterances(self.videos(videos), notes)
        rows = [
            row
            for key in keys
            for row in of_videos.get(VideoKey(*key[:2]), ())
            if key.utterance_id in {"", row.utterance_id}
        ]
        return Page(tuple(self._with_texts(rows, notes)), None, tuple(notes))
