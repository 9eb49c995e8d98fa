"""What one run is asked to do, validated on construction."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, fields
from typing import Any

from voxblink2_lib.errors import SelectionError, StoreError
from voxblink2_lib.media.options import ClipOptions
from voxblink2_lib.records import (
    CONFIG_NAMES,
    AudioFormat,
    ConfigName,
    WindowShape,
)
from voxblink2_lib.release.selection import Selection
from voxblink2_lib.sources.options import FetchOptions


@dataclass(frozen=True, slots=True)
class MaterializeRequest:
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
