"""Crops of WAV are slices; files of another form are left to libsndfile."""

from __future__ import annotations

import io

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from voxblink2_lib.media.encoding import encode_pcm
from voxblink2_lib.training.wav_samples import slice_samples

PCM = np.random.default_rng(1).integers(-32_768, 32_768, 5_000).astype(np.int16)
PCM[:2] = -32_768, 32_767


def crop(data: bytes, start: int, samples: int, before: bytes = b"x") -> np.ndarray | None:
    """Return a crop of a file between other bytes; ``None`` if it is left to libsndfile."""
    span = range(len(before), len(before) + len(data))
    into = np.full(samples, np.nan, np.float32)
    is_done = slice_samples(before + data + b"y" * 99, span, length=5_000, start=start, into=into)
    return into if is_done else None


@given(ends=st.tuples(*[st.integers(0, 5_000)] * 2), before=st.binary(max_size=3))
def test_a_crop_is_libsndfiles(ends: tuple[int, int], before: bytes) -> None:
    data, (first, last) = encode_pcm(PCM, audio_format="wav"), sorted(ends)
    found = crop(data, first, last - first, before)
    expected, _ = soundfile.read(io.BytesIO(data), start=first, stop=last, dtype="float32")
    assert found is not None
    assert np.array_equal(found, expected)


def written(subtype: str = "PCM_16", kind: str = "WAV", rate: int = 16_000) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, PCM, rate, format=kind, subtype=subtype)
    return file.getvalue()


@pytest.mark.parametrize(
    "data",
    [
        *(written("PCM_24"), written("FLOAT"), written("PCM_16", "WAVEX"), written(rate=8_000)),
        *(written(kind="FLAC"), written() + b"LIST\4\0\0\0info", written()[:-2], b"", b"RIFF"),
        written().replace(b"\1\0\1\0", b"\1\0\2\0", 1),  # two channels
        written().replace(b"fmt ", b"fmt_", 1),
    ],
    ids=[
        *("24 bits", "float", "extensible", "8 kHz", "FLAC", "a chunk more", "cut", "empty"),
        *("marker", "stereo", "damaged"),
    ],
)
def test_other_files_are_left_to_libsndfile(data: bytes) -> None:
    assert crop(written(), 1, 2) is not None
    assert crop(data, 1, 2) is None
