"""User options of a run, validated on construction."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from voxblink2_lib.cores import usable_cores
from voxblink2_lib.errors import SelectionError
from voxblink2_lib.materialize.slurm import SLURM, slice_of_array
from voxblink2_lib.media.options import ClipOptions
from voxblink2_lib.published.place import is_url
from voxblink2_lib.published.slices import slice_place
from voxblink2_lib.records import (
    CONFIG_NAMES,
    ConfigName,
    Option,
    Rule,
    check_options,
    option,
    options_of,
    whole_number,
)
from voxblink2_lib.release.selection import Selection
from voxblink2_lib.sources.options import FetchOptions
from voxblink2_lib.store.job_slices import JobSlice

_NAME = Rule(
    "a text that is not empty, without NUL",
    lambda value: isinstance(value, str) and bool(value.strip()) and "\0" not in value,
)
_MAX_WORKERS = 1024
_MAX_DEFAULT_WORKERS = 8


@dataclass(frozen=True, slots=True)
class MaterializeRequest:
    """What to materialize, from where, into which store.

    Attributes:
        selection: which part of the release.
        clips: the options of :class:`ClipOptions` that are given. The others are as the store
            holds them, and in a new store the defaults.
        fetch: how media are downloaded.

    Raises:
        SelectionError: a value is not allowed, or would change nothing.
    """

    config: ConfigName = option(
        "audio", "audio, or audio with the speaker's face as video", choices=CONFIG_NAMES
    )
    data_dir: str | None = option(
        None,
        "the release: a folder or vb2_meta.tar.gz, also at a URL such as s3://bucket/release or "
        "hf://datasets/USER/REPO, or demo for the built-in release",
        default="$VOXBLINK2_RELEASE",
        metavar="RELEASE",
        rule=_NAME,
    )
    source: str | None = option(
        None,
        "where media are: youtube, a URL with {video_id}, a folder of media named "
        "<speaker>/<video>.<ext>, or cut audio: the parts of the authors' archive (their folder, "
        "or the first), a tar, either at a URL too (s3://, hf://, https://), or a folder of files "
        "<speaker>/<video>/<utterance>.<ext>",
        default="youtube, or the media of the built-in release",
        metavar="SOURCE",
        rule=_NAME,
        may_be_secret=True,
    )
    store: str | None = option(
        None,
        "folder of index, ledger and shards, or a URL to publish it at, such as s3://bucket/store",
        default="one for each release under $VOXBLINK2_HOME or the user's cache folder",
        metavar="DIR|URL",
        rule=_NAME,
    )
    scratch: str | None = option(
        None,
        "folder in which a store at a URL is made, on a local disk; runs go on in it",
        default="one for each URL under $VOXBLINK2_HOME or the user's cache folder",
        metavar="DIR",
        rule=_NAME,
    )
    shard_of_jobs: str | None = option(
        None,
        "make one slice of the corpus, such as 3/64, on a machine that shares nothing with others "
        "but the store, a URL or a folder; slurm: the slice of this task of an array job",
        default="all of it",
        metavar="K/N",
        rule=_NAME,
    )
    workers: int | None = option(
        None,
        "worker processes",
        default=f"one for each core that the process may use, at most {_MAX_DEFAULT_WORKERS}",
        parse=int,
        metavar="N",
        rule=whole_number(1, _MAX_WORKERS),
    )
    clips: Mapping[str, Any] = field(default_factory=dict)
    selection: Selection = field(default_factory=Selection)
    fetch: FetchOptions = field(default_factory=FetchOptions)

    def __post_init__(self) -> None:
        check_options(self, SelectionError)
        self._find_slice()
        if self.scratch is not None and not is_url(self.store):
            raise SelectionError(
                "scratch would change nothing: only a store at a URL is made in another folder. "
                "Leave it out, or name a URL as the store."
            )
        ClipOptions(**self.clips)
        useless = self.clips.keys() - set(ClipOptions.names(self.config))
        if useless:
            raise SelectionError(
                f"{', '.join(sorted(useless))} would change nothing in the configuration "
                f"{self.config!r}. Leave it out, or choose 'audio-visual'."
            )

    def _find_slice(self) -> None:
        """Let the store be that of the slice: a published store of its own, below the whole one."""
        named = self.shard_of_jobs
        if named is None:
            return
        if self.store is None:
            raise SelectionError(
                "shard_of_jobs needs a store that all machines see. Name a URL or a folder with "
                "--store (store=...)."
            )
        job_slice = slice_of_array(os.environ) if named == SLURM else JobSlice.parse(named)
        object.__setattr__(self, "shard_of_jobs", str(job_slice))
        object.__setattr__(self, "store", slice_place(self.store, job_slice))

    @classmethod
    def of(cls, **given: Any) -> MaterializeRequest:
        """Make a request from what users write: keywords of ``load_dataset``, or parsed arguments.

        Args:
            given: any of :func:`user_options` by its name; ``None`` means left out.

        >>> request = MaterializeRequest.of(data_dir="demo", speakers="id990001", video_size=None)
        >>> request.selection.speakers, request.clips
        (frozenset({'id990001'}), {})
        """
        values = {name: value for name, value in given.items() if value is not None}

        def take(record: type) -> dict[str, Any]:
            return {name: values.pop(name) for name in options_of(record) if name in values}

        own = {
            name: os.fspath(value) if isinstance(value, os.PathLike) else value
            for name, value in take(cls).items()
        }
        clips = take(ClipOptions)
        selection = Selection.of(**take(Selection))
        return cls(**own, clips=clips, selection=selection, fetch=FetchOptions.of(**values))

    @property
    def with_faces(self) -> bool:
        """Whether faces are cropped as well as audio."""
        return self.config == "audio-visual"

    @property
    def worker_count(self) -> int:
        """Number of worker processes."""
        return self.workers or min(_MAX_DEFAULT_WORKERS, usable_cores())


# What a retry takes over from the last run of a store, and what a run does.
FETCHING: tuple[str, ...] = ("source", "workers", *FetchOptions.names())
EVERYTHING: tuple[str, ...] = ("data_dir", *options_of(Selection), *FETCHING)


def user_options() -> dict[str, Option]:
    """Return every option of users by its name, as :meth:`MaterializeRequest.of` takes them."""
    records = (MaterializeRequest, ClipOptions, Selection, FetchOptions)
    return {name: entry for record in records for name, entry in options_of(record).items()}
