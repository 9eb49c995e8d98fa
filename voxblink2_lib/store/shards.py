"""Part files of finished videos, and the sealed shards made of them."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from voxblink2_lib.errors import StoreDamagedError
from voxblink2_lib.files import HashingWriter, atomic_write, sha256_of, system_error
from voxblink2_lib.outcomes import Outcome
from voxblink2_lib.records import AudioFormat, Clip, FaceClip, SealedShard, UntimedClip
from voxblink2_lib.store.advice import repair_advice
from voxblink2_lib.store.arrow_stream import END_OF_STREAM, ArrowStream, damaged, open_stream
from voxblink2_lib.store.checksums import checksum_file, checksum_problem, write_checksum
from voxblink2_lib.store.row_batches import RowBatches
from voxblink2_lib.store.row_digests import row_digests, row_names

_OUTCOME = b"voxblink2_outcome"
# SHA-256 of what is in a part; those of earlier versions have none.
_CHECKSUM = b"voxblink2_sha256"


def make_rows(
    clips: Sequence[Clip | UntimedClip],
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
        "audio": _media(
            [clip.data for clip in clips],
            [f"{clip.utterance.name}.{audio_format}" for clip in clips],
        ),
        "speaker_id": [utterance.speaker_id for utterance in utterances],
        "video_id": [utterance.video_id for utterance in utterances],
        "utterance_id": [utterance.utterance_id for utterance in utterances],
        "start_seconds": [utterance.seconds[0] for utterance in utterances],
        "end_seconds": [utterance.seconds[1] for utterance in utterances],
        "source": [source] * len(utterances),
        "video": _media(
            [face.data for face in faces], [f"{face.utterance.name}.mp4" for face in faces]
        ),
        "boxes": [face.boxes.tolist() for face in faces],
        "boxes_fit": [face.boxes_fit for face in faces],
        "boxes_evidence": [face.boxes_evidence for face in faces],
    }
    arrays = [
        column if isinstance(column, pa.Array) else pa.array(column, field.type)
        for column, field in ((columns[field.name], field) for field in schema)
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def _media(contents: Sequence[bytes], paths: Sequence[str]) -> pa.Array:
    """Return a column of encoded media, which are copied once."""
    ends = np.zeros(len(contents) + 1, np.int32)
    np.cumsum([len(content) for content in contents], out=ends[1:])
    buffers = [None, pa.py_buffer(ends), pa.py_buffer(b"".join(contents))]
    media = pa.Array.from_buffers(pa.binary(), len(contents), buffers)
    return pa.StructArray.from_arrays([media, pa.array(paths, pa.string())], ["bytes", "path"])


def write_part(path: Path, rows: pa.RecordBatch, outcome: Outcome) -> None:
    """Write the rows of a finished video, and its outcome, so that they survive a kill."""
    record = json.dumps(outcome.as_dict()).encode()
    metadata = {**(rows.schema.metadata or {}), _OUTCOME: record}
    content = (rows.serialize(), END_OF_STREAM)
    schema = rows.schema.with_metadata({**metadata, _CHECKSUM: _part_checksum(metadata, *content)})
    with atomic_write(path) as file:
        for block in (schema.serialize(), *content):
            file.write(block)


def _part_checksum(metadata: Mapping[bytes, bytes], *content: Any) -> bytes:
    """Return the checksum of what is in a part file, but for names and types of the columns."""
    digest = hashlib.sha256()
    for block in (*itertools.chain.from_iterable(sorted(metadata.items())), *content):
        digest.update(block)
    return digest.hexdigest().encode()


def read_part_outcome(path: Path) -> Outcome | None:
    """Return the outcome in a part file, or ``None`` if there is no such file."""
    try:
        with pa.memory_map(str(path)) as file:
            return Outcome.from_dict(json.loads(pa.ipc.open_stream(file).schema.metadata[_OUTCOME]))
    except FileNotFoundError:
        return None
    except (OSError, KeyError, TypeError, ValueError) as error:
        damage = StoreDamagedError(
            f"The part file {path} is damaged ({error}). {repair_advice(path)}"
        )
        raise system_error(error, path) or damage from error


def read_part(path: Path, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    """Yield the batches of a part file, or of a shard, after its checksum was compared.

    Args:
        path: the file. A shard has its checksum elsewhere.
        schema: its columns.

    Raises:
        StoreDamagedError: it is gone, or not as it was written.
    """
    stream = _opened(path)
    if not stream.schema.equals(schema):
        raise damaged(path, "it has other columns than the clips of this store")
    metadata = dict(stream.schema.metadata or {})
    checksum = metadata.pop(_CHECKSUM, None)
    if checksum not in {None, _part_checksum(metadata, stream.after_columns())}:
        raise damaged(path, "its checksum differs")
    yield from stream.batches()


def seal_shard(
    job: int,
    parts: Iterable[Path],
    target: Path,
    schema: pa.Schema,
    *,
    keep: Callable[[pa.RecordBatch], pa.RecordBatch] = lambda rows: rows,
) -> SealedShard:
    """Join part files into one Arrow stream file with a checksum beside it.

    Args:
        job: number of the job.
        parts: the part files, in the order of the rows.
        target: the shard. It is not created when there are no parts.
        schema: schema of the rows.
        keep: returns which rows of a batch are kept; default: all.

    Returns:
        Its entry in the ledger, with the digests of its rows. Without parts its name is empty.

    Raises:
        StoreFullError: the disk is full; the parts are left as they are.
    """
    rows = 0
    digests: dict[str, bytes] = {}
    with contextlib.ExitStack() as stack:
        hashing: HashingWriter | None = None
        for batch in _batches(parts, schema, keep):
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
    write_checksum(target, hashing.sha256)
    return SealedShard(job, target.name, hashing.sha256, rows, hashing.size_bytes, digests)


def _batches(
    parts: Iterable[Path], schema: pa.Schema, keep: Callable[[pa.RecordBatch], pa.RecordBatch]
) -> Iterator[pa.RecordBatch]:
    batches = RowBatches(schema)
    for path in parts:
        for rows in read_part(path, schema):
            yield from batches.add(keep(rows))
    yield from batches.finish()


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
    return (
        f"The file {path} is missing. A run puts videos that come back into a fuller shard under "
        "another name: if one did so just now, open the store again. Otherwise it is lost. "
        f"{repair_advice(path)}"
    )


def check_shard(folder: Path, shard: SealedShard) -> None:
    """Compare a sealed shard with its checksum, in the ledger and beside it.

    Raises:
        StoreDamagedError: they differ, or a file is missing.
    """
    path = folder / shard.name
    problem = shard_problem(path, shard.sha256) or checksum_problem(path, shard.sha256)
    if problem:
        raise StoreDamagedError(f"{problem} {repair_advice(path)}")


def shard_problem(path: Path, sha256: str) -> str:
    """Return how a shard differs from what was sealed; an empty text if it does not.

    Args:
        path: the shard.
        sha256: its checksum.
    """
    try:
        digest = sha256_of(path)
    except FileNotFoundError:
        return f"The shard {path} is missing."
    except OSError as error:
        return f"The shard {path} cannot be read: {error.strerror}."
    if digest == sha256:
        return ""
    return f"The shard {path} is damaged: its SHA-256 is {digest}, sealed was {sha256}."
