"""Whether the tombstones of a store are all there: their file, compared with the ledger's copy."""

from __future__ import annotations

from voxblink2_lib.errors import StoreDamagedError, StoreError, next_command
from voxblink2_lib.release.tombstones import FILE, Tombstones
from voxblink2_lib.store.layout import Store
from voxblink2_lib.store.ledger import Ledger


def remembered_tombstones(store: Store) -> Tombstones | None:
    """Return the tombstones in the ledger, or in its copy; ``None`` if there are none."""
    for path in (store.ledger, store.backup):
        if not path.exists():
            continue
        try:
            with Ledger(path, "", readonly=True, is_copy=path == store.backup) as ledger:
                if tombstones := ledger.purge.remembered():
                    return tombstones
        except StoreError:  # the ledger is checked elsewhere
            continue
    return None


def tombstone_damage(store: Store) -> str:
    """Return how the file of tombstones is damaged; an empty text if it is not."""
    try:
        here = Tombstones.of(store.root)
    except StoreDamagedError as error:
        return str(error)
    kept = remembered_tombstones(store)
    lost = {*kept.stones} - {*here.stones} if kept else ()
    if not lost:
        return ""
    return (
        f"The file {store.root / FILE} lacks {len(lost):,} ids that were purged, which could come "
        "back."
    )


def unfinished_purge(store: Store) -> str:
    """Return that a purge was begun and not ended; an empty text if none was."""
    try:
        if Tombstones.of(store.root).is_finished:
            return ""
    except StoreDamagedError:
        return ""
    again = next_command("purge", store=store.root)
    return f"A purge of the store {store.root} was stopped before its end: {again} ends it."
