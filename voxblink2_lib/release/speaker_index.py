"""Read what an index knows beside the annotations: facts about speakers, and transcripts.

index/
  speakers.parquet      one row per speaker, sorted: facts, its files as text, range of transcripts
  transcripts.parquet   one row per utterance that has one, those of a speaker together
  speakers.json         counts, signature of the release's files, SHA-256 of every file

They are made, and made again, without the rest of the index; an index may have none of them.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property, lru_cache
from itertools import accumulate
from pathlib import Path
from threading import Lock

import pyarrow as pa
import pyarrow.parquet as pq

from voxblink2_lib.errors import StoreDamagedError, StoreError, next_command
from voxblink2_lib.files import named_system_errors
from voxblink2_lib.foreign_files import as_own_error, check_parquet_size, shortened
from voxblink2_lib.progress import Progress, no_progress
from voxblink2_lib.release.index_checksums import checksum_problems

SPEAKERS, TRANSCRIPTS, INFO = "speakers.parquet", "transcripts.parquet", "speakers.json"
_FORMAT = 1
FACT_COLUMNS = {
    "gender": pa.string(),
    "language": pa.string(),
    "location": pa.string(),
    "tags": pa.list_(pa.string()),
}
SPEAKER_COLUMNS = pa.schema(
    [
        ("speaker_id", pa.string()),
        *FACT_COLUMNS.items(),
        ("listed_videos", pa.int32()),
        ("info_text", pa.string()),
        ("info_bytes", pa.int32()),
        ("asr_text", pa.string()),
        ("asr_bytes", pa.int32()),
        ("first_transcript", pa.int64()),
        ("transcripts", pa.int32()),
    ]
)
TRANSCRIPT_COLUMNS = pa.schema(
    [
        ("speaker_id", pa.string()),
        ("video_id", pa.string()),
        ("utterance_id", pa.string()),
        ("transcript", pa.string()),
        ("language", pa.string()),
    ]
)
# A digest of all transcripts, in both files: one is of no use with another's ranges.
CONTENT = "voxblink2_transcripts"
_OPENINGS = 3
_MAX_INFO_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class SpeakerInfo:
    """Contents of ``speakers.json``.

    Attributes:
        speakers: rows of ``speakers.parquet``.
        listed_videos: videos in ``spk2videos``.
        transcripts: rows of ``transcripts.parquet``.
        unmatched: utterances in ``asr_res`` whose video is not named and not certain.
        signature: of the release's files.
        annotations: fingerprint of the index that these files lie in.
        content: digest of all transcripts, the same in all three files.
        problems: what of the release could not be read, the first of it.
        files: SHA-256 of the other files, by name.
        digest: SHA-256 of all that is above.
    """

    speakers: int
    listed_videos: int
    transcripts: int
    unmatched: int
    signature: str
    annotations: str
    content: str
    problems: tuple[str, ...]
    files: Mapping[str, str] = field(default_factory=dict)
    format: int = _FORMAT
    digest: str = ""

    def __post_init__(self) -> None:
        counts = (self.speakers, self.listed_videos, self.transcripts, self.unmatched)
        texts = (self.signature, self.annotations, self.content, self.digest, *self.problems)
        if not all(isinstance(count, int) and count >= 0 for count in counts):
            raise ValueError("a count is no number")
        if not all(isinstance(text, str) for text in (*texts, *self.files.values())):
            raise ValueError("a signature, a digest or a problem is no text")

    def as_json(self) -> bytes:
        """Return the contents of the file, whose digest is computed anew."""
        unsigned = asdict(replace(self, digest=""))
        digest = hashlib.sha256(json.dumps(unsigned).encode()).hexdigest()
        return json.dumps({**unsigned, "digest": digest}, indent=1).encode()


def read_speaker_info(folder: Path) -> SpeakerInfo | None:
    """Return what an index knows beside the annotations; ``None`` if that is nothing.

    Raises:
        StoreError: it is of a later version.
        StoreDamagedError: the file is damaged.
    """
    with _named_damage(folder, INFO):
        try:
            with open(folder / INFO, "rb") as file:
                record = json.loads(file.read(_MAX_INFO_BYTES))
        except (FileNotFoundError, NotADirectoryError):
            return None
        if record["format"] != _FORMAT:
            raise StoreError(
                f"{folder / INFO} has format {shortened(record['format'])}, not {_FORMAT}. Use "
                "the version of voxblink2 that made it, or delete that file: transcripts and facts "
                "about speakers are then unknown, until the release is indexed again."
            )
        info = SpeakerInfo(**{**record, "problems": tuple(record["problems"])})
        if info.files.keys() != {SPEAKERS, TRANSCRIPTS}:
            raise ValueError("it has other checksums")
        return info


def speaker_problems(folder: Path, progress: Progress = no_progress) -> Iterator[str]:
    """Yield how the files of an index about speakers differ from what was written.

    Args:
        folder: the index.
        progress: shows the bytes read.
    """
    info = read_speaker_info(folder)
    if info is None:
        return
    if (folder / INFO).read_bytes() != info.as_json():
        yield f"The file {folder / INFO} is damaged: its checksum differs."
    yield from checksum_problems(folder, info.files, progress)


def keep_speakers(before: Path, folder: Path) -> None:
    """Move the files about speakers to an index that replaces another, until they are made again.

    Args:
        before: the folder of the index that is replaced.
        folder: that of the one that replaces it.
    """
    for name in (SPEAKERS, TRANSCRIPTS, INFO):  # the summary last: without it nothing is read
        with contextlib.suppress(FileNotFoundError):
            os.replace(before / name, folder / name)


@contextlib.contextmanager
def _named_damage(folder: Path, file: str) -> Iterator[None]:
    advice = f"Mend the store with {next_command('repair', store=folder.absolute().parent)}."
    with (
        as_own_error(StoreDamagedError, f"{folder / file} of the index is damaged", advice),
        named_system_errors(folder / file),
    ):
        yield


class SpeakerIndex:
    """Facts about speakers, and transcripts, of an index on disk.

    Args:
        folder: the index. It may come with a foreign store: each file is checked.

    Attributes:
        info: the summary of what was opened.

    Raises:
        StoreDamagedError: a file is damaged.
        FileNotFoundError: the index knows nothing of speakers.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        for left in reversed(range(_OPENINGS)):
            info = read_speaker_info(folder)
            if info is None:
                raise FileNotFoundError(folder / INFO)
            self.info = info
            try:
                self._open(info.content)
                return
            except StoreDamagedError:
                # A run may have replaced one of the files just now.
                if not left:
                    raise

    def _open(self, content: str) -> None:
        with _named_damage(self._folder, SPEAKERS):
            path = self._folder / SPEAKERS
            self._speakers = _open(path, path, SPEAKER_COLUMNS, content)
        with _named_damage(self._folder, TRANSCRIPTS):
            path = self._folder / TRANSCRIPTS
            # Each read names its place, so several readers may share the file that was opened.
            self._source = pa.OSFile(str(path))
            self._readers: list[pq.ParquetFile] = []
            self._file = _open(self._source, path, TRANSCRIPT_COLUMNS, content)
            metadata = self._file.metadata
            sizes = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
            self._starts = [0, *accumulate(sizes)]
        self._ranges = self._read_ranges()
        self._lock = Lock()  # threads that load share an index
        self._group = lru_cache(maxsize=64)(self._read_group)

    def _read_ranges(self) -> dict[str, tuple[int, int]]:
        names = ["speaker_id", "first_transcript", "transcripts"]
        with _named_damage(self._folder, SPEAKERS):
            table = self._speakers.read(columns=names, use_threads=False)
            speakers, firsts, counts = (table[name].to_pylist() for name in names)
            for first, count in zip(firsts, counts, strict=True):
                if not 0 <= first <= first + count <= self._starts[-1]:
                    raise ValueError("a range of transcripts is not in the file of transcripts")
            pairs = zip(firsts, counts, strict=True)
            return {speaker: pair for speaker, pair in zip(speakers, pairs, strict=True) if pair[1]}

    @cached_property
    def facts(self) -> pa.Table:
        """``speaker_id`` and the columns of :data:`FACT_COLUMNS` of all speakers."""
        with _named_damage(self._folder, SPEAKERS):
            with self._lock:
                names = ["speaker_id", *FACT_COLUMNS]
                table = self._speakers.read(columns=names, use_threads=False)
            table.validate(full=True)
            return table

    def transcripts(self, speaker_id: str) -> list[pa.Table]:
        """Return tables that together have the columns :data:`TRANSCRIPT_COLUMNS` of a speaker."""
        first, count = self._ranges.get(speaker_id, (0, 0))
        with _named_damage(self._folder, TRANSCRIPTS):
            return list(self._slices(first, first + count)) if count else []

    def languages(self) -> set[str]:
        """Return the languages that any transcript names, as it names them."""
        with _named_damage(self._folder, TRANSCRIPTS):
            groups = range(self._file.metadata.num_row_groups)
            columns = (self._file.read_row_group(group, ["language"])[0] for group in groups)
            return {name for column in columns for name in column.unique().to_pylist() if name}

    def rows_of(self, speaker_id: str) -> range:
        """Return the numbers of a speaker's transcripts among those of all."""
        first, count = self._ranges.get(speaker_id, (0, 0))
        return range(first, first + count)

    @property
    def rows(self) -> range:
        """The numbers of all transcripts."""
        return range(self._starts[-1])

    def parts(self, rows: range, groups: int) -> Iterator[range]:
        """Yield rows in parts, of which each is in a number of groups that are read as a whole."""
        while rows:
            last = min(self._group_of(rows.start) + groups, len(self._starts) - 1)
            stop = min(self._starts[last], rows.stop)
            yield range(rows.start, stop)
            rows = range(stop, rows.stop)

    def read(self, rows: range, columns: Sequence[str]) -> pa.Table:
        """Return some columns of rows that follow each other; none of it is kept.

        Threads that call it do not wait for each other.

        Args:
            rows: their numbers, at least one.
            columns: some of :data:`TRANSCRIPT_COLUMNS`.
        """
        first = self._group_of(rows.start)
        groups = range(first, self._group_of(rows.stop - 1) + 1)
        with _named_damage(self._folder, TRANSCRIPTS), self._reader() as reader:
            table = reader.read_row_groups(list(groups), columns=list(columns), use_threads=False)
            table.validate(full=True)
            return table.slice(rows.start - self._starts[first], len(rows))

    def at(self, rows: Sequence[int]) -> pa.Table:
        """Return all columns of a few rows.

        Args:
            rows: their numbers, at least one.
        """
        with _named_damage(self._folder, TRANSCRIPTS):
            return pa.concat_tables(part for row in rows for part in self._slices(row, row + 1))

    @contextlib.contextmanager
    def _reader(self) -> Iterator[pq.ParquetFile]:
        """Give a reader to one thread: that of another, which has ended, or a new one."""
        reader = None
        with contextlib.suppress(IndexError):
            reader = self._readers.pop()
        metadata = self._file.metadata
        reader = reader or pq.ParquetFile(self._source, metadata=metadata, pre_buffer=False)
        yield reader
        self._readers.append(reader)

    def _group_of(self, row: int) -> int:
        return bisect_right(self._starts, row) - 1

    def _slices(self, first: int, stop: int) -> Iterator[pa.Table]:
        while first < stop:
            group = self._group_of(first)
            part = self._group(group).slice(first - self._starts[group], stop - first)
            yield part
            first += len(part)

    def _read_group(self, group: int) -> pa.Table:
        with self._lock:
            # No threads of Arrow's, see release.index.read_videos.
            table = self._file.read_row_group(group, use_threads=False)
        table.validate(full=True)
        return table


def _open(
    source: Path | pa.NativeFile, path: Path, schema: pa.Schema, content: str
) -> pq.ParquetFile:
    file = pq.ParquetFile(source, pre_buffer=False)
    check_parquet_size(path, file.metadata)
    if not file.schema_arrow.equals(schema):
        raise ValueError("it has other columns")
    if (file.metadata.metadata or {}).get(CONTENT.encode()) != content.encode():
        raise ValueError("it does not belong to the files beside it")
    return file
