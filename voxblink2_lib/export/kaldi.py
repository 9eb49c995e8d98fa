"""Kaldi's format: clips as 16-bit WAV in archives, and lists that are sorted as Kaldi wants them.

Kaldi reads no FLAC. In an archive, a name and a space come before each WAV file, and ``wav.scp``
has the byte at which the file begins.
"""

from __future__ import annotations

import io
import itertools
import wave
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from voxblink2_lib.errors import StoreDamagedError
from voxblink2_lib.export.output import UnitOutput
from voxblink2_lib.export.rows import ExportRow
from voxblink2_lib.export.tar_formats import add_kaldi_lines
from voxblink2_lib.export.target import ChecksumWriter
from voxblink2_lib.foreign_files import as_own_error
from voxblink2_lib.records import SAMPLE_RATE_HZ

ARCHIVE = "wav/{unit}.ark"
WAV_SCP, SEGMENTS = "wav.scp", "segments"
_Samples = npt.NDArray[np.int16]


def write_kaldi(rows: Iterable[ExportRow], output: UnitOutput) -> None:
    """Write an archive with a WAV for each utterance."""
    path = ARCHIVE.format(unit=output.unit)
    with output.file(path) as file:
        for row in rows:
            begin = _write_member(file, row.name, _wav_of(row))
            output.line(WAV_SCP, f"{row.name} {output.place(path)}:{begin}")
            add_kaldi_lines(row, output)


def write_kaldi_segments(rows: Iterable[ExportRow], output: UnitOutput) -> None:
    """Write an archive with a WAV for each video: its utterances, one after another.

    ``segments`` has where in it each utterance is. A video may be in several shards, so such a WAV
    is named after its first utterance here.
    """
    path = ARCHIVE.format(unit=output.unit)
    with output.file(path) as file:
        for _, group in itertools.groupby(rows, lambda row: row.key[:2]):
            video = list(group)
            name = f"{video[0].name}-rec"
            samples = [_samples_of(row) for row in video]
            begin = _write_member(file, name, _wav(np.concatenate(samples)))
            output.line(WAV_SCP, f"{name} {output.place(path)}:{begin}")
            ends = np.cumsum([0, *map(len, samples)]) / SAMPLE_RATE_HZ
            for row, start, end in zip(video, ends, ends[1:], strict=False):
                # More than four digits: a sample has 0.0000625 s.
                output.line(SEGMENTS, f"{row.name} {name} {start:.7f} {end:.7f}")
                add_kaldi_lines(row, output)


def _write_member(file: ChecksumWriter, name: str, data: bytes) -> int:
    """Write a member of an archive; return where its data begin."""
    file.write(f"{name} ".encode())
    begin = file.tell()
    file.write(data)
    return begin


def _wav_of(row: ExportRow) -> bytes:
    return row.audio.to_pybytes() if row.extension == "wav" else _wav(_samples_of(row))


def _wav(samples: _Samples) -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setnchannels(1)
        writer.setsampwidth(2)
        writer.setframerate(SAMPLE_RATE_HZ)
        writer.writeframes(samples.astype("<i2", copy=False).tobytes())
    return file.getvalue()


def _samples_of(row: ExportRow) -> _Samples:
    """Decode a clip, shape (samples,).

    Raises:
        StoreDamagedError: it cannot be decoded.
    """
    import soundfile

    with (
        as_own_error(StoreDamagedError, f"The clip of {row.name} cannot be decoded"),
        soundfile.SoundFile(io.BytesIO(row.audio)) as file,
    ):
        # Not more than the header says: a damaged stream may go on.
        return np.asarray(file.read(row.samples, "int16"))
