"""Two states of a store side by side: what is gained, lost and changed, and why."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import cli_process
from support.plain_corpus import make_corpus, video_ids

from voxblink2_lib.errors import StoreError
from voxblink2_lib.outcomes import MissingUtterance, Outcome
from voxblink2_lib.purge.ids import read_purged_ids
from voxblink2_lib.purge.run import purge_store
from voxblink2_lib.records import VideoKey
from voxblink2_lib.release.tombstones import Tombstones
from voxblink2_lib.report.differences import (
    Change,
    Comparison,
    Side,
    changes,
    compare,
    video_pairs,
)
from voxblink2_lib.store.backup import back_up_ledger
from voxblink2_lib.store.layout import Store
from voxblink2_lib.store.ledger import Ledger
from voxblink2_lib.store.ledger_videos import VideoEntry

VIDEOS = 6
States = dict[tuple[str, str], tuple[str, int, int]]
_entry = st.tuples(
    st.sampled_from(["done", "gone", "planned"]), st.integers(0, 3), st.sampled_from([0, 7, 8])
)
_states = st.dictionaries(st.tuples(st.sampled_from("ab"), st.sampled_from("xyz")), _entry)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A release of three speakers with its media, and a store; not to be changed."""
    folder = make_corpus(tmp_path_factory.mktemp("corpus"), video_ids(VIDEOS), per_speaker=2)
    cli_process.run_inline(
        *("materialize", "--data-dir", folder, "--source", folder / "media"),
        *("--store", folder / "store"),
    )
    return folder


@pytest.fixture
def store(corpus: Path, tmp_path: Path) -> Store:
    return Store(Path(shutil.copytree(corpus / "store", tmp_path / "store")))


def entries(states: States) -> list[VideoEntry]:
    return [
        VideoEntry(speaker, video, status, "", clips if status == "done" else 0, clips, digest, {})
        for (speaker, video), (status, clips, digest) in sorted(states.items())
    ]


@given(before=_states, after=_states)
def test_counts_add_up(before: States, after: States) -> None:
    first, second = entries(before), entries(after)
    comparison = Comparison("audio", Tombstones(b""))
    passed: list[int] = []

    def note(count: int, /, *, note: str = "") -> None:
        passed.append(count)

    found = list(comparison.changes(video_pairs(iter(first), iter(second), note)))
    assert sum(passed) == len(first) + len(second)
    had, has = (
        {f"{entry.speaker_id}/{entry.video_id}": entry.clips for entry in side if entry.clips}
        for side in (first, second)
    )

    def of(kind: str, change: str) -> set[str]:
        rows = [row for row in found if (row.kind, row.change) == (kind, change)]
        return {f"{row.speaker_id}/{row.video_id}".strip("/") for row in rows}

    assert of("video", "gained") == has.keys() - had.keys()
    assert of("video", "lost") == had.keys() - has.keys()
    speakers = [{name.split("/")[0] for name in names} for names in (had, has)]
    assert of("speaker", "gained") == speakers[1] - speakers[0]
    assert of("speaker", "lost") == speakers[0] - speakers[1]
    moved = sum(
        row.utterances_after - row.utterances_before
        for row in found
        if row.kind == "utterance" or (row.kind == "video" and row.change != "changed")
    )
    assert moved == sum(has.values()) - sum(had.values())
    same = video_pairs(iter(first), iter(first), note)
    assert list(comparison.changes(same)) == []


def test_utterances_that_a_video_lacks_are_named(tmp_path: Path) -> None:
    sides: list[Side] = []
    for number, lacking in enumerate([{"00001"}, {"00002", "00003"}]):
        path = tmp_path / f"{number}.sqlite"
        with Ledger(path, "audio") as ledger:
            keys = [VideoKey("id000001", letter * 11) for letter in "abc"]
            ledger.add_jobs([keys])
            verdicts = ledger.verdicts("folder")
            for key in keys:
                missing = [MissingUtterance(name, "no sound") for name in sorted(lacking)]
                is_b = key.video_id.startswith("b")
                clips = 9 - len(lacking) if is_b else 9
                verdicts.record(
                    Outcome(key, "done", clips=clips, missing=tuple(missing) if is_b else ())
                )
        sides.append(Side.of(str(path)))
    found = [row for row in changes(sides[0], sides[1], "audio") if row.kind == "utterance"]
    assert [(row.change, row.video_id[0], row.utterance_id, row.words) for row in found] == [
        ("lost", "b", "00002", "no sound"),
        ("lost", "b", "00003", "no sound"),
        ("gained", "b", "00001", "no sound"),
    ]
    counts = compare(sides[0], sides[1]).counts["audio"]
    assert counts["utterance", "lost", "no clip"] == 2
    assert counts["video", "changed", "clips"] == 1


def test_a_store_then_and_now(store: Store, tmp_path: Path) -> None:
    kept = tmp_path / "kept.sqlite"
    back_up_ledger(store)
    shutil.copy(store.backup, kept)
    with Ledger(store.ledger, "audio") as ledger:
        ledger.drop([VideoKey("id000000", "video000000")])  # it has clips, and stays
    assert cli_process.run_inline("diff", store.root).stdout.endswith("audio    no difference\n")
    ids = read_purged_ids(["id000001", "id000002/video000004/00001"])
    purge_store(store, ids)
    listed = tmp_path / "changes.csv"
    record = cli_process.run_inline_json("diff", kept, store.root, "--csv", listed)
    audio = record["configs"]["audio"]
    assert audio["speakers"] == {"gained": 0, "lost": 1, "changed": 0}
    assert audio["videos"] == {"gained": 0, "lost": 3, "changed": 0}
    assert audio["utterances"] == {"gained": 0, "lost": 3, "changed": 0}
    with open(listed, newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == list(Change._fields)
    assert [(row["kind"], row["change"], row["reason"]) for row in rows[:3]] == [
        ("speaker", "lost", "purged"),
        ("video", "lost", "purged"),
        ("video", "lost", "purged"),
    ]
    back = cli_process.run_inline_json("diff", store.root, kept)["configs"]["audio"]
    assert back["videos"]["gained"] == 3
    # The copy of the ledger was made again by the purge.
    assert cli_process.run_inline("diff", store.root).stdout.endswith("audio    no difference\n")
    assert {path.name for path in tmp_path.iterdir()} == {"kept.sqlite", "changes.csv", "store"}


def test_what_was_retried_and_what_is_gone(corpus: Path, store: Store, tmp_path: Path) -> None:
    other = tmp_path / "other"
    media = Path(shutil.copytree(corpus / "media", tmp_path / "media"))
    (media / "id000000" / "video000001.wav").write_bytes(b"no sound")
    cli_process.run_inline(
        *("materialize", "--data-dir", corpus, "--source", media, "--store", other)
    )
    lines = cli_process.run_inline("diff", store.root, other).stdout
    assert "audio    1 video lost: media-unusable" in lines
    assert "audio    1 utterance lost: media-unusable" in lines
    lines = cli_process.run_inline("diff", other, store.root).stdout
    assert "audio    1 video gained: was media-unusable" in lines


def test_what_cannot_be_compared(store: Store, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no store at"):
        Side.of(str(tmp_path / "absent"))
    store.backup.unlink(missing_ok=True)
    with pytest.raises(StoreError, match="no copy of its ledger"):
        Side.before(store)
    side = Side.of(str(store.root))
    with pytest.raises(StoreError, match=r"Neither .* has anything of the configuration"):
        compare(side, side, config="audio-visual")
    file = tmp_path / "text"
    file.write_text("no ledger")
    with pytest.raises(StoreError, match="damaged"):
        compare(side, Side.of(str(file)))
