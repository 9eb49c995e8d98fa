"""Many rows of videos written at once into a ledger: a corpus has millions of them."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from itertools import chain, islice
from typing import Literal

from voxblink2_lib.records import VideoKey
from voxblink2_lib.store.ledger_schema import CREATE_VIDEO_INDEXES, VIDEO_INDEXES

# Below this it makes no difference that anyone would notice.
_MANY = 10_000
# One row a statement, the statements take longer than the rows.
_ROWS_PER_STATEMENT = 64
_ON_CONFLICT = {
    "planned": "do update set job = excluded.job",
    # What is known of a video stays.
    "excluded": "do nothing",
}


@contextmanager
def videos_added(connection: sqlite3.Connection, rows: int) -> Iterator[None]:
    """Let the body add rows to the table of videos, and update its indexes in the faster way.

    To sort all entries of an index once is faster than to look for the place of each new one, if
    most of them are new.

    Args:
        connection: in a transaction. Nobody else sees the table without its indexes.
        rows: how many are added.
    """
    if rows < _MANY or connection.execute("select count(*) > ? from videos", (rows,)).fetchone()[0]:
        yield
        return
    for name in VIDEO_INDEXES:
        connection.execute(f"drop index if exists {name}")
    yield
    for statement in CREATE_VIDEO_INDEXES:
        connection.execute(statement)


def add_videos(
    connection: sqlite3.Connection,
    config: str,
    job: int,
    status: Literal["planned", "excluded"],
    keys: Iterable[VideoKey],
) -> None:
    """Add videos to a job; of those that are known, ``planned`` changes the job and no more.

    Args:
        connection: in a transaction.
        config: the configuration.
        job: number of the job.
        status: of new ones; what is known is not changed by ``excluded``.
        keys: the videos.
    """
    videos = iter(keys)
    many = _insertion(status, _ROWS_PER_STATEMENT)
    while batch := list(islice(videos, _ROWS_PER_STATEMENT)):
        sql = many if len(batch) == _ROWS_PER_STATEMENT else _insertion(status, len(batch))
        connection.execute(sql, (config, job, *chain.from_iterable(batch)))


@lru_cache(maxsize=2 * _ROWS_PER_STATEMENT)
def _insertion(status: str, rows: int) -> str:
    values = ", ".join(f"(?1, ?{n}, ?{n + 1}, ?2, '{status}')" for n in range(3, 3 + 2 * rows, 2))
    return (
        "insert into videos (config, speaker_id, video_id, job, status) "  # noqa: S608  # constants
        f"values {values} on conflict {_ON_CONFLICT[status]}"
    )
