"""Silence, clipping and damage are told from speech."""

from __future__ import annotations

import math

import numpy as np
import pytest
from support.shard_builder import talk

from voxblink2_lib.browse.sound import decode, loudness, media_type
from voxblink2_lib.errors import ClipDamagedError
from voxblink2_lib.media.encoding import encode
from voxblink2_lib.records import AUDIO_FORMATS


@pytest.mark.parametrize("audio_format", AUDIO_FORMATS)
def test_clips_of_every_format(audio_format: str) -> None:
    speech = talk(16_000, 1)
    data = encode(speech, audio_format=audio_format)  # type: ignore[arg-type]  # one of them
    assert media_type(data) == {"opus": "audio/ogg"}.get(audio_format, f"audio/{audio_format}")
    samples = decode(data)
    assert samples.shape == (16_000,)
    if audio_format != "opus":
        assert np.abs(samples - speech).max() < 1e-4
    sound = loudness(samples)
    assert (sound.is_silent, sound.is_clipped, sound.is_short) == (False, False, False)


def test_levels_of_a_sine() -> None:
    sine = 0.5 * np.sin(2 * np.pi * 1000 * np.arange(8000) / 16_000).astype(np.float32)
    sound = loudness(sine)
    assert sound.peak_db == pytest.approx(20 * math.log10(0.5), abs=0.01)
    assert sound.mean_db == pytest.approx(20 * math.log10(0.5) - 3.01, abs=0.01)
    assert sound.is_short
    assert sound.text == "0.50 s, peak -6.0 dB, RMS -9.0 dB"


@pytest.mark.parametrize(("gain", "is_silent"), [(0, True), (0.003, True), (0.004, False)])
def test_silence(gain: float, is_silent: bool) -> None:
    square = np.tile(np.array([gain, -gain], np.float32), 8000)
    assert loudness(square).is_silent is is_silent
    assert ("digital silence" in loudness(square).text) is (gain == 0)


@pytest.mark.parametrize(("level", "run"), [(0.9, 0), (1.0, 0), (1.5, 1)])
def test_clipping_is_a_row_of_full_samples(level: float, run: int) -> None:
    sine = level * np.sin(2 * np.pi * 437 * np.arange(16_000) / 16_000).astype(np.float32)
    sound = loudness(decode(encode(sine, audio_format="flac")))
    assert sound.is_clipped is bool(run)
    assert ("in a row at full scale" in sound.text) is bool(run)
    assert not loudness(np.array([1, 0, -1, 1], np.float32)).is_clipped


def test_nothing_at_all() -> None:
    assert loudness(np.zeros(0, np.float32)).is_silent


@pytest.mark.parametrize("data", [b"", b"no audio", b"fLaC" + bytes(100), b"OggS" + bytes(100)])
def test_damage_is_an_error_of_ours(data: bytes) -> None:
    with pytest.raises(ClipDamagedError, match="The clip cannot be decoded"):
        decode(data)
