"""Decide what a run has to do, and refuse what would leave two corpora in one store."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from voxblink2_lib.config import ClipOptions, MaterializeConfig
from voxblink2_lib.errors import StoreDamagedError, StoreMismatchError
from voxblink2_lib.index import Index
from voxblink2_lib.ledger import Ledger
from voxblink2_lib.plan import Changes, Keys, compare, keys_of, make_jobs, select
from voxblink2_lib.records import VideoKey
from voxblink2_lib.resources import Release
from voxblink2_lib.store import Store


def plan_run(
    config: MaterializeConfig, store: Store, index: Index, ledger: Ledger, *, retry: bool
) -> ClipOptions:
    """Give every selected video that has none a job; forget those no longer wanted.

    Args:
        config: what the user asked for.
        store: the store, locked by us.
        index: its index.
        ledger: its ledger.
        retry: give videos whose time has come again to new jobs.

    Returns:
        How the store's clips are made.

    Raises:
        StoreMismatchError: the store holds what was not asked for.
        StoreDamagedError: the ledger and the shards do not belong together.
    """
    _check_shards(config, store, ledger)
    options = _clip_options(config, store, ledger)
    plan = _name_of_plan(config, index)
    # Comparing millions of videos takes seconds; the same plan has been compared already.
    if ledger.fact(f"{config.config}.plan") != plan:
        selected, excluded = select(index, config.selection)
        changes = compare(selected, ledger.known())
        _check_corpus(store, changes)
        ledger.drop(keys_of(changes.unwanted))
        ledger.exclude(keys_of(excluded))
        ledger.add_jobs(make_jobs(Keys(changes.new)))
        ledger.set_fact(f"{config.config}.plan", plan)
    for name in ClipOptions.names(config.config):
        if ledger.fact(f"{config.config}.{name}") is None:
            ledger.set_fact(f"{config.config}.{name}", str(getattr(options, name)))
    if retry:
        ledger.add_jobs(make_jobs(ledger.due()))
    return options


def plan_retry(
    config: MaterializeConfig, store: Store, ledger: Ledger, due: Sequence[VideoKey]
) -> ClipOptions:
    """Give videos that were tried before to new jobs, and look at no release.

    Args:
        config: what the user asked for.
        store: the store, locked by us.
        ledger: its ledger.
        due: the videos; their jobs must be sealed.

    Returns:
        How the store's clips are made.

    Raises:
        StoreDamagedError: the ledger and the shards do not belong together.
    """
    _check_shards(config, store, ledger)
    ledger.add_jobs(make_jobs(due))
    return _clip_options(config, store, ledger)


def _name_of_plan(config: MaterializeConfig, index: Index) -> str:
    chosen = asdict(config.selection)
    said = {name: sorted(v) if isinstance(v, frozenset) else v for name, v in chosen.items()}
    text = json.dumps([index.info.fingerprint, said])
    return hashlib.sha256(text.encode()).hexdigest()


def is_complete(config: MaterializeConfig, store: Store, release: Release) -> bool:
    """Say whether a store that cannot be written to already has all that is asked for."""
    if not (store.ledger.exists() and (store.index / "index.json").exists()):
        return False
    index = Index(store.index)
    if index.info.signature != release.signature():
        return False
    with Ledger(store.ledger, config.config, readonly=True) as ledger:
        changes = compare(select(index, config.selection)[0], ledger.known())
        _check_corpus(store, changes)
        _clip_options(config, store, ledger)
        return not len(changes.new) and not ledger.open_jobs()


def _check_shards(config: MaterializeConfig, store: Store, ledger: Ledger) -> None:
    folder = store.shards(config.config)
    known = {shard.name for shard in ledger.shards()}
    there = {path.name for path in folder.glob("*.arrow")}
    if there and not known and not ledger.views.videos():
        raise StoreDamagedError(
            f"The store {store.root} has {len(there)} shards and a ledger that knows of none, so "
            "nothing tells what is in them. Put the ledger back, or name another store."
        )
    if lost := sorted(known - there):
        raise StoreDamagedError(
            f"{len(lost)} of the {len(known)} shards of the store {store.root} are gone, the first "
            f"is {folder / lost[0]}. Put them back, or name another store."
        )


def _check_corpus(store: Store, changes: Changes) -> None:
    if len(changes.outside):
        first = next(keys_of(changes.outside))
        raise StoreMismatchError(
            f"The store {store.root} already holds {len(changes.outside)} videos that this "
            f"selection leaves out, the first is {first.speaker_id}/{first.video_id}. A selection "
            "may grow, not shrink: widen it, or name another store."
        )
    if len(changes.changed):
        first = next(keys_of(changes.changed))
        raise StoreMismatchError(
            f"The store {store.root} holds {len(changes.changed)} videos cut by other annotations "
            f"than this release has, the first is {first.speaker_id}/{first.video_id}. Use the "
            "old release, or another store."
        )


def _clip_options(config: MaterializeConfig, store: Store, ledger: Ledger) -> ClipOptions:
    """Return how the store's clips are made: as they were, else as asked for, else the default."""
    settled: dict[str, Any] = {}
    for name in ClipOptions.names(config.config):
        default = getattr(ClipOptions(), name)
        said = ledger.fact(f"{config.config}.{name}")
        held = None if said is None else type(default)(said)
        settled[name] = config.clip_options.get(name, default if held is None else held)
        if held not in {None, settled[name]}:
            raise StoreMismatchError(
                f"The store {store.root} holds clips with {name}={held!r}, asked for is "
                f"{settled[name]!r}. Use {name}={held!r}, or another store."
            )
    return ClipOptions(**settled)
