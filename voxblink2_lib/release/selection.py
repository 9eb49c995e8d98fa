"""Selection, id lists, and the choice of videos."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc

from voxblink2_lib.errors import SelectionError
from voxblink2_lib.records import (
    is_speaker_id,
    is_video_id,
)
from voxblink2_lib.release.index import KEY_COLUMNS, Index

_WHAT = {"speakers": "a speaker id", "videos": "a video id", "both": "a speaker or video id"}
Ids = str | os.PathLike[str] | Iterable[str] | None


def read_ids(
    ids: Ids, *, argument: str, kinds: Literal["speakers", "videos", "both"]
) -> frozenset[str]:
    """Read speaker and video ids from a list, from one text, or from a file.

    Args:
        ids: ids; or the path of a text file with ids separated by white space, in which ``#``
            begins a comment. ``None`` gives an empty set.
        argument: the name to use in messages.
        kinds: which ids are allowed.

    Returns:
        The ids.

    Raises:
        SelectionError: a text is neither an allowed id nor a file.
    """
    if ids is None:
        return frozenset()
    found: set[str] = set()
    for value in [ids] if isinstance(ids, (str, os.PathLike)) else ids:
        if isinstance(value, str) and _is_id(value, kinds):
            if kinds == "both" and os.path.isfile(value):
                raise SelectionError(
                    f"{argument}: {value!r} is a video id and a file here. Write the file as "
                    f"{os.path.join('.', value)!r}, or run this in another folder."
                )
            found.add(value)
        else:
            found |= _ids_of_file(os.fspath(value), argument=argument, kinds=kinds)
    if not found and kinds != "both":
        raise SelectionError(
            f"{argument}: there is {_WHAT[kinds].replace('a ', 'no ', 1)} in {ids!r}. "
            f"Leave {argument} out to take all."
        )
    return frozenset(found)


def _is_id(text: str, kinds: str) -> bool:
    return (kinds != "videos" and is_speaker_id(text)) or (
        kinds != "speakers" and is_video_id(text)
    )


def _ids_of_file(name: str, *, argument: str, kinds: str) -> set[str]:
    try:
        text = Path(name).read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:  # ValueError: not UTF-8, or a NUL in the name
        raise SelectionError(
            f"{argument}: {name!r} is neither {_WHAT[kinds]} nor a readable text file of ids "
            f"({error}). Speaker ids look like id000002, video ids have 11 characters."
        ) from error
    found: set[str] = set()
    for number, line in enumerate(text.splitlines(), start=1):
        for token in line.partition("#")[0].split():
            if not _is_id(token, kinds):
                raise SelectionError(
                    f"{argument}: line {number} of {name} has {token!r}, "
                    f"which is not {_WHAT[kinds]}."
                )
            found.add(token)
    return found


@dataclass(frozen=True, slots=True)
class Selection:
    """Which part of the release is wanted. The default is all of it.

    Attributes:
        speakers: only these speakers.
        videos: only these videos.
        exclude: speakers and videos to leave out; applied before the limits.
        max_speakers: the first so many speakers, in order of their ids.
        max_videos_per_speaker: the first so many videos of each, in order of their ids.
    """

    speakers: frozenset[str] = frozenset()
    videos: frozenset[str] = frozenset()
    exclude: frozenset[str] = frozenset()
    max_speakers: int | None = None
    max_videos_per_speaker: int | None = None

    def __post_init__(self) -> None:
        for name in ("max_speakers", "max_videos_per_speaker"):
            limit = getattr(self, name)
            if limit is not None and (type(limit) is not int or limit < 1):
                raise SelectionError(f"{name} must be a whole number of 1 or more, got {limit!r}.")

    @classmethod
    def of(
        cls,
        *,
        speakers: Ids = None,
        videos: Ids = None,
        exclude: Ids = None,
        max_speakers: int | None = None,
        max_videos_per_speaker: int | None = None,
    ) -> Selection:
        """Make a selection from what users write: lists, single ids or files of ids.

        Example:
            >>> Selection.of(speakers=["id000002"], max_videos_per_speaker=3).max_speakers
        """
        return cls(
            speakers=read_ids(speakers, argument="speakers", kinds="speakers"),
            videos=read_ids(videos, argument="videos", kinds="videos"),
            exclude=read_ids(exclude, argument="exclude", kinds="both"),
            max_speakers=max_speakers,
            max_videos_per_speaker=max_videos_per_speaker,
        )


def select(index: Index, selection: Selection) -> tuple[pa.Table, pa.Table]:
    """Apply a selection: first the named speakers and videos, then exclusions, then limits.

    Args:
        index: the index.
        selection: what to keep.

    Returns:
        The videos that are wanted, and those that ``exclude`` leaves out, both sorted: columns
        ``speaker_id``, ``video_id`` and ``digest``.

    Raises:
        SelectionError: a named speaker or video is not in the release, or nothing is left.
    """
    table = index.videos()
    for column, wanted in (("speaker_id", selection.speakers), ("video_id", selection.videos)):
        if wanted:
            _require(table, column, wanted)
            table = table.filter(pc.is_in(table[column], pa.array(sorted(wanted))))
    left_out = table.slice(0, 0)
    if selection.exclude:
        names = pa.array(sorted(selection.exclude))
        is_named = pc.or_(*(pc.is_in(table[column], names) for column in KEY_COLUMNS))
        table, left_out = table.filter(pc.invert(is_named)), table.filter(is_named)
    table = _limit(table, selection)
    if not len(table):
        raise SelectionError(
            f"The selection leaves nothing of the release's {index.info.videos} videos. "
            "Widen it: speakers, videos and exclude decide what is left."
        )
    return table, left_out


def _require(table: pa.Table, column: str, wanted: frozenset[str]) -> None:
    known = set(pc.unique(table[column]).to_pylist())
    unknown = sorted(wanted - known)
    if unknown:
        some = ", ".join(unknown[:5]) + (", ..." if len(unknown) > 5 else "")
        kind = column.removesuffix("_id")
        raise SelectionError(
            f"{len(unknown)} of the {len(wanted)} {kind}s asked for are not in the release "
            f"(or not among the other things asked for): {some}. The release has "
            f"{len(known)} {kind}s; check the ids."
        )


def _limit(table: pa.Table, selection: Selection) -> pa.Table:
    if selection.max_speakers is not None:
        speakers = pc.unique(table["speaker_id"]).slice(0, selection.max_speakers)
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
