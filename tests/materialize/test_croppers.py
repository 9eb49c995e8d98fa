"""What the deaths of processes mean for their videos, and that suspects are tried alone."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.video_tasks import video_task

from voxblink2_lib.errors import StoppedError
from voxblink2_lib.materialize import croppers
from voxblink2_lib.materialize.croppers import Croppers
from voxblink2_lib.materialize.fetched_media import FetchRecord, stage
from voxblink2_lib.materialize.pipeline import seal_job
from voxblink2_lib.materialize.tasks import SealTask
from voxblink2_lib.outcomes import MediaFacts, Outcome
from voxblink2_lib.records import Clip, VideoKey
from voxblink2_lib.sources import Media
from voxblink2_lib.store.schema import arrow_schema
from voxblink2_lib.store.shards import make_rows, write_part
from voxblink2_lib.workers.pool import Call, WorkerDiedError, WorkerPool

SCHEMA = arrow_schema("audio")
SEAL: Call = (seal_job, SealTask(0, (), Path("shard"), SCHEMA))
ALONE = ", the second time while nothing else was cropped"


def death(name: str) -> WorkerDiedError:
    number = {"KILL": 9, "TERM": 15, "SEGV": 11, "ABRT": 6, "BUS": 7, "FPE": 8, "ILL": 4, "HUP": 1}
    return WorkerDiedError(
        f"died of {name}", signal_number=number.get(name), is_overdue=name == "hang"
    )


CRASHES = ("SEGV", "ABRT", "BUS", "FPE", "ILL", "hang")
OF_THE_MACHINE = ("KILL", "TERM", "HUP", "memory")


class ManualPool(WorkerPool):
    """Holds calls until the test takes their results."""

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self.calls: list[Call] = []

    @property
    def busy(self) -> int:
        return len(self.calls)

    def submit(self, call: Call) -> None:
        assert self.free > 0
        self.calls.append(call)
        alone = [call for call in self.calls if getattr(call[1], "is_alone", False)]
        assert not alone or len(self.calls) == 1, "a call ran beside a video that is tried alone"


def outcomes_of(results: Sequence[Sequence[str]], order: st.DataObject | None) -> list[Outcome]:
    """Crop videos whose processes die as listed; the last result is repeated.

    Args:
        results: names of deaths, or "done", of each try of each video.
        order: draws which running call ends next; ``None`` for the first.
    """
    chosen = Croppers(ManualPool(3))
    chosen.ready.extend(map(video_task, range(len(results))))
    tries: defaultdict[VideoKey, int] = defaultdict(int)
    outcomes = []
    pool = chosen.pool
    assert isinstance(pool, ManualPool)
    chosen.hand_out()
    while pool.busy:
        number = order.draw(st.integers(0, pool.busy - 1)) if order else 0
        video = pool.calls.pop(number)[1]
        names = results[int(video.key.video_id[5:])]
        name = names[min(tries[video.key], len(names) - 1)]
        assert video.is_alone == (tries[video.key] > 0)
        tries[video.key] += 1
        result = Outcome(video.key, "done", clips=1) if name == "done" else death(name)
        if outcome := chosen.outcome(video, result):
            outcomes.append(outcome)
        chosen.hand_out()
    assert not chosen.ready
    assert chosen._deaths == {}
    return outcomes


NAMES = st.sampled_from(["done", "done", *CRASHES, *OF_THE_MACHINE])


@given(st.lists(st.lists(NAMES, min_size=1, max_size=3), max_size=7), st.data())
def test_every_video_gets_one_outcome_whatever_dies_in_whichever_order(
    results: list[list[str]], data: st.DataObject
) -> None:
    outcomes = outcomes_of(results, data)
    assert sorted(outcome.key for outcome in outcomes) == [
        video_task(number).key for number in range(len(results))
    ]
    has_cropped = False
    for outcome in outcomes:
        names = results[int(outcome.key.video_id[5:])]
        names = [*names, *[names[-1]] * 3][:3]
        status = expected(names)
        if not has_cropped:
            # Without a video that was cropped before, the machine may be at fault.
            status = status.replace("media-unusable", "transient")
        assert outcome.status == status
        has_cropped |= status == "done"


def expected(names: list[str]) -> str:
    """The second death of a kind decides, and any try that succeeds before."""
    deaths = {"media-unusable": 0, "transient": 0}
    for name in names:
        if name == "done":
            return "done"
        status = "media-unusable" if name in CRASHES else "transient"
        deaths[status] += 1
        if deaths[status] == 2:
            return status
    raise AssertionError("three tries decide")


@pytest.mark.parametrize(
    ("names", "status", "reason"),
    [
        (["SEGV", "SEGV"], "media-unusable", f"died of SEGV twice{ALONE}"),
        (["hang", "hang"], "media-unusable", f"died of hang twice{ALONE}"),
        (
            ["SEGV", "hang"],
            "media-unusable",
            "died of SEGV; then died of hang, while nothing else was cropped",
        ),
        (["KILL", "KILL"], "transient", f"died of KILL twice{ALONE}. It had 3 bytes"),
        (["memory", "memory"], "transient", f"died of memory twice{ALONE}. It had 3 bytes"),
        (
            ["KILL", "ABRT", "TERM"],
            "transient",
            "died of KILL; then died of ABRT; then died of TERM, while nothing else was cropped. "
            "It had 3 bytes",
        ),
        (["KILL", "done"], "done", ""),
        (["SEGV", "done"], "done", ""),
    ],
)
def test_the_second_death_of_a_kind_is_the_verdict(
    names: list[str], status: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(croppers, "memory_text", lambda: "It had 3 bytes")
    witness, outcome = outcomes_of([["done"], names], None)
    assert witness.status == "done"
    assert (outcome.status, outcome.reason) == (status, reason)


def test_no_video_is_unusable_before_another_was_cropped() -> None:
    first, second, third = outcomes_of([["SEGV"], ["SEGV", "done"], ["SEGV"]], None)
    assert (first.status, first.reason) == ("transient", f"died of SEGV twice{ALONE}")
    assert (second.status, third.status) == ("done", "media-unusable")


@pytest.mark.parametrize("name", ["SEGV", "KILL", "hang"])
def test_a_machine_on_which_every_process_dies_stops_the_run(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(croppers, "memory_text", lambda: "It had 3 bytes")
    seven = outcomes_of([[name]] * 7, None)
    assert [outcome.status for outcome in seven] == ["transient"] * 7
    message = (
        rf"^Of 8 videos not one was cropped\. Of the last one, died of {name} twice{ALONE}\. "
        r"It had 3 bytes\. This looks like a fault of this machine, .* run the same command again"
    )
    with pytest.raises(StoppedError, match=message):
        outcomes_of([[name]] * 8, None)
    assert len(outcomes_of([["done"], *[[name]] * 20], None)) == 21


def test_what_the_download_took_is_kept(tmp_path: Path) -> None:
    record = FetchRecord(5, 2.0, "proxy", MediaFacts(audio_id="140"))
    (tmp_path / "file").mkdir()
    (tmp_path / "file" / "name").write_bytes(b"media")
    staged = tmp_path / "staged"
    stage(Media(tmp_path / "file" / "name", 5), staged, record)
    video = replace(video_task(0, tmp_path), staged=staged)
    chosen = Croppers(ManualPool(1))
    assert chosen.outcome(video_task(1), Outcome(video_task(1).key, "done")) is not None
    assert chosen.outcome(video, death("SEGV")) is None
    assert staged.exists()
    outcome = chosen.outcome(replace(video, is_alone=True), death("SEGV"))
    assert outcome is not None
    assert (outcome.status, outcome.digest) == ("media-unusable", 7)
    assert (outcome.bytes_fetched, outcome.seconds_taken) == (5, 2.0)
    assert (outcome.route, outcome.facts) == ("proxy", record.facts)
    assert not outcome.is_explicit
    assert not staged.exists()


def test_a_machine_that_does_not_state_its_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(croppers, "memory_text", lambda: "")
    (outcome,) = outcomes_of([["KILL"]], None)
    assert outcome.reason == f"died of KILL twice{ALONE}"


@pytest.mark.parametrize("others", [3, 200])
def test_a_suspect_is_tried_later_and_does_not_wait_for_ever(others: int) -> None:
    results = [["SEGV", "done"], *[["done"]] * others]
    keys = [outcome.key for outcome in outcomes_of(results, None)]
    position = keys.index(video_task(0).key)
    assert min(others, croppers._CALLS_BETWEEN) <= position <= croppers._CALLS_BETWEEN + 3


def test_jobs_are_sealed_before_more_is_cropped_but_not_beside_a_suspect() -> None:
    pool = ManualPool(2)
    chosen = Croppers(pool)
    chosen.ready.append(video_task(0))
    chosen.hand_out()
    chosen.outcome(pool.calls.pop()[1], death("KILL"))
    chosen.hand_out()
    assert [call[1].is_alone for call in pool.calls] == [True]
    chosen.seals.append(SEAL)
    chosen.ready.append(video_task(1))
    chosen.hand_out()
    assert len(pool.calls) == 1
    video = pool.calls.pop()[1]
    assert chosen.outcome(video, Outcome(video.key, "done")) is not None
    chosen.hand_out()
    assert [call[1] for call in pool.calls] == [SEAL[1], video_task(1)]


def test_what_was_written_before_the_death_counts(tmp_path: Path) -> None:
    video = video_task(0, tmp_path)
    (utterance,) = video.utterances
    done = Outcome(video.key, "done", clips=1, digest=7)
    rows = make_rows(
        (Clip(utterance, b"bytes"),), (), schema=SCHEMA, audio_format="flac", source="url"
    )
    write_part(video.part, rows, done)
    assert Croppers(ManualPool(1)).outcome(video, death("KILL")) == done
