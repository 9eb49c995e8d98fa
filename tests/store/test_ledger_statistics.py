"""Statistics of a ledger: counted by hand, and read without sorting whole tables."""

from __future__ import annotations

import re
import sqlite3
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.ledger_builder import DAY, LedgerBuilder
from support.property_settings import fewer_examples

from voxblink2_lib.errors import StoreError
from voxblink2_lib.outcomes import STATUSES
from voxblink2_lib.store.histograms import MOST_BINS, Histogram, TimeLine, bar_width
from voxblink2_lib.store.ledger_database import LedgerDatabase
from voxblink2_lib.store.ledger_statistics import (
    LedgerStatistics,
    ReasonCount,
    SoundNotes,
    SpeakerCoverage,
    Throughput,
)

PROPERTY = fewer_examples(2)


@pytest.fixture
def ledger() -> Iterator[LedgerBuilder]:
    with LedgerBuilder() as builder:
        yield builder


# -- Counts ----------------------------------------------------------------------------------------


def test_an_empty_ledger_has_nothing_of_anything(ledger: LedgerBuilder) -> None:
    statistics = ledger.statistics
    assert statistics.videos() == {}
    assert statistics.totals() == (0, 0, 0)
    assert statistics.totals().hours == 0
    assert statistics.coverage() == SpeakerCoverage(0, 0, 0, (0,) * 12)
    assert statistics.reasons(10) == []
    assert list(statistics.missing()) == []
    assert statistics.outcomes_over_time().series == {}
    assert statistics.traffic_over_time().series == {}
    assert not any(statistics.seconds_per_video().counts)
    assert not any(statistics.mean_seconds_per_utterance().counts)
    assert statistics.speed() is None
    assert statistics.sound_notes() == SoundNotes(0, 0, 0, ())


def test_only_planned_videos_are_missing_and_have_no_outcome(ledger: LedgerBuilder) -> None:
    for _ in range(3):
        ledger.video("planned")
    statistics = ledger.statistics
    assert statistics.videos() == {"planned": 3}
    assert statistics.coverage() == SpeakerCoverage(0, 0, 1, (1, *(0,) * 11))
    assert statistics.reasons(10) == []
    assert [row.status for row in statistics.missing()] == ["planned"] * 3
    assert [row.updated_at for row in statistics.missing()] == [None] * 3
    assert statistics.outcomes_over_time().series == {}


def test_totals_are_sums_of_one_configuration(ledger: LedgerBuilder) -> None:
    ledger.video("done", clips=2, seconds=1800, size_bytes=70)
    ledger.video("done", clips=1, seconds=3600, size_bytes=30)
    ledger.video("gone", size_bytes=5)
    ledger.video("done", clips=9, seconds=9, size_bytes=9, config="audio-visual")
    assert ledger.statistics.totals() == (3, 5400 * 16_000, 105)
    assert ledger.statistics.totals().hours == 1.5
    assert ledger.statistics.videos() == {"done": 2, "gone": 1}


@pytest.mark.parametrize(
    ("done", "missing", "place"),
    [
        *((0, 1, 0), (0, 20, 0)),
        *((1, 99, 1), (1, 19, 1), (2, 18, 1)),  # up to 10 %, included
        *((3, 17, 2), (10, 10, 5), (11, 9, 6), (18, 2, 9)),
        *((19, 1, 10), (999, 1, 10)),  # above 90 %, and not all
        *((1, 0, 11), (20, 0, 11)),
    ],
)
def test_a_speaker_is_in_the_class_of_its_share(
    done: int, missing: int, place: int, ledger: LedgerBuilder
) -> None:
    for status, count in (("done", done), ("gone", missing), ("excluded", 7)):
        for _ in range(count):
            ledger.video(status)
    coverage = ledger.statistics.coverage()
    assert coverage.by_share == tuple(int(n == place) for n in range(12))
    expected = (place == 11, 0 < place < 11, place == 0)
    assert coverage[:3] == tuple(map(int, expected))


def test_a_speaker_of_excluded_videos_only_is_not_counted(ledger: LedgerBuilder) -> None:
    ledger.video("excluded")
    assert sum(ledger.statistics.coverage().by_share) == 0


# -- What is missing -------------------------------------------------------------------------------


def test_missing_is_what_is_wanted_and_not_done_in_order(ledger: LedgerBuilder) -> None:
    for status in ("planned", *STATUSES):
        for speaker in ("id000002", "id000001"):
            ledger.video(status, speaker=speaker, reason="why", next_at=DAY + 60)
    rows = list(ledger.statistics.missing())
    assert [row[:2] for row in rows] == sorted(row[:2] for row in rows)
    assert len(rows) == 2 * len(STATUSES) - 2
    assert {row.status for row in rows} == {"planned", *STATUSES} - {"done", "excluded"}
    gone = next(row for row in rows if row.status == "gone")
    assert gone[3:] == ("why", 1, DAY + 60, DAY)


def test_reasons_that_differ_in_ids_only_are_one(ledger: LedgerBuilder) -> None:
    for n in range(3):
        video = f"-_video000{n}"
        ledger.video("gone", video=video, reason=f"no file id000001/{video} in /{video}")
    ledger.video("private", reason="no file <speaker>/<video> in /<video>")
    ledger.video("transient", reason="HTTP 500")
    ledger.video("transient", reason="")
    ledger.video("done", reason="fine")
    ledger.video("excluded", reason="by the user")
    ledger.video("planned", reason="an old one")
    ids = "no file <speaker>/<video> in /<video>"
    assert ledger.statistics.reasons(10) == [
        ReasonCount("gone", ids, 3),
        ReasonCount("transient", "", 1),
        ReasonCount("transient", "HTTP 500", 1),
        ReasonCount("private", ids, 1),
    ]
    assert ledger.statistics.reasons(1) == [ReasonCount("gone", ids, 3)]


# -- Durations -------------------------------------------------------------------------------------


def test_durations_of_videos_that_are_done(ledger: LedgerBuilder) -> None:
    for seconds, clips in ((0.5, 1), (0.99, 1), (1.0, 1), (2.0, 2), (3.0, 1)):
        ledger.video("done", seconds=seconds, clips=clips)
    ledger.video("gone", seconds=0.1)
    assert ledger.statistics.seconds_per_video() == Histogram(
        0.5, (0, 2, 1, 0, 1, 0, 1, *(0,) * (MOST_BINS // 2 - 7))
    )
    assert ledger.statistics.mean_seconds_per_utterance() == Histogram(
        0.5, (0, 2, 2, 0, 0, 0, 1, *(0,) * (MOST_BINS // 2 - 7))
    )


def test_the_last_class_of_durations_has_no_end(ledger: LedgerBuilder) -> None:
    for _ in range(99):
        ledger.video("done", seconds=1, clips=1)
    ledger.video("done", seconds=1000, clips=1)
    histogram = ledger.statistics.seconds_per_video()
    assert (sum(histogram.counts), histogram.counts[-1]) == (100, 1)


@given(st.floats(0, 1e7))
def test_bars_are_wide_enough_for_four_times_the_mean(mean_seconds: float) -> None:
    assert bar_width(mean_seconds) * MOST_BINS / 2 >= 4 * mean_seconds * 0.999999


# -- Over time -------------------------------------------------------------------------------------


def test_outcomes_fall_into_stretches_that_begin_at_whole_units(ledger: LedgerBuilder) -> None:
    for minute in (0.5, 1.0, 1.99, 59.0):
        ledger.video("done", at=DAY + 60 * minute)
    ledger.video("gone", at=DAY + 60)
    line = ledger.statistics.outcomes_over_time()
    assert (line.start, line.step_seconds) == (DAY, 60)
    assert set(line.series) == {"done", "gone"}
    assert line.series["done"] == (1, 2, *(0,) * 57, 1)
    assert line.series["gone"] == (0, 1, *(0,) * 58)


@given(st.floats(0, 2e9), st.lists(st.floats(0, 1e9), min_size=1, max_size=20))
def test_every_outcome_is_in_one_of_few_stretches(first: float, later: list[float]) -> None:
    with LedgerBuilder() as ledger:
        for seconds in (0, *later):
            ledger.video("done", at=first + seconds)
        line = ledger.statistics.outcomes_over_time()
    assert sum(line.series["done"]) == 1 + len(later)
    assert len(line.series["done"]) <= MOST_BINS
    assert line.series["done"][0]
    assert line.series["done"][-1]


def test_traffic_counts_attempts_and_bytes(ledger: LedgerBuilder) -> None:
    ledger.attempt(DAY + 5, size_bytes=10)
    ledger.attempt(DAY + 59, size_bytes=20, status="transient")
    ledger.attempt(DAY + 130, size_bytes=7)
    ledger.attempt(DAY + 3600, size_bytes=1)
    rest = (*(0,) * 27, 1)
    assert ledger.statistics.traffic_over_time() == TimeLine(
        DAY,
        120,
        {"attempts": (2, 1, 0, *rest), "done": (1, 1, 0, *rest), "bytes": (30, 7, 0, *rest)},
    )


def test_a_run_of_a_moment_is_one_second(ledger: LedgerBuilder) -> None:
    ledger.attempt(DAY + 0.5)
    assert ledger.statistics.traffic_over_time() == TimeLine(
        DAY, 1, {"attempts": (1,), "done": (1,), "bytes": (0,)}
    )


def test_speed_is_that_of_the_last_hour_with_an_attempt(ledger: LedgerBuilder) -> None:
    ledger.attempt(DAY, size_bytes=10**9)  # long ago
    for n in range(4):
        ledger.attempt(DAY + 86_400 + 150 * n, size_bytes=1_000_000, seconds=150)
    ledger.attempt(DAY + 86_400 + 450, status="gone", size_bytes=2_000_000)
    speed = ledger.statistics.speed()
    assert speed == Throughput(DAY + 86_850, 600, 5, 4, 6_000_000)
    assert speed.videos_an_hour == 24
    assert speed.bytes_a_second == 10_000


def test_speed_of_one_attempt_that_took_no_time_is_finite(ledger: LedgerBuilder) -> None:
    ledger.attempt(DAY, seconds=0)
    speed = ledger.statistics.speed()
    assert speed is not None
    assert speed.videos_an_hour == 3600


def test_attempts_that_began_before_the_hour_are_not_spread_over_more(
    ledger: LedgerBuilder,
) -> None:
    ledger.attempt(DAY, seconds=7200)
    ledger.attempt(DAY + 3599)
    speed = ledger.statistics.speed()
    assert speed is not None
    assert (speed.attempts, speed.seconds) == (2, 3600)


# -- How it is read --------------------------------------------------------------------------------

VIEWS: dict[str, tuple[Callable[[LedgerStatistics], Any], list[str]]] = {
    "videos": (LedgerStatistics.videos, ["COVERING INDEX videos_by_status"]),
    "totals": (LedgerStatistics.totals, ["PRIMARY KEY"]),
    "coverage": (LedgerStatistics.coverage, ["PRIMARY KEY"]),
    "reasons": (lambda statistics: statistics.reasons(10), ["PRIMARY KEY"]),
    "missing": (lambda statistics: list(statistics.missing()), ["PRIMARY KEY"]),
    "seconds": (LedgerStatistics.seconds_per_video, ["PRIMARY KEY"]),
    "means": (LedgerStatistics.mean_seconds_per_utterance, ["PRIMARY KEY"]),
    "outcomes": (LedgerStatistics.outcomes_over_time, ["COVERING INDEX videos_by_status"]),
    "traffic": (
        LedgerStatistics.traffic_over_time,
        ["PRIMARY KEY", "COVERING INDEX attempts_by_time"],
    ),
    "speed": (
        LedgerStatistics.speed,
        ["INDEX attempts_by_time", "COVERING INDEX attempts_by_time"],
    ),
    "sound": (LedgerStatistics.sound_notes, ["INDEX attempts_with_notes", "PRIMARY KEY"]),
}
# Where like meets like, rows must be sorted; what is grouped is small. Of rows as they are,
# only the few reasons that are left are put in order.
SORTED = {
    **{name: {"GROUP BY"} for name in ("coverage", "seconds", "means", "traffic")},
    "reasons": {"GROUP BY", "ORDER BY"},
}


@pytest.mark.parametrize("name", VIEWS)
def test_views_read_by_an_index_and_sort_no_rows(name: str, ledger: LedgerBuilder) -> None:
    for n in range(200):
        ledger.video(STATUSES[n % len(STATUSES)], speaker=f"id{n % 20:06}", at=DAY + n)
        ledger.attempt(DAY + n)
    view, allowed = VIEWS[name]
    queries: list[str] = []
    ledger.database.set_trace_callback(queries.append)
    view(ledger.statistics)
    ledger.database.set_trace_callback(None)
    assert queries
    for sql in dict.fromkeys(queries):
        plan = [row[3] for row in ledger.database.execute(f"explain query plan {sql}")]
        sorts = {step.removeprefix("USE TEMP B-TREE FOR ") for step in plan if "TEMP" in step}
        assert sorts <= SORTED.get(name, set()), plan
        for step in plan:
            if re.match(r"(SEARCH|SCAN) (videos|attempts)", step):
                assert step.startswith("SEARCH"), plan
                assert any(f"USING {index}" in step for index in allowed), plan


def test_memory_does_not_grow_with_the_number_of_missing_videos(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("voxblink2_lib.store.ledger_statistics._ROWS_PER_PAGE", 100)
    peaks = []
    for count in (1_000, 4_000):
        with LedgerBuilder() as builder:
            for n in range(count):
                builder.video("gone", speaker=f"id{n // 7:06}", reason=f"removed {n}")
            statistics = builder.statistics
            tracemalloc.start()
            assert sum(1 for _ in statistics.missing()) == count
            peaks.append(tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
    assert peaks[1] < 1.2 * peaks[0]


@given(st.sets(st.integers(0, 60)), st.integers(1, 7))
@PROPERTY
def test_pages_of_missing_videos_are_all_of_them(numbers: set[int], rows_per_page: int) -> None:
    with LedgerBuilder() as builder, pytest.MonkeyPatch.context() as patch:
        patch.setattr("voxblink2_lib.store.ledger_statistics._ROWS_PER_PAGE", rows_per_page)
        for n in range(61):
            status = "gone" if n in numbers else "done"
            builder.video(status, speaker=f"id{n // 9:06}", video=f"video{n % 9:06}")
        keys = [(row.speaker_id, row.video_id) for row in builder.statistics.missing()]
    expected = [(f"id{n // 9:06}", f"video{n % 9:06}") for n in sorted(numbers)]
    assert keys == expected


def test_all_views_of_a_snapshot_show_one_moment(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    with LedgerBuilder(path) as writer:
        writer.database.execute("pragma journal_mode = wal")
        writer.video("done")
        writer.database.commit()
        reader = sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, isolation_level=None)
        statistics = LedgerStatistics(LedgerDatabase(reader, path), "audio")
        with statistics.snapshot():
            before = statistics.videos()
            writer.video("gone")
            writer.database.commit()
            with statistics.snapshot():
                assert statistics.videos() == before == {"done": 1}
            assert list(statistics.missing()) == []
        assert statistics.videos() == {"done": 1, "gone": 1}
        reader.close()


def test_a_file_that_is_no_ledger_is_an_error_of_the_store() -> None:
    database = sqlite3.connect(":memory:")
    statistics = LedgerStatistics(LedgerDatabase(database, Path("x")), "audio")
    with pytest.raises(StoreError, match=r"The ledger x is damaged \(no such table: videos\)"):
        statistics.videos()
    with pytest.raises(StoreError, match=r"The ledger x is damaged \(no such table: videos\)"):
        list(statistics.missing())
    database.close()
