"""Open-set identification on synthetic voices: an archive of cut audio as VoxBlink1's, protocols.

::

    archive   wav/id00012/-a_b-video12/00003.wav            names as paths
    protocol  id00012--a_b-video12-00003 4                  the same with hyphens, and a label

Whoever joins both by less than the whole name is wrong: utterances of all videos are numbered
alike, and two speakers share a video.
"""

from __future__ import annotations

import functools
import gzip
import io
import wave
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from support.archive_builder import tar, write_parts
from support.release_builder import make_rows, voxblink1, write_release

RATE_HZ = 16_000
FRAMES = 12  # of each utterance, 25 a second
SIZES = ("Small_120", "Medium_1.2k", "Large_12k")
ENROLLED = (1, 3, 5)
Samples = npt.NDArray[np.int16]


def protocol_names() -> list[str]:
    """Return the names of the nine protocols, as the release has them."""
    return [f"{size}/perspk{count}" for size in SIZES for count in ENROLLED]


@dataclass(frozen=True)
class OssiCorpus:
    """Speakers of whom some are enrolled.

    Attributes:
        speakers: how many are enrolled in each of :data:`SIZES`; the smaller are in the larger.
        probes: how many probes each speaker has.
        unknown: how many speakers have probes only.
    """

    speakers: tuple[int, int, int] = (5, 8, 12)
    probes: int = 3
    unknown: int = 10

    @property
    def enrolled(self) -> int:
        """The number of speakers that the largest protocol enrols."""
        return self.speakers[-1]

    @functools.cached_property
    def utterances(self) -> dict[str, tuple[int, int]]:
        """Speaker and number of each utterance, by ``<speaker>/<video>/<utterance>``."""
        numbers = {
            **dict.fromkeys(range(self.enrolled), max(ENROLLED) + self.probes),
            **dict.fromkeys(range(self.enrolled, self.enrolled + self.unknown), self.probes),
            self.enrolled + self.unknown: 2,  # in no protocol
        }
        return {
            _name(speaker, number): (speaker, number)
            for speaker, count in numbers.items()
            for number in range(count)
        }

    def lists(self, protocol: str) -> tuple[dict[str, int], dict[str, int]]:
        """Return gallery and probes of a protocol: names as paths, and labels."""
        size, _, enrolled = protocol.partition("/perspk")
        known = range(self.speakers[SIZES.index(size)])
        gallery = {_name(each, n): each for each in known for n in range(int(enrolled))}
        strangers = range(self.enrolled, self.enrolled + self.unknown)
        first = max(ENROLLED)
        probes = {_name(each, first + n): each for each in known for n in range(self.probes)}
        # The published lists have one label for all whom nobody enrolled.
        others = {_name(each, n): len(known) for each in strangers for n in range(self.probes)}
        return gallery, probes | others

    def write_parts(self, folder: Path) -> Path:
        """Write the archive in parts, the videos of a speaker far apart; return its folder."""
        names = sorted(self.utterances, key=lambda name: (self.utterances[name][1], name))
        files = [(f"wav/{name}.wav", _wav(voice(*self.utterances[name]))) for name in names]
        write_parts(folder, gzip.compress(tar(files), 1), 3)
        return folder

    def write_release(self, folder: Path, *, annotated: bool = True) -> Path:
        """Write a release: protocols, and VoxBlink1's annotations of all utterances."""
        files: dict[str, bytes] = {}
        for protocol in protocol_names():
            for kind, labels in zip(("gallery", "probe"), self.lists(protocol), strict=True):
                files[f"ossi/{protocol}/{kind}"] = _list(labels)
        for name, (_, number) in self.utterances.items() if annotated else ():
            speaker, video, _ = name.split("/")
            rows = make_rows(_first_frame(number), _first_frame(number) + FRAMES - 1)
            files[f"resource/timestamp/{name}.txt"] = voxblink1(rows, speaker=speaker, video=video)
        return write_release(folder, files)

    def seconds(self, name: str) -> tuple[float, float]:
        """Return the annotated times of an utterance in its video."""
        first = _first_frame(self.utterances[name][1])
        return first / 25, (first + FRAMES) / 25


def _name(speaker: int, number: int) -> str:
    # Speakers 2k and 2k + 1 share a video, as do utterances of different numbers.
    video = f"-a_b-vid{speaker // 2:02}{number // 3}"
    return f"id{speaker + 12:05}/{video}/{number % 3:05}"


def _first_frame(number: int) -> int:
    return 7 + 20 * (number % 3)


def _list(labels: Mapping[str, int]) -> bytes:
    lines: Iterable[str] = (f"{name.replace('/', '-')} {label}\n" for name, label in labels.items())
    return "".join(lines).encode()


def voice(speaker: int, number: int) -> Samples:
    """Return an utterance: a buzz of the speaker's pitch and tone, a little different each time."""
    own = np.random.default_rng([speaker, 0])
    varied = np.random.default_rng([speaker, 1, number])
    pitch = own.uniform(100, 240) + varied.normal(0, 8)
    gains = own.uniform(0.05, 1, 12) * varied.uniform(0.4, 1.6, 12)
    t = np.arange(FRAMES * RATE_HZ // 25) / RATE_HZ
    phases = varied.uniform(0, 2 * np.pi, 12)
    buzz = sum(
        gain * np.sin(2 * np.pi * pitch * k * t + phase) / k
        for k, (gain, phase) in enumerate(zip(gains, phases, strict=True), start=1)
    )
    samples = 0.1 * buzz + 0.01 * varied.normal(size=len(t))
    rounded: Samples = np.round(samples * 32767).astype(np.int16)
    return rounded


def _wav(samples: Samples) -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setparams((1, 2, RATE_HZ, 0, "NONE", ""))
        writer.writeframes(samples.astype("<i2").tobytes())
    return file.getvalue()
