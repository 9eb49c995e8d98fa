"""Write what a release has beside its annotations into an index, in bounded memory.

The files of speakers come in any order, of two kinds, perhaps from two archives: they are copied
into one file first, and read from it speaker by speaker.
"""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

import pyarrow as pa
import pyarrow.compute as pc

from voxblink2_lib.files import atomic_write, named_system_errors, sha256_of, sync_folder
from voxblink2_lib.progress import Progress, no_progress
from voxblink2_lib.records import is_speaker_id, is_video_id
from voxblink2_lib.release.index import Index, video_keys
from voxblink2_lib.release.location import Release
from voxblink2_lib.release.speaker_facts import SpeakerFacts, gender_of, read_facts, read_list
from voxblink2_lib.release.speaker_files import TEXT_KINDS, SpeakerFiles, find_speaker_files
from voxblink2_lib.release.speaker_index import (
    INFO,
    SPEAKERS,
    TRANSCRIPTS,
    SpeakerInfo,
    read_speaker_info,
)
from voxblink2_lib.release.speaker_writer import (
    CertainVideos,
    Speaker,
    SpeakerWriter,
    without_purged,
)
from voxblink2_lib.release.tombstones import Tombstones
from voxblink2_lib.release.transcripts import clean_text, read_transcripts

# Longer files are read to their end; only this much of them is kept as text.
MAX_TEXT_BYTES = 1 << 20
_SPEAKERS_AT_ONCE = 256
_CHUNK_BYTES = 4 << 20


def are_speakers_current(release: Release, index: Index) -> bool:
    """Return whether an index has all that a release has for the columns of rows."""
    files = find_speaker_files(release)
    return files.paths.keys() <= {"spk2videos"} or _is_current(files.signature(), index)


def _is_current(signature: str, index: Index) -> bool:
    info = read_speaker_info(index.folder)
    expected = (signature, index.info.fingerprint)
    return info is not None and (info.signature, info.annotations) == expected


def update_speakers(
    release: Release, index: Index, *, progress: Progress = no_progress
) -> SpeakerInfo | None:
    """Bring into an index what lies beside the annotations of a release, if it is new or changed.

    A release that has nothing there leaves an index as it is.

    Args:
        release: the release of the index.
        index: the index; this process may write to it.
        progress: counts bytes, then speakers.

    Returns:
        What the index knows now; ``None`` if that is nothing.

    Raises:
        StoreFullError: the disk is full. The index is as it was.
    """
    files = find_speaker_files(release)
    signature = files.signature()
    if not files.paths or _is_current(signature, index):
        return read_speaker_info(index.folder)
    fresh = index.folder.with_name(f"{index.folder.name}.speakers")
    shutil.rmtree(fresh, ignore_errors=True)
    try:
        with named_system_errors(fresh):
            fresh.mkdir()
            info = _build(files, signature, index, fresh, progress)
            # Without its summary, no half of the files is ever read.
            (index.folder / INFO).unlink(missing_ok=True)
            for name in (SPEAKERS, TRANSCRIPTS):
                os.replace(fresh / name, index.folder / name)
            sync_folder(index.folder)
            with atomic_write(index.folder / INFO) as file:
                file.write(info.as_json())
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return read_speaker_info(index.folder)


def _build(
    files: SpeakerFiles, signature: str, index: Index, folder: Path, progress: Progress
) -> SpeakerInfo:
    lists = _Lists.read(files)
    tombstones = Tombstones.of(index.folder.parent)

    def is_left(speaker_id: str) -> bool:
        return not tombstones.covers(speaker_id)

    with _Texts(folder / "texts") as texts, SpeakerWriter(folder) as writer:
        total = sum(map(files.size_bytes, TEXT_KINDS))
        with progress("Reading the files of speakers", unit="B", total=total) as advance:
            for kind in TEXT_KINDS:
                for speaker_id, data in files.texts(kind, advance):
                    texts.add(kind, speaker_id, data)
        speakers = sorted(filter(is_left, texts.speakers() | lists.speakers()))
        videos = _CertainVideos(index)
        with progress("Indexing speakers", unit="speaker", total=len(speakers)) as advance:
            read = (_read(speaker_id, lists, texts) for speaker_id in speakers)
            for chunk in _chunks(without_purged(speaker, tombstones) for speaker in read):
                certain = videos.of(chunk)
                for speaker in chunk:
                    writer.add(speaker, certain)
                    advance(1)
    (folder / "texts").unlink()
    return SpeakerInfo(
        speakers=len(speakers),
        listed_videos=sum(lists.videos.get(speaker_id, 0) for speaker_id in speakers),
        transcripts=writer.transcripts,
        unmatched=writer.unmatched,
        signature=signature,
        annotations=index.info.fingerprint,
        content=writer.content,
        problems=tuple(files.problems),
        files={name: sha256_of(folder / name) for name in (SPEAKERS, TRANSCRIPTS)},
    )


# -- What is read ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Lists:
    """What the files with one line for each speaker say."""

    facts: Mapping[str, SpeakerFacts]
    videos: Mapping[str, int]

    @classmethod
    def read(cls, files: SpeakerFiles) -> _Lists:
        """Read all lists of a release."""
        genders, languages, locations = (
            dict(read_list(files.lines(kind))) for kind in ("spk2gender", "spk2lan", "spk2loc")
        )
        facts = {
            speaker: SpeakerFacts(
                gender=gender_of(genders.get(speaker)),
                language=languages.get(speaker),
                location=locations.get(speaker),
            )
            for speaker in genders.keys() | languages.keys() | locations.keys()
        }
        videos: Counter[str] = Counter()
        for line in files.lines("spk2videos"):
            speaker_id, *names = line.split() or [""]
            if is_speaker_id(speaker_id):
                videos[speaker_id] += sum(map(is_video_id, names))
        return cls(facts, videos)

    def speakers(self) -> set[str]:
        """Return all speakers that are named."""
        return {*self.facts, *self.videos}


class _Texts:
    """The files of all speakers, copied into one."""

    def __init__(self, path: Path) -> None:
        self._file: BinaryIO = open(path, "w+b")  # noqa: SIM115  # closed in __exit__
        self._places: dict[tuple[str, str], tuple[int, int]] = {}

    def __enter__(self) -> _Texts:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()

    def add(self, kind: str, speaker_id: str, data: bytes) -> None:
        """Copy a file; of two of one speaker, the first."""
        if (kind, speaker_id) not in self._places:
            self._places[kind, speaker_id] = (self._file.tell(), len(data))
            self._file.write(data)

    def speakers(self) -> set[str]:
        """Return the speakers that have a file."""
        return {speaker_id for _, speaker_id in self._places}

    def text(self, kind: str, speaker_id: str) -> tuple[str | None, int | None]:
        """Return a file as text, and its size in bytes; ``None`` twice if there is none."""
        if (kind, speaker_id) not in self._places:
            return None, None
        offset, size_bytes = self._places[kind, speaker_id]
        self._file.seek(offset)
        return self._file.read(size_bytes).decode("utf-8-sig", "replace"), size_bytes


def _read(speaker_id: str, lists: _Lists, texts: _Texts) -> Speaker:
    kinds = ("spk_info", "video_tags")
    info = next(
        (found for kind in kinds if (found := texts.text(kind, speaker_id))[0]), (None, None)
    )
    asr = texts.text("asr_res", speaker_id)
    listed = lists.facts.get(speaker_id, SpeakerFacts())
    return Speaker(
        speaker_id,
        listed.or_else(read_facts(info[0] or "")),
        lists.videos.get(speaker_id),
        *(_kept(info[0]), info[1], _kept(asr[0]), asr[1]),
        list(read_transcripts(speaker_id, asr[0] or "")),
    )


def _chunks(speakers: Iterable[Speaker]) -> Iterator[list[Speaker]]:
    """Yield speakers some at a time: few if their files are large."""
    chunk: list[Speaker] = []
    for speaker in speakers:
        chunk.append(speaker)
        size_bytes = sum(entry.asr_bytes or 0 for entry in chunk)
        if len(chunk) == _SPEAKERS_AT_ONCE or size_bytes > _CHUNK_BYTES:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def _kept(text: str | None) -> str | None:
    return None if text is None else clean_text(text[:MAX_TEXT_BYTES])


# -- Utterances without their video ----------------------------------------------------------------


class _CertainVideos:
    """Finds the videos of utterances whose files do not name them.

    Args:
        index: has all utterances of all speakers.
    """

    def __init__(self, index: Index) -> None:
        self._index = index

    @cached_property
    def _table(self) -> pa.Table:
        return self._index.videos()

    def of(self, speakers: Iterable[Speaker]) -> CertainVideos:
        """Return the videos of those speakers whose files name utterances without their video."""
        bare = {
            speaker.speaker_id
            for speaker in speakers
            if any(entry.video_id is None for entry in speaker.transcripts)
        }
        if not bare:
            return {}
        is_bare = pc.is_in(self._table["speaker_id"], pa.array(sorted(bare)))
        keys = set(video_keys(self._table.filter(is_bare)))
        videos: dict[tuple[str, str], str | None] = {}
        for key, utterances in self._index.utterances(keys):
            for utterance in utterances:
                name = (key.speaker_id, utterance.utterance_id)
                videos[name] = None if name in videos else key.video_id
        return videos
