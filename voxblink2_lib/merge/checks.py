"""Whether stores are of one corpus, and their clips made in one way: only then they are merged."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from voxblink2_lib.errors import StoreError, StoreMismatchError, next_command
from voxblink2_lib.media.options import ClipOptions
from voxblink2_lib.merge.stores import StoreToMerge
from voxblink2_lib.records import CONFIG_NAMES
from voxblink2_lib.release.index import KEY_COLUMNS, Index, video_keys
from voxblink2_lib.release.tombstones import Tombstones
from voxblink2_lib.store.annotations import ANNOTATIONS, NO_ANNOTATIONS
from voxblink2_lib.store.clip_format import CLIP_FORMAT, read_clip_format
from voxblink2_lib.store.ledger import Ledger

_ADVICE = "Nothing was merged."


def check_stores(stores: Sequence[StoreToMerge]) -> None:
    """Refuse stores that cannot be one.

    Raises:
        StoreMismatchError: they are of other corpora, or their clips were made in other ways.
        StoreError: one is to be finished, or repaired, first.
    """
    first, *others = stores
    for each in stores:
        _check_whole(each)
    for each in others:
        _check_clips(first, each)
        _check_corpus(first, each)


def _check_whole(each: StoreToMerge) -> None:
    """Refuse what cannot be merged whatever the others are."""
    for config in CONFIG_NAMES:
        with Ledger(each.ledger, config, readonly=True) as ledger:
            clip_format = read_clip_format(each.store, ledger)
            if clip_format != CLIP_FORMAT:
                raise StoreMismatchError(
                    f"The store {each.place} holds clips of format {clip_format}; this version "
                    f"merges those of format {CLIP_FORMAT}. {_ADVICE}"
                )
            if ledger.cut.open_jobs():
                raise StoreError(
                    f"The archive of the store {each.place} was not read to its end. {_ADVICE} "
                    "Finish that first: run materialize on it again."
                )
            if ledger.reopened.jobs():
                raise StoreError(
                    f"The store {each.place} is being repaired. {_ADVICE} Finish that first with "
                    f"{next_command('repair', store=each.place)}."
                )
    if not Tombstones.of(each.store.root).is_finished:
        raise StoreError(f"The store {each.place} was purged in part. {_ADVICE} Finish that first.")


def _check_clips(first: StoreToMerge, each: StoreToMerge) -> None:
    """Compare how clips were made."""
    for config in CONFIG_NAMES:
        with (
            Ledger(first.ledger, config, readonly=True) as ours,
            Ledger(each.ledger, config, readonly=True) as theirs,
        ):
            for name in _clip_options(config):
                before, after = ours.setting(name), theirs.setting(name)
                if None not in {before, after} and before != after:
                    raise StoreMismatchError(
                        f"The clips of {config} in {first.place} have {name}={before!r}, those in "
                        f"{each.place} have {name}={after!r}. {_ADVICE} Merge stores whose clips "
                        "were made in the same way."
                    )


def _clip_options(config: str) -> tuple[str, ...]:
    return ClipOptions.names("audio-visual" if config == "audio-visual" else "audio")


# -- The corpus ------------------------------------------------------------------------------------


def _check_corpus(first: StoreToMerge, each: StoreToMerge) -> None:
    kinds = [_has_annotations(store) for store in (first, each)]
    if kinds[0] != kinds[1]:
        without = (first, each)[kinds[0]].place
        raise StoreMismatchError(
            f"The store {without} was made of cut audio without annotations, the other with them: "
            f"{first.place} and {each.place} are two corpora. {_ADVICE}"
        )
    if not kinds[0]:
        return
    ours, theirs = Index(first.store.index), Index(each.store.index)
    if ours.info.fingerprint == theirs.info.fingerprint:
        return
    differing = sorted({*_differing(first, each), *_differing(each, first)})
    if differing:
        raise StoreMismatchError(
            f"The stores {first.place} and {each.place} were made from two releases: "
            f"{len(differing):,} videos are in one alone, or annotated otherwise, the first is "
            f"{differing[0]}. {_ADVICE} Merge stores of one release."
        )


def _has_annotations(each: StoreToMerge) -> bool:
    with Ledger(each.ledger, "audio", readonly=True) as ledger:
        return ledger.setting(ANNOTATIONS) != NO_ANNOTATIONS


def _differing(first: StoreToMerge, each: StoreToMerge) -> list[str]:
    """Return videos of a store that another one lacks or has otherwise, but for what was purged."""
    columns = [*KEY_COLUMNS, "digest"]
    ours, theirs = (Index(store.store.index).videos().select(columns) for store in (first, each))
    rows = pa.table(ours).join(theirs, keys=columns, join_type="left anti", use_threads=False)
    rows = rows.sort_by([(key, "ascending") for key in KEY_COLUMNS])
    tombstones = Tombstones.of(first.store.root).united(Tombstones.of(each.store.root))
    rows = tombstones.without(rows)
    keys = frozenset(video_keys(rows))
    names = {f"{key.speaker_id}/{key.video_id}" for key in keys}
    if not (tombstones and names):
        return sorted(names)
    # Who has lost an utterance has another digest.
    for store in (first, each):
        for video in Index(store.store.index).annotated(keys):
            if any(tombstones.covers(*video.key, row.utterance_id) for row in video.utterances):
                names.discard(f"{video.key.speaker_id}/{video.key.video_id}")
    return sorted(names)
