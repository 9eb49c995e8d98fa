"""Judge the speakers' labels of a store by embeddings, and write what to listen to.

::

    FOLDER/far.csv          utterances that are far from their speaker, the farthest first
    FOLDER/two_voices.csv   speakers with two voices, and the videos of the second one
    FOLDER/same_voice.csv   pairs of speakers that are one voice
    FOLDER/exclude.txt      ids for ``exclude``: videos of which most is far or of a second voice,
                            and of each pair the speaker with less
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from voxblink2_lib.errors import ScoringError
from voxblink2_lib.files import atomic_write
from voxblink2_lib.foreign_files import shortened
from voxblink2_lib.progress import Progress, no_progress
from voxblink2_lib.records import SAMPLE_RATE_HZ
from voxblink2_lib.scoring.purity import Purity, measure_purity
from voxblink2_lib.scoring.stored_vectors import stored_vectors
from voxblink2_lib.scoring.validation import Flags, Floats, Rows
from voxblink2_lib.training import Corpus

_NAMES_AT_ONCE = 1 << 16


@dataclass(frozen=True, eq=False)
class JudgedCorpus:
    """The utterances of a corpus that have an embedding, and what is said of them.

    Attributes:
        corpus: these utterances.
        names: of them, ``speaker/video/utterance``. Shape: [utterances].
        videos: ids of all videos.
        video: index of each utterance's in ``videos``. Shape: [utterances].
        purity: of the utterances and the speakers of ``corpus``.
        missing: how many utterances of the store have no embedding.
        unknown: how many embeddings are of no utterance of the store.
    """

    corpus: Corpus
    names: pa.ChunkedArray
    videos: Sequence[str]
    video: Rows
    purity: Purity
    missing: int
    unknown: int


def judge_corpus(
    corpus: Corpus,
    embeddings: str | Path,
    *,
    names: str | Path | None = None,
    far: float | None = None,
    near: float | None = None,
    progress: Progress = no_progress,
) -> JudgedCorpus:
    """Judge the utterances of a corpus.

    Args:
        corpus: the utterances.
        embeddings: a file of them, under the names that ``embed`` gives to those of a store.
        names: of its rows; see :func:`voxblink2_lib.scoring.read_embeddings`.
        far: see :func:`voxblink2_lib.scoring.purity.measure_purity`.
        near: the same.
        progress: shows what is done.

    Raises:
        ScoringError: the file cannot be read, it has a name twice, or none of the store's.
    """
    all_names = _names_of(corpus)
    with stored_vectors(embeddings, names=names, progress=progress) as stored:
        rows = pc.index_in(stored.names, value_set=all_names.combine_chunks())
        row = np.asarray(rows.fill_null(-1).to_numpy(), np.int64)
        known = np.flatnonzero(row >= 0)
        _check_names(stored.names, row[known], known, embeddings, all_names)
        judged = corpus.select(row[known])
        kept = all_names.take(pa.array(row[known]))
        video_names = pc.replace_substring_regex(kept, "^[^/]*/([^/]*)/.*$", r"\1")
        video = video_names.combine_chunks().dictionary_encode()
        codes = video.indices.to_numpy().astype(np.int64)
        purity = measure_purity(
            _Rows(stored.vectors, known), judged.speaker.astype(np.int64), codes,
            far=far, near=near, progress=progress,
        )  # fmt: skip
    missing, unknown = len(corpus) - len(known), len(row) - len(known)
    return JudgedCorpus(judged, kept, video.dictionary.to_pylist(), codes, purity, missing, unknown)


class _Rows:
    """Some rows of an array that stays on disk."""

    def __init__(self, vectors: Floats, rows: Rows) -> None:
        self._vectors, self._rows = vectors, rows
        self.shape = (len(rows), vectors.shape[1])

    def __getitem__(self, rows: Rows) -> Floats:
        return self._vectors[self._rows[rows]]


def _names_of(corpus: Corpus) -> pa.ChunkedArray:
    starts = range(0, len(corpus), _NAMES_AT_ONCE)
    parts = (range(start, min(start + _NAMES_AT_ONCE, len(corpus))) for start in starts)
    return pa.chunked_array([pa.array(corpus.names(np.array(part))) for part in parts])


def _check_names(
    names: pa.ChunkedArray, row: Rows, known: Rows, path: str | Path, expected: pa.ChunkedArray
) -> None:
    if not len(known):
        raise ScoringError(
            f"{path} has no embedding of an utterance of the store: its first name is "
            f"{shortened(names[0].as_py())}, the store's is {expected[0].as_py()}. Make it with "
            "voxblink2 embed, from this store."
        )
    counts = np.bincount(row)
    if counts.max() > 1:
        name = names[int(known[row == counts.argmax()][0])].as_py()
        raise ScoringError(f"{path} has {shortened(name)} twice. Keep one embedding of each.")


# -- Files -----------------------------------------------------------------------------------------


def write_lists(judged: JudgedCorpus, folder: Path) -> dict[str, int]:
    """Write the lists, and return how many lines each has, by its name."""
    folder.mkdir(parents=True, exist_ok=True)
    columns = {
        "far.csv": ("name", "seconds", "cosine"),
        "two_voices.csv": ("speaker_id", "cosine", "utterances", "of_second_voice", "videos"),
        "same_voice.csv": ("first", "second", "cosine", "utterances_first", "utterances_second"),
    }
    tables = (_far_rows(judged), _mixed_rows(judged), _pair_rows(judged))
    counts = {
        name: _write_csv(folder / name, columns[name], rows)
        for name, rows in zip(columns, tables, strict=True)
    }
    excluded = {**_excluded_videos(judged), **_excluded_speakers(judged)}
    with atomic_write(folder / "exclude.txt") as file:
        file.writelines(f"{name}  # {reason}\n".encode() for name, reason in excluded.items())
    return counts | {"exclude.txt": len(excluded)}


def _write_csv(path: Path, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> int:
    text, count = io.StringIO(), 0
    writer = csv.writer(text, lineterminator="\n")
    with atomic_write(path) as file:
        writer.writerow(columns)
        for row in rows:
            writer.writerow(row)
            count += 1
            if text.tell() > _NAMES_AT_ONCE:
                file.write(text.getvalue().encode())
                text.seek(0)
                text.truncate()
        file.write(text.getvalue().encode())
    return count


def _far_rows(judged: JudgedCorpus) -> Iterator[tuple[object, ...]]:
    own = judged.purity.own
    far = np.flatnonzero(judged.purity.is_far)
    for row in far[np.argsort(own[far], kind="stable")].tolist():
        seconds = judged.corpus.samples[row] / SAMPLE_RATE_HZ
        yield judged.names[row].as_py(), f"{seconds:.2f}", f"{own[row]:.4f}"


def _mixed_rows(judged: JudgedCorpus) -> Iterator[tuple[object, ...]]:
    purity, utterances = judged.purity, np.bincount(judged.corpus.speaker)
    mixed = np.flatnonzero(purity.is_mixed)
    second = _of_second_voice(judged)
    counts = np.bincount(judged.corpus.speaker[second], minlength=len(utterances))
    videos: dict[int, dict[str, None]] = {speaker: {} for speaker in mixed.tolist()}
    for row in np.flatnonzero(second).tolist():
        videos[int(judged.corpus.speaker[row])][judged.videos[judged.video[row]]] = None
    for speaker in mixed[np.argsort(purity.groups[mixed], kind="stable")].tolist():
        yield (
            *(judged.corpus.speakers[speaker], f"{purity.groups[speaker]:.4f}"),
            *(utterances[speaker], counts[speaker], " ".join(videos[speaker])),
        )


def _pair_rows(judged: JudgedCorpus) -> Iterator[tuple[object, ...]]:
    utterances, ids = np.bincount(judged.corpus.speaker), judged.corpus.speakers
    for first, second, cosine in zip(*judged.purity.pairs, strict=True):
        sizes = (utterances[first], utterances[second])
        yield ids[first], ids[second], f"{cosine:.4f}", *sizes


def _of_second_voice(judged: JudgedCorpus) -> Flags:
    """Return which utterances are of the smaller group of a speaker with two voices."""
    flags: Flags = judged.purity.is_minor & judged.purity.is_mixed[judged.corpus.speaker]
    return flags


def _excluded_videos(judged: JudgedCorpus) -> dict[str, str]:
    """Return the videos of which most is far or of a second voice, with the reason."""
    wrong = judged.purity.is_far | _of_second_voice(judged)
    all_of, wrong_of = np.bincount(judged.video), np.bincount(judged.video, weights=wrong)
    return {
        judged.videos[video]: f"{int(wrong_of[video])} of {all_of[video]} utterances are far from "
        "their speaker, or of a second voice"
        for video in np.flatnonzero(2 * wrong_of > all_of).tolist()
    }


def _excluded_speakers(judged: JudgedCorpus) -> dict[str, str]:
    """Return of each pair of equal voices the speaker with less, with the reason."""
    utterances, ids = np.bincount(judged.corpus.speaker), judged.corpus.speakers
    excluded = {}
    for first, second, cosine in zip(*judged.purity.pairs, strict=True):
        less, more = sorted((second, first), key=lambda speaker: utterances[speaker])
        excluded[ids[less]] = f"the voice of {ids[more]}: cosine {cosine:.3f}"
    return excluded
