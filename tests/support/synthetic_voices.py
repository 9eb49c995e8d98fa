"""Many synthetic voices, of two kinds of recordings, so that a model can be trained on one of both.

A voice is a pitch, the length of a vocal tract that scales the formants of all vowels, formants of
its own, and a tilt of its spectrum. An utterance is a row of vowels. Recordings of the second kind
have passed through a narrow channel with noise, which is other in each video: who has only heard
the first kind takes channels for voices there.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from support import shard_builder
from voxblink2_lib.files import sha256_of
from voxblink2_lib.media.encoding import encode
from voxblink2_lib.records import SAMPLES_PER_FRAME, Clip, SealedShard, VideoKey
from voxblink2_lib.store.layout import Store
from voxblink2_lib.store.ledger import Ledger

RATE = shard_builder.RATE
Array = npt.NDArray[np.float64]

# First three formants of five vowels, in Hz (Peterson and Barney, 1952, rounded).
_VOWELS = np.array(
    [[730, 1090, 2440], [270, 2290, 3010], [300, 870, 2240], [530, 1840, 2480], [570, 840, 2410]],
    float,
)
_BANDWIDTHS = np.array([90.0, 110.0, 160.0])
_VOWEL_SECONDS, _HARMONICS = 0.16, 40


class Voice(NamedTuple):
    """A speaker."""

    pitch_hz: float
    scale: float
    offsets: Array
    tilt: float


def voice(seed: int) -> Voice:
    """Return the voice of a seed."""
    random = np.random.default_rng([seed, 1])
    return Voice(
        float(np.exp(random.uniform(np.log(85), np.log(240)))),
        float(random.uniform(0.82, 1.22)),
        random.uniform(0.9, 1.1, 3),
        float(random.uniform(0.6, 1.4)),
    )


def speech(speaker: Voice, seconds: float, *, seed: int) -> Array:
    """Return an utterance of a voice: vowels of a seed."""
    random = np.random.default_rng([seed, 2])
    count = round(seconds * RATE)
    vowels = random.integers(len(_VOWELS), size=int(seconds / _VOWEL_SECONDS) + 2)
    times = np.arange(count) / RATE
    at = times / _VOWEL_SECONDS
    contour = 1 + 0.08 * np.sin(2 * np.pi * random.uniform(1, 2.5) * times + random.uniform(0, 6))
    phase = 2 * np.pi * np.cumsum(speaker.pitch_hz * contour) / RATE
    formants = _VOWELS[vowels] * speaker.scale * speaker.offsets
    sound = np.zeros(count)
    for number in range(1, _HARMONICS + 1):
        hertz = number * speaker.pitch_hz
        if hertz > RATE / 2 - 500:
            break
        heights = (1 / (1 + ((hertz - formants) / _BANDWIDTHS) ** 2)).sum(axis=1) + 0.01
        loud = np.interp(at, np.arange(len(vowels)), heights) / number**speaker.tilt
        sound += loud * np.sin(number * phase)
    return np.asarray(sound / np.abs(sound).max(), np.float64)


def through_channel(sound: Array, *, seed: int) -> Array:
    """Return a sound after the channel of a seed: tilted, narrow, with hum and noise."""
    random = np.random.default_rng([seed, 3])
    spectrum = np.fft.rfft(sound)
    hertz = np.fft.rfftfreq(len(sound), 1 / RATE)
    low, high, slope = random.uniform(100, 700), random.uniform(2000, 4500), random.uniform(-1, 1)
    gain = 1 / (1 + (low / np.maximum(hertz, 1)) ** 4) / (1 + (hertz / high) ** 6)
    heard = np.fft.irfft(spectrum * gain * (np.maximum(hertz, 50) / 1000) ** slope, len(sound))
    heard /= np.abs(heard).max()
    hum = random.uniform(0, 0.15) * np.sin(
        2 * np.pi * random.uniform(50, 400) * np.arange(len(sound)) / RATE
    )
    return heard + hum + random.uniform(0.02, 0.12) * random.standard_normal(len(sound))


def write_voices(
    root: Path,
    speakers: Sequence[str],
    *,
    seed: int,
    videos: int = 3,
    utterances: int = 2,
    frames: int = 30,
    narrow: bool = False,
) -> Path:
    """Write a store of one shard of synthetic voices; return its folder.

    Args:
        root: folder of the store.
        speakers: ids, each of a voice of its own.
        seed: other voices for each.
        videos: of each speaker.
        utterances: of each video.
        frames: of each utterance, 40 ms each.
        narrow: of the second kind.
    """
    clips: list[Clip] = []
    for place, speaker in enumerate(speakers):
        sounds = voice(1000 * seed + place)
        for video in np.repeat(np.arange(videos), utterances).tolist():
            number = len(clips)
            sound = speech(sounds, frames * SAMPLES_PER_FRAME / RATE, seed=1000 * seed + number)
            if narrow:
                sound = through_channel(sound, seed=(1000 * seed + place) * videos + video)
            samples = np.asarray(0.5 * sound / np.abs(sound).max(), np.float32)
            data = encode(samples, audio_format="wav")
            key = VideoKey(speaker, f"video{place:03}{video:03}")
            clips.append(
                shard_builder.clip(
                    number, frames=frames, speaker=speaker, video=key.video_id, data=data
                )
            )
    store = Store(root)
    store.shards("audio").mkdir(parents=True)
    with Ledger(store.ledger, "audio") as ledger:
        ledger.add_jobs([[VideoKey(speakers[0], "video000000")]])
        path = shard_builder.seal(store.shards("audio") / "audio-00000.arrow", clips)
        size = path.stat().st_size
        ledger.seal(SealedShard(0, path.name, sha256_of(path), len(clips), size))
    return root
