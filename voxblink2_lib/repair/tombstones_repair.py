"""The tombstones: written again from the ledger, if their file is lost or damaged."""

from __future__ import annotations

from voxblink2_lib.release.tombstones import FILE
from voxblink2_lib.repair.workbench import Workbench
from voxblink2_lib.store.tombstone_checks import remembered_tombstones, tombstone_damage


def mend_tombstones(bench: Workbench) -> None:
    """Write the file of tombstones again; whatever else is made again looks at it."""
    store = bench.store
    problem = tombstone_damage(store)
    if not problem:
        return
    kept = remembered_tombstones(store)
    if kept is None:
        bench.leave(store.root / FILE, f"{problem} No ledger has a copy: put one back.")
        return
    text = f"{problem} Written again from the ledger"
    bench.mend("tombstones", store.root / FILE, text, lambda: kept.write(store.root))
