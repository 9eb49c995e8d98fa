"""What a load has to know of a store, without a ledger that may have gigabytes.

STORE/summary/<config>.json     of a copy of a published store; any other is asked by its ledger
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from voxblink2_lib.errors import StoreDamagedError
from voxblink2_lib.foreign_files import as_own_error
from voxblink2_lib.foreign_text import visible
from voxblink2_lib.records import SealedShard

FOLDER = "summary"


@dataclass(frozen=True, slots=True)
class Summary:
    """A configuration of a store at one moment.

    Attributes:
        shards: the sealed shards that have rows, in order.
        unavailable: how many videos were tried in vain.
        archive_problem: why not all of an archive of cut audio is in the store; empty otherwise.
    """

    shards: tuple[SealedShard, ...]
    unavailable: int
    archive_problem: str

    def as_record(self) -> dict[str, Any]:
        """Return it as JSON."""
        shards = [
            [shard.job, shard.name, shard.sha256, shard.rows, shard.size_bytes]
            for shard in self.shards
        ]
        return {**asdict(self), "shards": shards}

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> Summary:
        """Return what :meth:`as_record` made.

        Raises:
            ValueError, KeyError, TypeError: it is none.
        """
        shards = tuple(SealedShard(*values) for values in record["shards"])
        problem = visible(str(record["archive_problem"]))
        return cls(shards, int(record["unavailable"]), problem)


def summary_file(store: Path, config: str) -> Path:
    """Return the file of a copy of a published store."""
    return store / FOLDER / f"{config}.json"


def read_summary(store: Path, config: str) -> Summary | None:
    """Return the summary of a copy of a published store; ``None`` if there is no such file.

    Args:
        store: folder of the store.
        config: the configuration.

    Raises:
        StoreDamagedError: the file is damaged.
    """
    path = summary_file(store, config)
    with as_own_error(StoreDamagedError, f"The file {path} is damaged"):
        try:
            return Summary.of(json.loads(path.read_bytes()))
        except FileNotFoundError:
            return None
