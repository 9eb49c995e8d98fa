"""Pages of videos together are all that are wanted, in order, whatever is looked for."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.ledger_builder import LedgerBuilder

from voxblink2_lib.records import VideoKey
from voxblink2_lib.store import ledger_search
from voxblink2_lib.store.ledger_database import LedgerDatabase
from voxblink2_lib.store.ledger_search import LedgerSearch, ListedVideo, VideoFilter

SPEAKERS = ["id000001", "id000002", "id00003"]
VIDEOS = ["abcdefghij0", "abcdefghij1", "abcdefghij2", "abcdefghij3"]
STATUSES = ["planned", "done", "gone", "private"]
REASONS = ["", "Private video", "100% gone", "a_b", "ÄRGER with it"]
rows_of_ledger = st.lists(
    st.tuples(*map(st.sampled_from, (SPEAKERS, VIDEOS, STATUSES, REASONS))),
    unique_by=lambda row: row[:2],
    max_size=12,
)
filters = st.builds(
    VideoFilter,
    speaker_id=st.sampled_from(["", *SPEAKERS]),
    video_id=st.sampled_from(["", *VIDEOS]),
    statuses=st.lists(st.sampled_from(STATUSES), unique=True, max_size=2).map(tuple),
    words=st.sampled_from(["", "PRIVATE", "vid priv", "%", "_", "with", "nothing of it"]),
)


def search_of(ledger: LedgerBuilder) -> LedgerSearch:
    return LedgerSearch(LedgerDatabase(ledger.database, Path("memory")), "audio")


def all_pages(search: LedgerSearch, wanted: VideoFilter, most: int) -> list[ListedVideo]:
    videos: list[ListedVideo] = []
    after: VideoKey | None = None
    while True:
        page = search.page(wanted, after=after, most=most)
        assert len(page.videos) <= most
        videos += page.videos
        if page.reached is None:
            return videos
        assert after is None or page.reached > after
        after = page.reached


@pytest.mark.parametrize("few", [0, 1000])
@given(rows=rows_of_ledger, wanted=filters, most=st.integers(1, 5), step=st.integers(1, 5))
def test_pages_are_what_a_look_at_every_video_gives(
    few: int, rows: list[tuple[str, str, str, str]], wanted: VideoFilter, most: int, step: int
) -> None:
    with LedgerBuilder() as ledger, pytest.MonkeyPatch.context() as patched:
        patched.setattr(ledger_search, "_FEW_VIDEOS", few)
        patched.setattr(ledger_search, "_VIDEOS_AT_ONCE", step)
        for speaker, video, status, reason in rows:
            ledger.video(status, speaker=speaker, video=video, reason=reason)
            ledger.video(status, speaker=speaker, video=video, config="audio-visual")
        found = all_pages(search_of(ledger), wanted, most)
    expected = sorted(
        (speaker, video, status, reason)
        for speaker, video, status, reason in rows
        if wanted.speaker_id in {"", speaker}
        and wanted.video_id in {"", video}
        and (not wanted.statuses or status in wanted.statuses)
        and all(word.lower() in reason.lower() for word in wanted.words.split())
    )
    assert [video[:4] for video in found] == expected
    assert all(map(wanted.allows, found))


@pytest.mark.parametrize("words", ["", "private"])
def test_a_speaker_is_found_without_a_look_at_all_before(words: str) -> None:
    hundreds: list[None] = []  # of steps that SQLite made
    with LedgerBuilder() as ledger:
        for number in range(2000):
            ledger.video("private", speaker=f"id{number:06}", reason="Private video")
        ledger.database.set_progress_handler(lambda: hundreds.append(None), 100)
        wanted = VideoFilter(speaker_id="id001999", words=words)
        (video,) = all_pages(search_of(ledger), wanted, 25)
    assert video.speaker_id == "id001999"
    assert len(hundreds) < 10


def test_one_video_and_where_its_clips_are(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    with LedgerBuilder(path) as ledger:
        key = VideoKey("id000001", ledger.video("done", clips=2, seconds=3))
        run = ledger.database.executemany
        run(
            "insert into jobs (config, job, shard) values ('audio', ?, ?)",
            [(0, "audio-00000.arrow"), (3, None), (4, "audio-00004.arrow")],
        )
        run("insert into split_videos values ('audio', 3, ?, ?)", [key])
        run("insert into missing values ('audio', ?, ?, '00002', 'ends late')", [key])
    with closing(LedgerDatabase.open(path, readonly=True)) as database:
        search = LedgerSearch(database, "audio")
        video = search.video(key)
        assert video is not None
        assert (video.clips, video.samples, video.key) == (2, 48_000, key)
        assert search.missing(key) == {"00002": "ends late"}
        assert search.places(key) == [(0, "audio-00000.arrow"), (3, None)]
        assert search.video(VideoKey("id000009", "abcdefghijk")) is None
        assert search.places(VideoKey("id000009", "abcdefghijk")) == []
