"""Part files of finished videos, and the sealed shards made of them."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from voxblink2_lib.errors import StoreDamagedError
from voxblink2_lib.files import HashingWriter, atomic_write, sha256_of
from voxblink2_lib.outcomes import Outcome
from voxblink2_lib.records import AudioFormat, Clip, FaceClip, SealedShard
from voxblink2_lib.store.arrow_stream import ArrowStream, open_stream
from voxblink2_lib.store.row_digests import row_digests, row_names
from voxblink2_lib.store.shard_names import verify_command

_OUTCOME = b"voxblink2_outcome"

# Readers work a batch at a time: large enough that millions of rows make few batches, small
# enough that one batch is tens of megabytes.
_ROWS_PER_BATCH = 256
_BYTES_PER_BATCH = 32 << 20


def make_rows(
    clips: Sequence[Clip],
    faces: Sequence[FaceClip] = (),
    *,
    schema: pa.Schema,
    audio_format: AudioFormat,
    source: str,
) -> pa.RecordBatch:
    """Return clips as rows.

    Args:
        clips: the audio of each row.
        faces: the face of each row, in the same order; none in the configuration ``audio``.
        schema: the columns.
        audio_format: how the audio is encoded.
        source: value of the column of that name.
    """
    utterances = [clip.utterance for clip in clips]
    columns: dict[str, Any] = {
        "audio": [
            {"bytes": clip.data, "path": f"{clip.utterance.name}.{audio_format}"} for clip in clips
        ],
        "speaker_id": [utterance.speaker_id for utterance in utterances],
        "video_id": [utterance.video_id for utterance in utterances],
        "utterance_id": [utterance.utterance_id for utterance in utterances],
        "start_seconds": [utterance.seconds[0] for utterance in utterances],
        "end_seconds": [utterance.seconds[1] for utterance in utterances],
        "source": [source] * len(utterances),
        "video": [{"bytes": face.data, "path": f"{face.utterance.name}.mp4"} for face in faces],
        "boxes": [face.boxes.tolist() for face in faces],
        "boxes_fit": [face.boxes_fit for face in faces],
        "boxes_evidence": [face.boxes_evidence for face in faces],
    }
    arrays = [pa.array(columns[field.name], field.type) for field in schema]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def write_part(path: Path, rows: pa.RecordBatch, outcome: Outcome) -> None:
    """Write the rows of a finished video, and its outcome, so that they survive a kill."""
    record = json.dumps(outcome.as_dict()).encode()
    schema = rows.schema.with_metadata({**(rows.schema.metadata or {}), _OUTCOME: record})
    with atomic_write(path) as file, pa.ipc.new_stream(file, schema) as writer:
        writer.write_batch(rows.replace_schema_metadata(schema.metadata))


def read_part_outcome(path: Path) -> Outcome | None:
    """Return the outcome in a part file, or ``None`` if there is no such file."""
    try:
        with pa.memory_map(str(path)) as file:
            return Outcome.from_dict(json.loads(pa.ipc.open_stream(file).schema.metadata[_OUTCOME]))
    except FileNotFoundError:
        return None
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise StoreDamagedError(f"The part file {path} is damaged ({error}). Delete it.") from error


def checksum_file(shard: Path) -> Path:
    """Return the path of the checksum file beside a shard, in the format of ``sha256sum``."""
    return shard.with_name(f"{shard.name}.sha256")


def seal_shard(job: int, parts: Iterable[Path], target: Path, schema: pa.Schema) -> SealedShard:
    """Join part files into one Arrow stream file with a checksum beside it.

    Args:
        job: number of the job.
        parts: the part files, in the order of the rows.
        target: the shard. It is not created when there are no parts.
        schema: schema of the rows.

    Returns:
        Its entry in the ledger, with the digests of its rows. Without parts its name is empty.

    Raises:
        StoreFullError: the disk is full; the parts are left as they are.
    """
    rows = 0
    digests: dict[str, bytes] = {}
    with contextlib.ExitStack() as stack:
        hashing: HashingWriter | None = None
        for batch in _batches(parts, schema):
            if hashing is None:
                hashing = HashingWriter(stack.enter_context(atomic_write(target)))
                writer = stack.enter_context(pa.ipc.new_stream(hashing, schema))
            writer.write_batch(batch)
            rows += batch.num_rows
            digests.update(zip(row_names(batch), row_digests(batch), strict=True))
    if hashing is None:
        # A killed run may have left a file of recovered videos, which take another number now.
        for path in (target, checksum_file(target)):
            path.unlink(missing_ok=True)
        return SealedShard(job, "", "", 0, 0)
    with atomic_write(checksum_file(target)) as file:
        file.write(f"{hashing.sha256}  {target.name}\n".encode())
    return SealedShard(job, target.name, hashing.sha256, rows, hashing.size_bytes, digests)


def _batches(parts: Iterable[Path], schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    waiting = schema.empty_table()
    for path in parts:
        for batch in read_batches(path):
            rows = pa.Table.from_batches([batch]).replace_schema_metadata(schema.metadata)
            waiting = pa.concat_tables([waiting, rows])
            while waiting.num_rows >= _ROWS_PER_BATCH or waiting.nbytes >= _BYTES_PER_BATCH:
                yield _combined(waiting.slice(0, _ROWS_PER_BATCH))
                waiting = waiting.slice(_ROWS_PER_BATCH)
    if waiting.num_rows:
        yield _combined(waiting)


def _combined(rows: pa.Table) -> pa.RecordBatch:
    return rows.combine_chunks().to_batches()[0]


def read_batches(path: Path) -> Iterator[pa.RecordBatch]:
    """Yield the record batches of a part or shard, memory-mapped; each of them is valid.

    Raises:
        StoreDamagedError: the file is damaged or gone.
    """
    yield from _opened(path).batches()


def _opened(path: Path) -> ArrowStream:
    try:
        return open_stream(path)
    except FileNotFoundError as error:
        raise StoreDamagedError(gone_message(path)) from error


def gone_message(path: Path) -> str:
    """Return the message for a part or shard that was there, or should have been."""
    command = verify_command(path)
    return (
        f"The file {path} is missing. A run puts videos that come back into a fuller shard under "
        "another name: if one did so just now, open the store again."
    ) + (f" Otherwise {command} shows what is lost." if command else "")


def check_shard(folder: Path, shard: SealedShard) -> None:
    """Compare a sealed shard with its checksum, in the ledger and beside it.

    Raises:
        StoreDamagedError: they differ, or a file is missing.
    """
    path = folder / shard.name
    if not path.exists():
        raise StoreDamagedError(f"The shard {path} is missing.")
    digest = sha256_of(path)
    if digest != shard.sha256:
        raise StoreDamagedError(
            f"The shard {path} is damaged: its SHA-256 is {digest}, sealed was {shard.sha256}."
        )
    try:
        listed = checksum_file(path).read_text(encoding="utf-8").split()[0]
    except (OSError, IndexError, UnicodeDecodeError) as error:
        raise StoreDamagedError(f"The checksum file of {path} cannot be read: {error}.") from error
    if listed != shard.sha256:
        raise StoreDamagedError(
            f"The checksum beside {path} is {listed}, sealed was {shard.sha256}."
        )
