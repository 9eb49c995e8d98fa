"""Open the URL of a published store, of whatever kind it is."""

from __future__ import annotations

from voxblink2_lib.published.hub import HubPlace
from voxblink2_lib.published.place import Place


def open_place(url: str) -> Place:
    """Return where a store is published.

    Raises:
        StoreError: there cannot be a store at such a URL.
    """
    return HubPlace(url) if url.startswith("hf://") else Place(url)
