"""How videos become jobs."""

from __future__ import annotations

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st
from support.release_builder import video_id

from voxblink2_lib.materialize.jobs import MAX_VIDEOS_PER_JOB, make_jobs
from voxblink2_lib.records import VideoKey
from voxblink2_lib.release.index import VideoKeys


def keys(count: int) -> list[VideoKey]:
    return [VideoKey(f"id{number // 100:06}", video_id(number)) for number in range(count)]


@given(count=st.one_of(st.integers(0, 200), st.integers(0, 40_000)))
def test_jobs_are_a_partition_in_order(count: int) -> None:
    videos = keys(count)
    jobs = [list(job) for job in make_jobs(videos)]
    assert [video for job in jobs for video in job] == videos
    assert all(1 <= len(job) <= MAX_VIDEOS_PER_JOB == 1024 for job in jobs)
    assert len({len(job) for job in jobs[:-1]}) <= 1
    if count >= 2:
        assert len(jobs) > 1
    if count >= 1024:
        assert len(jobs) >= 32


def test_jobs_may_be_read_late() -> None:
    jobs = list(make_jobs(keys(70)))
    assert [video for job in reversed(jobs) for video in job] != keys(70)
    assert [video for job in make_jobs(keys(70)) for video in job] == keys(70)


def test_jobs_of_a_table_are_those_of_its_keys() -> None:
    videos = keys(70)
    speakers, ids = zip(*videos, strict=True)
    table = pa.table({"speaker_id": speakers, "video_id": ids})
    jobs = [list(job) for job in make_jobs(VideoKeys(table))]
    assert jobs == [list(job) for job in make_jobs(videos)]
