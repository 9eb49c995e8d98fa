"""Read the ledger of a store that a run may be writing, and write nothing beside it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from voxblink2_lib.errors import StoreDamagedError, StoreError
from voxblink2_lib.store.layout import Store
from voxblink2_lib.store.ledger import Ledger
from voxblink2_lib.store.status import config_folders

Answer = TypeVar("Answer")


class QuietLedger:
    """Opens the ledger for each question, and closes it again.

    To read a file in WAL mode, SQLite writes two files beside it, unless it is told that nobody
    writes to the file. That is so as long as there is no log of a writer; where one begins just
    then, what was read may be of two states, and is read again.

    Args:
        store: the store.
        config: the configuration.
    """

    def __init__(self, store: Store, config: str) -> None:
        self.store = store
        self.config = config

    def read(self, question: Callable[[Ledger], Answer]) -> Answer:
        """Return what a function makes of the ledger, all of it from one state.

        Raises:
            StoreError: there is no ledger, or it cannot be read.
            StoreDamagedError: it is damaged.
        """
        if not self.store.ledger.exists():
            raise StoreError(empty_message(self.store))
        try:
            return self._read(question)
        except StoreDamagedError:
            return self._read(question)

    def _read(self, question: Callable[[Ledger], Answer]) -> Answer:
        path = self.store.ledger
        with (
            Ledger(path, self.config, readonly=True, is_copy=True) as ledger,
            ledger.statistics.snapshot(),
        ):
            return question(ledger)


def empty_message(store: Store) -> str:
    """Return the message for a store of which nothing can be shown."""
    if config_folders(store):
        return f"The store {store.root} has clips, but its ledger {store.ledger} is missing."
    return f"There is nothing in {store.root} yet: no run has begun to write a store there."


def browsed_config(store: Store, named: str | None) -> str:
    """Return the configuration to look at: the one that is named, or that of the last run.

    Args:
        store: the store, which may be empty.
        named: by the user; ``None`` if none is.

    Raises:
        StoreError: the store has nothing of the one that is named.
    """
    if not store.ledger.exists():
        return named or "audio"
    last, present = QuietLedger(store, "").read(
        lambda ledger: (ledger.last_config(), ledger.configs())
    )
    if named is None:
        return last or (present[0] if present else "audio")
    if present and named not in present:
        raise StoreError(
            f"The store {store.root} has nothing of the configuration {named!r}; it has "
            f"{' and '.join(present)}."
        )
    return named
