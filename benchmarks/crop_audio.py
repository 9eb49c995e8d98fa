"""Measure the cost of cropping audio, against FFmpeg and against PyAV's bare decode loop.

Everything is measured in one run, in turns (A B A B ...), and reported as a ratio: the median of
the rounds, with minimum and maximum. A benchmark is evidence, not a gate: it exits with 0 whether
or not the targets are met.

Example:
    python benchmarks/crop_audio.py
    python benchmarks/crop_audio.py --quick --json
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
import soxr
from figures import (
    Figure,
    children_cpu_seconds_of,
    cpu_seconds_of,
    figure,
    run_benchmark,
    seconds_of,
)
from inputs import FIRST_FRAMES, Videos, ffmpeg, make_wav
from machine import peak_memory_bytes

from voxblink2_lib.materialize.pipeline import run_video
from voxblink2_lib.materialize.tasks import VideoTask
from voxblink2_lib.media.encoding import Samples, encode
from voxblink2_lib.outcomes import Outcome
from voxblink2_lib.records import SAMPLE_RATE_HZ, Utterance
from voxblink2_lib.workers.pool import WorkerPool

PROCESSES = 2


class Size(NamedTuple):
    """How much is measured."""

    rounds: int
    wav_videos: int
    mp4_videos: int
    memory_videos: tuple[int, int]


FULL = Size(rounds=5, wav_videos=40, mp4_videos=10, memory_videos=(10, 200))
QUICK = Size(rounds=3, wav_videos=4, mp4_videos=2, memory_videos=(10, 20))


def whole(outcome: Outcome) -> Outcome:
    """Return an outcome, or end the benchmark: timings of incomplete work are meaningless."""
    if outcome.clips != len(FIRST_FRAMES):
        raise RuntimeError(f"a video was not cropped completely: {outcome}")
    return outcome


def run_tasks(pool: WorkerPool, tasks: Iterable[VideoTask]) -> None:
    for _, outcome in pool.run(((run_video, task) for task in tasks).__next__):
        whole(outcome)


def run_cold(tasks: list[VideoTask]) -> None:
    with WorkerPool(PROCESSES) as pool:
        run_tasks(pool, tasks)


def run_ffmpeg(videos: Videos, tasks: list[VideoTask]) -> None:
    """Crop with one FFmpeg process per utterance, as many at a time as we have workers."""

    def crop(path: Path, utterance: Utterance, target: Path) -> None:
        start, stop = (f"{seconds:.2f}" for seconds in utterance.seconds)
        ffmpeg("-i", path, "-ss", start, "-to", stop, "-c", "copy", target)

    with ThreadPoolExecutor(PROCESSES) as threads:
        futures = [
            threads.submit(crop, path, cut, task.part.with_suffix(f".{cut.utterance_id}.wav"))
            for path, task in zip(videos.paths, tasks, strict=True)
            for cut in task.utterances
        ]
        for future in futures:
            future.result()


def measure_wav(videos: Videos, size: Size) -> Iterator[Figure]:
    """Compare utterances per second with FFmpeg's; both crop the same ones."""
    warm: list[float] = []
    cold: list[float] = []
    with WorkerPool(PROCESSES) as pool:
        run_tasks(pool, videos.tasks()[:PROCESSES])
        for _ in range(size.rounds):
            tasks = videos.tasks()
            ours = seconds_of(partial(run_tasks, pool, tasks))
            theirs = seconds_of(partial(run_ffmpeg, videos, tasks))
            warm.append(theirs / ours)
            cold.append(theirs / seconds_of(partial(run_cold, videos.tasks())))
            shutil.rmtree(tasks[0].part.parent)
    yield figure("wav: our crops per second / ffmpeg's", warm, at_least=18)
    yield figure(f"wav: the same, {size.wav_videos} videos and start of workers", cold)


class Kind(NamedTuple):
    """One kind of media whose audio work is measured, and what it may cost at most."""

    name: str
    videos: Videos
    at_most: float


def bare_loop(path: Path) -> None:
    """Decode all audio and drop it, as PyAV's documentation does it."""
    with av.open(path) as container:
        stream = container.streams.audio[0]
        stream.codec_context.thread_count = 1
        for _ in container.decode(stream):
            pass


def mono_of(path: Path) -> tuple[Samples, int]:
    """Decode all audio to the mean of two channels, at its own rate, in blocks that fit a cache."""
    queue = av.AudioFifo()
    blocks: list[Samples] = []
    with av.open(path) as container:
        stream = container.streams.audio[0]
        stream.codec_context.thread_count = 1
        for frame in container.decode(stream):
            frame.pts = None
            queue.write(frame)
            if queue.samples >= 1 << 15:
                blocks.append(mean_of(queue.read()))
        blocks.append(mean_of(queue.read()))
    return np.concatenate(blocks), stream.rate


def mean_of(block: av.AudioFrame | None) -> Samples:
    if block is None:
        return np.zeros(0, np.float32)
    left, right = (np.frombuffer(memoryview(plane), "f4", block.samples) for plane in block.planes)
    mono: Samples = left + right
    mono *= np.float32(0.5)
    return mono


def run_here(task: VideoTask) -> None:
    whole(run_video(task))


def parts_of(path: Path, task: VideoTask) -> dict[str, float]:
    """Time the parts of a video's work on their own."""
    taken = {"bare loop": cpu_seconds_of(partial(bare_loop, path))}
    taken["samples out of frames"] = cpu_seconds_of(partial(mono_of, path)) - taken["bare loop"]
    mono, rate = mono_of(path)
    taken["soxr"] = cpu_seconds_of(partial(soxr.resample, mono, rate, SAMPLE_RATE_HZ, "HQ"))
    samples = soxr.resample(mono, rate, SAMPLE_RATE_HZ, "HQ")

    def encode_clips() -> None:
        for utterance in task.utterances:
            encode(samples[slice(*utterance.samples)], audio_format=task.options.audio_format)

    taken["FLAC of the clips"] = cpu_seconds_of(encode_clips)
    return taken


def measure_decoding(kind: Kind, size: Size) -> Iterator[Figure]:
    """Compare all of a video's work with a bare loop, and with its parts, in this process."""
    to_loop: list[float] = []
    to_parts: list[float] = []
    shares: dict[str, list[float]] = defaultdict(list)
    for index in range(size.rounds + 1):
        ours = 0.0
        taken: dict[str, float] = defaultdict(float)
        tasks = kind.videos.tasks()[: size.mp4_videos]
        for path, task in zip(kind.videos.paths, tasks, strict=False):
            ours += cpu_seconds_of(partial(run_here, task))
            for name, seconds in parts_of(path, task).items():
                taken[name] += seconds
        if index:  # the first round warms up
            to_loop.append(ours / taken["bare loop"])
            to_parts.append(ours / sum(taken.values()))
            for name, seconds in taken.items():
                shares[name].append(seconds / taken["bare loop"])
    name = kind.name
    yield figure(f"{name}: a video's work / bare loop", to_loop, at_most=kind.at_most)
    yield figure(f"{name}: a video's work / sum of its parts", to_parts, at_most=1.15)
    for part, values in shares.items():
        if part != "bare loop":
            yield figure(f"{name}: {part} / bare loop", values)


def start_and_stop() -> None:
    """Start a worker that imports what cropping audio needs, in a process of its own."""
    code = "import voxblink2_lib.materialize.pipeline, soxr, av, soundfile"
    subprocess.run([sys.executable, "-c", code], check=True)


def import_torchcodec() -> None:
    subprocess.run([sys.executable, "-c", "import torchcodec.decoders"], check=True)


def measure_start(size: Size) -> Iterator[Figure]:
    """Read the CPU time that a worker takes to start."""
    ours: list[float] = []
    ratios: list[float] = []
    for _ in range(size.rounds):
        ours.append(children_cpu_seconds_of(start_and_stop))
        ratios.append(children_cpu_seconds_of(import_torchcodec) / ours[-1])
    yield figure("start: CPU of a worker's imports", ours, unit="s", at_most=0.6)
    yield figure("start: import of torchcodec / ours", ratios)


def measure_memory(videos: Videos, size: Size) -> Iterator[Figure]:
    """Read a worker's peak memory early and late."""
    peaks: list[float] = []
    done = 0
    with WorkerPool(1) as pool:
        for count in size.memory_videos:
            run_tasks(pool, videos.tasks()[done:count])
            done = count
            calls = iter([(peak_memory_bytes, None)])
            peaks += [peak / 1e6 for _, peak in pool.run(calls.__next__)]
    early, late = peaks
    first, last = size.memory_videos
    yield figure(f"memory: a worker's peak after {first} videos", [early], unit="MB")
    yield figure(f"memory: after {last} videos", [late], unit="MB", at_most=220)
    yield figure(f"memory: after {last} / after {first}", [late / early], at_most=1.05)


def make_webm(path: Path, *, seed: int) -> None:
    audio = path.with_suffix(".audio.wav")
    make_wav(audio, seed=seed, rate_hz=48_000)
    ffmpeg("-i", audio, "-c:a", "libopus", "-b:a", "128k", "-ac", "2", path)
    audio.unlink()


def measure(folder: Path, size: Size) -> Iterator[Figure]:
    yield from measure_wav(Videos(folder / "wav", extension="wav", count=size.wav_videos), size)
    films = Videos(folder / "mp4", extension="mp4", count=size.memory_videos[-1])
    sounds = Videos(folder / "webm", extension="webm", count=size.mp4_videos, make=make_webm)
    for kind in (Kind("AAC in MP4", films, 1.8), Kind("Opus in WebM", sounds, 1.45)):
        yield from measure_decoding(kind, size)
    yield from measure_start(size)
    yield from measure_memory(films, size)


def main() -> None:
    run_benchmark(__doc__, lambda folder, quick: measure(folder, QUICK if quick else FULL))


if __name__ == "__main__":
    main()
