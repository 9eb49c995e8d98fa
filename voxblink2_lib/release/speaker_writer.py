"""The tables of an index about speakers: one row for each, and those of their transcripts."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from voxblink2_lib.release.speaker_facts import SpeakerFacts
from voxblink2_lib.release.speaker_index import (
    CONTENT,
    SPEAKER_COLUMNS,
    SPEAKERS,
    TRANSCRIPT_COLUMNS,
    TRANSCRIPTS,
)
from voxblink2_lib.release.tombstones import Tombstones
from voxblink2_lib.release.transcripts import Transcript

# Shards may have their speakers in any order: few other transcripts are read with those of one.
_TRANSCRIPTS_PER_GROUP = 2_048
_GROUP_TEXT = 16 << 20

# The one video of a speaker that has an utterance of some id; ``None`` if several have.
CertainVideos = Mapping[tuple[str, str], str | None]


@dataclass(frozen=True, slots=True)
class Speaker:
    """What a release says of one speaker."""

    speaker_id: str
    facts: SpeakerFacts
    listed_videos: int | None
    info_text: str | None
    info_bytes: int | None
    asr_text: str | None
    asr_bytes: int | None
    transcripts: list[Transcript]


def without_purged(speaker: Speaker, tombstones: Tombstones) -> Speaker:
    """Return a speaker without the transcripts of what was purged, and without texts that name it.

    A file of transcripts is kept as a text only if nothing of it was purged.
    """
    if not tombstones:
        return speaker
    left = [
        entry
        for entry in speaker.transcripts
        if not tombstones.covers(speaker.speaker_id, entry.video_id, entry.utterance_id)
    ]
    if len(left) < len(speaker.transcripts) or tombstones.mentioned_in(speaker.asr_text or ""):
        speaker = replace(speaker, transcripts=left, asr_text=None, asr_bytes=None)
    if tombstones.mentioned_in(speaker.info_text or ""):
        speaker = replace(speaker, info_text=None, info_bytes=None)
    return speaker


class SpeakerWriter:
    """Writes speakers in the order they are added, and their transcripts."""

    def __init__(self, folder: Path) -> None:
        self._speakers = pq.ParquetWriter(folder / SPEAKERS, SPEAKER_COLUMNS, compression="zstd")
        self._transcripts = pq.ParquetWriter(
            folder / TRANSCRIPTS, TRANSCRIPT_COLUMNS, compression="zstd"
        )
        self._digest = hashlib.sha256()
        self._speaker_rows: list[tuple[Any, ...]] = []
        self._transcript_rows: list[tuple[Any, ...]] = []
        # Characters that are not written yet, of speakers and of transcripts.
        self._speaker_text = self._transcript_text = 0
        self.transcripts = 0
        self.unmatched = 0

    def __enter__(self) -> SpeakerWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._flush_speakers()
        self._flush_transcripts()
        for table in (self._speakers, self._transcripts):
            table.add_key_value_metadata({CONTENT: self.content})
            table.close()

    @property
    def content(self) -> str:
        """Digest of the transcripts that are written."""
        return self._digest.hexdigest()

    def add(self, speaker: Speaker, videos: CertainVideos) -> None:
        """Write one speaker."""
        first = self.transcripts
        for row in self._rows(speaker, videos):
            self._transcript_rows.append(row)
            self._transcript_text += len(row[3] or "")
            self.transcripts += 1
            if (
                len(self._transcript_rows) == _TRANSCRIPTS_PER_GROUP
                or self._transcript_text > _GROUP_TEXT
            ):
                self._flush_transcripts()
        self._speaker_rows.append(
            (
                *(speaker.speaker_id, *speaker.facts, speaker.listed_videos),
                *(speaker.info_text, speaker.info_bytes, speaker.asr_text, speaker.asr_bytes),
                *(first, self.transcripts - first),
            )
        )
        self._speaker_text += len(speaker.info_text or "") + len(speaker.asr_text or "") + 1024
        if self._speaker_text > _GROUP_TEXT:
            self._flush_speakers()

    def _rows(self, speaker: Speaker, videos: CertainVideos) -> Iterator[tuple[str | None, ...]]:
        """Yield the rows of a speaker's transcripts, the first of each utterance."""
        known = set()
        for entry in speaker.transcripts:
            video_id = entry.video_id or videos.get((speaker.speaker_id, entry.utterance_id))
            if video_id is None:
                self.unmatched += 1
            elif (key := (video_id, entry.utterance_id)) not in known:
                known.add(key)
                yield (speaker.speaker_id, *key, entry.text, entry.language)

    def _flush_speakers(self) -> None:
        if self._speaker_rows:
            self._speakers.write_batch(_batch(self._speaker_rows, SPEAKER_COLUMNS))
        self._speaker_rows, self._speaker_text = [], 0

    def _flush_transcripts(self) -> None:
        if self._transcript_rows:
            batch = _batch(self._transcript_rows, TRANSCRIPT_COLUMNS)
            self._digest.update(batch.serialize())
            self._transcripts.write_batch(batch)
        self._transcript_rows, self._transcript_text = [], 0


def _batch(rows: list[tuple[Any, ...]], schema: pa.Schema) -> pa.RecordBatch:
    columns = zip(zip(*rows, strict=True), schema, strict=True)
    arrays = [pa.array(list(values), column.type) for values, column in columns]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)
