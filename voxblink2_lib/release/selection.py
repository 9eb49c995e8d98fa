"""Selection, id lists, and the choice of videos."""

from __future__ import annotations

import hashlib
import itertools
import logging
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Literal
from weakref import WeakValueDictionary

import pyarrow as pa
import pyarrow.compute as pc

from voxblink2_lib.errors import SelectionError
from voxblink2_lib.records import (
    VideoKey,
    check_options,
    is_speaker_id,
    is_video_id,
    option,
    whole_number,
)
from voxblink2_lib.release.index import KEY_COLUMNS, Index, video_keys
from voxblink2_lib.release.tombstones import Tombstones

_log = logging.getLogger(__name__)

Ids = str | os.PathLike[str] | Iterable[str] | None
IdKind = Literal["speakers", "videos", "both"]
_NAMES: dict[IdKind, str] = {
    "speakers": "speaker id",
    "videos": "video id",
    "both": "speaker or video id",
}

# A load reads its files of ids more than once, and a million ids take a second: those in use, by
# the digest of their text.
_read_before: WeakValueDictionary[tuple[bytes, IdKind], frozenset[str]] = WeakValueDictionary()

# -- Lists of ids ---------------------------------------------------------------------------------


def read_ids(ids: Ids, *, argument: str, kinds: IdKind) -> frozenset[str]:
    """Read speaker and video ids from a list, from a single text, or from a file.

    Args:
        ids: ids; or the path of a text file with ids separated by white space, in which ``#``
            begins a comment; as videos also the lists of the release, ``spk2videos`` and
            ``utt_clean.txt``. ``None`` gives an empty set.
        argument: the name to use in messages.
        kinds: which ids are allowed.

    Returns:
        The ids.

    Raises:
        SelectionError: a text is neither an allowed id nor a readable file of ids, or there is no
            id at all where some are required.
    """
    if ids is None:
        return frozenset()
    if isinstance(ids, bytes) or not isinstance(ids, str | os.PathLike | Iterable):
        raise SelectionError(f"{argument} must be ids or files of ids, got {ids!r}.")
    entries = [ids] if isinstance(ids, (str, os.PathLike)) else ids
    parts = [_read_entry(entry, argument=argument, kinds=kinds) for entry in entries]
    collected = parts[0] if len(parts) == 1 else frozenset(itertools.chain(*parts))
    if not collected and kinds != "both":
        raise SelectionError(
            f"{argument}: there is no {_NAMES[kinds]} in {ids!r}. "
            f"Leave out {argument} to select all."
        )
    return collected


def _read_entry(entry: str | os.PathLike[str], *, argument: str, kinds: IdKind) -> frozenset[str]:
    """Read an id, or a file of ids."""
    if not isinstance(entry, str | os.PathLike):
        raise SelectionError(f"{argument} must be ids or files of ids, got {entry!r} among them.")
    if not (isinstance(entry, str) and _is_id(entry, kinds)):
        return _read_file(os.fspath(entry), argument=argument, kinds=kinds)
    if kinds == "both" and os.path.isfile(entry):
        raise SelectionError(
            f"{argument}: {entry!r} is both a video id and a file in this folder. Write "
            f"{os.path.join('.', entry)!r} for the file, or run this in another folder."
        )
    return frozenset({entry})


def _is_id(text: str, kinds: IdKind) -> bool:
    return (kinds != "videos" and is_speaker_id(text)) or (
        kinds != "speakers" and is_video_id(text)
    )


def _read_file(name: str, *, argument: str, kinds: IdKind) -> frozenset[str]:
    try:
        text = Path(name).read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:  # ValueError: not UTF-8, or a NUL in the name
        raise SelectionError(
            f"{argument}: {name!r} is neither a {_NAMES[kinds]} nor a readable text file of ids "
            f"({error}). Speaker ids look like id000002, video ids have 11 characters."
        ) from error
    key = hashlib.sha256(text.encode()).digest(), kinds
    ids = _read_before.get(key)
    if ids is None:
        ids = _read_before[key] = frozenset(_ids_in(text, name, argument=argument, kinds=kinds))
    return ids


def _ids_in(text: str, name: str, *, argument: str, kinds: IdKind) -> Iterator[str]:
    for number, line in enumerate(text.splitlines(), start=1):
        for token in _tokens(line.partition("#")[0].split(), kinds):
            if not _is_id(token, kinds):
                raise SelectionError(
                    f"{argument}: line {number} of {name} has {token!r}, "
                    f"which is not a {_NAMES[kinds]}."
                )
            yield token


def _tokens(words: list[str], kinds: IdKind) -> Iterator[str]:
    """Yield the ids of a line; of videos, also in the form of the release's own lists."""
    is_of_speaker = kinds == "videos" and len(words) > 1 and is_speaker_id(words[0])  # spk2videos
    for word in words[1:] if is_of_speaker else words:
        speaker, *names = word.split("/")
        is_utterance = kinds == "videos" and len(names) == 2 and is_speaker_id(speaker)
        yield names[0] if is_utterance else word


# -- Selection ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Selection:
    """Which part of the release to materialize. The default is all of it.

    First the named speakers and videos are selected, then exclusions apply, then the limits.

    Raises:
        SelectionError: a limit is not allowed.
    """

    speakers: frozenset[str] = option(
        frozenset(),
        "only these speakers: ids, or text files of ids",
        default="all",
        metavar="ID|FILE",
        values="list",
    )
    videos: frozenset[str] = option(
        frozenset(),
        "only these videos: ids, or text files of ids",
        default="all",
        metavar="ID|FILE",
        values="list",
    )
    exclude: frozenset[str] = option(
        frozenset(),
        "speakers and videos to leave out: ids, or text files of ids",
        metavar="ID|FILE",
        values="list",
    )
    max_speakers: int | None = option(
        None,
        "only the first N speakers, ordered by id",
        default="all",
        parse=int,
        metavar="N",
        rule=whole_number(1),
    )
    max_videos_per_speaker: int | None = option(
        None,
        "only the first N videos of each speaker, ordered by id",
        default="all",
        parse=int,
        metavar="N",
        rule=whole_number(1),
    )

    def __post_init__(self) -> None:
        check_options(self, SelectionError)

    @classmethod
    def of(
        cls,
        *,
        speakers: Ids = None,
        videos: Ids = None,
        exclude: Ids = None,
        **limits: int | None,
    ) -> Selection:
        """Make a selection from what users write: lists, single ids or files of ids.

        Example:
            >>> Selection.of(speakers=["id000002"], max_videos_per_speaker=3).speakers
            frozenset({'id000002'})
        """
        return cls(
            speakers=read_ids(speakers, argument="speakers", kinds="speakers"),
            videos=read_ids(videos, argument="videos", kinds="videos"),
            exclude=read_ids(exclude, argument="exclude", kinds="both"),
            **limits,
        )


# -- Choice of videos -----------------------------------------------------------------------------


def select(index: Index, selection: Selection) -> tuple[pa.Table, pa.Table]:
    """Apply a selection: first the named speakers and videos, then exclusions, then limits.

    Args:
        index: the index.
        selection: what to keep.

    Returns:
        The selected videos, and those that ``exclude`` leaves out, both sorted: columns
        ``speaker_id``, ``video_id`` and ``digest``.

    Raises:
        SelectionError: a named speaker or video is not in the release, or nothing is left.
    """
    return select_of(index.videos(), left_of(selection, index.folder.parent))


def left_of(selection: Selection, store: Path) -> Selection:
    """Return a selection without the ids of what was purged from a store.

    Args:
        selection: what is selected.
        store: folder of the store.

    Raises:
        SelectionError: all named speakers, or all named videos, were purged.
    """
    tombstones = Tombstones.of(store)
    if not tombstones:
        return selection
    speakers, videos = (
        _left(ids, name, tombstones, store)
        for name, ids in (("speakers", selection.speakers), ("videos", selection.videos))
    )
    return replace(selection, speakers=speakers, videos=videos)


def _left(ids: frozenset[str], name: str, tombstones: Tombstones, store: Path) -> frozenset[str]:
    purged = {text for text in ids if tombstones.mentioned_in(text)}
    if not purged:
        return ids
    if purged == ids:
        raise SelectionError(
            f"All {len(ids)} requested {name} were purged from the store {store}. Request others."
        )
    _report_purged(store, name, len(purged), len(ids))
    return ids - purged


@lru_cache(maxsize=64)  # a run selects more than once
def _report_purged(store: Path, name: str, purged: int, requested: int) -> None:
    _log.warning(
        "%d of the %d requested %s were purged from the store %s, and are left out.",
        purged,
        requested,
        name,
        store,
    )


def select_of(
    videos: pa.Table, selection: Selection, *, where: str = "the release"
) -> tuple[pa.Table, pa.Table]:
    """Apply a selection to some videos, as :func:`select` does to those of an index.

    Args:
        videos: columns ``speaker_id`` and ``video_id``, sorted by both, and others.
        selection: what to keep.
        where: what has them, for messages.

    Raises:
        SelectionError: see :func:`select`.
    """
    table = videos
    for column, requested in (("speaker_id", selection.speakers), ("video_id", selection.videos)):
        if requested:
            _require(table, column, requested, where)
            table = table.filter(pc.is_in(table[column], pa.array(list(requested))))
    left_out = table.slice(0, 0)
    if selection.exclude:
        # Of a million names few are of speakers, and each is looked up for every video.
        speakers = selection.exclude.intersection(pc.unique(table["speaker_id"]).to_pylist())
        is_named = pc.or_(
            *(
                pc.is_in(table[column], pa.array(list(names), pa.string()))
                for column, names in zip(KEY_COLUMNS, (speakers, selection.exclude), strict=True)
            )
        )
        table, left_out = table.filter(pc.invert(is_named)), table.filter(is_named)
    table = _limit(table, selection)
    if not len(table):
        raise SelectionError(
            f"The selection matches none of the {len(videos):,} videos of {where}. "
            "Widen it: change speakers, videos or exclude."
        )
    return table, left_out


def count_selected(index: Index, selection: Selection) -> int:
    """Return how many videos :func:`select` would keep, without reading all to count them."""
    return index.info.videos if selection == Selection() else len(select(index, selection)[0])


def selected_keys(index: Index, selection: Selection) -> Iterator[VideoKey]:
    """Return the keys of the videos that :func:`select` would keep; of all, one after the other."""
    return index.keys() if selection == Selection() else video_keys(select(index, selection)[0])


def _require(table: pa.Table, column: str, requested: frozenset[str], where: str) -> None:
    known = set(pc.unique(table[column]).to_pylist())
    unknown = sorted(requested - known)
    if unknown:
        examples = ", ".join(unknown[:5]) + (", ..." if len(unknown) > 5 else "")
        kind = column.removesuffix("_id")
        raise SelectionError(
            f"{len(unknown)} of the {len(requested)} requested {kind}s are not in {where}, or "
            f"not in the rest of the selection: {examples}. {where.capitalize()} has {len(known)} "
            f"{kind}s; check the ids."
        )


def _limit(table: pa.Table, selection: Selection) -> pa.Table:
    if selection.max_speakers is not None:
        speakers = pc.unique(table["speaker_id"]).slice(0, min(selection.max_speakers, len(table)))
        table = table.filter(pc.is_in(table["speaker_id"], speakers))
    if selection.max_videos_per_speaker is not None:
        keep: list[bool] = []
        previous, count = None, 0
        for speaker in table["speaker_id"].to_pylist():
            count = count + 1 if speaker == previous else 1
            previous = speaker
            keep.append(count <= selection.max_videos_per_speaker)
        table = table.filter(pa.array(keep, pa.bool_()))
    return table
