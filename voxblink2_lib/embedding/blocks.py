"""Divide an input into blocks of utterances that a worker reads by itself.

A block is a list of files, or rows of one batch of an Arrow file or of one row group of Parquet.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from voxblink2_lib.embedding.audio_files import EXTENSIONS, find_audio_files
from voxblink2_lib.embedding.lists import FilePart, read_list, read_segments
from voxblink2_lib.embedding.tables import USUAL, Audio, TableColumns
from voxblink2_lib.errors import EmbeddingError
from voxblink2_lib.foreign_files import as_own_error, check_parquet_size, shortened
from voxblink2_lib.records import SealedShard
from voxblink2_lib.store.layout import Store
from voxblink2_lib.store.ledger import Ledger
from voxblink2_lib.store.provenance import Provenance
from voxblink2_lib.store.shards import read_batches

# A killed run loses the blocks in flight: a minute or two on a slow machine. Small inputs are split
# finer, so that all workers are busy and progress is visible.
_MAX_ROWS, _MIN_BLOCKS = 128, 32

# Reading a row of Parquet means reading those before it in its group, so blocks are not tiny.
_MAX_BLOCKS_PER_ROW_GROUP = 16
_ROWS_AT_ONCE = 64
# So many kinds of other files are named.
_SHOWN_KINDS = 5


# Returns whether to embed the utterance of a name.
Keep = Callable[[str], bool]


@dataclass(frozen=True, slots=True)
class EmbeddingBlock:
    """Utterances that a worker embeds in one call.

    Attributes:
        kind: how to read it.
        rows: indices in the batch or row group; for files, one index a file.
        path: the Arrow or Parquet file.
        place: index of the batch or row group in it.
        files: names and paths of files.
        columns: of the table.
        parts: of the files, if they are not whole files.
    """

    kind: Literal["files", "arrow", "parquet"]
    rows: Sequence[int]
    path: str = ""
    place: int = 0
    files: tuple[tuple[str, str], ...] = ()
    columns: TableColumns = USUAL
    parts: tuple[FilePart, ...] = ()

    def read(self) -> Iterator[tuple[str, Audio]]:
        """Yield the name of each utterance with its audio.

        Raises:
            EmbeddingError: there is no column of audio or of names.
        """
        if self.kind == "files":
            whole = [Path(path) for _, path in self.files]
            sounds: Sequence[Audio] = self.parts or whole
            yield from ((name, sound) for (name, _), sound in zip(self.files, sounds, strict=True))
            return
        for rows in self._tables():
            names = self.columns.names(rows, self.path)
            yield from zip(names, self.columns.sounds(rows), strict=True)

    def identity(self) -> str:
        """Return all that decides what the block contains, but for the content of its files.

        Its hash is in files of earlier versions, so the text must never change.
        """
        columns = "" if self.columns == USUAL else f", columns={tuple(self.columns)!r}"
        parts = f", parts={[*map(tuple, self.parts)]!r}" if self.parts else ""
        return (
            f"Block(kind={self.kind!r}, rows={self.rows!r}, path={self.path!r}, "
            f"place={self.place!r}, files={self.files!r}{columns}{parts})"
        )

    def version(self) -> str:
        """Return a hash of sizes and times of the block's files, to notice changes."""
        digest = hashlib.sha256()
        for path in [path for _, path in self.files] or [self.path]:
            with contextlib.suppress(OSError):
                stat = os.stat(path)
                digest.update(b"%d %d " % (stat.st_size, stat.st_mtime_ns))
            digest.update(b"\n")
        return digest.hexdigest()[:16]

    def _tables(self) -> Iterator[pa.Table]:
        """Yield the block's rows in small tables."""
        return self._arrow_tables() if self.kind == "arrow" else self._parquet_tables()

    def _arrow_tables(self) -> Iterator[pa.Table]:
        batch = next(itertools.islice(read_batches(Path(self.path)), self.place, None))
        rows = pa.Table.from_batches([batch]).select(self.columns.needed(batch.schema, self.path))
        for start in range(0, len(self.rows), _ROWS_AT_ONCE):
            yield rows.take(list(self.rows[start : start + _ROWS_AT_ONCE]))

    def _parquet_tables(self) -> Iterator[pa.Table]:
        with _named(self.path), pq.ParquetFile(self.path) as file:
            check_parquet_size(Path(self.path), file.metadata)
            columns = self.columns.needed(file.schema_arrow, self.path)
            first = 0
            for batch in file.iter_batches(_ROWS_AT_ONCE, [self.place], columns=columns):
                batch.validate(full=True)
                rows = [row - first for row in self.rows if first <= row < first + len(batch)]
                if rows:
                    yield pa.Table.from_batches([batch]).take(rows)
                first += len(batch)
                if first > self.rows[-1]:
                    return


class EmbeddingInput(NamedTuple):
    """What there is to embed.

    Attributes:
        blocks: of utterances.
        skipped: how many files of a folder are no part of it, by kinds.
    """

    blocks: list[EmbeddingBlock]
    skipped: Mapping[str, int]


def find_blocks(
    place: str | Path,
    *,
    keep: Keep | None = None,
    prefer: Sequence[str] = (),
    columns: TableColumns = USUAL,
    segments: Path | None = None,
) -> EmbeddingInput:
    """Divide an input into blocks.

    Args:
        place: a store (its configuration ``audio``, or ``audio-visual`` if it has no other);
            a folder of Arrow or Parquet files with a column ``audio``, as ``save_to_disk`` writes;
            one such file; a list (Kaldi's ``wav.scp``, also with ``FILE.ark:OFFSET``, or
            WeSpeaker's ``raw.list``); or a folder of audio files, which are named by their path in
            it, without extension.
        keep: returns whether to embed the utterance of a name; by default all are embedded.
        prefer: see :func:`voxblink2_lib.embedding.audio_files.find_audio_files`.
        columns: of Arrow or Parquet, a store's excepted.
        segments: Kaldi's list of the utterances in the recordings of a list.

    Raises:
        EmbeddingError: it is none of these, or there is nothing to embed in it.
        StoreDamagedError: an Arrow file is damaged.
    """
    path = Path(place).expanduser().absolute()
    if segments is not None and (path.is_dir() or path.suffix in {".arrow", ".parquet"}):
        raise EmbeddingError(
            f"Segments are of the recordings of a list wav.scp; {path} is none. Leave them out, or "
            "name the list."
        )
    skipped: Counter[str] = Counter()
    if path.is_dir():
        blocks = list(_blocks_of_folder(path, keep, prefer, columns, skipped))
    elif path.suffix == ".parquet" and path.is_file():
        blocks = list(_parquet_blocks([path], keep, columns))
    elif path.suffix == ".arrow" and path.is_file():
        blocks = list(_arrow_blocks([path], keep, columns))
    elif path.is_file():
        blocks = list(_listed_blocks(path, segments, keep))
    else:
        raise EmbeddingError(f"There is no file or folder {path}.")
    if not blocks:
        if keep is not None:
            raise EmbeddingError(
                f"None of the requested utterances is in {path}. Do its names match the list?"
            )
        raise EmbeddingError(
            f"There is nothing to embed in {path}: expected a store, Arrow or Parquet files with a "
            f"column 'audio', a list wav.scp, or audio files ({', '.join(EXTENSIONS[:6])} and "
            f"others that FFmpeg decodes){_found_instead(skipped)}."
        )
    return EmbeddingInput(list(_split(blocks)), skipped)


def _found_instead(skipped: Mapping[str, int]) -> str:
    return f"; there are only {kinds_text(skipped)}" if skipped else ""


def kinds_text(skipped: Mapping[str, int]) -> str:
    """Return numbers of files by kinds, the most frequent first.

    >>> kinds_text({".txt": 3, ".csv": 12})
    '12 .csv, 3 .txt'
    """
    kinds = sorted(skipped.items(), key=lambda kind: (-kind[1], kind[0]))
    shown = [f"{count:,} {shortened(kind, quoted=False)}" for kind, count in kinds[:_SHOWN_KINDS]]
    return ", ".join(shown) + (", ..." if len(kinds) > _SHOWN_KINDS else "")


def _split(blocks: Sequence[EmbeddingBlock]) -> Iterator[EmbeddingBlock]:
    total = sum(len(block.rows) for block in blocks)
    rows_per_block = max(1, min(_MAX_ROWS, total // _MIN_BLOCKS))
    for block in blocks:
        size = rows_per_block
        if block.kind == "parquet":
            size = max(size, -(-len(block.rows) // _MAX_BLOCKS_PER_ROW_GROUP))
        for start in range(0, len(block.rows), size):
            part = slice(start, start + size)
            files, parts = block.files[part], block.parts[part]
            yield replace(block, rows=block.rows[part], files=files, parts=parts)


def _blocks_of_folder(
    folder: Path,
    keep: Keep | None,
    prefer: Sequence[str],
    columns: TableColumns,
    skipped: Counter[str],
) -> Iterator[EmbeddingBlock]:
    store = Store(folder)
    if store.ledger.exists():
        return _store_blocks(store, keep)
    arrows = [path for path in folder.glob("**/*.arrow") if _is_data(path.relative_to(folder))]
    if arrows:
        return _arrow_blocks(sorted(arrows), keep, columns)
    if parquets := sorted(folder.glob("**/*.parquet")):
        return _parquet_blocks(parquets, keep, columns)
    found = find_audio_files(folder, prefer=prefer)
    skipped.update(found.skipped)
    # Of several files of one name, none is embedded, and each is told.
    return _blocks_of_files([file for file in found.files if keep is None or keep(file[0])])


def _is_data(path: Path) -> bool:
    """Return whether a file of Arrow is neither hidden, as a catalogue is, nor a cache.

    datasets caches the results of map and filter beside the data of a saved dataset.
    """
    is_hidden = any(part.startswith(".") for part in path.parts)
    return not is_hidden and not path.name.startswith("cache-")


def provenance_of(audio: str | Path, blocks: Iterable[EmbeddingBlock]) -> Provenance | None:
    """Return the shards that the blocks of an input are of; ``None`` if it is no store."""
    ledger = Store(Path(audio).expanduser()).ledger
    if not ledger.exists():
        return None
    names = {Path(block.path).name for block in blocks}
    _, shards, store_id = _shards_of(ledger)
    return Provenance.of(store_id, (shard.sha256 for shard in shards if shard.name in names))


def _store_blocks(store: Store, keep: Keep | None) -> Iterator[EmbeddingBlock]:
    config, shards, _ = _shards_of(store.ledger)
    paths = (store.shards(config) / shard.name for shard in shards)
    return _arrow_blocks(paths, keep, USUAL)


def _shards_of(path: Path) -> tuple[str, list[SealedShard], str]:
    """Return the configuration of a store whose audio is read, its shards, and the store's id."""
    for config in ("audio", "audio-visual"):
        with Ledger(path, config, readonly=True) as ledger:
            shards, store_id = ledger.shards(), ledger.store_id
        if shards:
            break
    return config, shards, store_id


def _arrow_blocks(
    paths: Iterable[Path], keep: Keep | None, columns: TableColumns
) -> Iterator[EmbeddingBlock]:
    for path in paths:
        for place, batch in enumerate(read_batches(path)):
            if batch.num_rows > path.stat().st_size:  # columns of nulls take no room
                raise EmbeddingError(f"{path} claims {batch.num_rows:,} rows; it has fewer bytes.")
            rows: Sequence[int] = range(batch.num_rows)
            if keep is not None:
                rows = _kept(pa.Table.from_batches([batch]), path, keep, columns)
            if rows:
                yield EmbeddingBlock("arrow", rows, str(path), place, columns=columns)


def _parquet_blocks(
    paths: Iterable[Path], keep: Keep | None, columns: TableColumns
) -> Iterator[EmbeddingBlock]:
    for path in paths:
        with _named(path), pq.ParquetFile(path) as file:
            check_parquet_size(path, file.metadata)
            for place in range(file.num_row_groups):
                rows: Sequence[int] = range(file.metadata.row_group(place).num_rows)
                if keep is not None:
                    naming = columns.naming(file.schema_arrow, path)
                    names = file.read_row_group(place, columns=naming)
                    names.validate(full=True)
                    rows = _kept(names, path, keep, columns)
                if rows:
                    yield EmbeddingBlock("parquet", rows, str(path), place, columns=columns)


def _named(path: str | Path) -> contextlib.AbstractContextManager[None]:
    return as_own_error(EmbeddingError, f"{path} cannot be read as Parquet")


def _kept(rows: pa.Table, path: Path, keep: Keep, columns: TableColumns) -> tuple[int, ...]:
    return tuple(row for row, name in enumerate(columns.names(rows, path)) if keep(name))


def _listed_blocks(
    path: Path, segments: Path | None, keep: Keep | None
) -> Iterator[EmbeddingBlock]:
    listed = _once(read_list(path))
    if segments is not None:
        listed = _once(read_segments(segments, listed))
    kept = {name: part for name, part in listed.items() if keep is None or keep(name)}
    files = [(name, part.path) for name, part in kept.items()]
    parts = [*kept.values()]
    return _blocks_of_files(files, () if all(part.is_whole for part in parts) else parts)


def _once(listed: Iterable[tuple[str, FilePart]]) -> dict[str, FilePart]:
    parts: dict[str, FilePart] = {}
    for name, part in listed:
        if name in parts:
            raise EmbeddingError(
                f"{shortened(name)} exists twice, as {parts[name].path} and as {part.path}."
            )
        parts[name] = part
    return parts


def _blocks_of_files(
    files: Sequence[tuple[str, str]], parts: Sequence[FilePart] = ()
) -> Iterator[EmbeddingBlock]:
    if files:
        rows = range(len(files))
        yield EmbeddingBlock("files", rows, files=tuple(files), parts=tuple(parts))
