"""What a user can do about a damaged file, whichever module finds the damage."""

from __future__ import annotations

import itertools
from pathlib import Path

from voxblink2_lib.errors import next_command

# Folders of a store that hold files which readers open, and what shows that a folder is a store.
_PLACES = {"shards", "parts", "catalogue", "index"}
_SIGNS = ("ledger.sqlite", "ledger.backup.sqlite", "index")


def repair_command(store: Path) -> str:
    """Return the command that mends a store, in quotes.

    >>> repair_command(Path("/data/voxblink2"))
    "'voxblink2 repair --store /data/voxblink2'"
    """
    return next_command("repair", store=store)


def repair_advice(file: Path) -> str:
    """Return the sentence that ends the message about a damaged file."""
    store = _store_of(file)
    if store is None:
        return "It is in no store that could be mended: put back a good copy of it."
    return f"Mend the store with {repair_command(store)}."


def _store_of(file: Path) -> Path | None:
    for inner, folder in itertools.pairwise(file.absolute().parents):
        if inner.name in _PLACES and any((folder / name).exists() for name in _SIGNS):
            return folder
    return None
