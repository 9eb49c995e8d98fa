"""What a load has to know of a store, in a small file beside a ledger that may have gigabytes.

STORE/summary/<config>.json     of a copy of a published store; any other is asked by its ledger
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from voxblink2_lib.errors import StoreDamagedError
from voxblink2_lib.foreign_files import as_own_error, shortened
from voxblink2_lib.records import SealedShard
from voxblink2_lib.store.shard_names import is_shard_name

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

    def as_json(self) -> bytes:
        """Return the content of the file."""
        shards = [
            [shard.job, shard.name, shard.sha256, shard.rows, shard.size_bytes]
            for shard in self.shards
        ]
        return json.dumps({**asdict(self), "shards": shards}).encode()


def read_summary(store: Path, config: str) -> Summary | None:
    """Return the summary of a copy of a published store; ``None`` if there is no such file.

    Args:
        store: folder of the store.
        config: the configuration.

    Raises:
        StoreDamagedError: the file is damaged.
    """
    path = store / FOLDER / f"{config}.json"
    with as_own_error(StoreDamagedError, f"The file {path} is damaged"):
        try:
            record = json.loads(path.read_bytes())
        except FileNotFoundError:
            return None
        shards = tuple(SealedShard(*values) for values in record["shards"])
        wrong = [shard.name for shard in shards if not is_shard_name(shard.name)]
        if wrong:
            raise ValueError(f"{shortened(wrong[0])} is no name of a shard")
        return Summary(shards, int(record["unavailable"]), str(record["archive_problem"]))
