"""What a selection adds to a store, and what in the store it does not select."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from voxblink2_lib.errors import StoreError
from voxblink2_lib.materialize.planning import Plan, diff_plan, write_plan
from voxblink2_lib.media.options import ClipOptions
from voxblink2_lib.outcomes import STATUSES
from voxblink2_lib.records import VideoKey
from voxblink2_lib.release.index import video_keys
from voxblink2_lib.store.checksums import checksum_file
from voxblink2_lib.store.ledger import Ledger

DIGEST = -(2**63)


def table(keys: Iterable[VideoKey]) -> pa.Table:
    rows = list(keys)
    return pa.table(
        {
            "speaker_id": pa.array([row.speaker_id for row in rows], pa.string()),
            "video_id": pa.array([row.video_id for row in rows], pa.string()),
            "digest": pa.array([DIGEST] * len(rows), pa.int64()),
        }
    )


A, B, C, D = (VideoKey("id000001", f"{letter * 11}") for letter in "abcd")


def known(
    *rows: tuple[VideoKey, str], digest: int = DIGEST, opened: Collection[VideoKey] = ()
) -> pa.Table:
    return pa.table(
        {
            "speaker_id": pa.array([row[0].speaker_id for row in rows], pa.string()),
            "video_id": pa.array([row[0].video_id for row in rows], pa.string()),
            "status": pa.array([row[1] for row in rows], pa.string()),
            "digest": pa.array([digest] * len(rows), pa.int64()),
            "is_open": pa.array([row[0] in opened for row in rows], pa.bool_()),
        }
    )


def answer(
    selected: Iterable[VideoKey], ledger: pa.Table
) -> tuple[list[VideoKey], list[VideoKey], list[VideoKey]]:
    diff = diff_plan(table(selected), ledger)
    return (
        list(video_keys(diff.new)),
        list(video_keys(diff.deselected)),
        list(video_keys(diff.outside)),
    )


def test_done_videos_that_are_annotated_otherwise_now_are_changed() -> None:
    rows = [(A, "done"), (B, "gone"), (C, "planned")]
    diff = diff_plan(table([A, B, C]), known(*rows, digest=DIGEST + 1))
    assert list(video_keys(diff.changed)) == [A]
    assert not len(diff_plan(table([A, B, C]), known(*rows)).changed)


def test_an_empty_store_needs_everything() -> None:
    assert answer([A, B, C], known()) == ([A, B, C], [], [])


def test_growth() -> None:
    assert answer([A, B, C, D], known((B, "done"), (A, "done"))) == ([C, D], [], [])


# A ledger has planned videos and those of every class, without excluded ones.
KNOWN = ["planned", *(status for status in STATUSES if status != "excluded")]


@pytest.mark.parametrize("status", KNOWN)
def test_videos_that_are_known_are_not_new(status: str) -> None:
    """Whether a video is retried follows from its outcome, not from the selection."""
    assert answer([A], known((A, status))) == ([], [], [])


@pytest.mark.parametrize("status", [status for status in KNOWN if status != "done"])
def test_deselected(status: str) -> None:
    assert answer([B], known((A, status), (B, "done"), opened=[A])) == ([], [A], [])


@pytest.mark.parametrize("status", [status for status in KNOWN if status != "done"])
def test_answers_of_sealed_jobs_stay(status: str) -> None:
    assert answer([B], known((A, status), (B, "done"))) == ([], [], [])


def test_what_is_excluded_is_dropped_unless_it_came() -> None:
    diff = diff_plan(table([D]), known((A, "gone"), (B, "done"), (C, "gone")), table([A, B]))
    assert list(video_keys(diff.deselected)) == [A]


def test_selected_videos_of_open_jobs_are_unsealed() -> None:
    """Also those that came: their clips are in no shard yet."""
    ledger = known((A, "done"), (B, "planned"), (C, "done"), (D, "gone"), opened=[A, B, D])
    diff = diff_plan(table([A, B, C]), ledger)
    assert list(video_keys(diff.unsealed)) == [A, B]


def test_outside() -> None:
    assert answer([B], known((A, "done"))) == ([B], [], [A])


def test_the_speaker_counts_as_well() -> None:
    twin = VideoKey("id000002", A.video_id)
    assert answer([twin], known((A, "planned"), opened=[A])) == ([twin], [A], [])


@given(
    selected=st.sets(st.sampled_from([A, B, C, D])),
    ledger=st.dictionaries(st.sampled_from([A, B, C, D]), st.sampled_from(KNOWN)),
    opened=st.sets(st.sampled_from([A, B, C, D])),
)
def test_every_video_has_one_place(
    selected: set[VideoKey], ledger: dict[VideoKey, str], opened: set[VideoKey]
) -> None:
    new, deselected, outside = answer(selected, known(*ledger.items(), opened=opened))
    others = set(ledger) - selected
    assert set(new) == selected - set(ledger)
    assert set(outside) == {video for video in others if ledger[video] == "done"}
    assert set(deselected) == (others & opened) - set(outside)


def test_a_plan_of_nothing_writes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    with Ledger(path, "audio") as ledger:
        ledger.add_jobs([[A, B]])
    with Ledger(path, "audio") as ledger:
        assert write_plan(Plan(ClipOptions()), ledger, ledger.verdicts("youtube")) == []
        # They go before the first change.
        assert checksum_file(path).exists()


def test_a_plan_is_written_as_a_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Ledger(tmp_path / "ledger.sqlite", "audio") as ledger:
        ledger.add_jobs([[A]])
        selected, excluded = table([B, C]), table([D])
        diff = diff_plan(selected, ledger.planned_videos(), excluded)
        plan = Plan(ClipOptions(), settings={"plan": "x"}, diff=diff, excluded=excluded)
        with monkeypatch.context() as patches:
            # The last of what it writes fails.
            patches.setattr(Ledger, "set_setting", refuse)
            with pytest.raises(StoreError, match="no space"):
                write_plan(plan, ledger, ledger.verdicts("youtube"))
        assert ledger.statistics.videos() == {"planned": 1}
        assert ledger.job_videos(0) == [(A, "planned")]
        assert write_plan(plan, ledger, ledger.verdicts("youtube")) == [1, 2]
        assert ledger.statistics.videos() == {"planned": 2, "excluded": 1}
        assert ledger.setting("plan") == "x"


def refuse(*_: object) -> None:
    raise StoreError("no space")
