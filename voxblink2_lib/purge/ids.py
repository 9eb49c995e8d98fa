"""What users name to be purged, and what that means in a store."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from voxblink2_lib.errors import SelectionError
from voxblink2_lib.records import CONFIG_NAMES, is_speaker_id, is_video_id
from voxblink2_lib.release.index import KEY_COLUMNS, Index
from voxblink2_lib.release.tombstones import PurgedIds, utterance_name
from voxblink2_lib.store.layout import Store
from voxblink2_lib.store.ledger import Ledger


def read_purged_ids(entries: Iterable[str]) -> PurgedIds:
    """Read ids of speakers and videos, and names of utterances.

    Args:
        entries: ids; or names of text files of ids, separated by white space, in which ``#`` begins
            a comment.

    Raises:
        SelectionError: an entry is neither an id nor such a file, or a file has none.

    >>> read_purged_ids(["id000002", "-JUT3czS6OI"]).videos
    frozenset({'-JUT3czS6OI'})
    """
    speakers, videos, utterances = set(), set(), set()
    for text in _ids(entries):
        if is_speaker_id(text):
            speakers.add(text)
        elif is_video_id(text):
            videos.add(text)
        elif name := utterance_name(text):
            utterances.add(name)
    return PurgedIds(frozenset(speakers), frozenset(videos), frozenset(utterances))


def _is_id(text: str) -> bool:
    return is_speaker_id(text) or is_video_id(text) or utterance_name(text) is not None


def _ids(entries: Iterable[str]) -> Iterator[str]:
    for entry in entries:
        if _is_id(entry):
            yield entry
            continue
        try:
            text = Path(entry).read_text(encoding="utf-8-sig")
        except (OSError, ValueError) as error:
            raise SelectionError(
                f"{entry!r} is neither an id nor a readable text file of ids ({error}). Speaker "
                "ids look like id000002, video ids have 11 characters, utterances are named "
                "speaker/video/utterance."
            ) from error
        ids = [word for line in text.splitlines() for word in line.partition("#")[0].split()]
        wrong = next((word for word in ids if not _is_id(word)), None)
        if wrong is not None or not ids:
            problem = f"has {wrong!r}, which is not" if wrong else "does not have"
            raise SelectionError(f"The file {entry} {problem} the id of anything to purge.")
        yield from ids


def known_videos(store: Store) -> pa.Table:
    """Return the videos that a store knows, by its index and its ledger: once or more often."""
    tables = [Index(store.index).videos()] if store.index.exists() else []
    if store.ledger.exists():
        for config in CONFIG_NAMES:
            with Ledger(store.ledger, config, readonly=True) as ledger:
                tables.append(ledger.planned_videos())
    empty = pa.schema([(name, pa.string()) for name in KEY_COLUMNS]).empty_table()
    return pa.concat_tables([empty, *(table.select(KEY_COLUMNS) for table in tables)])


def all_ids(store: Store, ids: PurgedIds) -> PurgedIds:
    """Return ids with those of the videos of each speaker, but for videos of other speakers too."""
    if not ids.speakers:
        return ids
    videos = known_videos(store)
    is_purged = pc.is_in(videos["speaker_id"], pa.array(sorted(ids.speakers)))
    theirs, others = (
        set(pc.unique(videos["video_id"].filter(which)).to_pylist())
        for which in (is_purged, pc.invert(is_purged))
    )
    return ids._replace(videos=ids.videos | (theirs - others))


def unknown_ids(store: Store, ids: PurgedIds) -> list[str]:
    """Return the ids that a store does not know, sorted; of an utterance, its video counts."""
    videos = known_videos(store)
    speakers, names = (set(pc.unique(videos[name]).to_pylist()) for name in KEY_COLUMNS)
    unknown = {*(ids.speakers - speakers), *(ids.videos - names)}
    unknown.update(name for name in ids.utterances if name.split("/")[1] not in names)
    return sorted(unknown)
