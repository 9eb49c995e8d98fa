"""Pauses of the routes to a store's source, which outlive the run that made them."""

from __future__ import annotations

from voxblink2_lib.errors import SourceError
from voxblink2_lib.sources import stored_source
from voxblink2_lib.sources.rate_limits import Pause, RateLimiter, shared_file
from voxblink2_lib.store.layout import Store
from voxblink2_lib.store.status import open_ledger


def stored_pauses(store: Store, config: str) -> dict[str, Pause]:
    """Return the pauses of the routes to a store's source that are not over, by their names.

    Raises:
        StoreError: there is no store.
    """
    host = _host(store, config)
    return RateLimiter(shared_file()).pauses(host) if host else {}


def lift_pauses(store: Store, config: str) -> list[str]:
    """End these pauses, for all runs of the user on this machine; return the names of the routes.

    Raises:
        StoreError: there is no store.
    """
    host = _host(store, config)
    return RateLimiter(shared_file()).lift_pauses(host) if host else []


def _host(store: Store, config: str) -> str:
    """Return the host of the last run's source; empty if it is no longer there, or a folder."""
    with open_ledger(store, config) as ledger:
        named = ledger.setting("source")
    try:
        source = stored_source(named)
    except SourceError:
        return ""  # A folder that was moved.
    return source.host if source.is_remote and named else ""
