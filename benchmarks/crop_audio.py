"""Measure the cost of cropping audio, against FFmpeg and against decoding alone.

Everything is measured in one run, in turns (A B A B ...), and reported as a ratio: the median of
the rounds, with minimum and maximum. A benchmark is evidence, not a gate: it exits with 0 whether
or not the targets are met.

Example:
    python benchmarks/crop_audio.py
    python benchmarks/crop_audio.py --quick --json
"""

from __future__ import annotations

import shutil
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple

from figures import Figure, figure, run_benchmark, seconds_of
from inputs import FIRST_FRAMES, Videos, ffmpeg
from machine import peak_memory_bytes
from torchcodec.decoders import AudioDecoder  # type: ignore[attr-defined]

from voxblink2_lib.materialize.pipeline import run_video
from voxblink2_lib.materialize.tasks import VideoTask
from voxblink2_lib.media.audio import decode_audio
from voxblink2_lib.media.encoding import encode
from voxblink2_lib.media.timeline import read_timeline
from voxblink2_lib.outcomes import Outcome
from voxblink2_lib.records import SAMPLE_RATE_HZ, Clip, Utterance
from voxblink2_lib.store.shards import make_rows, write_part
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
    yield figure("wav: our crops per second / ffmpeg's", warm, at_least=10)
    yield figure(f"wav: the same, {size.wav_videos} videos and start of workers", cold)


def decode_alone(path: Path) -> None:
    AudioDecoder(path, sample_rate=SAMPLE_RATE_HZ, num_channels=1).get_all_samples()


def run_here(task: VideoTask) -> None:
    whole(run_video(task))


def stages(path: Path, task: VideoTask) -> dict[str, Callable[[], object]]:
    """Return a video's work in stages, by the functions that run_video calls."""
    until = task.utterances[-1].seconds[1]
    samples = decode_audio(path, end_seconds=until).samples
    kind = task.options.audio_format

    def crop() -> list[Clip]:
        parts = [samples[slice(*utterance.samples)] for utterance in task.utterances]
        coded = [encode(part, audio_format=kind) for part in parts]
        return list(map(Clip, task.utterances, coded))

    def write(clips: list[Clip]) -> None:
        rows = make_rows(clips, schema=task.schema, audio_format=kind, source="folder")
        write_part(task.part, rows, Outcome(task.key, "done", clips=len(clips)))

    return {
        "decoding": partial(decode_alone, path),
        "time stamps": partial(read_timeline, path, until_seconds=until + 10),
        "crop and encode": crop,
        "part file": partial(write, crop()),
    }


def measure_mp4(videos: Videos, size: Size) -> Iterator[Figure]:
    """Compare all of a video's work with decoding its audio, in this process."""
    ratios: list[float] = []
    shares: dict[str, list[float]] = defaultdict(list)
    for index in range(size.rounds + 1):
        ours = 0.0
        taken: dict[str, float] = defaultdict(float)
        tasks = videos.tasks()[: size.mp4_videos]
        for path, task in zip(videos.paths, tasks, strict=False):
            ours += seconds_of(partial(run_here, task))
            for name, stage in stages(path, task).items():
                taken[name] += seconds_of(stage)
        if index:  # the first round warms up
            ratios.append(ours / taken["decoding"])
            for name, seconds in taken.items():
                shares[name].append(100 * seconds / sum(taken.values()))
    yield figure("mp4: a video's work / decoding its audio", ratios, at_most=1.7)
    for name, values in shares.items():
        yield figure(f"mp4: {name}, share of all stages", values, unit="%")


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
    yield figure(f"memory: after {last} videos", [late], unit="MB", at_most=600)
    yield figure(f"memory: after {last} / after {first}", [late / early], at_most=1.05)


def measure(folder: Path, size: Size) -> Iterator[Figure]:
    yield from measure_wav(Videos(folder / "wav", extension="wav", count=size.wav_videos), size)
    films = Videos(folder / "mp4", extension="mp4", count=size.memory_videos[-1])
    yield from measure_mp4(films, size)
    yield from measure_memory(films, size)


def main() -> None:
    run_benchmark(__doc__, lambda folder, quick: measure(folder, QUICK if quick else FULL))


if __name__ == "__main__":
    main()
