"""Random access to clips: only the requested samples are decoded."""

from __future__ import annotations

import io
import mmap
from collections import OrderedDict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import soundfile
import torch
from torch import Tensor

from voxblink2_lib.errors import ClipDamagedError, StoreDamagedError, TrainingError
from voxblink2_lib.media.ogg import has_whole_pages
from voxblink2_lib.records import SAMPLE_RATE_HZ
from voxblink2_lib.store.advice import repair_advice
from voxblink2_lib.training.corpus import Corpus, Place
from voxblink2_lib.training.flac_frames import Source, decode_crop
from voxblink2_lib.training.remote_shards import ShardRange
from voxblink2_lib.training.wav_samples import slice_samples

# Maps cost no memory, but each holds a file open.
_MAX_OPEN = 64
_Samples = npt.NDArray[np.float32]


class Reader:
    """Reads clips of a corpus. Each process opens its own files, a bounded number of them.

    Args:
        corpus: the utterances.

    Example:
        Two seconds from the middle of an utterance, without decoding the rest::

            reader = Reader(Corpus.open("store"))
            reader.read(17, start=16_000, samples=32_000)  # float32, shape (32000,)
    """

    def __init__(self, corpus: Corpus) -> None:
        self.corpus = corpus
        self._maps: OrderedDict[str, mmap.mmap] = OrderedDict()

    def __getstate__(self) -> dict[str, Any]:
        return {"corpus": self.corpus, "_maps": OrderedDict()}

    def read(
        self, row: int, *, start: int = 0, samples: int | None = None, out: Tensor | None = None
    ) -> Tensor:
        """Return samples of a clip at 16 kHz, float32 in [-1, 1], shape (samples,).

        Args:
            row: index of the utterance in the corpus.
            start: first sample.
            samples: number of samples; by default to the end.
            out: is written to and returned, such as a row of a batch; by default a new tensor.

        Raises:
            TrainingError: the clip is shorter, or ``out`` has another form.
            ClipDamagedError: it cannot be decoded; names shard, row and utterance.
            StoreDamagedError: its shard is missing or truncated.
        """
        place = self.corpus.place(row)
        count = place.samples - start if samples is None else samples
        if start < 0 or count < 0 or start + count > place.samples:
            raise TrainingError(
                f"Samples {start} to {start + count} of {self._named(row, place)} were requested; "
                f"it has {place.samples}."
            )
        if out is None:
            out = torch.empty(count)
        elif out.dtype != torch.float32 or out.shape != (count,) or not out.is_contiguous():
            raise TrainingError(
                f"out is {out.dtype} of shape {tuple(out.shape)}; expected is contiguous "
                f"torch.float32 of shape ({count},)."
            )
        self._decode(row, place, start, out.numpy())
        return out

    def encoded(self, row: int) -> bytes:
        """Return the encoded bytes of a clip: FLAC, WAV or Opus.

        Args:
            row: index of its utterance.
        """
        source, span = self._bytes(self.corpus.place(row))
        return source[span.start : span.stop]

    def prefetch(self, rows: Iterable[int]) -> None:
        """Download what is missing of the clips of remote shards, at the same time.

        Args:
            rows: indices of the utterances.

        Raises:
            StoreDamagedError: a shard is missing or truncated.
            StoreDiskError: its server fails.
        """
        shards = self.corpus.shards
        if not isinstance(shards, Path):
            places = map(self.corpus.place, rows)
            shards.prefetch(
                ShardRange(place.shard, place.shard_bytes, place.offset, place.size)
                for place in places
            )

    def _decode(self, row: int, place: Place, start: int, into: _Samples) -> None:
        source, span = self._bytes(place)
        for decode in (decode_crop, slice_samples):
            if decode(source, span, length=place.samples, start=start, into=into):
                return
        self._decode_by_libsndfile(row, place, source[span.start : span.stop], start, into)

    def _decode_by_libsndfile(
        self, row: int, place: Place, data: bytes, start: int, into: _Samples
    ) -> None:
        if data[:4] == b"OggS" and not has_whole_pages(data):
            raise ClipDamagedError(
                f"{self._named(row, place)} cannot be decoded: a page of it has a wrong checksum."
            )
        try:
            with _Clip(io.BytesIO(data)) as file:
                self._check_form(row, place, file)
                if start:
                    file.seek(start)
                decoded = file.read(out=into)
        except soundfile.LibsndfileError as error:
            raise ClipDamagedError(
                f"{self._named(row, place)} cannot be decoded: {error}"
            ) from error
        if len(decoded) != len(into):
            raise ClipDamagedError(
                f"{self._named(row, place)} ends after {start + len(decoded)} of {place.samples} "
                "samples."
            )

    def _check_form(self, row: int, place: Place, file: _Clip) -> None:
        form = (file.frames, file.samplerate, file.channels)
        if form != (place.samples, SAMPLE_RATE_HZ, 1):
            raise ClipDamagedError(
                f"{self._named(row, place)} has {file.frames} samples at {file.samplerate} Hz in "
                f"{file.channels} channels; sealed were {place.samples} at {SAMPLE_RATE_HZ} Hz in "
                "one."
            )

    def _named(self, row: int, place: Place) -> str:
        return f"Shard {place.shard} row {place.row} ({self.corpus.names([row])[0]})"

    def _bytes(self, place: Place) -> tuple[Source, range]:
        """Return bytes among which a clip is, and where: of a local shard, without a copy."""
        shards = self.corpus.shards
        if not isinstance(shards, Path):
            data = shards.read(place.shard, place.shard_bytes, place.offset, place.size)
            return data, range(len(data))
        mapped, end = self._map(place.shard), place.offset + place.size
        if len(mapped) < end:
            raise StoreDamagedError(
                f"The shard {shards / place.shard} ends before byte "
                f"{end:,}. {repair_advice(shards / place.shard)}"
            )
        return mapped, range(place.offset, end)

    def _map(self, name: str) -> mmap.mmap:
        if name in self._maps:
            self._maps.move_to_end(name)
            return self._maps[name]
        path = Path(str(self.corpus.shards)) / name
        try:
            with open(path, "rb") as file:
                mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except FileNotFoundError as error:
            raise StoreDamagedError(
                f"The shard {path} is missing. A run puts videos that come back into a fuller "
                "shard under another name: if one did so since this corpus was opened, open it "
                f"again. Otherwise it is lost. {repair_advice(path)}"
            ) from error
        except (OSError, ValueError) as error:
            raise StoreDamagedError(f"The shard {path} cannot be opened: {error}") from error
        self._maps[name] = mapped
        if len(self._maps) > _MAX_OPEN:
            self._maps.popitem(last=False)[1].close()
        return mapped


class _Clip(soundfile.SoundFile):  # type: ignore[misc]  # soundfile has no types
    """A clip of which one part is read.

    After each read of a seekable file, soundfile seeks to its present position. In FLAC that
    decodes up to a block for nothing, a tenth of the time of a short crop. ``seek`` works anyway.
    """

    def seekable(self) -> bool:
        return False
