"""The small file that every export carries: of what store it was made, and of which shards.

TARGET/voxblink2-export.json is there before the first clip is, so that whoever must remove somebody
from all copies of a store finds those that are not complete as well.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from fnmatch import fnmatch
from typing import Any

from voxblink2_lib.errors import ExportError
from voxblink2_lib.export.target import Target
from voxblink2_lib.export.units import FOLDER
from voxblink2_lib.files import TEMP_GLOB
from voxblink2_lib.release.selection import Selection
from voxblink2_lib.store.provenance import EXPORT_MANIFEST, Provenance, note_copy

MANIFEST = EXPORT_MANIFEST
_FORMAT_VERSION = 1
# The Hub puts a file into each new data set.
_OF_NOBODY = (FOLDER, ".gitattributes")
# More ids are named by their number and a digest.
_MAX_IDS = 100


@dataclass(frozen=True, slots=True)
class Manifest:
    """What an export was made of.

    Attributes:
        store: folder of the store.
        annotations: fingerprint of the store's annotations; empty if it has none.
        target: where it was written to, without secrets: some lists have it in them.
        config: the configuration.
        format: name of the format.
        options: what else decides how it looks.
        selection: which part of the store, see :func:`selection_record`.
        shards: SHA-256 of each shard of which there is anything in it, by name.
        outdated: SHA-256 of shards that the store has no more, while their files may be there.
        store_id: of the store; empty if that has none.
        is_complete: whether it is finished.
        utterances: number of them, and so on for what follows; as planned until it is complete.
        version: of this file.
    """

    store: str
    annotations: str
    target: str
    config: str
    format: str
    options: Mapping[str, Any]
    selection: Mapping[str, Any]
    shards: Mapping[str, str]
    is_complete: bool
    utterances: int
    speakers: int
    hours: float
    files: int = 0
    size_bytes: int = 0
    outdated: Sequence[str] = ()
    made_by: str = ""
    store_id: str = ""
    version: int = field(default=_FORMAT_VERSION)

    def write(self, target: Target) -> None:
        """Write it, and write down where it is."""
        provenance = Provenance.of(self.store_id, [*self.shards.values(), *self.outdated])
        note_copy(target.shown, provenance)
        target.write(MANIFEST, f"{json.dumps(asdict(self), indent=1)}\n".encode())


def read_manifest(target: Target) -> Manifest | None:
    """Return the manifest of a target; ``None`` if it is empty or does not exist.

    Raises:
        ExportError: there is something else, or an export of a later version.
    """
    data = target.read(MANIFEST)
    if data is None:
        names = [name for name in target.names() if name not in _OF_NOBODY]
        others = [name for name in names if not fnmatch(name, TEMP_GLOB)]
        if others:
            raise ExportError(
                f"{target.shown} is not empty and has no export: there is {others[0]}. Name a "
                "new folder, or an empty one."
            )
        return None
    try:
        manifest = Manifest(**json.loads(data))
    except (ValueError, TypeError) as error:
        raise ExportError(
            f"{target.place(MANIFEST)} is damaged, or of a later version. Remove "
            f"{target.shown} and export again, or name another folder."
        ) from error
    return manifest


def selection_record(selection: Selection) -> dict[str, Any]:
    """Return a selection as JSON: what is given, many ids by their number and a digest.

    >>> selection_record(Selection.of(speakers=["id000002"], max_videos_per_speaker=3))
    {'speakers': ['id000002'], 'max_videos_per_speaker': 3}
    """
    values = {name: getattr(selection, name) for name in Selection.__dataclass_fields__}
    return {name: _record(value) for name, value in values.items() if value}


def _record(value: Any) -> Any:
    if not isinstance(value, frozenset):
        return value
    ids = sorted(value)
    digest = hashlib.sha256("\n".join(ids).encode()).hexdigest()
    return ids if len(ids) <= _MAX_IDS else {"ids": len(ids), "sha256": digest}


def check_same(before: Manifest, now: Manifest, target: Target) -> None:
    """Refuse to mix two exports in one target.

    The store may have been moved, and have grown: then some shards are the same.

    Raises:
        ExportError: format, options, configuration, selection or store are others.
    """
    for name in ("format", "options", "config", "selection"):
        old, new = getattr(before, name), getattr(now, name)
        if old != new:
            raise ExportError(
                f"{target.shown} has an export with {name} {_shown(old)}, and {_shown(new)} was "
                "requested. Name another folder for it."
            )
    is_same_id = bool(before.store_id) and before.store_id == now.store_id
    is_same_store = (
        is_same_id
        or before.store == now.store
        or set(before.shards.values()) & set(now.shards.values())
    )
    if not is_same_store:
        raise ExportError(
            f"{target.shown} has an export of another store, {before.store}: no shard is the same "
            f"in {now.store}. Name another folder for it."
        )


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else (json.dumps(value) if value else "none")
