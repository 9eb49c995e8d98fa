"""Whether a store has annotations. One that was begun from cut audio alone has none, and no index.

What is begun without them stays without: times that are unknown in some rows and known in others
would be two corpora.
"""

from __future__ import annotations

from voxblink2_lib.errors import StoreError
from voxblink2_lib.store.layout import Store
from voxblink2_lib.store.ledger import Ledger

ANNOTATIONS = "annotations"
NO_ANNOTATIONS = "none"
# Faces cannot be cropped from audio.
_CONFIG = "audio"


def has_no_annotations(store: Store) -> bool:
    """Return whether a store was begun without annotations, as far as its ledger can be read."""
    if not store.ledger.exists():
        return False
    try:
        with Ledger(store.ledger, _CONFIG, readonly=True) as ledger:
            return ledger.setting(ANNOTATIONS) == NO_ANNOTATIONS
    except StoreError:
        return False
