"""Slices are disjoint and cover all, now and in later numbers."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voxblink2_lib.errors import SelectionError
from voxblink2_lib.records import VideoKey
from voxblink2_lib.store.job_slices import SLICE, JobSlice
from voxblink2_lib.store.ledger import Ledger


@given(st.integers(0, 500), st.integers(1, 40), st.integers(1, 70))
def test_every_video_is_in_one_slice(videos: int, job_size: int, count: int) -> None:
    jobs = [
        list(range(start, min(start + job_size, videos))) for start in range(0, videos, job_size)
    ]
    dealt: list[int] = []
    for number in range(1, count + 1):
        job_slice = JobSlice(number, count)
        starts = job_slice.starts(videos, job_size)
        dealt += [start // job_size for start in starts]
        assert all(start // job_size % count == number - 1 for start in starts)
        assert [jobs[start // job_size][0] for start in starts] == list(starts)
    assert sorted(dealt) == list(range(len(jobs)))


@given(st.integers(1, 64), st.integers(0, 63), st.integers(0, 2_000_000_000))
def test_the_next_number_is_the_least_of_the_slice(count: int, place: int, least: int) -> None:
    number = JobSlice(place % count + 1, count).next_job(least)
    assert number % count == place % count
    assert least <= number < least + count


def test_jobs_shards_and_retries_take_numbers_of_their_slice(tmp_path: Path) -> None:
    keys = [VideoKey("id000000", f"video{number:06}") for number in range(6)]
    with Ledger(tmp_path / "ledger.sqlite", "audio") as ledger:
        ledger.set_setting(SLICE, "3/4")
        assert ledger.add_jobs([keys[:2], keys[2:4], keys[4:]]) == [2, 6, 10]
        assert ledger.add_jobs([keys[:1], keys[1:2]], kind="retry") == [
            1_000_000_002,
            1_000_000_006,
        ]
        assert ledger.recovered.next_number() == 14
        assert ledger.recovered.step() == 4


@pytest.mark.parametrize(
    "text", ["", "3", "0/4", "5/4", "3/0", "-1/4", "1/10000", "3/64/1", "a/b", "\u0663/64"]
)
def test_other_texts_name_no_slice(text: str) -> None:
    with pytest.raises(SelectionError, match=r"is no slice of the jobs\. Slices count from 1"):
        JobSlice.parse(text)


@pytest.mark.parametrize("number", [1, 64, 1000, 9999])
def test_names_of_folders(number: int) -> None:
    job_slice = JobSlice(number, 9999)
    assert JobSlice.named(job_slice.name) == job_slice
    assert JobSlice.named(f"0{job_slice.name}") is None
    assert JobSlice.parse(str(job_slice)) == job_slice


def test_other_folders_are_of_no_slice() -> None:
    assert [JobSlice.named(name) for name in ("", "3-of-64", "005-of-004", "000-of-004")] == [
        None
    ] * 4
