"""What the ledger keeps, and what it refuses to open."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from voxblink2_lib.errors import StoreError
from voxblink2_lib.ledger import Ledger
from voxblink2_lib.records import MissingUtterance, Outcome, SealedShard, VideoKey

PROPERTY = settings(deadline=None, derandomize=True, max_examples=25)
A, B, C, D = (VideoKey("id000001", f"{letter * 11}") for letter in "abcd")
E = VideoKey("id000002", "-" * 11)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.sqlite"


@pytest.fixture
def ledger(path: Path) -> Iterator[Ledger]:
    with Ledger(path, "audio") as opened:
        yield opened


def rows(ledger: Ledger) -> list[tuple[object, ...]]:
    return sorted(tuple(row.values())[:4] for row in ledger.known().to_pylist())


# -- planning ---------------------------------------------------------------------------------


def test_a_fresh_ledger_is_empty(ledger: Ledger) -> None:
    assert ledger.known().num_rows == 0
    assert ledger.known().column_names == ["speaker_id", "video_id", "status", "open", "digest"]
    assert ledger.counts() == {}
    assert ledger.totals() == (0, 0, 0)
    assert (ledger.open_jobs(), ledger.shards(), ledger.unfinished()) == ([], [], 0)
    assert list(ledger.speakers()) == []
    assert list(ledger.problems()) == []


def test_jobs_are_numbered_on(ledger: Ledger) -> None:
    ledger.add_jobs([[B, A], [E]])
    ledger.add_jobs([])
    ledger.add_jobs([[C]])
    assert ledger.open_jobs() == [0, 1, 2]
    assert ledger.job_videos(0) == [(A, "planned"), (B, "planned")]
    assert rows(ledger) == [(*key, "planned", True) for key in (A, B, C, E)]
    assert ledger.counts() == {"planned": 4}


def test_jobs_are_added_all_or_none(ledger: Ledger) -> None:
    ledger.add_jobs([[A]])

    def failing() -> Iterator[list[VideoKey]]:
        yield [B]
        yield [C]
        raise OSError("the index went away")

    with pytest.raises(OSError, match="the index went away"):
        ledger.add_jobs(failing())
    assert ledger.open_jobs() == [0]
    assert rows(ledger) == [(*A, "planned", True)]
    ledger.add_jobs([[B]])
    assert ledger.open_jobs() == [0, 1]


def test_a_video_moves_to_its_new_job(ledger: Ledger) -> None:
    ledger.add_jobs([[A, B]])
    ledger.record(Outcome(A, "failed", "gone"))
    ledger.record(Outcome(B, "done", clips=1, samples=640))
    ledger.seal(SealedShard(0, "audio-00000.arrow", "ab" * 32, 1, 99))
    assert rows(ledger) == [(*A, "failed", False), (*B, "done", False)]
    ledger.add_jobs([[A]])
    assert rows(ledger) == [(*A, "planned", True), (*B, "done", False)]
    assert (ledger.job_videos(0), ledger.job_videos(1)) == ([(B, "done")], [(A, "planned")])
    assert (ledger.open_jobs(), ledger.unfinished()) == ([1], 1)


def test_drop_forgets_what_never_came_and_keeps_what_is_done(ledger: Ledger) -> None:
    ledger.add_jobs([[A, B, C, D]])
    ledger.record(Outcome(A, "done", clips=1, samples=640))
    ledger.record(Outcome(B, "failed", "gone"))
    ledger.record(Outcome(C, "unusable", "bad", missing=(MissingUtterance("00001", "bad"),)))
    ledger.drop([A, B, C, E])
    assert ledger.job_videos(0) == [(A, "done"), (D, "planned")]
    assert list(ledger.problems()) == []


def test_drop_forgets_missing_utterances_as_well(ledger: Ledger) -> None:
    missing = (MissingUtterance("00001", "bad"), MissingUtterance("00002", "bad"))
    ledger.add_jobs([[A, B]])
    ledger.record(Outcome(A, "unusable", "bad", missing=missing))
    ledger.record(Outcome(B, "done", clips=1, samples=640, missing=missing[:1]))
    ledger.drop([A, B])
    assert ledger.missing_utterances() == 1
    assert ledger.missing_names(0) == {"id000001/bbbbbbbbbbb/00001"}


# -- what happened ----------------------------------------------------------------------------


def test_outcomes_are_recorded(ledger: Ledger) -> None:
    ledger.add_jobs([[A, B, C], [D, E]])
    ledger.record(Outcome(A, "done", clips=3, samples=1920, bytes_fetched=1000))
    ledger.record(Outcome(B, "failed", "HTTP 404 'Not Found'; drop table videos"))
    ledger.record(Outcome(E, "unusable", "no audio", bytes_fetched=10))
    assert ledger.counts() == {"done": 1, "failed": 1, "unusable": 1, "planned": 2}
    assert ledger.totals() == (3, 1920, 1010)
    assert ledger.unfinished() == 4
    assert sorted(ledger.speakers()) == [("id000001", 4, 1), ("id000002", 1, 0)]
    assert list(ledger.problems()) == [
        (B, "failed", "HTTP 404 'Not Found'; drop table videos", 1),
        (E, "unusable", "no audio", 1),
    ]


def test_a_later_outcome_replaces_the_earlier(ledger: Ledger) -> None:
    ledger.add_jobs([[A]])
    ledger.record(Outcome(A, "failed", "HTTP 503", bytes_fetched=5))
    ledger.record(Outcome(A, "failed", "HTTP 404", bytes_fetched=6))
    assert list(ledger.problems()) == [(A, "failed", "HTTP 404", 2)]
    ledger.record(Outcome(A, "done", clips=2, samples=1280, bytes_fetched=100))
    assert list(ledger.problems()) == []
    assert ledger.totals() == (2, 1280, 111)


def test_missing_utterances_are_replaced(ledger: Ledger) -> None:
    one, two, three = (MissingUtterance(f"0000{number}", "short") for number in (1, 2, 3))
    ledger.add_jobs([[A], [B]])
    ledger.record(Outcome(A, "done", clips=1, missing=(one, two)))
    ledger.record(Outcome(B, "done", clips=1, missing=(one,)))
    assert ledger.missing_utterances() == 3
    ledger.record(Outcome(A, "done", clips=2, missing=(three,)))
    assert ledger.missing_utterances() == 2
    assert ledger.missing_names(0) == {"id000001/aaaaaaaaaaa/00003"}
    assert ledger.missing_names(1) == {"id000001/bbbbbbbbbbb/00001"}
    ledger.record(Outcome(A, "done", clips=3))
    assert ledger.missing_names(0) == set()


def test_an_outcome_is_written_whole_or_not_at_all(ledger: Ledger) -> None:
    ledger.add_jobs([[A]])
    twice = (MissingUtterance("00001", "short"),) * 2
    with pytest.raises(StoreError, match=r"The ledger .* cannot be used: UNIQUE constraint failed"):
        ledger.record(Outcome(A, "done", clips=1, missing=twice))
    assert ledger.counts() == {"planned": 1}
    assert ledger.missing_utterances() == 0


def test_an_outcome_of_an_unknown_video_leaves_no_trace(ledger: Ledger) -> None:
    ledger.record(Outcome(A, "unusable", "bad", missing=(MissingUtterance("00001", "bad"),)))
    assert (ledger.counts(), ledger.missing_utterances()) == ({}, 0)


def test_shards(ledger: Ledger) -> None:
    ledger.add_jobs([[A], [B], [C]])
    second = SealedShard(1, "audio-00001.arrow", "ab" * 32, 7, 700)
    first = SealedShard(0, "audio-00000.arrow", "cd" * 32, 1, 1 << 40)
    ledger.seal(second)
    ledger.seal(first)
    ledger.seal(SealedShard(2, "", "", 0, 0))
    assert ledger.shards() == [first, second]
    assert ledger.open_jobs() == []


def test_configurations_do_not_see_each_other(path: Path) -> None:
    with Ledger(path, "audio") as audio, Ledger(path, "audio-visual") as other:
        audio.add_jobs([[A], [B]])
        other.add_jobs([[A]])
        audio.record(Outcome(A, "done", clips=1, missing=(MissingUtterance("00001", "x"),)))
        other.drop([A])
        assert rows(audio) == [(*A, "done", True), (*B, "planned", True)]
        assert rows(other) == []
        assert (other.open_jobs(), other.missing_utterances()) == ([0], 0)


@PROPERTY
@given(
    jobs=st.lists(
        st.lists(st.tuples(st.sampled_from("abcde"), st.sampled_from("abcde")), unique=True),
        max_size=5,
    )
)
def test_each_video_is_in_its_last_job(
    tmp_path_factory: pytest.TempPathFactory, jobs: list[list[tuple[str, str]]]
) -> None:
    wanted = [[VideoKey(f"id00000{ord(a) - 96}", b * 11) for a, b in job] for job in jobs]
    last = {key: number for number, job in enumerate(wanted) for key in job}
    with Ledger(tmp_path_factory.mktemp("jobs") / "l.sqlite", "audio") as ledger:
        ledger.add_jobs(wanted)
        assert ledger.open_jobs() == list(range(len(jobs)))
        for number in range(len(jobs)):
            expected = sorted(key for key, job in last.items() if job == number)
            assert ledger.job_videos(number) == [(key, "planned") for key in expected]
        assert ledger.known().num_rows == len(last)


# -- opening ----------------------------------------------------------------------------------


def test_all_is_there_after_opening_again(path: Path) -> None:
    with Ledger(path, "audio") as ledger:
        ledger.set_fact("audio.audio_format", "flac")
        ledger.add_jobs([[A], [B]])
        ledger.record(Outcome(A, "done", clips=1, samples=640))
        ledger.seal(SealedShard(0, "audio-00000.arrow", "ab" * 32, 1, 99))
    for readonly in (False, True):
        with Ledger(path, "audio", readonly=readonly) as ledger:
            assert ledger.fact("audio.audio_format") == "flac"
            assert ledger.fact("nothing") is None
            assert rows(ledger) == [(*A, "done", False), (*B, "planned", True)]
            assert len(ledger.shards()) == 1


def test_odd_characters_in_the_path(tmp_path: Path) -> None:
    folder = tmp_path / "a store? 100%#é"
    folder.mkdir()
    with Ledger(folder / "ledger.sqlite", "audio") as ledger:
        ledger.add_jobs([[A]])
    assert (folder / "ledger.sqlite").is_file()
    with Ledger(folder / "ledger.sqlite", "audio", readonly=True) as ledger:
        assert ledger.open_jobs() == [0]


def test_readonly_cannot_write_and_makes_nothing(path: Path) -> None:
    with pytest.raises(StoreError, match=r"The ledger .*\.sqlite cannot be opened: unable to open"):
        Ledger(path, "audio", readonly=True)
    assert not path.exists()
    Ledger(path, "audio").close()
    with (
        Ledger(path, "audio", readonly=True) as ledger,
        pytest.raises(StoreError, match="cannot be used: attempt to write a readonly database"),
    ):
        ledger.add_jobs([[A]])


@pytest.mark.parametrize("readonly", [False, True])
def test_a_file_that_is_not_sqlite(path: Path, readonly: bool) -> None:
    data = b"not a database, but long enough to be looked at" * 100
    path.write_bytes(data)
    with pytest.raises(StoreError, match=r"The ledger .* cannot be used: file is not a database\."):
        Ledger(path, "audio", readonly=readonly)
    assert path.read_bytes() == data


@pytest.mark.parametrize("readonly", [False, True])
def test_a_folder_in_place_of_the_ledger(path: Path, readonly: bool) -> None:
    path.mkdir()
    with pytest.raises(StoreError, match=r"The ledger .* cannot be opened: "):
        Ledger(path, "audio", readonly=readonly)


def test_another_database_is_not_read(path: Path) -> None:
    database = sqlite3.connect(path)
    database.execute("create table other (x)")
    database.close()
    with pytest.raises(StoreError, match="cannot be used: no such table: facts"):
        Ledger(path, "audio", readonly=True)


@pytest.mark.parametrize("readonly", [False, True])
def test_another_format(path: Path, readonly: bool) -> None:
    with Ledger(path, "audio") as ledger:
        ledger.set_fact("format", "2")
    with pytest.raises(
        StoreError, match=r"has format 2, this version reads format 1.*another store"
    ):
        Ledger(path, "audio", readonly=readonly)


def test_a_ledger_that_is_refused_is_closed(path: Path) -> None:
    with Ledger(path, "audio") as ledger:
        ledger.set_fact("format", "2")
    with pytest.raises(StoreError, match="format 2") as caught:
        Ledger(path, "audio")
    traceback = caught.value.__traceback__
    assert traceback is not None
    while traceback.tb_next is not None:
        traceback = traceback.tb_next
    refused = traceback.tb_frame.f_locals["self"]
    with pytest.raises(sqlite3.ProgrammingError, match="closed database"):
        refused.fact("format")


# -- at the same time -------------------------------------------------------------------------


READER = """
import sys, pathlib
from voxblink2_lib.ledger import Ledger
with Ledger(pathlib.Path(sys.argv[1]), "audio", readonly=True) as ledger:
    print(sorted(ledger.counts().items()), ledger.open_jobs())
"""


def read_elsewhere(path: Path) -> str:
    return subprocess.run(
        [sys.executable, "-c", READER, str(path)],
        env={"PYTHONPATH": ":".join(sys.path)},
        check=True,
        capture_output=True,
        text=True,
    ).stdout.strip()


def test_another_process_reads_while_one_writes(path: Path, ledger: Ledger) -> None:
    ledger.add_jobs([[A, B]])
    ledger.record(Outcome(A, "done", clips=1))
    assert read_elsewhere(path) == "[('done', 1), ('planned', 1)] [0]"


def test_a_reader_sees_the_state_before_an_open_transaction(path: Path, ledger: Ledger) -> None:
    ledger.add_jobs([[A]])

    def looking() -> Iterator[list[VideoKey]]:
        yield [B]
        with Ledger(path, "audio", readonly=True) as reader:
            assert reader.open_jobs() == [0]
            assert reader.counts() == {"planned": 1}
        yield [C]

    ledger.add_jobs(looking())
    with Ledger(path, "audio", readonly=True) as reader:
        assert reader.open_jobs() == [0, 1, 2]
        ledger.record(Outcome(A, "failed", "gone"))
        assert reader.counts() == {"failed": 1, "planned": 2}


def test_a_writer_that_is_killed_leaves_whole_outcomes(path: Path) -> None:
    code = """
import os, signal, sys, pathlib
from voxblink2_lib.ledger import Ledger
from voxblink2_lib.records import Outcome, VideoKey
ledger = Ledger(pathlib.Path(sys.argv[1]), "audio")
a, b = VideoKey("id000001", "a" * 11), VideoKey("id000001", "b" * 11)
ledger.add_jobs([[a, b]])
ledger.record(Outcome(a, "done", clips=1))
def jobs():
    yield [b]
    os.kill(os.getpid(), signal.SIGKILL)
ledger.add_jobs(jobs())
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)],
        env={"PYTHONPATH": ":".join(sys.path)},
        check=False,
    )
    assert done.returncode < 0
    with Ledger(path, "audio") as ledger:
        assert ledger.job_videos(0) == [(A, "done"), (B, "planned")]
        assert ledger.open_jobs() == [0]
