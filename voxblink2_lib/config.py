"""What a user may choose, one frozen record a stage, checked where it is made."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, get_args

from voxblink2_lib.errors import SelectionError, StoreError
from voxblink2_lib.fetch_options import FetchOptions
from voxblink2_lib.records import (
    AUDIO_FORMATS,
    WINDOW_SHAPES,
    AudioFormat,
    WindowShape,
    is_speaker_id,
    is_video_id,
)

ConfigName = Literal["audio", "audio-visual"]
CONFIG_NAMES: tuple[str, ...] = get_args(ConfigName)

_VIDEO_SIZES = range(32, 1025, 2)
_MAX_MARGIN = 2.0
_CRFS = range(52)

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


@dataclass(frozen=True, slots=True)
class ClipOptions:
    """How clips are cut and encoded. A store keeps what it began with.

    Attributes:
        audio_format: ``"flac"``, ``"wav"`` or ``"opus"``.
        video_size: width and height of the faces in pixels, even, from 32 to 1024.
        video_margin: what to add around a box, as a part of its width and height on each side,
            0 to 2.
        video_shape: ``"square"`` widens the shorter side of a box, ``"stretched"`` cuts the box
            and distorts it.
        video_crf: x264's quality, 0 (lossless) to 51 (worst).

    Raises:
        SelectionError: one of them is not allowed.
    """

    audio_format: AudioFormat = "flac"
    video_size: int = 112
    video_margin: float = 0.0
    video_shape: WindowShape = "square"
    video_crf: int = 20

    def __post_init__(self) -> None:
        if self.audio_format not in AUDIO_FORMATS:
            raise SelectionError(
                f"audio_format {self.audio_format!r} is not supported. "
                f"Supported formats are {', '.join(AUDIO_FORMATS)}."
            )
        if type(self.video_size) is not int or self.video_size not in _VIDEO_SIZES:
            raise SelectionError(
                f"video_size must be an even number of pixels from {_VIDEO_SIZES[0]} to "
                f"{_VIDEO_SIZES[-1]}, got {self.video_size!r}."
            )
        if type(self.video_margin) not in {int, float} or not 0 <= self.video_margin <= _MAX_MARGIN:
            raise SelectionError(
                f"video_margin must be a number from 0 to {_MAX_MARGIN:g}, a part of the box's "
                f"size, got {self.video_margin!r}."
            )
        if self.video_shape not in WINDOW_SHAPES:
            raise SelectionError(
                f"video_shape {self.video_shape!r} is not supported. "
                f"Supported shapes are {', '.join(WINDOW_SHAPES)}."
            )
        if type(self.video_crf) is not int or self.video_crf not in _CRFS:
            raise SelectionError(
                f"video_crf must be a whole number from {_CRFS[0]} (lossless) to {_CRFS[-1]}, "
                f"got {self.video_crf!r}."
            )

    @classmethod
    def names(cls, config: ConfigName) -> tuple[str, ...]:
        """Return the names of the options that a configuration has."""
        every = tuple(one.name for one in fields(cls))
        return every if config == "audio-visual" else every[:1]


@dataclass(frozen=True, slots=True)
class MaterializeConfig:
    """All that one run needs to know.

    Attributes:
        config: which configuration of the dataset.
        data_dir: the release; ``None`` means ``VOXBLINK2_RELEASE``, ``"demo"`` the built-in one.
        source: where media come from; ``None`` means YouTube, and for the demo its own media.
        store: folder of the index, ledger and shards; ``None`` means one for this release
            under ``VOXBLINK2_HOME`` or the user's cache folder.
        selection: which part of the release.
        audio_format, video_size, video_margin, video_shape, video_crf: see
            :class:`ClipOptions`; ``None`` means as the store holds them, and the default in a
            new one.
        workers: processes that cut; ``None`` means one for each core, at most 8.
        fetch: how media are asked for over the network.
    """

    config: ConfigName = "audio"
    data_dir: str | None = None
    source: str | None = None
    store: str | None = None
    selection: Selection = field(default_factory=Selection)
    audio_format: AudioFormat | None = None
    video_size: int | None = None
    video_margin: float | None = None
    video_shape: WindowShape | None = None
    video_crf: int | None = None
    workers: int | None = None
    fetch: FetchOptions = field(default_factory=FetchOptions)

    def __post_init__(self) -> None:
        if self.config not in CONFIG_NAMES:
            raise SelectionError(
                f"There is no configuration {self.config!r}. Available: {', '.join(CONFIG_NAMES)}."
            )
        self._check_clips()
        if self.workers is not None and (type(self.workers) is not int or self.workers < 1):
            raise SelectionError(
                f"workers must be a whole number of 1 or more, got {self.workers!r}."
            )
        for name in ("data_dir", "source", "store"):
            if getattr(self, name) == "":
                raise SelectionError(f"{name} is an empty text. Leave it out, or name something.")
        if self.store is not None and "://" in self.store:
            raise StoreError(f"The store must be a local folder, got {self.store!r}.")

    def _check_clips(self) -> None:
        ClipOptions(**self.clip_options)
        strange = self.clip_options.keys() - set(ClipOptions.names(self.config))
        if strange:
            raise SelectionError(
                f"{', '.join(sorted(strange))} would change nothing in the configuration "
                f"{self.config!r}. Leave it out, or choose 'audio-visual'."
            )

    @property
    def clip_options(self) -> dict[str, Any]:
        """The options of :class:`ClipOptions` that are given."""
        given = {one.name: getattr(self, one.name) for one in fields(ClipOptions)}
        return {name: value for name, value in given.items() if value is not None}

    @property
    def with_faces(self) -> bool:
        """Whether faces are cut as well as sound."""
        return self.config == "audio-visual"

    @property
    def worker_count(self) -> int:
        """Number of worker processes."""
        return self.workers or min(8, os.cpu_count() or 1)
