"""One ledger of several: each video once, by the rule, in a job that is there."""

from __future__ import annotations

import sqlite3
import tempfile
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.ledger_builder import LedgerBuilder
from support.property_settings import fewer_examples

from voxblink2_lib.errors import StoreDamagedError
from voxblink2_lib.records import SealedShard, VideoKey
from voxblink2_lib.store.joined_ledgers import LedgerJoin
from voxblink2_lib.store.ledger import Ledger

SPEAKER = "id000001"


class Video(NamedTuple):
    """A video of a ledger: its class, its clips, and its job."""

    status: str
    clips: int
    job: int


def videos() -> st.SearchStrategy[Video]:
    """Videos as ledgers have them: only those that are done have clips."""
    job = st.integers(0, 2)
    done = st.builds(Video, st.just("done"), st.integers(0, 3), job)
    others = st.sampled_from(["planned", "gone", "transient"])
    return done | st.builds(Video, others, st.just(0), job)


Ledgers = st.lists(
    st.dictionaries(st.integers(0, 5).map(lambda n: f"video{n:06}"), videos(), max_size=6),
    min_size=1,
    max_size=4,
)


def write_ledger(path: Path, ledger: dict[str, Video]) -> None:
    """Write a ledger whose jobs are all sealed, each with its number in its checksum."""
    with LedgerBuilder(path) as builder:
        for video, (status, clips, job) in ledger.items():
            builder.video(status, speaker=SPEAKER, video=video, clips=clips)
            builder.database.execute("update videos set job = ? where video_id = ?", (job, video))
        for job in sorted({video.job for video in ledger.values()}):
            builder.database.execute(
                "insert or replace into jobs (config, job, shard, sha256, rows, bytes) "
                "values ('audio', ?, ?, 'x', 1, 1)",
                (job, f"audio-{job:05}.arrow"),
            )


def owner(ledgers: Sequence[dict[str, Video]], video: str) -> int:
    """The place of the ledger whose rows of a video are kept, by the rule."""

    def rank(place: int) -> tuple[bool, int, bool, int]:
        status, clips, _ = ledgers[place][video]
        return status == "done", clips, status != "planned", -place

    places = [place for place, ledger in enumerate(ledgers) if video in ledger]
    return max(places, key=rank)


@fewer_examples(2)
@given(Ledgers)
def test_each_video_is_kept_once_by_the_rule(ledgers: list[dict[str, Video]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{place}.sqlite" for place in range(len(ledgers))]
        for path, ledger in zip(paths, ledgers, strict=True):
            write_ledger(path, ledger)
        target = Path(folder) / "joined.sqlite"
        with LedgerJoin(target, paths) as join:
            jobs = join.jobs
            kept = {(job.part, job.job): join.kept_videos(job) for job in jobs}
            entries = {
                (job.part, "audio", job.job): SealedShard(job.number, f"{job.part}", "x", 1, 1)
                for job in jobs
            }
            join.write(entries, drops=lambda _: False)
        names = {video for ledger in ledgers for video in ledger}
        owners = {video: owner(ledgers, video) for video in names}
        with Ledger(target, "audio", readonly=True) as joined:
            places = {
                key.video_id: (status, number)
                for number in joined.jobs()
                for key, status in joined.job_videos(number)
            }
        assert places.keys() == names
        numbers = {(job.part, job.job): job.number for job in jobs}
        assert len(set(numbers.values())) == len(jobs)
        for video, place in owners.items():
            status, _, number = ledgers[place][video]
            assert places[video] == (status, numbers[place, number])
        for job in jobs:
            own = {video for video, each in ledgers[job.part].items() if each.job == job.job}
            clips = {video for video in own if ledgers[job.part][video].status == "done"}
            mine = {video for video in clips if owners[video] == job.part}
            assert kept[job.part, job.job] == [VideoKey(SPEAKER, name) for name in sorted(mine)]
            assert (job.is_whole, job.has_clips) == (mine == clips, bool(mine))
            # A job keeps its number, unless a ledger before has it.
            earlier = [each for each in jobs if each.job == job.job and each.part < job.part]
            assert (job.number == job.job) == (not earlier)


def test_ledgers_that_contradict_themselves_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    write_ledger(path, {"video000000": Video("done", 1, 7)})
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("delete from jobs")
        connection.commit()
    with (
        LedgerJoin(tmp_path / "joined.sqlite", [path]) as join,
        pytest.raises(StoreDamagedError, match="videos are in no job"),
    ):
        join.write({}, drops=lambda _: False)
    (tmp_path / "none.sqlite").write_bytes(b"damaged" * 1000)
    with pytest.raises(StoreDamagedError, match="none"):
        LedgerJoin(tmp_path / "other.sqlite", [tmp_path / "none.sqlite"])
