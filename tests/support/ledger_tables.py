"""All that a ledger says, so that two can be compared whatever order they were written in."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

# What a rebuilt ledger need not have: the plan, so that the next run plans anew; excluded videos,
# which it writes; jobs of which nothing is left, and attempts of videos that were dropped; the id
# of the store, which is in no other file.
_LEFT = """exists (select 1 from videos v where v.config = t.config and v.job = t.job)"""
_IS_PLANNED = """exists (select 1 from videos v where v.config = t.config
    and v.speaker_id = t.speaker_id and v.video_id = t.video_id and v.status <> 'excluded')"""
_QUERIES = {
    "facts": "select * from facts where name not like '%.plan' and name <> 'store_id'",
    "jobs": f"select * from jobs t where kind = 'planned' or shard is null or shard <> '' or "
    f"{_LEFT}",
    "videos": "select * from videos where status <> 'excluded'",
    "sources": "select * from sources",
    "verdicts": "select * from verdicts",
    "witnesses": "select * from witnesses",
    "attempts": f"select * from attempts t where {_IS_PLANNED}",
    "missing": "select * from missing",
}


def tables(path: Path) -> dict[str, list[tuple[Any, ...]]]:
    """Return the rows of each table, sorted."""
    with closing(sqlite3.connect(path)) as connection:
        return {
            name: sorted(connection.execute(sql).fetchall(), key=repr)
            for name, sql in _QUERIES.items()
        }
