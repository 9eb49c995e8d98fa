"""Of a damaged shard, every row that holds is kept, and none that does not."""

from __future__ import annotations

import struct
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import shard_builder

from voxblink2_lib.records import VideoKey
from voxblink2_lib.repair.proof import Proof, is_whole_flac
from voxblink2_lib.repair.shard_repair import Salvage
from voxblink2_lib.store import row_batches
from voxblink2_lib.store.arrow_salvage import salvaged_batches
from voxblink2_lib.store.row_digests import row_digests, row_names
from voxblink2_lib.store.schema import arrow_schema

SCHEMA = arrow_schema("audio")
CLIPS = 24
BATCH_ROWS = 4


@pytest.fixture(autouse=True, scope="module")
def _small_batches() -> object:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(row_batches, "_ROWS_PER_BATCH", BATCH_ROWS)
        yield


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, _small_batches: None) -> bytes:
    """A shard of six batches; each video has two clips."""
    clips = [
        shard_builder.clip(number, frames=3, video=f"video{number // 2:06}", audio_format="flac")
        for number in range(CLIPS)
    ]
    folder = tmp_path_factory.mktemp("whole")
    return shard_builder.seal(folder / "audio-00000.arrow", clips, audio_format="flac").read_bytes()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("damaged")


def batches(data: bytes, folder: Path) -> list[pa.RecordBatch]:
    path = folder / "audio-00000.arrow"
    path.write_bytes(data)
    return list(salvaged_batches(path, SCHEMA))


def digests_of(data: bytes, folder: Path) -> dict[str, bytes]:
    return {
        name: digest
        for batch in batches(data, folder)
        for name, digest in zip(row_names(batch), row_digests(batch), strict=True)
    }


def test_an_undamaged_shard_is_read_whole(whole: bytes, folder: Path) -> None:
    rows = [row for batch in batches(whole, folder) for row in batch.to_pylist()]
    expected = pa.ipc.open_stream(whole).read_all().to_pylist()
    assert rows == expected
    assert len(rows) == CLIPS


@given(st.data())
def test_any_damage_costs_no_row_of_another_batch(
    whole: bytes, folder: Path, data: st.DataObject
) -> None:
    """One flipped bit hurts at most the batch that it is in; what is proven is as it was."""
    known = digests_of(whole, folder)
    place = data.draw(st.integers(0, len(whole) - 1))
    damaged = bytearray(whole)
    damaged[place] ^= 1 << data.draw(st.integers(0, 7))
    proof = Proof(known, {})
    proven = {
        name for batch in batches(bytes(damaged), folder) for name in proof.names(batch) if name
    }
    assert len(proven) >= CLIPS - BATCH_ROWS
    after = digests_of(bytes(damaged), folder)
    assert all(after[name] == known[name] for name in proven)


@given(st.data())
def test_a_truncated_shard_keeps_every_whole_batch(
    whole: bytes, folder: Path, data: st.DataObject
) -> None:
    sizes = []
    stream = pa.BufferReader(whole)
    pa.ipc.read_message(stream)
    for _ in range(CLIPS // BATCH_ROWS):
        pa.ipc.read_message(stream)
        sizes.append(stream.tell())
    end = data.draw(st.integers(0, len(whole)))
    assert len(batches(whole[:end], folder)) == sum(size <= end for size in sizes)


def test_a_batch_that_claims_to_be_longer_hides_no_other(whole: bytes, folder: Path) -> None:
    stream = pa.BufferReader(whole)
    pa.ipc.read_message(stream)
    start = stream.tell()
    size = pa.ipc.read_message(stream).body.size
    place = whole.index(struct.pack("<q", size), start)
    longer = whole[:place] + struct.pack("<q", size + 64) + whole[place + 8 :]
    assert digests_of(longer, folder) == digests_of(whole, folder)


@given(st.binary(max_size=4096), st.integers(0, 200))
def test_anything_can_be_read(folder: Path, whole: bytes, junk: bytes, at: int) -> None:
    """Junk of any length before, or in place of, what is whole."""
    batches(junk, folder)
    aligned = junk[: len(junk) // 8 * 8]
    assert len(batches(aligned + whole, folder)) == CLIPS // BATCH_ROWS
    batches(whole[:at] + junk, folder)


def test_a_length_beyond_all_memory_is_not_followed(whole: bytes, folder: Path) -> None:
    for length in (2**31 - 1, 2**32 - 1, 0):
        head = b"\xff\xff\xff\xff" + length.to_bytes(4, "little")
        assert len(batches(head + whole, folder)) == CLIPS // BATCH_ROWS


def test_a_video_is_kept_if_all_its_rows_hold(whole: bytes, folder: Path) -> None:
    known = digests_of(whole, folder)
    hurt = bytearray(whole)
    names = list(known)
    rows = pa.ipc.open_stream(whole).read_all()
    clip = rows["audio"][5].as_py()["bytes"]
    hurt[whole.index(clip) + 100] ^= 1
    (folder / "audio-00000.arrow").write_bytes(hurt)
    salvage = Salvage(folder / "audio-00000.arrow", SCHEMA, Proof(known, {}))
    kept = salvage.whole_videos()
    assert [key.video_id for key in kept] == [
        f"video{number:06}" for number in range(CLIPS // 2) if number != 2
    ]
    parts = dict(salvage.rows_of(kept))
    assert [*parts] == kept
    assert VideoKey("id000001", "video000002") not in parts
    for key, batch in parts.items():
        assert row_names(batch) == [name for name in names if name.split("/")[1] == key.video_id]
        assert row_digests(batch) == [known[name] for name in row_names(batch)]


def test_flac_proves_itself() -> None:
    data = shard_builder.clip(1, audio_format="flac").data
    samples = 16_000
    assert is_whole_flac(data, samples=samples)
    assert not is_whole_flac(data, samples=samples + 1)
    assert not is_whole_flac(None, samples=samples)
    assert not is_whole_flac(b"", samples=samples)
    assert not is_whole_flac(data[:-1], samples=samples)
    flipped = bytearray(data)
    flipped[len(data) // 2] ^= 1
    assert not is_whole_flac(bytes(flipped), samples=samples)
    assert not is_whole_flac(shard_builder.clip(1).data, samples=samples)
