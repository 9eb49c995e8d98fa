"""Files of outcomes hold all that the ledger has of a job, and show when they do not."""

from __future__ import annotations

import hashlib
import json
import logging
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.property_settings import fewer_examples

from voxblink2_lib.errors import StoreDamagedError
from voxblink2_lib.outcomes import STATUSES, MissingUtterance, Outcome
from voxblink2_lib.records import SealedShard, VideoKey
from voxblink2_lib.store import outcome_files
from voxblink2_lib.store.job_outcomes import (
    AttemptRow,
    JobOutcomes,
    VerdictRow,
    VideoOutcomes,
    VideoRow,
    WitnessRow,
)
from voxblink2_lib.store.layout import Store
from voxblink2_lib.store.ledger import Ledger
from voxblink2_lib.store.ledger_database import LedgerDatabase
from voxblink2_lib.store.outcome_files import (
    outcomes_path,
    outcomes_written,
    read_outcomes,
    stale_jobs,
    write_file,
    write_outcomes,
    write_stale_outcomes,
)
from voxblink2_lib.store.shard_names import shard_name

KEYS = [VideoKey("id000001", letter * 11) for letter in "abcdef"]
SHARD = SealedShard(3, "audio-00003.arrow", "a" * 64, 2, 1000)

# -- What is written is read -----------------------------------------------------------------------

_texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
_counts = st.integers(0, 2**62)
_times = st.floats(0, 1e12)
_maybe = st.none() | _times
_statuses = st.sampled_from(STATUSES)
_utterances = st.from_regex(r"[A-Za-z0-9_-]{1,64}", fullmatch=True)
_keys = st.builds(
    VideoKey,
    st.from_regex(r"id[0-9]{5,6}", fullmatch=True),
    st.from_regex(r"[A-Za-z0-9_-]{11}", fullmatch=True),
)


@st.composite
def _videos(draw: st.DrawFn, key: VideoKey) -> VideoOutcomes:
    row = VideoRow(
        key.speaker_id,
        key.video_id,
        status=draw(st.sampled_from([*STATUSES, "planned"])),
        reason=draw(_texts),
        attempts=draw(_counts),
        next_at=draw(_maybe),
        clips=draw(_counts),
        samples=draw(_counts),
        bytes_fetched=draw(_counts),
        seconds_taken=draw(_times),
        digest=draw(st.integers(-(2**63), 2**63 - 1)),
        updated_at=draw(_maybe),
    )
    verdicts = st.builds(
        VerdictRow, _texts, _statuses, _texts, _counts, _maybe, _maybe, _texts, _times
    )
    attempts = st.builds(
        AttemptRow, _counts, _times, _statuses, _texts, _texts, _counts, _times, _texts
    )
    missing = st.builds(MissingUtterance, _utterances, _texts)
    return VideoOutcomes(
        row,
        tuple(draw(st.lists(verdicts, max_size=3))),
        tuple(draw(st.lists(missing, max_size=3))),
        tuple(draw(st.lists(attempts, max_size=3))),
    )


@st.composite
def _outcomes(draw: st.DrawFn) -> JobOutcomes:
    config = draw(st.sampled_from(["audio", "audio-visual"]))
    job = draw(st.integers(0, 2**40))
    keys = draw(st.lists(_keys, max_size=4, unique=True))
    entries = st.builds(
        SealedShard,
        st.just(job),
        st.just(shard_name(config, job)),
        st.from_regex(r"[0-9a-f]{64}", fullmatch=True),
        _counts,
        _counts,
    )
    witnesses = st.builds(WitnessRow, _texts, _texts, _texts, _texts, _times)
    return JobOutcomes(
        config=config,
        job=job,
        kind=draw(st.sampled_from(["planned", "retry", "recovered"])),
        shard=draw(st.none() | st.just(SealedShard(job, "", "", 0, 0)) | entries),
        videos=tuple(draw(_videos(key)) for key in keys),
        settings=draw(st.dictionaries(_texts, _texts, max_size=3)),
        sources=tuple(draw(st.lists(_texts, max_size=3))),
        witnesses=tuple(draw(st.lists(witnesses, max_size=2))),
        written_at=draw(_times),
    )


@fewer_examples(2)
@given(outcomes=_outcomes(), data=st.data())
def test_what_is_written_is_read(
    outcomes: JobOutcomes, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = outcomes_path(tmp_path_factory.mktemp("shards"), outcomes.config, outcomes.job)
    digests = data.draw(
        st.none()
        | st.fixed_dictionaries(
            {
                f"{video.row.speaker_id}/{video.row.video_id}/{number:05}": st.binary(
                    min_size=16, max_size=16
                )
                for video in outcomes.videos
                for number in range(2)
            }
        )
    )
    write_file(path, outcomes, digests)
    known = read_outcomes(path)
    assert known == outcomes
    assert known.written_at == outcomes.written_at
    assert known.digests == (digests if outcomes.shard else None)
    assert read_outcomes(path, with_digests=False) == outcomes


# -- Files that are not as they were written -------------------------------------------------------


def _video(key: VideoKey, status: str = "done") -> VideoOutcomes:
    row = VideoRow(*key, status, "", 1, None, 2, 320, 1000, 0.5, 77, 1e9)
    attempt = AttemptRow(1, 1e9, status, "", "direct", 1000, 0.5, "{}")
    return VideoOutcomes(row, (), (MissingUtterance("00009", "no face"),), (attempt,))


@pytest.fixture
def written(tmp_path: Path) -> Path:
    """A file of a job with two rows in its shard."""
    outcomes = JobOutcomes("audio", 3, "planned", SHARD, tuple(map(_video, KEYS)), {"source": "x"})
    path = outcomes_path(tmp_path, "audio", 3)
    write_file(path, outcomes, {f"{'/'.join(KEYS[0])}/0000{n}": bytes([n]) * 16 for n in (1, 2)})
    return path


def test_each_of_200_flipped_bits_is_seen(written: Path) -> None:
    whole = written.read_bytes()
    chooser = random.Random(19)
    for _ in range(200):
        data = bytearray(whole)
        data[chooser.randrange(len(data))] ^= 1 << chooser.randrange(8)
        written.write_bytes(data)
        with pytest.raises(StoreDamagedError, match=r"audio-00003\.outcomes\.parquet is damaged"):
            read_outcomes(written)
    for end in chooser.sample(range(len(whole)), 50):
        written.write_bytes(whole[:end])
        with pytest.raises(StoreDamagedError, match=r"audio-00003\.outcomes\.parquet is damaged"):
            read_outcomes(written)


def test_a_file_that_is_not_there_or_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_outcomes(outcomes_path(tmp_path, "audio", 3))
    outcomes_path(tmp_path, "audio", 3).mkdir()
    with pytest.raises(StoreDamagedError, match="cannot be read"):
        read_outcomes(outcomes_path(tmp_path, "audio", 3))


def forge(path: Path, table: pa.Table) -> None:
    """Write a table as somebody who knows how the checksum is made."""
    metadata = {**(table.schema.metadata or {}), b"voxblink2_sha256": b"0" * 64}
    pq.write_table(table.replace_schema_metadata(metadata), path)
    data = path.read_bytes()
    place = data.rindex(b"voxblink2_sha256\x18@") + 18
    digest = hashlib.sha256(data).hexdigest().encode()
    path.write_bytes(data[:place] + digest + data[place + 64 :])


def _about(table: pa.Table, **values: Any) -> pa.Table:
    about = json.loads(table.schema.metadata[b"voxblink2_outcomes"]) | values
    return table.replace_schema_metadata({"voxblink2_outcomes": json.dumps(about)})


def _with(table: pa.Table, name: str, value: Any) -> pa.Table:
    place = table.schema.get_field_index(name)
    field = table.schema.field(name)
    return table.set_column(place, field, pa.array([value] * len(table), field.type))


FORGERIES = {
    "it has other columns": lambda table: table.drop_columns(["digest"]),
    "it has format 2, this version reads 1": lambda table: _about(table, format=2),
    "it is of job 4 of audio": lambda table: _about(table, job=4),
    "'queued' is no kind of a job": lambda table: _about(table, kind="queued"),
    "'../../x.arrow' is no name of a shard": lambda table: _about(
        table, shard=["../../x.arrow", "a" * 64, 1, 1]
    ),
    "'' is no SHA-256": lambda table: _about(table, shard=["audio-00003.arrow", "", 1, 1]),
    "'../../etc' is no speaker id": lambda table: _with(table, "speaker_id", "../../etc"),
    "'/etc/passwd' is no video id": lambda table: _with(table, "video_id", "/etc/passwd"),
    "'lost' is no class of a video": lambda table: _with(table, "status", "lost"),
    "-1 is no number of clips": lambda table: _with(table, "clips", -1),
    "'../x' is no utterance id": lambda table: _with(
        table, "missing", [{"utterance_id": "../x", "reason": ""}]
    ),
    "5 is no text": lambda table: _about(table, settings={"source": 5}),
    "unexpected keyword argument": lambda table: _about(table, more=1),
}


@pytest.mark.parametrize("problem", FORGERIES)
def test_a_file_with_values_that_no_ledger_has(problem: str, written: Path) -> None:
    forge(written, FORGERIES[problem](pq.read_table(written)))
    with pytest.raises(StoreDamagedError) as caught:
        read_outcomes(written)
    assert problem in str(caught.value)
    assert str(written) in str(caught.value)


def test_a_forgery_that_says_what_it_said_is_read(written: Path) -> None:
    before = read_outcomes(written)
    forge(written, pq.read_table(written))
    assert read_outcomes(written) == before


# -- When they are written -------------------------------------------------------------------------


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def _files(store: Store) -> set[str]:
    return {path.name.partition(".")[0] for path in store.shards("audio").glob("*")}


def _stale(store: Store, ledger: Ledger) -> list[int]:
    jobs = stale_jobs(store, ledger)
    write_stale_outcomes(store, ledger)
    assert stale_jobs(store, ledger) == []
    for job in ledger.outcomes.jobs():
        path = outcomes_path(store.shards("audio"), "audio", job)
        assert read_outcomes(path).videos == _read(ledger, job).videos
    return jobs


def _read(ledger: Ledger, job: int) -> JobOutcomes:
    outcomes = ledger.outcomes.read(job)
    assert outcomes is not None
    return outcomes


def test_whatever_changes_a_job_makes_its_file_stale(store: Store) -> None:
    store.root.mkdir()
    with Ledger(store.ledger, "audio") as ledger:
        verdicts = ledger.verdicts("youtube")
        ledger.add_jobs([KEYS[:2], KEYS[2:4], KEYS[4:]])
        assert _stale(store, ledger) == [2, 1, 0]
        verdicts.record(Outcome(KEYS[2], "private", "private", is_explicit=True))
        assert _stale(store, ledger) == [1]
        verdicts.record(Outcome(KEYS[0], "done", clips=3))
        verdicts.record(Outcome(KEYS[1], "transient", "timed out"))
        ledger.seal(replace(SHARD, job=0, name="audio-00000.arrow"))
        assert _stale(store, ledger) == [0]
        ledger.drop([KEYS[4], KEYS[0]])
        assert _stale(store, ledger) == [2]
        verdicts.ask_again([KEYS[1]])
        assert _stale(store, ledger) == [0]
        ledger.set_setting("source", "elsewhere")
        assert _stale(store, ledger) == [0]
        verdicts.record_witness(KEYS[0], "direct", at=5.0)
        assert _stale(store, ledger) == [0]
        (retry,) = ledger.add_jobs([KEYS[1:2]], kind="retry")
        # Written before the job that the video has left.
        verdicts.record(Outcome(KEYS[0], "done", clips=3))
        assert _stale(store, ledger) == [retry, 0]
        verdicts.record(Outcome(KEYS[1], "done", clips=3))
        assert _stale(store, ledger) == [retry]
        shard = replace(SHARD, job=3, name="audio-00003.arrow")
        ledger.recovered.switch(shard, KEYS[1:2], tail=None, closed=[retry])
        assert _stale(store, ledger) == [3, retry]
        # Any job may have had it before.
        (retry,) = ledger.add_jobs([KEYS[3:4]], kind="retry")
        write_stale_outcomes(store, ledger)
        ledger.drop([KEYS[3]])
        assert _stale(store, ledger) == [retry, 2, 1, 0, retry - 1]
    assert _files(store) == {
        *(
            "audio-00000",
            "audio-00001",
            "audio-00002",
            "audio-00003",
            shard_name("audio", retry)[:-6],
        )
    }


def test_a_long_list_of_ids_is_not_in_each_file(store: Store) -> None:
    few, many = ["id000001"] * 100, [f"v{number:010}" for number in range(2_000)]
    with Ledger(store.ledger, "audio") as ledger:
        ledger.add_jobs([[VideoKey("id000001", "a" * 11)]])
        for exclude, kept in ((few, few), (many, "2,000 ids, which were not kept")):
            ledger.set_setting("request", json.dumps({"exclude": exclude, "max_speakers": 2}))
            settings = json.loads(_read(ledger, 0).settings["request"])
            assert settings == {"exclude": kept, "max_speakers": 2}


def test_settings_are_read_once_for_all_files(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    queries: list[str] = []
    real = LedgerDatabase.query

    def spy(database: LedgerDatabase, sql: str, *values: Any, **named: Any) -> Any:
        queries.append(sql)
        return real(database, sql, *values, **named)

    monkeypatch.setattr(LedgerDatabase, "query", spy)
    with Ledger(store.ledger, "audio") as ledger:
        ledger.add_jobs([[key] for key in KEYS])
        for value in ("first", "second"):
            ledger.set_setting("request", value)
            for job in range(len(KEYS)):
                outcomes_path(store.shards("audio"), "audio", job).unlink(missing_ok=True)
            queries.clear()
            assert write_stale_outcomes(store, ledger) == len(KEYS) > 1
            assert queries.count("select name, value from facts") == 1
            files = sorted(store.shards("audio").glob("*.outcomes.parquet"))
            assert [read_outcomes(path).settings["request"] for path in files] == [value] * len(
                KEYS
            )


def test_files_that_are_missing_are_written(store: Store) -> None:
    store.root.mkdir()
    with Ledger(store.ledger, "audio") as ledger:
        ledger.add_jobs([KEYS[:2], KEYS[2:]])
        write_stale_outcomes(store, ledger)
        outcomes_path(store.shards("audio"), "audio", 1).unlink()
        assert _stale(store, ledger) == [1]


def test_nothing_is_read_where_nothing_lacks(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.root.mkdir()
    with Ledger(store.ledger, "audio") as ledger:
        ledger.add_jobs([KEYS])
        write_stale_outcomes(store, ledger)
        monkeypatch.setattr(outcome_files, "write_outcomes", None)
        assert write_stale_outcomes(store, ledger) == 0


def test_digests_are_kept_as_long_as_the_shard_is_the_same(store: Store) -> None:
    store.root.mkdir()
    digests = {f"{'/'.join(KEYS[0])}/00001": b"d" * 16}
    path = outcomes_path(store.shards("audio"), "audio", 0)
    shard = replace(SHARD, job=0, name="audio-00000.arrow")
    with Ledger(store.ledger, "audio") as ledger:
        ledger.add_jobs([KEYS])
        ledger.seal(shard)
        write_outcomes(store, ledger, 0)
        assert read_outcomes(path).digests is None
        write_outcomes(store, ledger, 0, digests)
        write_outcomes(store, ledger, 0)
        assert read_outcomes(path).digests == digests
        ledger.seal(replace(shard, sha256="b" * 64))
        write_outcomes(store, ledger, 0)
        assert read_outcomes(path).digests is None
        path.write_bytes(b"no Parquet")
        write_outcomes(store, ledger, 0)
        assert read_outcomes(path).shard == replace(shard, sha256="b" * 64)


def _interrupted(store: Store, ledger: Ledger, key: VideoKey) -> None:
    with outcomes_written(store, ledger):
        ledger.verdicts("").record(Outcome(key, "done", clips=1))
        raise KeyboardInterrupt


def test_a_run_that_ends_by_an_error_writes_them_and_says_why_not(
    store: Store, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.root.mkdir()

    def refuse(*_: object) -> None:
        raise OSError(5, "Input/output error")

    with Ledger(store.ledger, "audio") as ledger:
        ledger.add_jobs([KEYS])
        with pytest.raises(KeyboardInterrupt):
            _interrupted(store, ledger, KEYS[0])
        assert stale_jobs(store, ledger) == []
        monkeypatch.setattr(outcome_files, "write_file", refuse)
        with pytest.raises(KeyboardInterrupt):
            _interrupted(store, ledger, KEYS[1])
        assert stale_jobs(store, ledger) == [0]
    ((_, level, message),) = caplog.record_tuples
    assert level == logging.WARNING
    assert message.startswith("The next run writes the outcomes beside the shards")


def test_a_ledger_with_what_no_ledger_has_is_named(store: Store) -> None:
    store.root.mkdir()
    with Ledger(store.ledger, "audio") as ledger:
        ledger.add_jobs([KEYS])
        with ledger._database.transaction() as connection:
            connection.execute("update videos set status = 'gnne'")
        with pytest.raises(StoreDamagedError, match=r"is damaged \(job 0: 'gnne' is no class"):
            write_outcomes(store, ledger, 0)
