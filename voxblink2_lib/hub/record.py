"""The file of a data set for others that says what it was made of: ``voxblink2-dataset.json``.

The card is made of it, and the next publication compares itself with it. It has no path of the
machine that published: anybody may read it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from voxblink2_lib.errors import ExportError
from voxblink2_lib.foreign_files import as_own_error, shortened
from voxblink2_lib.published.hub import DATA_SET_RECORD

_FORMAT = 1


@dataclass(frozen=True, slots=True)
class SplitSize:
    """How large a split is."""

    utterances: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class PublishedConfig:
    """What a data set has of one configuration, and what it was made of.

    Attributes:
        made_by: version of this package.
        store: digest of the shards of the store that have any of its rows.
        shards: their SHA-256 by name.
        annotations: fingerprint of the store's annotations; empty if it has none.
        annotated: number of speakers, videos and utterances in them, by these words.
        selection: which part of the store, see ``export.manifest.selection_record``.
        options: what else decides which rows and columns there are.
        splits: how large each is.
        present: number of speakers, videos and utterances in it, by these words.
        hours: length of its clips.
        outcomes: number of the store's videos by their class.
        missing_utterances: that could not be cropped from videos that came.
        purged: how many ids were taken out of the store for good.
        features: types of the columns, as ``datasets`` writes them.
        languages: codes of the languages that the transcripts name.
        settings: how clips were cropped and encoded.
        made_with: versions of the decoders.
    """

    made_by: str
    store: str
    shards: Mapping[str, str]
    annotations: str
    annotated: Mapping[str, int]
    selection: Mapping[str, Any]
    options: Mapping[str, Any]
    splits: Mapping[str, SplitSize]
    present: Mapping[str, int]
    hours: float
    outcomes: Mapping[str, int]
    missing_utterances: int
    purged: int
    features: Mapping[str, Any]
    languages: Sequence[str] = ()
    settings: Mapping[str, str] = field(default_factory=dict)
    made_with: Sequence[str] = ()

    @property
    def size_bytes(self) -> int:
        """Size of all of its files."""
        return sum(split.size_bytes for split in self.splits.values())

    @property
    def utterances(self) -> int:
        """Number of rows."""
        return self.present["utterances"]


Record = Mapping[str, PublishedConfig]


def record_as_json(record: Record) -> bytes:
    """Return the content of the file."""
    configs = {name: asdict(config) for name, config in sorted(record.items())}
    return f"{json.dumps({'format': _FORMAT, 'configs': configs}, indent=1)}\n".encode()


def read_record(content: bytes | None, place: str) -> Record:
    """Return what the file of a data set says; nothing if there is none.

    Args:
        content: of the file.
        place: the data set, for messages.

    Raises:
        ExportError: it is damaged, or of a later version.
    """
    if content is None:
        return {}
    advice = "Name another data set, or delete this one."
    what = f"The file {DATA_SET_RECORD} of {place} cannot be used"
    with as_own_error(ExportError, what, advice):
        read = json.loads(content)
        if read["format"] != _FORMAT:
            raise ValueError(f"it has format {shortened(read['format'])}, expected is {_FORMAT}")
        return {name: _config(values) for name, values in read["configs"].items()}


def _config(values: dict[str, Any]) -> PublishedConfig:
    splits = {name: SplitSize(**size) for name, size in values.pop("splits").items()}
    return PublishedConfig(**values, splits=splits)
