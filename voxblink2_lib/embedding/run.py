"""Embed all utterances of an input on several processes; an interrupted run is resumed.

OUT.parts/                  while it runs
  plan                      a hash of the input's place, the model and the options
  BLOCK-VERSION.parquet     names, embeddings and reasons of one block
OUT                         when all blocks are done: Parquet, or safetensors with names beside it
OUT.rejects.csv             utterances that could not be embedded, if there are any
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
from filelock import FileLock, Timeout
from huggingface_hub import cached_assets_path
from safetensors import SafetensorError, safe_open

from voxblink2_lib.cores import usable_cores
from voxblink2_lib.embedding.block_worker import BlockDone, BlockTask, EmbedOptions, embed_block
from voxblink2_lib.embedding.blocks import EmbeddingBlock, Keep, find_blocks, provenance_of
from voxblink2_lib.embedding.model_identity import model_hashes
from voxblink2_lib.embedding.model_location import find_model
from voxblink2_lib.embedding.origin import corpus_of_names, model_text
from voxblink2_lib.embedding.tables import USUAL, TableColumns
from voxblink2_lib.errors import EmbeddingError, StoppedError
from voxblink2_lib.files import atomic_write, short_digest
from voxblink2_lib.foreign_text import csv_cell
from voxblink2_lib.progress import Progress, no_progress
from voxblink2_lib.store.provenance import note_copy
from voxblink2_lib.workers.pool import KEPT_MEMORY, Call, WorkerDiedError, WorkerPool

FORMATS = (".parquet", ".safetensors")
_CONTENT, _REJECTED = "voxblink2_content", "voxblink2_rejected"
_DUPLICATES = "voxblink2_duplicates"
SAME_NAME = "another utterance has the same name"
_CORPUS, _MODEL = "voxblink2_corpus", "voxblink2_model"
_ROWS_PER_GROUP = 8192


@dataclass(frozen=True, slots=True)
class Embedded:
    """Result of a run.

    Attributes:
        out: the file.
        utterances: number of embeddings in it.
        dimensions: of an embedding.
        rejected: number of utterances that could not be embedded.
        rejects: file of the reasons, with columns ``name`` and ``reason``; ``None`` if there are
            none.
        duplicates: how many of them have the name of another one.
        skipped: how many files of a folder are no audio, by kinds.
    """

    out: Path
    utterances: int
    dimensions: int
    rejected: int
    rejects: Path | None
    duplicates: int = 0
    skipped: Mapping[str, int] = field(default_factory=dict)


def embed(
    audio: str | Path,
    out: str | Path | None,
    options: EmbedOptions,
    *,
    corpus: str | None = None,
    workers: int | None = None,
    keep: Keep | None = None,
    prefer: Sequence[str] = (),
    columns: TableColumns = USUAL,
    segments: Path | None = None,
    progress: Progress = no_progress,
) -> Embedded:
    """Embed the utterances of an input into one file.

    Args:
        audio: see :func:`voxblink2_lib.embedding.blocks.find_blocks`.
        out: a file ending in ``.parquet`` or ``.safetensors``; the latter has a file of names
            beside it, one a line. A file that an equal run finished is left as it is. ``None``: a
            Parquet file in the cache of Hugging Face, which the same call uses again.
        options: the model, and how it is used.
        corpus: which corpus the audio is of, to be written into the file: speakers are people of a
            corpus. By default VoxBlink2, if all names have speakers with six digits.
        workers: processes; by default one for each usable core on a CPU, and two on an accelerator.
        keep: returns whether to embed the utterance of a name; by default all are embedded.
        prefer: extensions, as ``("wav", "flac")``: which of several files of one name is embedded,
            the first of these that is there. Without, none is.
        columns: of Arrow or Parquet.
        segments: Kaldi's list of the utterances in the recordings of a list.
        progress: shows the utterances done, the hours of audio, and the speed.

    Raises:
        EmbeddingError: the input or the output cannot be used, or nothing could be embedded.
        ModelError: the model cannot be loaded.
        StoppedError: a worker process died.
    """
    out = None if out is None else Path(out)
    if out is not None and out.suffix not in FORMATS:
        raise EmbeddingError(f"{out} must end in {' or '.join(FORMATS)}.")
    if workers is not None and workers < 1:
        raise EmbeddingError(f"There must be at least 1 worker, got {workers}.")
    blocks, skipped = find_blocks(
        audio, keep=keep, prefer=prefer, columns=columns, segments=segments
    )
    named_model, model = options.model, find_model(options.model)
    options = replace(options, model=str(model))
    hashes = model_hashes(model)
    plan = _plan_hash(blocks, options, hashes)
    versions = [block.version() for block in blocks]
    named = [corpus] if corpus else []
    content = hashlib.sha256(" ".join([plan, *versions, *named]).encode()).hexdigest()
    if out is None:
        out = cached_assets_path("voxblink2", "embeddings") / f"{content[:16]}.parquet"
    if out.exists():
        return replace(_finished_with(out, content), skipped=skipped)
    with _parts_folder(out, _plan_of_parts(audio, options, hashes)) as folder:
        # A file that was repaired since makes another part, and only that; so do the shards that a
        # store has got since.
        digests = [short_digest(block.identity().encode()) for block in blocks]
        names = map("{}-{}.parquet".format, digests, versions)
        parts = [folder / name for name in names]
        tasks = list(zip(blocks, parts, strict=True))
        _embed_blocks(tasks, options, workers or _default_workers(options), progress)
        made_from = provenance_of(audio, blocks)
        metadata = {_CONTENT: content, _MODEL: model_text(named_model, options, hashes)}
        metadata |= {_CORPUS: corpus} if corpus else {}
        _join(parts, out, metadata | (made_from.as_metadata() if made_from else {}))
        if made_from:
            note_copy(str(out.absolute()), made_from)
    return replace(_finished(out)[1], skipped=skipped)


def _plan_hash(
    blocks: Sequence[EmbeddingBlock], options: EmbedOptions, hashes: Mapping[str, str]
) -> str:
    """Return a hash of all that decides the result, but for the content of the audio.

    Embeddings that earlier versions made are recognized by it.
    """
    digest = hashlib.sha256(repr((options.window_seconds, options.dtype)).encode())
    for block in blocks:
        digest.update(block.identity().encode())
    for sha256 in hashes.values():
        digest.update(sha256.encode())
    return digest.hexdigest()


def _plan_of_parts(audio: str | Path, options: EmbedOptions, hashes: Mapping[str, str]) -> str:
    """Return a hash of what all parts of a run have in common."""
    place = os.fsencode(Path(audio).expanduser().absolute())
    return hashlib.sha256(_plan_hash([], options, hashes).encode() + place).hexdigest()


@contextlib.contextmanager
def _parts_folder(out: Path, plan: str) -> Iterator[Path]:
    """Lock the folder of parts. It stays if the body raises, unless there are no parts in it."""
    parts = out.with_name(f"{out.name}.parts")
    parts.mkdir(parents=True, exist_ok=True)
    done = False
    try:
        with FileLock(parts / ".lock", timeout=0):
            try:
                _claim(parts, plan)
                yield parts
                done = True
            finally:
                if done or not any(parts.glob("*.parquet")):
                    shutil.rmtree(parts)
    except Timeout as error:
        raise EmbeddingError(
            f"Another process is making {out}. Wait for it, or name another file."
        ) from error


def _claim(parts: Path, plan: str) -> None:
    file = parts / "plan"
    if not any(parts.glob("*.parquet")):  # nothing to lose
        with atomic_write(file) as new:
            new.write(plan.encode())
    elif file.read_text(encoding="utf-8") != plan:
        raise EmbeddingError(
            f"{parts} has the parts of an interrupted run on other audio, of another model, with "
            "other options or by an earlier version. Finish that run, or remove the folder."
        )


def _default_workers(options: EmbedOptions) -> int:
    # Of two, one reads and computes log-mels while the other keeps an accelerator busy.
    return usable_cores() if options.device == "cpu" else 2


def _embed_blocks(
    blocks: Sequence[tuple[EmbeddingBlock, Path]],
    options: EmbedOptions,
    workers: int,
    progress: Progress,
) -> None:
    """Embed each block into its part file, unless that exists."""
    workers = max(1, min(workers, len(blocks)))
    threads = max(1, usable_cores() // workers)
    left = [(block, part) for block, part in blocks if not part.exists()]
    total, remaining = (sum(len(block.rows) for block, _ in pairs) for pairs in (blocks, left))
    calls: Iterator[Call] = iter(
        [(embed_block, BlockTask(block, part, options, threads)) for block, part in left]
    )
    speed = _Speed()
    with (
        progress("Embedding", unit="utterance", total=total, done=total - remaining) as advance,
        WorkerPool(workers, environment=KEPT_MEMORY) as pool,
    ):
        for _, result in pool.run(calls.__next__):
            if isinstance(result, WorkerDiedError):
                raise StoppedError(
                    f"{result}. Nothing finished is lost; run the same command again. If it "
                    "happens again, the machine may be short of memory: use fewer --workers."
                )
            advance(result.embedded + result.rejected, note=speed.note(result))


class _Speed:
    """Adds up the blocks of a run to a note beside its progress."""

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._seconds = 0.0
        self._rejected = 0

    def note(self, result: BlockDone) -> str:
        """Add a block; return hours of audio, hours per second, and rejected utterances."""
        self._seconds += result.seconds
        self._rejected += result.rejected
        hours = self._seconds / 3600
        parts = [f"{hours:.2f} h", f"{hours / (time.monotonic() - self._started):.4f} h/s"]
        parts += [f"{self._rejected} rejected"] if self._rejected else []
        return ", ".join(parts)


def _join(parts: Sequence[Path], out: Path, metadata: dict[str, str]) -> None:
    """Write the parts as one file, and the rejected utterances beside it.

    Raises:
        EmbeddingError: all utterances were rejected.
    """
    utterances = pa.concat_tables(pq.read_table(path, columns=["name", "reason"]) for path in parts)
    repeated = _repeated(utterances["name"])
    # Such a name does not tell which utterance is meant.
    ambiguous = pc.and_(pc.is_in(utterances["name"], repeated), pc.equal(utterances["reason"], ""))
    reasons = pc.if_else(ambiguous, SAME_NAME, utterances["reason"])
    utterances = utterances.set_column(1, "reason", reasons)
    is_rejected = pc.not_equal(reasons, "")
    rejects = utterances.filter(is_rejected)
    names = utterances.filter(pc.invert(is_rejected))["name"]
    if not len(names):
        for path in parts:  # so that the next run tries again
            path.unlink()
        first = rejects.slice(0, 1).to_pylist()[0]["reason"]
        raise EmbeddingError(
            f"Nothing could be embedded: {len(rejects):,} utterances were tried. The first "
            f"reason: {first}"
        )
    rejects_of(out).unlink(missing_ok=True)  # of a file that was removed
    if len(rejects):
        with atomic_write(rejects_of(out)) as file:
            pacsv.write_csv(pa.table({c: _cells(rejects[c]) for c in rejects.column_names}), file)
    write = _write_parquet if out.suffix == ".parquet" else _write_safetensors
    duplicates = pc.sum(pc.equal(rejects["reason"], SAME_NAME)).as_py() or 0
    metadata = metadata | {_REJECTED: str(len(rejects)), _DUPLICATES: str(duplicates)}
    if corpus := metadata.get(_CORPUS) or corpus_of_names(names):
        metadata |= {_CORPUS: corpus}
    write(out, lambda: _embeddings(parts, repeated), names, metadata)


def _cells(column: pa.ChunkedArray) -> pa.Array:
    return pa.array([csv_cell(text) for text in column.to_pylist()], pa.string())


def _repeated(names: pa.ChunkedArray) -> pa.Array:
    """Return the names of several utterances."""
    counts = names.value_counts()
    return counts.filter(pc.greater(counts.field("counts"), 1)).field("values")


def _embeddings(parts: Sequence[Path], repeated: pa.Array) -> Iterator[pa.Table]:
    for path in parts:
        table = pq.read_table(path)
        good = pc.and_not(pc.equal(table["reason"], ""), pc.is_in(table["name"], repeated))
        if len(rows := table.filter(good)):
            yield rows.select(["name", "embedding"])


def _write_parquet(
    out: Path,
    embeddings: Callable[[], Iterator[pa.Table]],
    _: pa.ChunkedArray,
    metadata: dict[str, str],
) -> None:
    dimensions = len(next(embeddings())["embedding"][0])
    schema = pa.schema(
        [("name", pa.string()), ("embedding", pa.list_(pa.float32(), dimensions))], metadata
    )
    with atomic_write(out) as file, pq.ParquetWriter(file, schema, compression="zstd") as writer:
        waiting = schema.empty_table()
        for table in embeddings():
            waiting = pa.concat_tables([waiting, table.cast(schema)])
            if len(waiting) >= _ROWS_PER_GROUP:
                writer.write_table(waiting)
                waiting = schema.empty_table()
        if len(waiting):
            writer.write_table(waiting)


def _write_safetensors(
    out: Path,
    embeddings: Callable[[], Iterator[pa.Table]],
    names: pa.ChunkedArray,
    metadata: dict[str, str],
) -> None:
    """Write the tensor ``embeddings``, shape (n, dimensions), one part at a time.

    The format is the length of a header, the header as JSON, and the numbers. Its library can only
    write what is in memory as a whole.
    """
    shape = [len(names), len(next(embeddings())["embedding"][0])]
    tensor = {"dtype": "F32", "shape": shape, "data_offsets": [0, 4 * shape[0] * shape[1]]}
    header = json.dumps({"__metadata__": metadata, "embeddings": tensor}).encode()
    header += b" " * (-len(header) % 8)
    with atomic_write(names_of(out)) as file:
        for name in names:
            file.write(f"{name}\n".encode())
    with atomic_write(out) as file:
        file.write(len(header).to_bytes(8, "little") + header)
        for table in embeddings():
            numbers = table["embedding"].combine_chunks().flatten().to_numpy()
            file.write(np.ascontiguousarray(numbers, "<f4").tobytes())


def rejects_of(out: Path) -> Path:
    """Return the file of the utterances that could not be embedded, with the reasons."""
    return out.with_name(f"{out.name}.rejects.csv")


def names_of(out: Path) -> Path:
    """Return the file of names beside a ``.safetensors``, one a line."""
    return out.with_suffix(".ids")


def _finished_with(out: Path, content: str) -> Embedded:
    """Return what a finished file contains.

    Raises:
        EmbeddingError: it was made of something else.
    """
    content_of_file, embedded = _finished(out)
    if content_of_file != content:
        raise EmbeddingError(
            f"{out} was made from other audio, by another model or with other options. Remove it, "
            "or name another file."
        )
    return embedded


def _finished(out: Path) -> tuple[str, Embedded]:
    """Return the hash of the content that a finished file was made of, and what it contains."""
    try:
        if out.suffix == ".parquet":
            file_metadata = pq.read_metadata(out)
            metadata = {key.decode(): text.decode() for key, text in file_metadata.metadata.items()}
            dimensions = file_metadata.schema.to_arrow_schema().field("embedding").type.list_size
            count = file_metadata.num_rows
        else:
            with safe_open(out, "numpy") as file:
                metadata = file.metadata()
                count, dimensions = file.get_slice("embeddings").get_shape()
        rejected = int(metadata[_REJECTED])
        rejects = rejects_of(out) if rejected else None
        duplicates = int(metadata.get(_DUPLICATES, 0))
        embedded = Embedded(out, count, dimensions, rejected, rejects, duplicates)
        return metadata[_CONTENT], embedded
    except (OSError, KeyError, ValueError, AttributeError, TypeError, SafetensorError) as error:
        raise EmbeddingError(
            f"{out} exists and was not made by the command embed. Remove it, or name another file."
        ) from error
