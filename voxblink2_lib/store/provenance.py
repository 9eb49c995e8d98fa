"""What exports and files of embeddings say of their origin, and where they are.

::

    of a file of embeddings     in its metadata
    of an export                in TARGET/voxblink2-export.json
    where they are              $VOXBLINK2_HOME/copies/<store id>/<digest>.json

So who must remove somebody from all copies of a store sees which of them were made from the shards
that had this person. Anybody may have written such a file: whatever is wrong with it, it says
nothing.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from safetensors import SafetensorError, safe_open

from voxblink2_lib.errors import StoreError
from voxblink2_lib.files import atomic_write, home_folder, short_digest

EXPORT_MANIFEST = "voxblink2-export.json"
_STORE, _SHARDS = "voxblink2_store", "voxblink2_shards"
_FOLDER = "copies"


@dataclass(frozen=True, slots=True)
class Provenance:
    """The store and the shards that something was made from.

    Attributes:
        store_id: see :attr:`voxblink2_lib.store.ledger.Ledger.store_id`.
        shards: SHA-256 of the shards.
    """

    store_id: str
    shards: frozenset[str]

    @classmethod
    def of(cls, store_id: str, shards: Iterable[str]) -> Provenance:
        """Return the provenance of something that is made now."""
        return cls(store_id, frozenset(shards))

    def as_metadata(self) -> dict[str, str]:
        """Return it as the metadata of a file."""
        return {_STORE: self.store_id, _SHARDS: " ".join(sorted(self.shards))}


def provenance_of(path: Path) -> Provenance | None:
    """Return what a file says; ``None`` if it says nothing."""
    readers = {".parquet": _of_parquet, ".safetensors": _of_safetensors}
    read = _of_export if path.name == EXPORT_MANIFEST else readers.get(path.suffix)
    if read is None:
        return None
    # Arrow's errors are OSError and ValueError.
    mistakes = (ValueError, KeyError, TypeError, AttributeError, SafetensorError)
    with contextlib.suppress(OSError, *mistakes):
        return read(path)
    return None


def _of_export(path: Path) -> Provenance:
    record = json.loads(path.read_bytes())
    shards = [*record["shards"].values(), *record["outdated"]]
    return Provenance.of(str(record.get("store_id", "")), map(str, shards))


def _of_parquet(path: Path) -> Provenance | None:
    metadata = pq.read_metadata(path).metadata or {}
    return _of_metadata({key.decode(): value.decode() for key, value in metadata.items()})


def _of_safetensors(path: Path) -> Provenance | None:
    with safe_open(path, "numpy") as file:
        return _of_metadata(file.metadata() or {})


def _of_metadata(metadata: Mapping[str, str]) -> Provenance | None:
    if _SHARDS not in metadata:
        return None
    return Provenance.of(metadata.get(_STORE, ""), metadata[_SHARDS].split())


# -- Where they are --------------------------------------------------------------------------------


def note_copy(place: str, provenance: Provenance) -> None:
    """Write down, for this user on this machine, where something is made from a store.

    Args:
        place: an absolute path, or a URL without secrets.
        provenance: of it.
    """
    if not provenance.store_id:
        return
    record = {"place": place, "shards": sorted(provenance.shards)}
    path = _folder(provenance.store_id) / f"{short_digest(os.fsencode(place))}.json"
    # A home that cannot be written to is no reason not to export.
    with contextlib.suppress(OSError, StoreError), atomic_write(path) as file:
        file.write(json.dumps(record).encode())


def copies_from(store_id: str, shards: frozenset[str]) -> list[str]:
    """Return where there are copies that were made from some shards, as far as that is known.

    Args:
        store_id: of the store.
        shards: SHA-256 of the shards.
    """
    if not (store_id and shards):
        return []
    records = map(_record, _folder(store_id).glob("*.json"))
    return sorted(set(_places(filter(None, records), shards)))


def _folder(store_id: str) -> Path:
    return home_folder() / _FOLDER / store_id


def _record(path: Path) -> dict[str, Any] | None:
    with contextlib.suppress(OSError, ValueError):
        return dict(json.loads(path.read_bytes()))
    return None


def _places(records: Iterable[dict[str, Any]], shards: frozenset[str]) -> Iterator[str]:
    for record in records:
        place = str(record["place"])
        if "://" in place:  # it is not looked into
            if shards.intersection(record["shards"]):
                yield place
            continue
        path = Path(place)
        present = provenance_of(path / EXPORT_MANIFEST if path.is_dir() else path)
        if present and present.shards & shards:
            yield place
