"""Measure an archive of cut audio on its way to shards, against encoding the same samples alone.

The archive is synthetic: utterances of 6 s, as loud and as hard to compress as speech, in a tar and
in the parts of a gzip tar. Encoding alone is soundfile on as many processes, with the same samples,
which are in memory already. Both are measured on one core and on two, in turns; what a start takes
is left out, by the difference to a run over a tenth. Then the whole corpus is projected to more
cores.

Example:
    python benchmarks/archive.py
    python benchmarks/archive.py --quick --json
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import statistics
import subprocess
import sys
import tarfile
import wave
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import soundfile
from figures import Figure, cpu_seconds_of, figure, run_benchmark

from voxblink2_lib.cores import usable_cores
from voxblink2_lib.records import SAMPLE_RATE_HZ

SECONDS = 6.0
UTTERANCES_PER_VIDEO, VIDEOS_PER_SPEAKER = 5, 18
DIFFERENT = 64
PARTS = 7
CORPUS = 9_904_382
CORES = (2, 4, 16, 64)
_LEAST_ROUNDS, _LEAST_UTTERANCES = 5, 200

# Each prints one line of JSON: what it took, of this process and of those that it started.
_MATERIALIZE = """
import json, resource, sys, time
from pathlib import Path
from voxblink2_lib.materialize.request import MaterializeRequest
from voxblink2_lib.materialize.run import materialize

source, store, workers = sys.argv[1:]
request = MaterializeRequest.of(source=source, store=store, workers=int(workers))
started = time.perf_counter()
materialize(request, retry=True, wait=False)
wall = time.perf_counter() - started
own, others = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
print(json.dumps([wall, own.ru_utime + own.ru_stime, others.ru_utime + others.ru_stime,
                  own.ru_maxrss / 1024 + int(workers) * others.ru_maxrss / 1024]))
"""
_ENCODE = """
import io, json, os, resource, sys, time
import numpy as np, soundfile

path, count, workers = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
samples = np.load(path, mmap_mode="r")
started = time.perf_counter()
children = []
for first in range(workers):
    if not (child := os.fork()):
        for number in range(first, count, workers):
            file = io.BytesIO()
            soundfile.write(file, samples[number], 16000, format="FLAC",
                            subtype="PCM_16")
        os._exit(0)
    children.append(child)
for child in children:
    os.waitpid(child, 0)
wall = time.perf_counter() - started
others = resource.getrusage(resource.RUSAGE_CHILDREN)
print(json.dumps([wall, 0.0, others.ru_utime + others.ru_stime, others.ru_maxrss / 1024]))
"""


class Size(NamedTuple):
    """How much is measured."""

    rounds: int
    utterances: int


FULL = Size(rounds=3, utterances=4_000)
QUICK = Size(rounds=1, utterances=400)


class Taken(NamedTuple):
    """What a run took: wall time, CPU time of the main process and of the others; memory in MB."""

    wall: float
    main: float
    workers: float
    memory: float

    @property
    def cpu(self) -> float:
        """CPU time of all processes."""
        return self.main + self.workers

    def less(self, other: Taken) -> Taken:
        """Return the difference to a shorter run, but for the memory."""
        return Taken(
            self.wall - other.wall, self.main - other.main, self.workers - other.workers,
            self.memory,
        )  # fmt: skip


# -- Inputs ----------------------------------------------------------------------------------------


def make_samples(rng: np.random.Generator) -> npt.NDArray[np.int16]:
    """Return noise through a resonance, swelling and fading as syllables do. FLAC makes it 0.66."""
    count = round(SECONDS * SAMPLE_RATE_HZ)
    noise = rng.normal(size=count)
    spectrum = np.fft.rfft(noise)
    angle = np.exp(-2j * np.pi * np.fft.rfftfreq(count))
    voice = np.fft.irfft(spectrum / (1 - 1.6 * angle + 0.75 * angle**2), count)
    time = np.arange(count) / SAMPLE_RATE_HZ
    voice *= 0.15 + np.sin(2 * np.pi * 2.1 * time + rng.uniform(0, 6)) ** 2
    return np.asarray(voice / np.abs(voice).max() * 9000, np.int16)


def wav(samples: npt.NDArray[np.int16]) -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setparams((1, 2, SAMPLE_RATE_HZ, 0, "NONE", ""))
        writer.writeframes(samples.astype("<i2").tobytes())
    return file.getvalue()


def write_tar(path: Path, samples: npt.NDArray[np.int16], count: int) -> None:
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as archive:
        for number in range(count):
            video, utterance = divmod(number, UTTERANCES_PER_VIDEO)
            speaker = video // VIDEOS_PER_SPEAKER
            member = tarfile.TarInfo(f"audio/id{speaker:06}/v{video:010}/{utterance:05}.wav")
            data = wav(samples[number])
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))


def write_parts(folder: Path, path: Path) -> None:
    """Write the parts of a tar that gzip has made smaller."""
    folder.mkdir()
    data = gzip.compress(path.read_bytes(), 6)
    size = -(-len(data) // PARTS)
    for number in range(PARTS):
        part = folder / f"VB2_audio.tar.gz.{number:02}"
        part.write_bytes(data[number * size : (number + 1) * size])


# -- Runs ------------------------------------------------------------------------------------------


def flac(samples: npt.NDArray[np.int16]) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, SAMPLE_RATE_HZ, format="FLAC", subtype="PCM_16")
    return file.getvalue()


def run(code: str, *words: object, cores: int) -> Taken:
    """Run a script on so many cores."""
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, words)],
        check=True,
        capture_output=True,
        text=True,
        preexec_fn=lambda: os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores]),
    )
    return Taken(*json.loads(done.stdout.splitlines()[-1]))


def materialize(folder: Path, source: Path, name: str, cores: int) -> Taken:
    """Return what a source takes beyond a tenth of it."""
    taken = []
    for part, place in enumerate([source, source.with_name(f"tenth-{source.name}")]):
        store = folder / f"store-{name}-{cores}-{part}"
        taken.append(run(_MATERIALIZE, place, store, cores, cores=cores))
        subprocess.run(["rm", "-r", store], check=True)
    return taken[0].less(taken[1])


def encode(samples: Path, count: int, cores: int) -> Taken:
    long, short = (run(_ENCODE, samples, each, cores, cores=cores) for each in (count, count // 10))
    return long.less(short)


# -- Figures ---------------------------------------------------------------------------------------

_NAMES = {"plain": "plain tar", "gzip": "gzip parts"}
_RATIOS = {"plain": 1.35, "gzip": 1.95}
_RATES = {"plain": 500, "gzip": 360}


def measure(folder: Path, quick: bool) -> Iterator[Figure]:
    size = QUICK if quick else FULL
    rng = np.random.default_rng(0)
    voices = [make_samples(rng) for _ in range(DIFFERENT)]
    samples = np.empty((size.utterances, len(voices[0])), np.int16)
    for number, own in enumerate(samples):
        own[:] = np.roll(voices[number % DIFFERENT], 97 * number)
    np.save(folder / "samples.npy", samples)
    for name, count in (("audio.tar", size.utterances), ("tenth-audio.tar", size.utterances // 10)):
        write_tar(folder / name, samples, count)
        write_parts(folder / name.replace("audio.tar", "parts"), folder / name)
    sources = {"plain": folder / "audio.tar", "gzip": folder / "parts"}
    most = min(2, usable_cores())
    counted = size.utterances - size.utterances // 10
    taken: dict[tuple[str, int], list[Taken]] = {}
    for _ in range(size.rounds):
        for cores in range(1, most + 1):
            baseline = encode(folder / "samples.npy", size.utterances, cores)
            taken.setdefault(("alone", cores), []).append(baseline)
            for name, source in sources.items():
                runs = taken.setdefault((name, cores), [])
                runs.append(materialize(folder, source, name, cores))
    alone = taken["alone", most]
    yield figure("soundfile alone: CPU ms an utterance", [1e3 * t.cpu / counted for t in alone])
    for name, title in _NAMES.items():
        yield from _figures(title, taken, name, most, counted)
    cpu = {
        name: statistics.median(each.cpu for each in taken[name, most]) / counted
        for name in sources
    }
    yield from _floors(least(samples[:_LEAST_UTTERANCES], folder), cpu)
    gz = taken["gzip", most][0]
    yield from _projection(gz.main / counted, gz.workers / counted)


def least(samples: npt.NDArray[np.int16], folder: Path) -> dict[str, float]:
    """Return the CPU seconds an utterance of what no program of this kind can leave out.

    Each clip is encoded, hashed for its row and for its shard, and written; the samples come from a
    file, or are inflated and have their CRC checked.
    """
    wavs = [wav(each) for each in samples]
    packed = [zlib.compress(each, 6) for each in wavs]
    clips = [flac(each) for each in samples]
    plain = folder / "plain"
    plain.write_bytes(b"".join(wavs))
    parts: dict[str, Callable[[], object]] = {
        "encode": lambda: [flac(each) for each in samples],
        "hash": lambda: [hashlib.sha256(clip).digest() for clip in clips for _ in range(2)],
        "write": lambda: (folder / "written").write_bytes(b"".join(clips)),
        "read": plain.read_bytes,
        "inflate": lambda: [zlib.crc32(zlib.decompress(each)) for each in packed],
    }
    return {
        name: min(cpu_seconds_of(work) for _ in range(_LEAST_ROUNDS)) / len(samples)
        for name, work in parts.items()
    }


def _floors(parts: dict[str, float], taken: dict[str, float]) -> Iterator[Figure]:
    always = parts["encode"] + parts["hash"] + parts["write"]
    floors = {"plain": always + parts["read"], "gzip": always + parts["inflate"]}
    for name, title in _NAMES.items():
        yield figure(f"{title}: least CPU / encoding", [floors[name] / parts["encode"]])
        yield figure(f"{title}: ours / least CPU", [taken[name] / floors[name]])


def _figures(
    title: str, taken: dict[tuple[str, int], list[Taken]], name: str, cores: int, counted: int
) -> Iterator[Figure]:
    ours, alone, one = taken[name, cores], taken["alone", cores], taken[name, 1]
    rate, ratio = _RATES[name], _RATIOS[name]
    yield figure(
        f"{title}: utterances a second, {cores} cores",
        [counted / t.wall for t in ours],
        unit="/s",
        at_least=rate,
    )
    pairs = list(zip(ours, alone, strict=True))
    yield figure(
        f"{title}: CPU / soundfile alone", [o.cpu / a.cpu for o, a in pairs], at_most=ratio
    )
    yield figure(
        f"{title}: wall / soundfile alone, {cores} processes",
        [o.wall / a.wall for o, a in pairs],
        at_most=ratio,
    )
    yield figure(
        f"{title}: one core / {cores} cores",
        [o.wall / t.wall for o, t in zip(one, ours, strict=True)],
        at_least=1.8,
    )
    yield figure(f"{title}: main process, ms", [1e3 * t.main / counted for t in ours], unit="ms")
    yield figure(f"{title}: workers, ms", [1e3 * t.workers / counted for t in ours], unit="ms")
    yield figure(
        f"{title}: peak memory of all processes", [t.memory for t in ours], unit="MB", at_most=1500
    )


def _projection(main: float, workers: float) -> Iterator[Figure]:
    """Project the whole corpus: one process reads, inflates and writes, the others encode."""
    yield figure("whole corpus, gzip: core-hours", [(main + workers) * CORPUS / 3600], unit="h")
    for cores in CORES:
        binds = "reading" if main > (main + workers) / cores else "encoding"
        seconds = max(main, (main + workers) / cores)
        disk = SECONDS * SAMPLE_RATE_HZ * 2 * (0.66 + 0.88) / seconds / 1e6
        name = f"whole corpus, gzip: hours, {cores} cores (binds: {binds}; {disk:.0f} MB/s of disk)"
        yield figure(name, [seconds * CORPUS / 3600], unit="h")


if __name__ == "__main__":
    run_benchmark(__doc__, measure)
