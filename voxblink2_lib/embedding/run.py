"""Embed everything that an input has, on several processes, and go on where a run was stopped.

OUT.parts/                  while it runs
  plan                      a hash of what is embedded, by which model
  000012-VERSION.parquet    names, embeddings and reasons of one block
OUT                         when all blocks are done: Parquet, or safetensors with names beside it
OUT.rejects.csv             utterances that could not be embedded, if there are any
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
from filelock import FileLock, Timeout
from huggingface_hub import cached_assets_path
from safetensors import SafetensorError, safe_open

from voxblink2_lib.embedding.block_worker import BlockTask, EmbedOptions, embed_block
from voxblink2_lib.embedding.blocks import EmbeddingBlock, Keep, find_blocks
from voxblink2_lib.embedding.model_location import find_model
from voxblink2_lib.errors import EmbeddingError, StoppedError
from voxblink2_lib.files import atomic_write, sha256_of
from voxblink2_lib.progress import EmbeddingProgress
from voxblink2_lib.workers.pool import Call, WorkerDiedError, WorkerPool

FORMATS = (".parquet", ".safetensors")
_CONTENT, _REJECTED = "voxblink2_content", "voxblink2_rejected"
_ROWS_PER_GROUP = 8192

# A network takes and frees megabytes all the time. The C library would give each back to the system
# and take it anew, filled with zeros page by page: up to a fifth of the time of ECAPA-TDNN.
_MALLOC = {"MALLOC_MMAP_THRESHOLD_": str(32 << 20), "MALLOC_TRIM_THRESHOLD_": str(1 << 30)}
_MODEL_FILES = {".json", ".safetensors", ".bin"}


@dataclass(frozen=True, slots=True)
class Embedded:
    """What a run made.

    Attributes:
        out: the file.
        utterances: number of embeddings in it.
        dimensions: of an embedding.
        rejected: number of utterances that could not be embedded.
        rejects: the file that says why, with columns ``name`` and ``reason``; ``None`` if there
            are none.
    """

    out: Path
    utterances: int
    dimensions: int
    rejected: int
    rejects: Path | None


def embed(
    audio: str | Path,
    out: str | Path | None,
    options: EmbedOptions,
    *,
    workers: int | None = None,
    keep: Keep | None = None,
) -> Embedded:
    """Embed the utterances of an input into one file.

    Args:
        audio: see :func:`voxblink2_lib.embedding.blocks.find_blocks`.
        out: a file ending in ``.parquet`` or ``.safetensors``; the latter has a file of names
            beside it, one a line. One that a finished run of the same kind made is left as it is.
            ``None``: a Parquet file in the cache of Hugging Face, found again by the same call.
        options: the model, and how it is used.
        workers: processes; by default one a core on a CPU, and two on an accelerator.
        keep: says by its name whether an utterance is wanted; by default all are.

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
    blocks = find_blocks(audio, keep=keep)
    options = replace(options, model=str(find_model(options.model)))
    plan = _plan(blocks, options)
    versions = [block.version() for block in blocks]
    content = hashlib.sha256(" ".join([plan, *versions]).encode()).hexdigest()
    if out is None:
        out = cached_assets_path("voxblink2", "embeddings") / f"{content[:16]}.parquet"
    if out.exists():
        made_of, made = _finished(out)
        if made_of != content:
            raise EmbeddingError(
                f"{out} was made from other audio, by another model or in another way. Remove it, "
                "or name another file."
            )
        return made
    with _parts_folder(out, plan) as folder:
        # A file that was mended since makes another part, and only that.
        parts = [folder / f"{row:06}-{version}.parquet" for row, version in enumerate(versions)]
        _run(list(zip(blocks, parts, strict=True)), options, workers or _default_workers(options))
        _join(parts, out, content)
    return _finished(out)[1]


def _plan(blocks: Sequence[EmbeddingBlock], options: EmbedOptions) -> str:
    """Return a hash of all that decides what comes out, but for the content of the audio."""
    digest = hashlib.sha256(repr((options.window_seconds, options.dtype)).encode())
    for block in blocks:
        digest.update(repr(block).encode())
    for path in sorted(Path(options.model).iterdir()):
        if path.suffix in _MODEL_FILES:
            digest.update(sha256_of(path).encode())
    return digest.hexdigest()


@contextlib.contextmanager
def _parts_folder(out: Path, plan: str) -> Iterator[Path]:
    """Hold the folder of parts; it stays when the body raises, unless there is nothing in it."""
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
    if not any(parts.glob("*.parquet")):  # nothing would be lost
        with atomic_write(file) as new:
            new.write(plan.encode())
    elif file.read_text(encoding="utf-8") != plan:
        raise EmbeddingError(
            f"{parts} holds what a stopped run made from other audio, by another model or in "
            "another way. Run that one to its end, or remove the folder."
        )


def _default_workers(options: EmbedOptions) -> int:
    # While one of two reads and computes log-mels, the other keeps an accelerator busy.
    return max(1, len(os.sched_getaffinity(0))) if options.device == "cpu" else 2


def _run(work: Sequence[tuple[EmbeddingBlock, Path]], options: EmbedOptions, workers: int) -> None:
    """Embed each block into its part file, unless that is there."""
    workers = max(1, min(workers, len(work)))
    threads = max(1, len(os.sched_getaffinity(0)) // workers)
    with EmbeddingProgress(sum(len(block.rows) for block, _ in work)) as progress:
        left: list[Call] = []
        for block, part in work:
            if part.exists():
                progress.skip(len(block.rows))
            else:
                left.append((embed_block, BlockTask(block, part, options, threads)))
        calls = iter(left)
        with WorkerPool(workers, environment=_MALLOC) as pool:
            for _, done in pool.run(calls.__next__):
                if isinstance(done, WorkerDiedError):
                    raise StoppedError(
                        f"{done}. Nothing finished is lost; run the same command again. If it "
                        "happens again, the machine may be short of memory: use fewer --workers."
                    )
                progress.update(done.embedded, done.rejected, done.seconds)


def _join(parts: Sequence[Path], out: Path, content: str) -> None:
    """Write the parts as one file, and what was rejected beside it.

    Raises:
        EmbeddingError: all was rejected.
    """
    about = pa.concat_tables(pq.read_table(path, columns=["name", "reason"]) for path in parts)
    counts = about["name"].value_counts()
    twice = counts.filter(pc.greater(counts.field("counts"), 1)).field("values")
    # Which of them is meant, nobody knows.
    ambiguous = pc.and_(pc.is_in(about["name"], twice), pc.equal(about["reason"], ""))
    reasons = pc.if_else(ambiguous, "another utterance has the same name", about["reason"])
    about = about.set_column(1, "reason", reasons)
    bad = pc.not_equal(reasons, "")
    rejects = about.filter(bad)
    names = about.filter(pc.invert(bad))["name"]
    if not len(names):
        for path in parts:  # the next run shall try again
            path.unlink()
        first = rejects.slice(0, 1).to_pylist()[0]["reason"]
        raise EmbeddingError(
            f"Nothing could be embedded: {len(rejects):,} utterances were tried. The first "
            f"reason: {first}"
        )
    rejects_of(out).unlink(missing_ok=True)  # of a file that was removed
    if len(rejects):
        with atomic_write(rejects_of(out)) as file:
            pacsv.write_csv(rejects, file)
    write = _write_parquet if out.suffix == ".parquet" else _write_safetensors
    about_out = {_CONTENT: content, _REJECTED: str(len(rejects))}
    write(out, lambda: _embeddings(parts, twice), names, about_out)


def _embeddings(parts: Sequence[Path], twice: pa.Array) -> Iterator[pa.Table]:
    for path in parts:
        table = pq.read_table(path)
        good = pc.and_not(pc.equal(table["reason"], ""), pc.is_in(table["name"], twice))
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
    """Write the tensor ``embeddings``, shape (n, dimensions), a part at a time.

    The format is the length of a header, the header as JSON, and the numbers; the library that
    goes with it would want all of them in memory.
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
    """Return the file that says which utterances could not be embedded."""
    return out.with_name(f"{out.name}.rejects.csv")


def names_of(out: Path) -> Path:
    """Return the file of names beside a ``.safetensors``, one a line."""
    return out.with_suffix(".ids")


def _finished(out: Path) -> tuple[str, Embedded]:
    """Return the hash of what a finished file was made of, and what is in it."""
    try:
        if out.suffix == ".parquet":
            about = pq.read_metadata(out)
            said = {key.decode(): value.decode() for key, value in about.metadata.items()}
            dimensions = about.schema.to_arrow_schema().field("embedding").type.list_size
            count = about.num_rows
        else:
            with safe_open(out, "numpy") as file:
                said = file.metadata()
                count, dimensions = file.get_slice("embeddings").get_shape()
        rejected = int(said[_REJECTED])
        made = Embedded(out, count, dimensions, rejected, rejects_of(out) if rejected else None)
        return said[_CONTENT], made
    except (OSError, KeyError, ValueError, AttributeError, TypeError, SafetensorError) as error:
        raise EmbeddingError(
            f"{out} is there and was not made by 'voxblink2 embed'. Remove it, or name another "
            "file."
        ) from error
