"""Which rows of a damaged shard are as they were sealed.

A shard has a digest of each of its rows, in the file of outcomes beside it. One that was sealed
before there were such files has none; then a row is proven by its parts: names and times by the
index, the samples by the MD5 that FLAC keeps of them. Other audio, and faces, say nothing of
themselves.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from voxblink2_lib.records import SAMPLE_RATE_HZ, Utterance, UtteranceKey, VideoKey
from voxblink2_lib.store.row_digests import row_digests, row_names

_SOURCES = {"youtube", "url", "folder"}
# Of the MD5 of all samples: after the name of the format, the head of the first block, and the
# numbers of that block.
_MD5_START, _MD5_END = 26, 42


@dataclass(frozen=True, slots=True)
class Proof:
    """What is known of the rows of a shard.

    Attributes:
        digests: digest of each row, by its ``speaker/video/utterance`` name; ``None`` if unknown.
        utterances: those that the shard should have, by name.
    """

    digests: Mapping[str, bytes] | None
    utterances: Mapping[str, Utterance]

    @property
    def expected(self) -> dict[VideoKey, set[str]]:
        """Names of the rows of each video."""
        names = self.utterances if self.digests is None else self.digests
        videos: dict[VideoKey, set[str]] = {}
        for name in names:
            speaker, video, _ = name.split("/")
            videos.setdefault(VideoKey(speaker, video), set()).add(name)
        return videos

    def names(self, batch: pa.RecordBatch) -> list[str | None]:
        """Return the name of each row of a batch that is proven, and ``None`` for the others."""
        if any(batch[column].null_count for column in UtteranceKey._fields):
            return [None] * batch.num_rows
        names = row_names(batch)
        if self.digests is not None:
            digests = row_digests(batch)
            same = [
                self.digests.get(name) == digest
                for name, digest in zip(names, digests, strict=True)
            ]
            return [name if is_same else None for name, is_same in zip(names, same, strict=True)]
        if "video" in batch.schema.names:
            return [None] * batch.num_rows
        pairs = zip(names, _rows(batch), strict=True)
        return [name if self._is_as_annotated(name, row) else None for name, row in pairs]

    def _is_as_annotated(self, name: str, row: Mapping[str, Any]) -> bool:
        utterance = self.utterances.get(name)
        return (
            utterance is not None
            and row["source"] in _SOURCES
            and (row["start_seconds"], row["end_seconds"]) == utterance.seconds
            and row["audio"] is not None
            and row["audio"]["path"] == f"{name}.flac"
            and is_whole_flac(row["audio"]["bytes"], samples=_samples(utterance))
        )


def _samples(utterance: Utterance) -> int:
    start, stop = utterance.samples
    return stop - start


def _rows(batch: pa.RecordBatch) -> Iterable[dict[str, Any]]:
    for row in range(batch.num_rows):
        yield batch.slice(row, 1).to_pylist()[0]


def is_whole_flac(data: bytes | None, *, samples: int) -> bool:
    """Return whether FLAC decodes to the samples that were encoded, at 16 kHz.

    Args:
        data: the clip, which may be damaged.
        samples: how many it should have.
    """
    import soundfile

    try:
        with soundfile.SoundFile(io.BytesIO(data or b"")) as file:
            # Not more than expected: a damaged header may ask for all memory.
            decoded = file.read(samples, dtype="int16")
            shape = (file.format, file.subtype, file.samplerate, file.channels, file.frames)
    except (soundfile.SoundFileError, ValueError):
        return False
    md5 = hashlib.md5(decoded.tobytes(), usedforsecurity=False).digest()
    stored = (data or b"")[_MD5_START:_MD5_END]
    return shape == ("FLAC", "PCM_16", SAMPLE_RATE_HZ, 1, samples) and md5 == stored
