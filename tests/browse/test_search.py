"""A search finds what is there, page by page, of a store in any state."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.browsed_store import SAID, SPEAKERS

from voxblink2_lib.browse.query import Cursor, ListedUtterance, Query
from voxblink2_lib.browse.quiet_ledger import QuietLedger
from voxblink2_lib.browse.search import Search
from voxblink2_lib.errors import StoreError
from voxblink2_lib.store.layout import Store

VIDEOS, UTTERANCES = 18, 54


def search_of(store: Path, config: str = "audio") -> Search:
    return Search(QuietLedger(Store(store), config))


def found(search: Search, query: Query, most: int = 1000) -> list[ListedUtterance]:
    rows: list[ListedUtterance] = []
    cursor: Cursor | None = Cursor()
    while cursor is not None:
        page = search.page(query, cursor=cursor, most=most)
        assert len(page.rows) <= most
        rows += page.rows
        cursor = page.cursor
    return rows


def names(rows: list[ListedUtterance]) -> list[str]:
    return [row.key.name for row in rows]


def test_all_utterances_in_order(store: Path) -> None:
    rows = found(search_of(store), Query())
    assert len(rows) == UTTERANCES
    assert names(rows) == sorted(names(rows))
    assert {row.video.status for row in rows} == {"done", "gone"}
    assert sum(row.has_clip for row in rows) == 48
    assert all((row.end_seconds or 0) > (row.start_seconds or 0) for row in rows)


@given(most=st.integers(1, 60))
def test_pages_of_any_size_are_the_same(store: Path, most: int) -> None:
    search = search_of(store)
    assert found(search, Query(), most) == found(search, Query())


@pytest.mark.parametrize("ids", ["id990001", "demoHarbour", "id990001/demoHarbour"])
def test_by_ids(store: Path, ids: str) -> None:
    rows = found(search_of(store), Query.of(ids), 2)
    assert len(rows) == (6 if ids == "id990001" else 3)
    assert all(name.startswith("id990001/") for name in names(rows))
    one = found(search_of(store), Query.of(f"{ids}/{rows[1].utterance_id}"), 2)
    assert rows[1] in one
    assert {row.utterance_id for row in one} == {rows[1].utterance_id}


def test_by_outcome_and_by_words_of_the_reason(store: Path) -> None:
    gone = found(search_of(store), Query.of(statuses=["gone"]))
    assert {row.video.video_id for row in gone} == {"demoGone404", "demoShut403"}
    assert not any(row.has_clip for row in gone)
    word = gone[0].video.reason.split()[0]
    assert found(search_of(store), Query.of(reason=word.upper())) == gone
    assert found(search_of(store), Query.of(reason="no such word")) == []


def test_by_what_is_said(store: Path) -> None:
    search = search_of(store)
    spoken = found(search, Query.of(text="harbour, THE"), 1)
    assert [row.video.video_id for row in spoken] == sorted(SAID["id990001"])
    assert {row.language for row in spoken} == {"en"}
    assert found(search, Query.of(text="100%")) == spoken
    assert [row.key.speaker_id for row in found(search, Query.of(language="DE"))] == ["id990003"]
    assert found(search, Query.of("id990003", text="wörter")) != []
    assert found(search, Query.of("id990001", text="wörter")) == []
    assert found(search, Query.of(text="harbour", statuses=["gone"])) == []
    assert found(search, Query.of(text="100_")) == []
    everyone = {row.key: row for row in found(search, Query())}
    assert all(everyone[row.key] == row for row in spoken)


def test_a_long_search_stops_and_goes_on(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("voxblink2_lib.browse.annotations._GROUPS_AT_ONCE", 1)
    search = search_of(store)
    page = search.page(Query.of(text="no such word"), seconds=0)
    assert page.rows == ()
    whole = search.page(Query(), seconds=0)
    assert len(whole.rows) > 0


@pytest.mark.parametrize("left", ["nothing", "an empty folder", "an index"])
def test_an_empty_store_says_so(tmp_path: Path, store: Path, left: str) -> None:
    if left != "nothing":
        (tmp_path / "store").mkdir()
    if left == "an index":
        shutil.copytree(store / "index", tmp_path / "store" / "index")
    with pytest.raises(StoreError, match=r"There is nothing in .* yet: no run has begun"):
        search_of(tmp_path / "store").page(Query())


def test_without_an_index_the_clips_are_listed(tmp_path: Path, store: Path) -> None:
    copy = shutil.copytree(store, tmp_path / "store")
    shutil.rmtree(copy / "index")
    search = search_of(copy)
    rows = found(search, Query())
    with_clips = [row for row in found(search_of(store), Query()) if row.has_clip]
    assert [row.key for row in rows if row.has_clip] == [row.key for row in with_clips]
    assert [row.utterance_id for row in rows if not row.has_clip] == ["", ""]
    assert found(search, Query.of(text="harbour")) == []


@pytest.mark.parametrize("name", ["index.json", "videos.parquet", "utterances.parquet"])
def test_a_damaged_index_is_named_and_the_clips_are_listed(
    tmp_path: Path, store: Path, name: str
) -> None:
    copy = shutil.copytree(store, tmp_path / "store")
    (copy / "index" / name).write_bytes(b"no index" * 100)
    page = search_of(copy).page(Query(), most=1000)
    assert sum(row.has_clip for row in page.rows) == 48
    assert any("is damaged" in note for note in page.notes)


def test_an_index_that_is_replaced_is_read_anew(tmp_path: Path, store: Path) -> None:
    copy = shutil.copytree(store, tmp_path / "store")
    shutil.move(copy / "index", tmp_path / "index")
    search = search_of(copy)
    assert len(found(search, Query())) == 50
    shutil.move(tmp_path / "index", copy / "index")
    assert len(found(search, Query())) == UTTERANCES


def test_each_speaker_is_there(store: Path) -> None:
    search = search_of(store)
    assert all(found(search, Query.of(speaker)) for speaker in SPEAKERS)
    assert found(search, Query.of("id123456")) == []
