"""Parts outlive a kill; shards are sealed and can be checked."""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from voxblink2_lib.errors import StoreDamagedError
from voxblink2_lib.outcomes import STATUSES, MediaFacts, MissingUtterance, Outcome
from voxblink2_lib.records import Clip, FaceClip, SealedShard, Utterance, VideoKey
from voxblink2_lib.store import row_batches
from voxblink2_lib.store.checksums import checksum_file
from voxblink2_lib.store.schema import arrow_schema
from voxblink2_lib.store.shards import (
    check_shard,
    make_rows,
    read_batches,
    read_part_outcome,
    seal_shard,
    write_part,
)

KEY = VideoKey("id000001", "-bcdefghijk")
SCHEMA = arrow_schema("audio")
FACES_SCHEMA = arrow_schema("audio-visual")


def make_clip(number: int, data: bytes = b"sound") -> Clip:
    return Clip(Utterance(*KEY, f"{number:05}", 25 * number, 25 * number + 24), data)


def make_batch(clips: Sequence[Clip]) -> pa.RecordBatch:
    return make_rows(clips, schema=SCHEMA, audio_format="flac", source="files")


def make_part(path: Path, numbers: Sequence[int], data: bytes = b"sound") -> Path:
    rows = make_batch([make_clip(number, data) for number in numbers])
    write_part(path, rows, Outcome(KEY, "done", clips=len(numbers)))
    return path


def rows_of(path: Path) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = [
        row for batch in read_batches(path) for row in batch.to_pylist()
    ]
    return rows


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# -- Rows ------------------------------------------------------------------------------------------


def test_rows_of_the_audio_configuration() -> None:
    batch = make_batch([make_clip(0, b"a"), make_clip(2, b"b")])
    assert batch.schema.equals(SCHEMA, check_metadata=True)
    assert batch.to_pylist()[1] == {
        "audio": {"bytes": b"b", "path": "id000001/-bcdefghijk/00002.flac"},
        "speaker_id": "id000001",
        "video_id": "-bcdefghijk",
        "utterance_id": "00002",
        "start_seconds": 2.0,
        "end_seconds": 3.0,
        "source": "files",
    }


def make_face(number: int, *, frames: int = 25, boxes_fit: bool = True) -> FaceClip:
    boxes = np.arange(4 * frames, dtype=np.int16).reshape(frames, 4) - 7 * number
    return FaceClip(make_clip(number).utterance, b"mp4 %d" % number, boxes, boxes_fit, "offered")


def make_face_batch(faces: Sequence[FaceClip]) -> pa.RecordBatch:
    clips = [Clip(face.utterance, b"sound") for face in faces]
    return make_rows(clips, faces, schema=FACES_SCHEMA, audio_format="opus", source="url")


def test_rows_of_the_audio_visual_configuration() -> None:
    faces = [make_face(0, frames=2), make_face(2, frames=3, boxes_fit=False)]
    batch = make_face_batch(faces)
    assert batch.schema.equals(FACES_SCHEMA, check_metadata=True)
    assert batch.to_pylist()[1] == {
        "audio": {"bytes": b"sound", "path": "id000001/-bcdefghijk/00002.opus"},
        "video": {"bytes": b"mp4 2", "path": "id000001/-bcdefghijk/00002.mp4"},
        "speaker_id": "id000001",
        "video_id": "-bcdefghijk",
        "utterance_id": "00002",
        "start_seconds": 2.0,
        "end_seconds": 3.0,
        "source": "url",
        "boxes": [[-14, -13, -12, -11], [-10, -9, -8, -7], [-6, -5, -4, -3]],
        "boxes_fit": False,
        "boxes_evidence": "offered",
    }
    assert [row["boxes_fit"] for row in batch.to_pylist()] == [True, False]


def test_sound_alone_has_no_columns_of_faces() -> None:
    clips, faces = [make_clip(0)], [make_face(0)]
    batch = make_rows(clips, faces, schema=SCHEMA, audio_format="flac", source="files")
    assert batch.equals(make_batch(clips))


def test_clips_without_their_faces_are_no_rows() -> None:
    clips = [make_clip(0), make_clip(1)]
    for faces in ([], [make_face(0)]):
        with pytest.raises(ValueError, match="same length"):
            make_rows(clips, faces, schema=FACES_SCHEMA, audio_format="flac", source="files")


# -- Parts -----------------------------------------------------------------------------------------


OUTCOMES = st.builds(
    Outcome,
    st.just(KEY),
    st.sampled_from(STATUSES),
    reason=st.text(max_size=20),
    clips=st.integers(0, 2**31),
    samples=st.integers(0, 2**53),
    missing=st.lists(
        st.builds(MissingUtterance, st.text("ab-_0", min_size=1), st.text(max_size=9)), max_size=3
    ).map(tuple),
    bytes_fetched=st.integers(0, 2**53),
    seconds_taken=st.floats(0, 1e9),
    route=st.text(max_size=9),
    facts=st.builds(MediaFacts, audio_id=st.text(max_size=9), audio_tracks=st.integers(0, 9)),
)


@given(outcome=OUTCOMES, data=st.lists(st.binary(max_size=30), max_size=5))
def test_parts_read_back(
    tmp_path_factory: pytest.TempPathFactory, outcome: Outcome, data: list[bytes]
) -> None:
    path = tmp_path_factory.mktemp("parts") / "part.arrow"
    rows = make_batch([make_clip(number, encoded) for number, encoded in enumerate(data)])
    write_part(path, rows, outcome)
    got = read_part_outcome(path)
    assert got == outcome
    assert got is not None
    assert got.seconds_taken == outcome.seconds_taken
    assert isinstance(got.key, VideoKey)
    assert all(isinstance(utterance, MissingUtterance) for utterance in got.missing)
    assert rows_of(path) == rows.to_pylist()
    assert names(path.parent) == ["part.arrow"]


@given(lengths=st.lists(st.integers(1, 30), max_size=5), fit=st.booleans())
def test_parts_and_shards_of_faces_read_back(
    tmp_path_factory: pytest.TempPathFactory, lengths: list[int], fit: bool
) -> None:
    folder = tmp_path_factory.mktemp("faces")
    faces = [
        make_face(number, frames=length, boxes_fit=fit) for number, length in enumerate(lengths)
    ]
    rows, outcome = make_face_batch(faces), Outcome(KEY, "done", clips=len(faces))
    parts = [folder / "one.arrow", folder / "two.arrow"]
    for part in parts:
        write_part(part, rows, outcome)
        assert read_part_outcome(part) == outcome
        assert rows_of(part) == rows.to_pylist()
    shard = seal_shard(0, parts, folder / "shard.arrow", FACES_SCHEMA)
    assert shard.rows == 2 * len(faces)
    if faces:
        check_shard(folder, shard)
        assert rows_of(folder / shard.name) == 2 * rows.to_pylist()
        with pa.memory_map(str(folder / shard.name)) as file:
            schema = pa.ipc.open_stream(file).schema
        assert schema.equals(FACES_SCHEMA, check_metadata=True)


def test_no_part_is_no_outcome(tmp_path: Path) -> None:
    assert read_part_outcome(tmp_path / "part.arrow") is None
    assert read_part_outcome(tmp_path / "no folder" / "part.arrow") is None


@pytest.mark.parametrize("stop", [0, 1, 8, 100, 500])
def test_a_part_that_is_cut_short(tmp_path: Path, stop: int) -> None:
    path = make_part(tmp_path / "part.arrow", [0, 1])
    path.write_bytes(path.read_bytes()[:stop])
    with pytest.raises(
        StoreDamagedError, match=r"The part file .*part\.arrow is damaged .*It is in no store "
    ):
        read_part_outcome(path)


@pytest.mark.parametrize("data", [b"junk" * 100, b"\xff\xff\xff\xff" + bytes(8), b"\0" * 64])
def test_a_part_of_other_bytes(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "part.arrow"
    path.write_bytes(data)
    with pytest.raises(StoreDamagedError, match=r"The part file .*part\.arrow is damaged"):
        read_part_outcome(path)


@pytest.mark.parametrize(
    "record",
    [
        None,
        b"",
        b"{",
        b"[]",
        b"{}",
        b'{"key": ["id000001"]}',
        b'{"key": ["id000001", "-bcdefghijk"], "missing": [], "status": "done", "more": 1}',
        b'{"key": ["id000001", "-bcdefghijk"], "missing": [[]], "status": "done"}',
    ],
)
def test_a_stream_without_an_outcome_is_no_part(tmp_path: Path, record: bytes | None) -> None:
    metadata = {} if record is None else {b"voxblink2_outcome": record}
    path = tmp_path / "part.arrow"
    with pa.ipc.new_stream(str(path), pa.schema([("a", pa.int8())], metadata=metadata)):
        pass
    with pytest.raises(StoreDamagedError, match=r"The part file .*part\.arrow is damaged"):
        read_part_outcome(path)


# -- Sealing ---------------------------------------------------------------------------------------


def test_rows_keep_the_order_of_the_parts(tmp_path: Path) -> None:
    parts = [
        make_part(tmp_path / f"{name}.arrow", numbers)
        for name, numbers in (("c", [4, 5]), ("a", [9]), ("b", [0, 1, 2]))
    ]
    target = tmp_path / "shards" / "audio-00003.arrow"
    shard = seal_shard(3, parts, target, SCHEMA)
    assert [row["utterance_id"] for row in rows_of(target)] == [
        "00004",
        "00005",
        "00009",
        "00000",
        "00001",
        "00002",
    ]
    assert shard == SealedShard(
        3,
        "audio-00003.arrow",
        hashlib.sha256(target.read_bytes()).hexdigest(),
        6,
        target.stat().st_size,
    )
    assert names(target.parent) == ["audio-00003.arrow", "audio-00003.arrow.sha256"]
    assert all(part.exists() for part in parts)


def test_the_shard_has_the_schema_that_datasets_expects(tmp_path: Path) -> None:
    shard = tmp_path / "shard.arrow"
    seal_shard(0, [make_part(tmp_path / "a", [0]), make_part(tmp_path / "b", [1])], shard, SCHEMA)
    with pa.memory_map(str(shard)) as file:
        schema = pa.ipc.open_stream(file).schema
    assert schema.equals(SCHEMA, check_metadata=True)


@given(counts=st.lists(st.integers(1, 7), min_size=1, max_size=12), limit=st.integers(1, 10))
def test_batches_are_full_but_the_last(
    tmp_path_factory: pytest.TempPathFactory, counts: list[int], limit: int
) -> None:
    folder = tmp_path_factory.mktemp("batches")
    parts = [
        make_part(folder / f"{place}", range(place * 10, place * 10 + count))
        for place, count in enumerate(counts)
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(row_batches, "_ROWS_PER_BATCH", limit)
        shard = seal_shard(0, parts, folder / "shard.arrow", SCHEMA)
    full, rest = divmod(sum(counts), limit)
    expected = [limit] * full + ([rest] if rest else [])
    batches = list(read_batches(folder / "shard.arrow"))
    assert [batch.num_rows for batch in batches] == expected
    assert shard.rows == sum(counts)
    assert [row["utterance_id"] for row in rows_of(folder / "shard.arrow")] == [
        f"{place * 10 + number:05}" for place, count in enumerate(counts) for number in range(count)
    ]


def test_batches_end_at_their_size_in_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = [make_part(tmp_path / f"{number}", [number], bytes(1000)) for number in range(6)]
    monkeypatch.setattr(row_batches, "_BYTES_PER_BATCH", 2000)
    seal_shard(0, parts, tmp_path / "shard.arrow", SCHEMA)
    assert [batch.num_rows for batch in read_batches(tmp_path / "shard.arrow")] == [2, 2, 2]


def test_the_same_parts_give_the_same_bytes(tmp_path: Path) -> None:
    sealed = []
    for folder, seconds in ((tmp_path / "a", 1.0), (tmp_path / "b", 2.0)):
        parts = []
        for number in range(5):
            parts.append(folder / f"{number}.arrow")
            rows = make_batch([make_clip(number, bytes(100 + number))])
            write_part(parts[-1], rows, Outcome(KEY, "done", clips=1, seconds_taken=seconds))
        sealed.append(seal_shard(0, parts, folder / "shard.arrow", SCHEMA))
    assert sealed[0] == sealed[1]
    assert (tmp_path / "a" / "shard.arrow").read_bytes() == (
        tmp_path / "b" / "shard.arrow"
    ).read_bytes()


def test_no_parts_make_no_file(tmp_path: Path) -> None:
    target = tmp_path / "shards" / "shard.arrow"
    assert seal_shard(7, [], target, SCHEMA) == SealedShard(7, "", "", 0, 0)
    assert list(tmp_path.iterdir()) == []


def test_parts_without_rows(tmp_path: Path) -> None:
    empty = make_part(tmp_path / "empty", [])
    full = make_part(tmp_path / "full", [1, 2])
    target = tmp_path / "shards" / "shard.arrow"
    assert seal_shard(7, [empty, empty], target, SCHEMA) == SealedShard(7, "", "", 0, 0)
    assert not target.parent.exists()
    assert seal_shard(7, [empty, full, empty], target, SCHEMA).rows == 2


def test_sealing_again_after_a_kill_replaces_what_is_there(tmp_path: Path) -> None:
    target = tmp_path / "shard.arrow"
    target.write_bytes(b"of a run that was killed before its ledger row")
    shard = seal_shard(0, [make_part(tmp_path / "a", [0])], target, SCHEMA)
    check_shard(tmp_path, shard)


@pytest.mark.parametrize("cut", [10, 5000])
def test_a_damaged_part_cannot_be_sealed_and_leaves_nothing(tmp_path: Path, cut: int) -> None:
    good = make_part(tmp_path / "good.arrow", [0])
    bad = make_part(tmp_path / "bad.arrow", [1], bytes(10_000))
    bad.write_bytes(bad.read_bytes()[:cut])
    target = tmp_path / "shards" / "shard.arrow"
    with pytest.raises(StoreDamagedError, match=r"bad\.arrow is damaged"):
        seal_shard(0, [good, bad], target, SCHEMA)
    assert not target.parent.exists() or names(target.parent) == []


def test_a_part_that_is_gone_cannot_be_sealed(tmp_path: Path) -> None:
    with pytest.raises(StoreDamagedError, match=r"gone\.arrow is missing"):
        seal_shard(0, [tmp_path / "gone.arrow"], tmp_path / "shard.arrow", SCHEMA)
    assert names(tmp_path) == []


# -- Checking --------------------------------------------------------------------------------------


@pytest.fixture
def sealed(tmp_path: Path) -> SealedShard:
    part = make_part(tmp_path / "parts" / "a", range(20), bytes(range(256)))
    return seal_shard(0, [part], tmp_path / "shards" / "audio-00000.arrow", SCHEMA)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "shards"


def test_a_good_shard_passes(folder: Path, sealed: SealedShard) -> None:
    check_shard(folder, sealed)


def test_sha256sum_reads_the_checksum_file(folder: Path, sealed: SealedShard) -> None:
    command = ["sha256sum", "--strict", "-c", checksum_file(folder / sealed.name).name]
    good = subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True)
    assert good.stdout == "audio-00000.arrow: OK\n"
    (folder / sealed.name).write_bytes(b"x")
    assert subprocess.run(command, cwd=folder, check=False, capture_output=True).returncode == 1


@pytest.mark.parametrize("place", [0.0, 0.3, 0.7, 1.0])
def test_a_flipped_bit_is_found(folder: Path, sealed: SealedShard, place: float) -> None:
    data = bytearray((folder / sealed.name).read_bytes())
    data[round(place * (len(data) - 1))] ^= 1
    (folder / sealed.name).write_bytes(data)
    with pytest.raises(
        StoreDamagedError, match=r"audio-00000\.arrow is damaged: its SHA-256 is \w{64}, sealed was"
    ):
        check_shard(folder, sealed)


def test_a_shard_cut_short_is_found(folder: Path, sealed: SealedShard) -> None:
    data = (folder / sealed.name).read_bytes()
    (folder / sealed.name).write_bytes(data[:-1])
    with pytest.raises(StoreDamagedError, match="is damaged: its SHA-256"):
        check_shard(folder, sealed)


def test_a_missing_shard_is_found(folder: Path, sealed: SealedShard) -> None:
    (folder / sealed.name).unlink()
    with pytest.raises(StoreDamagedError, match=r"The shard .*audio-00000\.arrow is missing"):
        check_shard(folder, sealed)


def test_a_missing_checksum_file_is_found(folder: Path, sealed: SealedShard) -> None:
    checksum_file(folder / sealed.name).unlink()
    with pytest.raises(StoreDamagedError, match=r"checksum file .* cannot be read: No such"):
        check_shard(folder, sealed)


@pytest.mark.parametrize("data", [b"", b"\n", b"\xff\xfe"])
def test_a_checksum_file_that_says_nothing_is_found(
    folder: Path, sealed: SealedShard, data: bytes
) -> None:
    checksum_file(folder / sealed.name).write_bytes(data)
    with pytest.raises(StoreDamagedError, match=r"The checksum file .*arrow\.sha256 is damaged: "):
        check_shard(folder, sealed)


def test_a_wrong_checksum_file_is_found(folder: Path, sealed: SealedShard) -> None:
    checksum_file(folder / sealed.name).write_text(f"{'0' * 64}  {sealed.name}\n")
    with pytest.raises(StoreDamagedError, match=f"does not have the SHA-256 {sealed.sha256}"):
        check_shard(folder, sealed)
