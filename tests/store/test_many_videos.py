"""Millions of videos written at once: the same tables as one by one, all or none of them."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.property_settings import fewer_examples

from voxblink2_lib.records import VideoKey
from voxblink2_lib.store import many_videos
from voxblink2_lib.store.ledger import Ledger

PROPERTY = fewer_examples(2)
KEYS = [VideoKey(f"id{number // 7:06}", f"{number:011}") for number in range(300)]
keys = st.lists(st.sampled_from(KEYS), max_size=200)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.sqlite"


@pytest.fixture
def few_are_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(many_videos, "_MANY", 2)


@pytest.fixture
def ledger(path: Path) -> Iterator[Ledger]:
    with Ledger(path, "audio") as opened:
        yield opened


def videos(path: Path) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("pragma integrity_check").fetchall() == [("ok",)]
        return connection.execute("select * from videos").fetchall()


def tables(path: Path) -> set[tuple[str, str, str]]:
    """Names and definitions of tables and indexes."""
    with closing(sqlite3.connect(path)) as connection:
        return set(connection.execute("select name, tbl_name, sql from sqlite_master"))


@PROPERTY
@given(before=keys, excluded=keys, jobs=st.lists(keys, max_size=4))
def test_rows_are_those_that_one_by_one_gives(
    tmp_path_factory: pytest.TempPathFactory,
    before: list[VideoKey],
    excluded: list[VideoKey],
    jobs: list[list[VideoKey]],
) -> None:
    folder = tmp_path_factory.mktemp("ledgers")
    expected = dict.fromkeys(before, (0, "planned"))
    expected |= {key: (-1, "excluded") for key in excluded if key not in expected}
    for number, job in enumerate(jobs, start=1):
        expected |= {key: (number, expected.get(key, (0, "planned"))[1]) for key in job}
    for rows in (0, 10**9):  # as if it were a few, and very many
        path = folder / f"{rows}.sqlite"
        with Ledger(path, "audio") as ledger:
            ledger.add_jobs([before])
            with ledger.together(new_videos=rows):
                ledger.exclude(excluded)
                ledger.add_jobs(jobs)
        found = {VideoKey(*row[1:3]): row[3:5] for row in videos(path)}
        assert found == expected
    assert tables(folder / "0.sqlite") == tables(folder / "1000000000.sqlite")


@pytest.mark.usefixtures("few_are_many")
@pytest.mark.parametrize("rows", [1, 2, 299, 300])
def test_indexes_are_made_anew_where_most_rows_are_new(
    ledger: Ledger, path: Path, rows: int
) -> None:
    ledger.add_jobs([KEYS])
    before = tables(path)
    with ledger.together(new_videos=rows):
        during = {name for (name,) in ledger._database.query("select name from sqlite_master")}
        assert ("videos_by_job" in during) == (rows < len(KEYS))
        # Nobody else sees that.
        assert tables(path) == before
        with Ledger(path, "audio", readonly=True) as reader:
            assert len(reader.job_videos(0)) == len(KEYS)
    assert tables(path) == before
    assert len(ledger.job_videos(0)) == len(KEYS)


@pytest.mark.usefixtures("few_are_many")
def test_what_fails_in_between_changes_nothing(ledger: Ledger, path: Path) -> None:
    ledger.add_jobs([KEYS[:5]])
    ledger.set_setting("plan", "the first")
    before = tables(path), videos(path)
    with pytest.raises(KeyboardInterrupt):
        stop_in_between(ledger)
    assert (tables(path), videos(path)) == before
    assert ledger.setting("plan") == "the first"
    # Other changes are again each whole by themselves.
    ledger.set_setting("plan", "the third")
    with Ledger(path, "audio", readonly=True) as reader:
        assert reader.setting("plan") == "the third"


def stop_in_between(ledger: Ledger) -> None:
    with ledger.together(new_videos=300):
        ledger.exclude(KEYS[100:])
        ledger.add_jobs([KEYS[5:100]])
        ledger.set_setting("plan", "the second")
        raise KeyboardInterrupt
