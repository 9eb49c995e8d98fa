"""The format of a store's clips, and which versions of the decoders made them.

Clips of two formats differ in what is heard or seen, so a store holds clips of one. Format 1 has
no record of itself; its audio came from another decoder, with another level and rate conversion,
and its faces do not say what their boxes were scaled by.
"""

from __future__ import annotations

import json

from voxblink2_lib.store.layout import Store
from voxblink2_lib.store.ledger import Ledger

# Of the clips that this version makes.
CLIP_FORMAT = 2

_FORMAT, _MADE_WITH = "clip_format", "made_with"


def read_clip_format(store: Store, ledger: Ledger) -> int:
    """Return the format of a configuration's clips; without clips, the one that they will have."""
    if recorded := ledger.setting(_FORMAT):
        return int(recorded)
    has_clips = (
        ledger.statistics.videos().get("done")
        or ledger.shards()
        # A run that was killed may have left a part without its row in the ledger.
        or any(store.parts(ledger.config).glob("*/*.arrow"))
    )
    return 1 if has_clips else CLIP_FORMAT


def read_versions(ledger: Ledger) -> tuple[str, ...]:
    """Return the versions of the decoders that made a store's clips, in the order of their use."""
    return tuple(json.loads(ledger.setting(_MADE_WITH) or "[]"))


def record_format(ledger: Ledger, versions: str) -> tuple[str, ...]:
    """Record, before a run makes clips, their format and what makes them.

    Args:
        ledger: of a store without clips, or with clips of this format.
        versions: of the decoders.

    Returns:
        The versions that made the clips before, if these are new to the store; else nothing.
    """
    before = read_versions(ledger)
    if ledger.setting(_FORMAT) is None:
        ledger.set_setting(_FORMAT, str(CLIP_FORMAT))
    if versions in before:
        return ()
    ledger.set_setting(_MADE_WITH, json.dumps([*before, versions]))
    return before
