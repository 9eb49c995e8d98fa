"""What a data set will have, and what it is made of, as its record says it."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Any, NamedTuple, cast

import pyarrow.compute as pc
from datasets import Features

from voxblink2_lib import __version__
from voxblink2_lib.export.contents import listed_rows
from voxblink2_lib.hub.record import PublishedConfig, SplitSize
from voxblink2_lib.media.options import ClipOptions
from voxblink2_lib.records import SAMPLE_RATE_HZ, ConfigName
from voxblink2_lib.release.index import Index
from voxblink2_lib.release.speaker_index import SpeakerIndex
from voxblink2_lib.release.tombstones import Tombstones
from voxblink2_lib.store.clip_format import read_versions
from voxblink2_lib.store.joined_columns import JoinedColumns
from voxblink2_lib.store.layout import Store
from voxblink2_lib.store.status import open_ledger
from voxblink2_lib.store.view import View

# ISO 639, as the Hub takes them.
_LANGUAGE = re.compile(r"[a-z]{2,3}")


class PublishedRows(NamedTuple):
    """The rows of a data set.

    Attributes:
        views: those of each split.
        columns: what is joined to them.
        features: the types of all columns.
    """

    views: Mapping[str, View]
    columns: JoinedColumns
    features: Features


def described(
    store: Store,
    config: str,
    view: View,
    rows: PublishedRows,
    *,
    selection: Mapping[str, Any],
    options: Mapping[str, Any],
) -> PublishedConfig:
    """Return what the record says of a configuration, with files of no size yet.

    Args:
        store: the store.
        config: the configuration.
        view: all rows.
        rows: how they are split, and their columns.
        selection: which part of the store that is, as JSON.
        options: what else decides which rows and columns there are.
    """
    shards = {part.shard.name: part.shard.sha256 for part in view.shards}
    present, hours = _present(store, config, view)
    splits = {
        name: SplitSize(sum(part.rows for part in split.shards), 0)
        for name, split in rows.views.items()
    }
    return PublishedConfig(
        made_by=f"voxblink2 {__version__}",
        store=hashlib.sha256("\n".join(sorted(shards.values())).encode()).hexdigest(),
        shards=shards,
        selection=selection,
        options=options,
        splits=splits,
        present=present,
        hours=hours,
        purged=len(Tombstones.of(store.root).stones),
        features=rows.features.to_dict(),
        languages=_languages(store, rows.columns),
        **_of_annotations(store),
        **_of_ledger(store, config),
    )


def _of_annotations(store: Store) -> dict[str, Any]:
    if not store.index.exists():
        return {"annotations": "", "annotated": {}}
    info = Index(store.index).info
    counts = {"speakers": info.speakers, "videos": info.videos, "utterances": info.utterances}
    return {"annotations": info.fingerprint, "annotated": counts}


def _of_ledger(store: Store, config: str) -> dict[str, Any]:
    with open_ledger(store, config) as ledger:
        settings = {
            name: ledger.setting(name) for name in ClipOptions.names(cast(ConfigName, config))
        }
        return {
            "outcomes": dict(ledger.statistics.videos()),
            "missing_utterances": ledger.statistics.missing_utterances(),
            "settings": {name: value for name, value in settings.items() if value},
            "made_with": list(read_versions(ledger)),
        }


def _present(store: Store, config: str, view: View) -> tuple[dict[str, int], float]:
    """Return how many speakers, videos and utterances there are, and how many hours."""
    speakers: set[str] = set()
    videos: set[str] = set()  # of cut audio, one may be in more than one shard
    utterances = samples = 0
    for _, rows in listed_rows(store, config, view):
        speaker, video = (rows[name].cast("string") for name in ("speaker_id", "video_id"))
        speakers.update(pc.unique(speaker).to_pylist())
        videos.update(pc.unique(pc.binary_join_element_wise(speaker, video, "/")).to_pylist())
        utterances += len(rows)
        samples += int(pc.sum(rows["samples"]).as_py())
    counts = {"speakers": len(speakers), "videos": len(videos), "utterances": utterances}
    return counts, round(samples / SAMPLE_RATE_HZ / 3600, 4)


def _languages(store: Store, columns: JoinedColumns) -> list[str]:
    """Return the codes of languages that the transcripts name, sorted."""
    named = SpeakerIndex(store.index).languages() if columns.info is not None else set()
    return sorted(name for name in named if _LANGUAGE.fullmatch(name))
