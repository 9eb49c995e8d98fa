"""What is shown of a store is all there is, says what is wrong, and changes nothing."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.browsed_store import digests

from voxblink2_lib.browse.browser import StoreBrowser
from voxblink2_lib.browse.marks import Mark
from voxblink2_lib.browse.query import Query, utterance_of
from voxblink2_lib.browse.views import marks_on, marks_view, row_label
from voxblink2_lib.errors import ScoringError, SelectionError, StoreError
from voxblink2_lib.store.layout import Store

HOSTILE = (
    "<script>alert(1)</script>\x1b[31m\u202e&lt;\" onerror='x' https://user:secret@example.org/"
)


class Elements(HTMLParser):
    """The elements of a view, which must close in order; and its words."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.words = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert not any(name.startswith("on") for name, _ in attrs), (tag, attrs)
        self.tags.append(tag)
        if tag not in {"img", "br"}:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert attrs is not None
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words += data


def browse(
    store: Path, folder: Path, *, embeddings: Path | None = None, purity: Path | None = None
) -> StoreBrowser:
    return StoreBrowser.open(
        Store(store), exclude=folder / "exclude.txt", embeddings=embeddings, purity=purity
    )


def change(store: Path, sql: str, *values: object) -> None:
    with closing(sqlite3.connect(store / "ledger.sqlite")) as database, database:
        database.execute(sql, values)


def test_an_utterance_with_all_that_is_known(store: Path, tmp_path: Path) -> None:
    browser = browse(store, tmp_path)
    (row, *_) = browser.search.page(Query.of(text="harbour")).rows
    shown = Elements(browser.utterance(row.key.name))
    assert shown.tags.count("audio") == 1
    assert shown.tags.count("svg") == 2
    assert "video" not in shown.tags
    for words in (row.key.name, row.transcript, "peak", "Cuts in the video", "done, 3 clips"):
        assert words is not None
        assert words in shown.words
    whole = browser.utterance(f"{row.key.speaker_id}/{row.key.video_id}/")
    assert row.key.video_id in whole


def test_a_face(face_store: Path, tmp_path: Path) -> None:
    browser = browse(face_store, tmp_path)
    assert browser.config == "audio-visual"
    (row, *_) = browser.search.page(Query.of("id990001")).rows
    shown = Elements(browser.utterance(row.key.name))
    assert {"audio", "video", "svg"} <= set(shown.tags)
    assert "Boxes fit the video" in shown.words


def test_why_there_is_no_clip(store: Path, tmp_path: Path) -> None:
    browser = browse(store, tmp_path)
    (row, *_) = browser.search.page(Query.of(statuses=["gone"])).rows
    shown = Elements(browser.utterance(row.key.name))
    assert "audio" not in shown.tags
    assert f"No clip: its video is gone: {row.video.reason}" in shown.words
    with pytest.raises(SelectionError, match="The store has no id000001/abcdefghijk/00001 in the"):
        browser.utterance("id000001/abcdefghijk/00001")
    for name in ("id000001", "../../x/", "id990001/demoHarbour/../x", ""):
        with pytest.raises(SelectionError, match="is no"):
            browser.utterance(name)


def test_looking_changes_no_file(store: Path, face_store: Path, tmp_path: Path) -> None:
    for path in (store, face_store):
        before = digests(path)
        browser = browse(path, tmp_path)
        for query in (Query(), Query.of(statuses=["gone"]), Query.of(text="harbour")):
            for row in browser.search.page(query).rows[:2]:
                browser.utterance(row.key.name)
        browser.suspects.look("silent")
        browser.suspects.look("box-assumed")
        browser.coverage()
        assert digests(path) == before


def test_a_store_that_is_being_written(store: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(store, tmp_path / "store")
    browser = browse(copy, tmp_path)
    with closing(sqlite3.connect(copy / "ledger.sqlite", isolation_level=None)) as writer:
        writer.execute("begin immediate")
        writer.execute("update videos set status = 'transient' where video_id = 'demoHarbour'")
        before = browser.search.page(Query.of("demoHarbour")).rows
        assert {row.video.status for row in before} == {"done"}
        writer.execute("commit")
        after = browser.search.page(Query.of("demoHarbour")).rows
        assert {row.video.status for row in after} == {"transient"}
        assert (copy / "ledger.sqlite-wal").exists()


def test_foreign_texts_do_nothing(store: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(store, tmp_path / "store")
    change(copy, "update videos set reason = ? where status = 'gone'", HOSTILE)
    browser = browse(copy, tmp_path)
    (row, *_) = browser.search.page(Query.of(statuses=["gone"])).rows
    shown = Elements(browser.utterance(row.key.name))
    assert "script" not in shown.tags
    assert "<script>alert(1)</script>" in shown.words
    assert "secret" not in shown.words
    label = row_label(row)
    assert "secret" not in label
    assert "\x1b" not in label
    assert "\u202e" not in label


def test_damaged_rows_are_named(store: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(store, tmp_path / "store")
    name = "id990001/demoHarbour/00001"
    clip = browse(copy, tmp_path).details._clips.find
    stored = clip(utterance_of(name))
    assert stored is not None
    data = stored.shard.read_bytes()
    start = data.index(stored.audio)
    stored.shard.write_bytes(data[: start + 60] + bytes(200) + data[start + 260 :])
    shown = Elements(browse(copy, tmp_path).utterance(name))
    assert "cannot be decoded" in shown.words
    assert "Cuts in the video" in shown.words
    stored.shard.write_bytes(b"nothing")
    assert "is damaged" in Elements(browse(copy, tmp_path).utterance(name)).words


def test_marks_are_shown(store: Path, tmp_path: Path) -> None:
    browser = browse(store, tmp_path)
    key = utterance_of("id990001/demoHarbour/00001")
    browser.marks.add(Mark.of(key, "video", "<b>loud</b>"))
    assert marks_on([]) == ""
    marked = Elements(marks_on(browser.marks.on(key)))
    assert "Marked to leave out: video demoHarbour" in marked.words
    view = Elements(marks_view(browser.marks.all, "exclude.txt", is_saved=False))
    assert "1 mark; exclude.txt does not have them yet: press Save" in view.words
    assert "<b>loud</b>" in view.words


def test_coverage_is_that_of_the_report(store: Path, tmp_path: Path) -> None:
    shown = Elements(browse(store, tmp_path).coverage())
    for words in ("Videos done", "16 of 18", "Coverage per speaker", "Durations", "Reasons"):
        assert words in shown.words
    assert shown.tags.count("svg") >= 3


def test_voices(store: Path, tmp_path: Path) -> None:
    names = [row.key.name for row in browse(store, tmp_path).search.page(Query.of("id990001")).rows]
    random = np.random.default_rng(0)
    table = pa.table({"name": names, "embedding": list(random.normal(size=(len(names), 4)))})
    pq.write_table(table, tmp_path / "vectors.parquet")
    browser = browse(store, tmp_path, embeddings=tmp_path / "vectors.parquet")
    view, farthest = browser.voices(" id990001 ")
    assert Elements(view).tags.count("svg") == 2
    assert sorted(key.name for key, _ in farthest) == names
    with pytest.raises(ScoringError, match="Make them with voxblink2 embed, and name the file"):
        browse(store, tmp_path).voices("id990001")


def test_what_is_not_there_is_refused(store: Path, tmp_path: Path) -> None:
    for option in ("embeddings", "purity"):
        with pytest.raises(SelectionError, match=f"Name another one with --{option}"):
            browse(store, tmp_path, **{option: tmp_path / "none"})
    with pytest.raises(StoreError, match="has nothing of the configuration 'audio-visual'"):
        StoreBrowser.open(Store(store), config="audio-visual", exclude=tmp_path / "x")
    empty = StoreBrowser.open(Store(tmp_path / "none"), exclude=tmp_path / "x")
    assert empty.config == "audio"
    with pytest.raises(StoreError, match="There is nothing in"):
        empty.coverage()
