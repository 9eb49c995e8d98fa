"""Lists have what is wrong, all of it, and nothing else."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from support.ledger_builder import LedgerBuilder
from support.shard_builder import clip, seal, talk

from voxblink2_lib.browse.quiet_ledger import QuietLedger
from voxblink2_lib.browse.suspects import SUSPICIONS, LookCursor, Suspect, Suspects
from voxblink2_lib.errors import SelectionError, StoreError
from voxblink2_lib.media.encoding import encode
from voxblink2_lib.records import Clip, UtteranceKey
from voxblink2_lib.store.layout import Store

SECOND = 16_000
SILENCE = encode(np.zeros(2 * SECOND, np.float32), audio_format="wav")
CLIPPED = encode(8 * talk(2 * SECOND, 3), audio_format="wav")


def make_store(folder: Path, shards: Sequence[Sequence[Clip]]) -> Store:
    store = Store(folder / "store")
    store.shards("audio").mkdir(parents=True)
    with LedgerBuilder(store.ledger) as ledger:
        ledger.video("done", video="abcdefghijk", clips=sum(map(len, shards)))
        for number, clips in enumerate(shards):
            name = f"audio-{number:05}.arrow"
            path = seal(store.shards("audio") / name, clips)
            ledger.database.execute(
                "insert into jobs (config, job, shard, sha256, rows, bytes) "
                "values ('audio', ?, ?, '', ?, ?)",
                (number, name, len(clips), path.stat().st_size),
            )
    return store


@pytest.fixture(scope="module")
def sounds(tmp_path_factory: pytest.TempPathFactory) -> Suspects:
    store = make_store(
        tmp_path_factory.mktemp("sounds"),
        [
            [clip(1, frames=50), clip(2, frames=50, data=SILENCE), clip(3, frames=20)],
            [clip(4, frames=50, data=CLIPPED), clip(5, frames=50, data=b"RIFF no wave")],
            [clip(6, frames=50, data=SILENCE), clip(7, frames=50)],
        ],
    )
    return Suspects(QuietLedger(store, "audio"))


def all_looks(suspects: Suspects, kind: str, most: int) -> list[Suspect]:
    found: list[Suspect] = []
    cursor: LookCursor | None = LookCursor()
    while cursor is not None:
        look = suspects.look(kind, cursor=cursor, most=most)  # type: ignore[arg-type]  # one of them
        found += look.suspects
        cursor = look.cursor
    return found


@pytest.mark.parametrize("most", [1, 2, 10])
@pytest.mark.parametrize(
    ("kind", "numbers"),
    [
        ("silent", [2, 6]),
        ("clipped", [4]),
        ("short", [3]),
        ("damaged", [5]),
        ("box-outside", []),
        ("box-assumed", []),
    ],
)
def test_each_kind(sounds: Suspects, kind: str, numbers: list[int], most: int) -> None:
    found = all_looks(sounds, kind, most)
    assert [int(suspect.key.utterance_id) for suspect in found] == numbers
    assert all(suspect.finding for suspect in found)


def test_a_look_ends_in_time_and_counts_what_it_looked_at(sounds: Suspects) -> None:
    look = sounds.look("silent", seconds=-1)
    assert (look.suspects, look.looked) == ((), 0)
    assert look.cursor == LookCursor("audio-00000.arrow", 0, 0)
    whole = sounds.look("silent", cursor=look.cursor)
    assert (whole.looked, whole.cursor) == (7, None)


def test_a_damaged_shard_is_named_and_the_others_are_looked_at(tmp_path: Path) -> None:
    store = make_store(tmp_path, [[clip(1, data=SILENCE, frames=50)] for _ in range(3)])
    (store.shards("audio") / "audio-00001.arrow").write_bytes(b"nothing")
    (store.shards("audio") / "audio-00002.arrow").unlink()
    look = Suspects(QuietLedger(store, "audio")).look("silent")
    assert len(look.suspects) == 1
    assert len(look.notes) == 2
    assert "audio-00001.arrow is damaged" in look.notes[0]


def test_faces(face_store: Path) -> None:
    suspects = Suspects(QuietLedger(Store(face_store), "audio-visual"))
    assert all_looks(suspects, "box-outside", 5) == []
    assert {suspect.finding for suspect in all_looks(suspects, "box-assumed", 5)} <= {
        "taken to be of at most 720 lines"
    }


# -- Lists of purity -------------------------------------------------------------------------------


def purity_folder(folder: Path) -> Path:
    (folder / "far.csv").write_text(
        "name,seconds,cosine\nid000001/abcdefghijk/00001,2.00,0.1000\n"
        "id000002/abcdefghijk/00002,3.00,0.2000\n../x/y,1,1\n",
        encoding="utf-8",
    )
    (folder / "two_voices.csv").write_text(
        "speaker_id,cosine,utterances,of_second_voice,videos\n"
        "id000001,0.1500,20,5,abcdefghijk abcdefghij1\nid000002,no number,1,1,x\n",
        encoding="utf-8",
    )
    return folder


def test_lists_of_purity(tmp_path: Path, sounds: Suspects) -> None:
    suspects = Suspects(sounds._ledger, purity_folder(tmp_path))
    far = suspects.look("far", most=1)
    assert far.suspects[0].key.name == "id000001/abcdefghijk/00001"
    assert far.suspects[0].finding == "cosine 0.100, 2.00 s"
    assert far.cursor is not None
    rest = suspects.look("far", cursor=far.cursor)
    assert [suspect.key.speaker_id for suspect in rest.suspects] == ["id000002"]
    assert rest.cursor is None
    assert "1 lines of" in rest.notes[0]
    mixed = suspects.look("two-voices")
    assert [suspect.key for suspect in mixed.suspects] == [
        UtteranceKey("id000001", video, "") for video in ("abcdefghijk", "abcdefghij1")
    ]
    (tmp_path / "far.csv").unlink()
    with pytest.raises(StoreError, match=r"cannot be read .* Make it with"):
        suspects.look("far")


def test_what_is_no_list_is_refused(sounds: Suspects) -> None:
    with pytest.raises(SelectionError, match=r"'odd' is no list\. Choose among silent, clipped"):
        sounds.look("odd")  # type: ignore[arg-type]  # what is refused
    with pytest.raises(SelectionError, match="Name its folder with --purity"):
        sounds.look("far")
    assert {"far", "two-voices"} < set(SUSPICIONS)


def test_a_hostile_name_of_a_shard_is_passed_over(tmp_path: Path) -> None:
    store = make_store(tmp_path, [[clip(1, data=SILENCE, frames=50)]])
    with closing(sqlite3.connect(store.ledger)) as database, database:
        database.execute("update jobs set shard = '../../audio-00000.arrow'")
    assert Suspects(QuietLedger(store, "audio")).look("silent").looked == 0
