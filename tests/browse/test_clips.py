"""A clip is found wherever it is just now, and is what the shard has."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from support.shard_builder import rows_of

from voxblink2_lib.browse.clips import Clips
from voxblink2_lib.browse.quiet_ledger import QuietLedger
from voxblink2_lib.errors import StoreDamagedError
from voxblink2_lib.outcomes import Outcome
from voxblink2_lib.records import UtteranceKey, VideoKey
from voxblink2_lib.store.layout import Store
from voxblink2_lib.store.open_shard import ROWS
from voxblink2_lib.store.shards import write_part


def clips_of(store: Path, config: str = "audio") -> Clips:
    return Clips(QuietLedger(Store(store), config))


def all_rows(store: Path, config: str = "audio") -> Iterator[dict[str, Any]]:
    for shard in sorted((store / "shards" / config).glob("*.arrow")):
        yield from rows_of(shard)


def key_of(row: dict[str, Any]) -> UtteranceKey:
    return UtteranceKey(row["speaker_id"], row["video_id"], row["utterance_id"])


def test_every_row_of_every_shard(store: Path) -> None:
    clips, rows = clips_of(store), list(all_rows(store))
    assert len(rows) == 48
    for row in rows:
        clip = clips.find(key_of(row))
        assert clip is not None
        assert (clip.audio, clip.audio_name) == (row["audio"]["bytes"], row["audio"]["path"])
        assert (clip.start_seconds, clip.end_seconds) == (row["start_seconds"], row["end_seconds"])
        assert (clip.source, clip.video, clip.boxes) == (row["source"], None, None)
        listed = clips.of_video(VideoKey(*clip.key[:2]))
        assert row["utterance_id"] in [entry.utterance_id for entry in listed]


def test_faces_come_with_their_boxes(face_store: Path) -> None:
    row = next(all_rows(face_store, "audio-visual"))
    clip = clips_of(face_store, "audio-visual").find(key_of(row))
    assert clip is not None
    assert clip.boxes is not None
    assert clip.video == row["video"]["bytes"]
    assert clip.boxes.tolist() == row["boxes"]
    assert (clip.boxes_fit, clip.boxes_evidence) == (row["boxes_fit"], row["boxes_evidence"])


def test_what_is_not_there(store: Path) -> None:
    clips = clips_of(store)
    assert clips.find(UtteranceKey("id990001", "demoHarbour", "99999")) is None
    assert clips.find(UtteranceKey("id000001", "abcdefghijk", "00001")) is None
    for ids in (("..", "abcdefghijk", "1"), ("id990001", "../../../x/", "1"), ("id990001", "", "")):
        with pytest.raises(ValueError, match="is not a"):
            clips.find(UtteranceKey(*ids))


def change(store: Path, sql: str, *values: object) -> None:
    with closing(sqlite3.connect(store / "ledger.sqlite")) as database, database:
        database.execute(sql, values)


@pytest.mark.parametrize("form", ["part", "open shard", "half an open shard"])
def test_a_clip_of_a_job_that_is_not_sealed(tmp_path: Path, store: Path, form: str) -> None:
    copy = Store(shutil.copytree(store, tmp_path / "store"))
    shard = min(copy.shards("audio").glob("*.arrow"))
    row = rows_of(shard)[0]
    key, job = VideoKey(row["speaker_id"], row["video_id"]), int(shard.stem.rpartition("-")[2])
    change(copy.root, "update jobs set shard = null where job = ?", job)
    folder = copy.job_parts("audio", job)
    folder.mkdir(parents=True, exist_ok=True)
    if form == "part":
        with pa.memory_map(str(shard)) as file:
            (batch, *_) = pa.ipc.open_stream(file)
            write_part(copy.part("audio", job, key), batch.slice(0, 1), Outcome(key, "done"))
    else:
        size = shard.stat().st_size if form == "open shard" else shard.stat().st_size - 100
        (folder / ROWS).write_bytes(shard.read_bytes()[:size])
    shard.unlink()
    clip = clips_of(copy.root).find(key_of(row))
    assert form.startswith("half") or clip is not None
    assert clip is None or clip.audio == row["audio"]["bytes"]


def test_a_shard_that_is_gone_or_has_no_shards_name_is_named(tmp_path: Path, store: Path) -> None:
    copy = shutil.copytree(store, tmp_path / "store")
    key = key_of(next(all_rows(store)))
    secret = tmp_path / "secret-00000.arrow"
    shutil.copy(min((store / "shards" / "audio").glob("*.arrow")), secret)
    change(copy, "update jobs set shard = ?", "../../../secret-00000.arrow")
    with pytest.raises(StoreDamagedError, match="which is no shard's name"):
        clips_of(copy).find(key)
    change(copy, "update jobs set shard = 'audio-77777.arrow'")
    with pytest.raises(StoreDamagedError, match="A shard that the ledger names is missing"):
        clips_of(copy).find(key)
    for shard in (copy / "shards" / "audio").glob("*.arrow"):
        shard.write_bytes(b"nothing")
        change(copy, "update jobs set shard = ?", shard.name)
    with pytest.raises(StoreDamagedError, match="is damaged"):
        clips_of(copy).find(key)
