"""Media that name their own samples and frames: what they hold, and how far a clip is off.

    sound     truth(t) on the first channel; its correlation peaks once within 1.5 s
    picture   frame j has the luma ``luma_of(j)``; see ``synthetic_video``

A file is made from a :class:`Recipe`. The pictures are encoded once for each kind; a recipe copies
or encodes them, with sound, into a container.
"""

from __future__ import annotations

import functools
import hashlib
import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt
import soundfile

from support import media_patches
from support.synthetic_audio import MediaCache, ffmpeg
from support.synthetic_video import luma_of, render, video_spec
from voxblink2_lib.records import SAMPLE_RATE_HZ

SECONDS = 14
# Utterances begin at 0, 2.6, 6.4 and 11 s; first and last frame of each.
SPANS = ((0, 49), (65, 114), (160, 209), (275, 324))
NAMES = tuple(f"{first:05}" for first, _ in SPANS)
# -1 dBFS.
LOUD = 10 ** (-1 / 20)
# The truth is the sum of two sines of 0.3 and 0.2.
PEAK = 0.5

Floats = npt.NDArray[np.float64]
_SEARCH_SAMPLES = round(1.5 * SAMPLE_RATE_HZ)
_CODE = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:12]


# -- Sound -----------------------------------------------------------------------------------------


def truth(seconds: Floats) -> Floats:
    """Return the signal at some times: two tones whose pitch swings, each at its own pace."""
    slow, fast = 2 * np.pi * 0.37, 2 * np.pi * 1.31
    low = np.sin(2 * np.pi * 900 * seconds - 600 / 0.37 * np.cos(slow * seconds))
    high = np.sin(2 * np.pi * 1700 * seconds - 700 / 1.31 * np.cos(fast * seconds + 1))
    return np.asarray(0.3 * low + 0.2 * high, np.float64)


def _limited(decibels: float) -> Callable[[Floats], Floats]:
    """Return a limiter that drives the truth, as music and loud speech are driven."""
    gain = 10 ** (decibels / 20) / PEAK
    return lambda samples: np.asarray(np.tanh(gain * samples), np.float64)


def _both(shape: Callable[[Floats], Floats]) -> Callable[[Floats], list[Floats]]:
    return lambda samples: [shape(samples)] * 2


def _six(samples: Floats) -> list[Floats]:
    """Return 5.1 whose channels differ in level only: front left, right, centre, LFE, surround."""
    return [level * samples for level in (1.0, 0.7, 0.5, 0.0, 0.3, 0.2)]


def _without_third(samples: Floats) -> Floats:
    """Return the truth with digital silence in place of all around the third utterance."""
    seconds = np.arange(len(samples)) * SECONDS / len(samples)
    return np.asarray(np.where((seconds > 6) & (seconds < 9), 0, samples), np.float64)


# Channels of each sound, made from the truth.
SOUNDS: Mapping[str, Callable[[Floats], list[Floats]]] = {
    "mono": lambda samples: [samples],
    "stereo": lambda samples: [samples, 0.7 * samples],
    "5.1": _six,
    "loud-mono": lambda samples: [LOUD / PEAK * samples],
    "loud-stereo": _both(lambda samples: LOUD / PEAK * samples),
    "limited-6": _both(_limited(6)),
    "limited-6-mono": lambda samples: [_limited(6)(samples)],
    "limited-12": _both(_limited(12)),
    "limited-12-mono": lambda samples: [_limited(12)(samples)],
    "anti-phase": lambda samples: [samples, -0.9 * samples],
    "in-phase-5.1": lambda samples: [0.9 / PEAK * samples] * 6,
    "silent-third": lambda samples: [_without_third(samples)],
    "silence": lambda samples: [np.zeros_like(samples)] * 2,
    # 3 s later in content: what a wrong track sounds like.
    "other": lambda samples: [np.roll(samples, -3 * len(samples) // SECONDS)] * 2,
    "other-5.1": lambda samples: [np.roll(samples, -3 * len(samples) // SECONDS)] * 6,
}


def reference(start_sample: int, count: int) -> Floats:
    """Return the truth at 16 kHz from a sample on, shape (count,)."""
    return truth((start_sample + np.arange(count)) / SAMPLE_RATE_HZ)


def lag_of(samples: npt.NDArray[np.floating], *, start_sample: int) -> float:
    """Return by how much a clip lags behind the truth, in 16 kHz samples, within 1.5 s.

    Args:
        samples: shape (n,); claims to begin at ``start_sample``.
        start_sample: on the time axis of the truth.
    """
    count = len(samples) + 2 * _SEARCH_SAMPLES
    expected = reference(start_sample - _SEARCH_SAMPLES, count)
    spectrum = np.fft.rfft(expected, 2 * count) * np.conj(np.fft.rfft(samples, 2 * count))
    # A track in opposite phase is in time too.
    correlation = np.abs(np.fft.irfft(spectrum, 2 * count)[: 2 * _SEARCH_SAMPLES + 1])
    peak = int(np.argmax(correlation[1:-1])) + 1
    # A parabola through the three highest values finds the peak between samples.
    low, top, high = correlation[peak - 1 : peak + 2]
    assert top > 0, "the clip is silent"
    return float(_SEARCH_SAMPLES - peak - (low - high) / (2 * (low - 2 * top + high)))


def gain_of(samples: npt.NDArray[np.floating], *, start_sample: int) -> float:
    """Return the factor that takes the truth nearest to a clip; the clip must be in time."""
    expected = reference(start_sample, len(samples))
    return float(samples @ expected / (expected @ expected))


# -- Files -----------------------------------------------------------------------------------------

DATA = Path(__file__).parents[1] / "media" / "data"
# The pictures as they are.
COPIED = ("-c:v", "copy")


@dataclass(frozen=True)
class Track:
    """An audio track of a file.

    Attributes:
        codec: FFmpeg's options of the encoder.
        sound: one of :data:`SOUNDS`.
        rate_hz: sample rate that is encoded.
        late_seconds: shift of the track's clock.
        flags: FFmpeg's dispositions, joined by plus signs; empty for none.
    """

    codec: tuple[str, ...]
    sound: str = "stereo"
    rate_hz: int = 44_100
    late_seconds: str = "0"
    flags: str = "0"


@dataclass(frozen=True)
class Recipe:
    """How to make a file, and what its clips must be.

    Attributes:
        name: unique; its extension is the file's, and names the container.
        tracks: the audio tracks.
        video: FFmpeg's options of the video, or empty for audio only.
        fps: frames a second of the video.
        film_late: shift of the video's clock, in seconds.
        options: FFmpeg's options of the muxer.
        patch: name of a function of ``media_patches`` that makes the file of FFmpeg's; empty for
            none.
        stage: extension of FFmpeg's file, if it is another one.
        source: a file of ``tests/media/data`` in place of the tracks; empty for none.
        lag: how late the clips are, in samples at 16 kHz.
        within: how far from that they may be.
        missing: utterances without a clip.
        status: what the ledger says of the video.
    """

    name: str
    tracks: tuple[Track, ...] = ()
    video: tuple[str, ...] = ()
    fps: str = "25"
    film_late: str = "0"
    options: tuple[str, ...] = ()
    patch: str = ""
    stage: str = ""
    source: str = ""
    lag: float = 0.0
    within: float = 1.0
    missing: tuple[str, ...] = ()
    status: str = "done"

    @property
    def extension(self) -> str:
        """The extension of the file, without the dot."""
        return self.name.rpartition(".")[2]

    @property
    def with_video(self) -> bool:
        """Whether the file has pictures."""
        return bool(self.video)

    def how(self) -> tuple[Any, ...]:
        """Return what the file is made from, without what is expected of it."""
        made = (self.extension, self.tracks, self.video, self.fps, self.film_late)
        return (*made, self.options, self.patch, self.stage, self.source, _CODE)


def make(cache: MediaCache, recipe: Recipe) -> Path:
    """Return the path of a file, which is made if it does not exist."""
    name = f"media.{recipe.extension}"
    if recipe.patch:
        stage = recipe.stage or recipe.extension
        plain = make(cache, replace(recipe, name=f"plain.{stage}", patch="", stage=""))
        patch = functools.partial(getattr(media_patches, recipe.patch), plain)
        return cache.keep(name, (recipe.how(), media_patches.CODE), patch)
    if recipe.source.endswith(recipe.extension):
        return DATA / recipe.source
    return cache.keep(name, recipe.how(), functools.partial(_mux, cache, recipe))


def _mux(cache: MediaCache, recipe: Recipe, path: Path) -> None:
    inputs: list[str] = []
    outputs: list[str] = []
    for number, track in enumerate(recipe.tracks):
        inputs += ["-itsoffset", track.late_seconds, "-i", str(sound(cache, track))]
        outputs += ["-map", f"{number}:a", *_numbered(track.codec, number)]
        outputs += [f"-disposition:a:{number}", track.flags]
    if recipe.source:
        inputs += ["-i", str(DATA / recipe.source)]
        outputs += ["-map", "0", "-c", "copy"]
    elif recipe.video:
        inputs += ["-itsoffset", recipe.film_late, "-i", str(film(cache, recipe.fps))]
        outputs = ["-map", f"{len(recipe.tracks)}:v", *recipe.video, *outputs]
    ffmpeg(*inputs, *outputs, *recipe.options, str(path))


def _numbered(codec: tuple[str, ...], number: int) -> list[str]:
    """Return options of an encoder, for one track of several."""
    return [f"{word}:{number}" if word.endswith(":a") else word for word in codec]


def sound(cache: MediaCache, track: Track) -> Path:
    """Return the path of a WAV with the sound of a track, in 32-bit floating point."""

    def write(path: Path) -> None:
        times = np.arange(SECONDS * track.rate_hz) / track.rate_hz
        channels = np.stack(SOUNDS[track.sound](truth(times)), axis=1)
        # soundfile marks six channels as 5.1, as FFmpeg reads them.
        soundfile.write(path, channels, track.rate_hz, subtype="FLOAT")

    return cache.keep("sound.wav", (track.sound, track.rate_hz, _CODE), write)


def film(cache: MediaCache, fps: str) -> Path:
    """Return the path of an MP4 with H.264 pictures, with B-frames."""
    options = (("preset", "ultrafast"), ("crf", "12"), ("g", "50"), ("bf", "2"))
    spec = video_spec("film.mp4", Fraction(fps), SECONDS, options=options)
    return render(cache, spec)


# -- Clips -----------------------------------------------------------------------------------------


def due(span: tuple[int, int], fps: str) -> list[int]:
    """Return the index of the video frame nearest to each frame of an utterance."""
    rate = Fraction(fps)
    count = int(SECONDS * rate)
    nearest = []
    for frame in range(span[0], span[1] + 1):
        seconds = Fraction(frame, 25)
        # Of two equally near ones, the earlier.
        index = -int((Fraction(1, 2) - seconds * rate) // 1)
        nearest.append(min(max(index, 0), count - 1))
    return nearest


def wrong_frames(clip: bytes, expected: list[int]) -> int:
    """Return how many frames of a face clip are not the expected ones."""
    with av.open(io.BytesIO(clip), "r") as container:
        container.streams.video[0].codec_context.thread_count = 1
        lumas = [
            float(np.median(frame.to_ndarray()[: frame.height]))
            for frame in container.decode(video=0)
        ]
    assert len(lumas) == len(expected)
    return sum(abs(luma - luma_of(index)) > 3 for luma, index in zip(lumas, expected, strict=True))
