"""Encoded clips are the same in every process, and decode without a warning."""

from __future__ import annotations

import hashlib
import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from voxblink2_lib.media.encoding import Samples, encode
from voxblink2_lib.records import SAMPLE_RATE_HZ, AudioFormat

ENCODE = """
import hashlib, sys
import numpy as np
from voxblink2_lib.media.encoding import encode
samples = np.sin(np.arange(40000) / 7).astype(np.float32)
print(hashlib.sha256(encode(samples, audio_format=sys.argv[1])).hexdigest())
"""


def noise(seconds: float) -> Samples:
    rng = np.random.default_rng(2)
    return (0.3 * rng.standard_normal(round(seconds * SAMPLE_RATE_HZ))).astype(np.float32)


@pytest.mark.parametrize("audio_format", ["flac", "wav", "opus"])
def test_equal_samples_give_equal_bytes_in_every_process(audio_format: AudioFormat) -> None:
    samples = np.sin(np.arange(40_000) / 7).astype(np.float32)
    digests = {
        hashlib.sha256(encode(samples, audio_format=audio_format)).hexdigest() for _ in range(3)
    }
    command = [sys.executable, "-c", ENCODE, audio_format]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert digests == {done.stdout.strip()}


@pytest.mark.parametrize("seconds", [0.04, 1.0, 11.0])
@pytest.mark.parametrize("audio_format", ["flac", "opus"])
def test_encoded_clips_decode_without_a_warning(
    audio_format: AudioFormat, seconds: float, tmp_path: Path
) -> None:
    path = tmp_path / f"clip.{audio_format}"
    path.write_bytes(encode(noise(seconds), audio_format=audio_format))
    samples, rate_hz = soundfile.read(path)
    assert (len(samples), rate_hz) == (round(seconds * SAMPLE_RATE_HZ), SAMPLE_RATE_HZ)
    command = ["ffmpeg", "-nostdin", "-v", "warning", "-i", str(path), "-f", "null", "-"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_loud_samples_are_clipped_and_do_not_overflow() -> None:
    loud = np.array([1.0, -1.0, 1.5, -1.5, 100.0, -100.0, 32767 / 32768, 0.0], np.float32)
    decoded, _ = soundfile.read(io.BytesIO(encode(loud, audio_format="wav")), dtype="int16")
    assert decoded.tolist() == [32767, -32768, 32767, -32768, 32767, -32768, 32767, 0]
