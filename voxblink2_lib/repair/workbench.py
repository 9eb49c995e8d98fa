"""What repairing did, or would do; and where files go that are not the store's."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from voxblink2_lib.files import sync_folder
from voxblink2_lib.store.layout import Store

MendKind = Literal[
    "ledger",
    "index",
    "shard",
    "checksum",
    "outcomes",
    "part",
    "catalogue",
    "stranger",
    "tombstones",
]


@dataclass(frozen=True, slots=True)
class Mend:
    """One thing that was done, or would be.

    Attributes:
        kind: of the file.
        path: of the file, in the store.
        text: what was wrong with it, and what was done.
    """

    kind: MendKind
    path: str
    text: str


@dataclass(slots=True)
class Workbench:
    """A store that is being mended.

    Attributes:
        store: the store; in a dry run, a folder of links to it with a ledger of its own.
        is_dry: files are left as they are.
        shown_root: the store's folder, for messages.
        mends: what was done so far, in order.
        problems: what cannot be mended, as sentences that say what to do.
        handled: files and folders that were put away, or would be.
    """

    store: Store
    shown_root: Path
    is_dry: bool = False
    mends: list[Mend] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    handled: set[Path] = field(default_factory=set)

    def mend(
        self, kind: MendKind, path: Path, text: str, action: Callable[[], object] | None = None
    ) -> None:
        """Do something to a file, unless this is a dry run, and take note of it."""
        if action is not None and not self.is_dry:
            action()
        text = text.replace(str(self.store.root), str(self.shown_root))
        self.mends.append(Mend(kind, str(path.relative_to(self.store.root)), text))

    def leave(self, path: Path, problem: str) -> None:
        """Take note that a file cannot be mended, and stays where it is."""
        self.handled.add(path)
        self.problems.append(f"{self.shown_root / path.relative_to(self.store.root)}: {problem}")

    def put_away(self, kind: MendKind, path: Path, text: str) -> None:
        """Move a file or a folder to ``lost+found``, under a name that nothing has there yet."""
        self.handled.add(path)
        self.mend(
            kind,
            path,
            f"{text}; moved to {self.store.lost_and_found.name}",
            lambda: move_away(self.store, path),
        )


def move_away(store: Store, path: Path) -> Path:
    """Move a file or a folder of a store to its ``lost+found``, and return its new path."""
    place = store.lost_and_found / path.relative_to(store.root)
    place.parent.mkdir(parents=True, exist_ok=True)
    names = (place.with_name(f"{place.name}.{number}") for number in itertools.count(1))
    target = next(name for name in itertools.chain([place], names) if not os.path.lexists(name))
    path.rename(target)
    for folder in (target.parent, path.parent):
        sync_folder(folder)
    return target
