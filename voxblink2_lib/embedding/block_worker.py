"""Embed one block of utterances. These functions run in worker processes.

PyTorch takes seconds to load and only workers need it, so functions import what uses it.
"""

from __future__ import annotations

import contextlib
import functools
import io
import math
import mmap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from voxblink2_lib.archive.wav import read_wav_header
from voxblink2_lib.embedding.blocks import EmbeddingBlock
from voxblink2_lib.embedding.lists import FilePart
from voxblink2_lib.embedding.tables import Audio, NoAudio, Samples
from voxblink2_lib.errors import EmbeddingError, MediaError, ModelError
from voxblink2_lib.files import atomic_write
from voxblink2_lib.media.audio_decoder import decode_audio
from voxblink2_lib.media.damage import named_if_damaged
from voxblink2_lib.records import SAMPLE_RATE_HZ

if TYPE_CHECKING:
    from voxblink2_lib.embedding.embedder import Embedder, Window
    from voxblink2_lib.embedding.model_protocol import Vector, Waveform

Dtype = Literal["float32", "bfloat16"]

# The least that models accept: models.features.MIN_SAMPLES.
MIN_WINDOW_SECONDS = 0.1

# Whole utterances beyond this would take gigabytes in the deep networks.
MAX_WHOLE_SECONDS = 120
# What is later in a file is not read: a damaged time stamp must not ask for memory.
_LONGEST_SECONDS = 6 * 3600.0

_READ_SAMPLES = 1 << 20
# What libsndfile returns for a file without a length.
_UNKNOWN_FRAMES = 1 << 36
# Its mark and its size, which is of what comes after them.
_RIFF_BYTES = 8
# Kaldi takes as much as well: times are rounded.
_MOST_BEYOND_SECONDS = 0.5

# So much audio is decoded before it is embedded: enough to find windows of similar lengths.
_PENDING_SECONDS = 1200


@dataclass(frozen=True, slots=True)
class EmbedOptions:
    """How utterances are embedded.

    Attributes:
        model: see :func:`voxblink2_lib.embedding.model_location.find_model`.
        window_seconds: average over windows of this length; ``None``: whole utterances.
        dtype: of the network: ``"float32"`` or ``"bfloat16"``.
        device: a PyTorch device.

    Raises:
        EmbeddingError: an option is out of its range.
    """

    model: str
    window_seconds: float | None = None
    dtype: Dtype = "float32"
    device: str = "cpu"

    def __post_init__(self) -> None:
        window = self.window_seconds
        if window is not None and not MIN_WINDOW_SECONDS <= window < math.inf:
            raise EmbeddingError(
                f"A window must have at least {MIN_WINDOW_SECONDS} s, got {window}."
            )
        if self.dtype not in get_args(Dtype):
            raise EmbeddingError(
                f"dtype must be one of {', '.join(get_args(Dtype))}, got {self.dtype!r}."
            )


@dataclass(frozen=True, slots=True)
class BlockTask:
    """One block to embed into one part file.

    Attributes:
        block: the utterances.
        part: the file to write.
        options: the model, and how it is used.
        threads: number of PyTorch threads.
    """

    block: EmbeddingBlock
    part: Path
    options: EmbedOptions
    threads: int


@dataclass(frozen=True, slots=True)
class BlockDone:
    """Result of a block.

    Attributes:
        embedded: number of utterances with an embedding.
        rejected: number of utterances without one.
        seconds: of audio that was decoded.
    """

    embedded: int
    rejected: int
    seconds: float


def embed_block(task: BlockTask) -> BlockDone:
    """Embed a block and write its part file, with a reason for each utterance not embedded.

    Raises:
        ModelError: the model cannot be loaded.
        EmbeddingError: the block has no audio.
    """
    options = task.options
    embedder = _embedder(options.model, options.dtype, options.device, task.threads)
    utterances = _Utterances(embedder, options.window_seconds)
    for name, audio in task.block.read():
        utterances.add(name, audio)
    utterances.embed_pending()
    with atomic_write(task.part) as file:
        pq.write_table(utterances.table(), file)
    rejected = sum(map(bool, utterances.reasons))
    return BlockDone(len(utterances.names) - rejected, rejected, utterances.seconds)


class _Utterances:
    """Collects windows of utterances and embeds many of them at once."""

    def __init__(self, embedder: Embedder, window_seconds: float | None) -> None:
        self._embedder = embedder
        self._window_seconds = window_seconds
        self._pending: list[Window] = []
        self._pending_samples = 0
        self._vectors: list[list[Vector]] = []
        self.names: list[str] = []
        self.reasons: list[str] = []
        self.seconds = 0.0

    def add(self, name: str, audio: Audio) -> None:
        from voxblink2_lib.models.features import checked_waveform

        row = len(self.names)
        self.names.append(name)
        self.reasons.append("")
        self._vectors.append([])
        try:
            samples = read_waveform(audio, name)
            checked = checked_waveform(samples, name, min_samples=self._embedder.min_samples)
            waveform = checked.numpy()
            windows = cut(waveform, name, self._window_seconds)
        except ModelError as error:
            self.reasons[row] = str(error)
            return
        self.seconds += len(waveform) / SAMPLE_RATE_HZ
        self._pending += [(row, window) for window in windows]
        self._pending_samples += len(waveform)
        if self._pending_samples > _PENDING_SECONDS * SAMPLE_RATE_HZ:
            self.embed_pending()

    def embed_pending(self) -> None:
        for row, result in self._embedder.embed(self._pending):
            if isinstance(result, str):
                self.reasons[row] = f"{self.names[row]}: {result}"
            else:
                self._vectors[row].append(result)
        self._pending, self._pending_samples = [], 0

    def table(self) -> pa.Table:
        """Return names, embeddings (the mean over windows), and reasons."""
        means = [
            None if reason else np.mean(vectors, axis=0)
            for vectors, reason in zip(self._vectors, self.reasons, strict=True)
        ]
        embeddings = pa.array(means, pa.list_(pa.float32()))
        return pa.table({"name": self.names, "embedding": embeddings, "reason": self.reasons})


def read_waveform(audio: Audio, name: str) -> Waveform:
    """Decode audio to 16 kHz mono, shape (samples,); channels are averaged.

    Raises:
        ModelError: it cannot be decoded. The message names the utterance.
    """
    import soundfile

    if isinstance(audio, NoAudio):
        raise ModelError(f"{name} {audio.reason}.")
    if isinstance(audio, Samples):
        return _at_16_khz(audio)
    if isinstance(audio, FilePart):
        return _read_part(audio, name)
    if isinstance(audio, Path) and not audio.is_file():
        raise ModelError(f"{name}: there is no file {audio}.")
    if not audio or (isinstance(audio, Path) and not audio.stat().st_size):
        raise ModelError(f"{name} has no audio: 0 bytes.")
    is_empty = _is_empty_wav(audio, name)
    try:
        with soundfile.SoundFile(audio if isinstance(audio, Path) else io.BytesIO(audio)) as file:
            # Programs that write to a pipe declare no length: FFmpeg reads to the end.
            has_length = is_empty or 0 < file.frames < _UNKNOWN_FRAMES
            if file.samplerate == SAMPLE_RATE_HZ and has_length:
                return np.concatenate([*_mixed_blocks(file), np.zeros(0, np.float32)])
    except soundfile.SoundFileError:
        pass  # FFmpeg reads more.
    try:
        with named_if_damaged(Path("the file")):
            return decode_audio(audio, end_seconds=_LONGEST_SECONDS).samples
    except MediaError as error:
        raise ModelError(f"{name} cannot be decoded: {error}") from error


def _read_part(part: FilePart, name: str) -> Waveform:
    try:
        waveform = _read_recording(part.path, part.offset_bytes)
    except ModelError as error:
        raise ModelError(f"{name}: {error}") from error
    seconds = len(waveform) / SAMPLE_RATE_HZ
    end = seconds if part.end_seconds is None else part.end_seconds
    if part.start_seconds >= seconds or end > seconds + _MOST_BEYOND_SECONDS:
        raise ModelError(
            f"{name} spans {part.start_seconds:g}-{end:g} s, but the recording {part.path} has "
            f"{seconds:.2f} s."
        )
    start, stop = (round(second * SAMPLE_RATE_HZ) for second in (part.start_seconds, end))
    return waveform[start:stop]


@functools.lru_cache(maxsize=1)  # a recording has many utterances, one after another
def _read_recording(path: str, offset_bytes: int | None) -> Waveform:
    name = f"the recording {path}"
    if offset_bytes is None:
        return read_waveform(Path(path), name)
    with open(path, "rb") as file:
        file.seek(offset_bytes)
        head = file.read(_RIFF_BYTES)
        if head[:4] != b"RIFF":
            raise ModelError(f"{name} has no WAV file at byte {offset_bytes:,}.")
        return read_waveform(head + file.read(int.from_bytes(head[4:8], "little")), name)


def _at_16_khz(samples: Samples) -> Waveform:
    if samples.rate_hz == SAMPLE_RATE_HZ:
        return samples.values
    import soxr

    from voxblink2_lib.media.mixing import QUALITY

    resampled: Waveform = soxr.resample(samples.values, samples.rate_hz, SAMPLE_RATE_HZ, QUALITY)
    return resampled


def _is_empty_wav(audio: bytes | Path, name: str) -> bool:
    """Return whether it is a WAV file without samples.

    Raises:
        ModelError: it is one that ends early: decoders give what is there without a word.
    """
    with contextlib.ExitStack() as stack:
        data: Any = audio
        if isinstance(audio, Path):
            file = stack.enter_context(audio.open("rb"))
            data = stack.enter_context(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        try:
            header = read_wav_header(data)
        except ValueError:
            return False  # another format; or decoders say what is wrong
    if header.declared_bytes > header.size_bytes:
        raise ModelError(
            f"{name} is a WAV file that ends early: it has {header.size_bytes:,} bytes of samples, "
            f"its header declares {header.declared_bytes:,}."
        )
    return not header.size_bytes


def _mixed_blocks(file: Any) -> Iterator[Waveform]:
    """Yield the mean of the channels, a block at a time: a header may claim any length."""
    left = int(_LONGEST_SECONDS * SAMPLE_RATE_HZ)
    while left and len(block := file.read(min(left, _READ_SAMPLES), "float32", always_2d=True)):
        yield np.asarray(block.mean(axis=1), np.float32)
        left -= len(block)


def cut(waveform: Waveform, name: str, window_seconds: float | None) -> list[Waveform]:
    """Cut an utterance into windows, or return the whole of it as one.

    The last window ends with the utterance. Silent windows are left out.

    Raises:
        ModelError: the utterance is too long to be embedded whole, or all its windows are silent.
    """
    if window_seconds is None:
        seconds = len(waveform) / SAMPLE_RATE_HZ
        if seconds > MAX_WHOLE_SECONDS:
            raise ModelError(
                f"{name} has {seconds:,.0f} s; utterances of more than {MAX_WHOLE_SECONDS} s are "
                "not embedded whole. Use windows: --window 10"
            )
        return [waveform]
    size = round(window_seconds * SAMPLE_RATE_HZ)
    if len(waveform) <= size:
        return [waveform]
    starts = [*range(0, len(waveform) - size, size), len(waveform) - size]
    windows = [waveform[start : start + size] for start in starts]
    audible = [window for window in windows if np.ptp(window) > 0]
    if not audible:
        raise ModelError(f"{name} is silent in each window of {window_seconds:g} s.")
    return audible


@functools.lru_cache(maxsize=1)
def _embedder(model: str, dtype: Dtype, device: str, threads: int) -> Embedder:
    """Return the embedder of this worker; it is made once."""
    from voxblink2_lib.embedding.embedder import Embedder

    return Embedder(model, dtype=dtype, device=device, threads=threads)
