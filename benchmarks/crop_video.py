"""Measure the cost of cropping faces and audio, against decoding alone and a simple cropper.

Ratios are of CPU time (user and system, of all processes that do the work), since other work on the
machine affects it less than wall time. They are measured in turns (A B A B ...) in one run, and
reported as the median of the rounds, with minimum and maximum. A benchmark is evidence, not a gate:
it exits with 0 whether or not the targets are met.

Example:
    python benchmarks/crop_video.py
    python benchmarks/crop_video.py --quick --json
"""

from __future__ import annotations

import contextlib
import multiprocessing
import shutil
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import accumulate
from multiprocessing.pool import Pool
from pathlib import Path
from resource import RUSAGE_CHILDREN, RUSAGE_SELF, getrusage
from typing import Any, NamedTuple
from unittest.mock import patch

import cv2
import torch
from crop_audio import PROCESSES, run_cold, run_here, run_tasks
from figures import Figure, figure, run_benchmark
from inputs import FACE_FRAMES, Videos, ffmpeg, make_film, with_faces
from machine import peak_memory_bytes
from torchcodec.decoders import VideoDecoder  # type: ignore[attr-defined]

from voxblink2_lib.materialize import pipeline
from voxblink2_lib.materialize.tasks import VideoTask
from voxblink2_lib.media import faces
from voxblink2_lib.media.face_encoder import FaceVideo
from voxblink2_lib.media.options import ClipOptions
from voxblink2_lib.media.video_decoder import VideoFrameDecoder
from voxblink2_lib.media.windows import crop_windows
from voxblink2_lib.records import FRAMES_PER_SECOND, SAMPLE_RATE_HZ, FaceTrack
from voxblink2_lib.workers.pool import WorkerPool

SIDE = ClipOptions().video_size
# Utterances without gaps: no frame between the first and the last can be skipped.
GAPLESS_FRAMES = tuple(accumulate(FACE_FRAMES[:-1], initial=300))


class Size(NamedTuple):
    """How much is measured."""

    rounds: int
    films: int
    distinct: int
    films_here: int
    large_films: int
    preset: str


FULL = Size(rounds=3, films=16, distinct=3, films_here=3, large_films=10, preset="medium")
QUICK = Size(rounds=1, films=2, distinct=1, films_here=1, large_films=2, preset="veryfast")


class Film(NamedTuple):
    """A file and the task that crops it."""

    path: Path
    task: VideoTask


def films_of(videos: Videos, **options: Any) -> list[Film]:
    """Return the films, with new part files."""
    tasks = [with_faces(task, **options) for task in videos.tasks()]
    return list(map(Film, videos.paths, tasks))


def tasks_of(films: list[Film]) -> list[VideoTask]:
    return [film.task for film in films]


# -- CPU time --------------------------------------------------------------------------------------


def used(who: int) -> float:
    """Return the CPU time of this process, or of those that it has waited for."""
    usage = getrusage(who)
    return usage.ru_utime + usage.ru_stime


def children_seconds(work: Callable[[], object]) -> float:
    before = used(RUSAGE_CHILDREN)
    work()
    return used(RUSAGE_CHILDREN) - before


def worker_seconds(pool: WorkerPool, tasks: list[VideoTask]) -> float:
    """Return the CPU time of tasks in the workers, all of which have started."""

    def clocks() -> float:
        # As many calls as workers, submitted at once: each worker runs one.
        calls = iter([(time.clock_gettime, time.CLOCK_PROCESS_CPUTIME_ID)] * PROCESSES)
        return sum(float(seconds) for _, seconds in pool.run(calls.__next__))

    before = clocks()
    run_tasks(pool, tasks)
    return clocks() - before


# -- The baselines ---------------------------------------------------------------------------------


def decode_alone(films: list[Film]) -> None:
    """Decode from the first needed frame to the last, as many files at a time as workers."""

    def decode(film: Film) -> None:
        start, stop = film.task.utterances[0].seconds[0], film.task.utterances[-1].seconds[1]
        ffmpeg("-threads", "1", "-ss", f"{start:.2f}", "-i", film.path, "-t", f"{stop - start:.2f}",
               "-f", "null", "-")  # fmt: skip

    with ThreadPoolExecutor(PROCESSES) as threads:
        list(threads.map(decode, films))


def opencv_seconds(film: Film) -> float:
    """Crop a film with OpenCV; return the CPU time. Runs in a separate process."""
    before = used(RUSAGE_SELF) + used(RUSAGE_CHILDREN)
    cv2.setNumThreads(1)
    film.task.part.parent.mkdir(exist_ok=True)
    for track in film.task.tracks or ():
        crop_with_opencv(film.path, track, film.task.part.with_name(track.utterance.utterance_id))
    return used(RUSAGE_SELF) + used(RUSAGE_CHILDREN) - before


def crop_with_opencv(path: Path, track: FaceTrack, target: Path) -> None:
    """Crop an utterance the simple way: open, seek, read, resize, write; FFmpeg crops the audio."""
    film = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
    film.set(cv2.CAP_PROP_POS_FRAMES, track.utterance.first_frame)
    kind = cv2.VideoWriter.fourcc(*"XVID")
    clip = cv2.VideoWriter(f"{target}.avi", kind, FRAMES_PER_SECOND, (SIDE, SIDE))
    for x, y, width, height in track.boxes.tolist():
        _, image = film.read()
        clip.write(cv2.resize(image[y : y + height, x : x + width], (SIDE, SIDE)))
    clip.release()
    film.release()
    start, stop = (f"{seconds:.2f}" for seconds in track.utterance.seconds)
    ffmpeg("-ss", start, "-to", stop, "-i", path, "-vn", "-ac", "1", "-ar", f"{SAMPLE_RATE_HZ}",
           f"{target}.wav")  # fmt: skip


def crop_with_torchcodec(film: Film) -> None:
    """Decode the needed frames by index, then crop and scale the faces."""
    decoder = VideoDecoder(film.path, num_ffmpeg_threads=1)
    for track in film.task.tracks or ():
        # These films have 25 fps: annotation frames are indices of video frames.
        images = decoder.get_frames_at(track.frames.tolist()).data
        windows = crop_windows(track.boxes, shape="square").round().astype(int).tolist()
        for image, (left, top, right, bottom) in zip(images, windows, strict=True):
            torch.nn.functional.interpolate(
                image[None, :, top:bottom, left:right],
                (SIDE, SIDE),
                mode="bilinear",
                antialias=True,
            )


# -- Figures ---------------------------------------------------------------------------------------


def measure_films(videos: Videos, size: Size) -> Iterator[Figure]:
    """Compare our work with decoding alone, and with OpenCV."""
    ratios: dict[str, list[float]] = defaultdict(list)
    with WorkerPool(PROCESSES) as pool, multiprocessing.get_context("spawn").Pool(PROCESSES) as its:
        run_tasks(pool, tasks_of(films_of(videos))[:PROCESSES])  # starts the workers
        for _ in range(size.rounds):
            for name, ratio in one_round(videos, pool, its).items():
                ratios[name].append(ratio)
    yield figure("our work / ffmpeg's decoding of the same range", ratios["work"], at_most=1.2)
    yield figure("   the same with the start of workers", ratios["cold"])
    yield figure("   the same, utterances without gaps between them", ratios["gapless"])
    yield figure("utterances per CPU second / OpenCV's", ratios["opencv"], at_least=1.3)


def one_round(videos: Videos, pool: WorkerPool, opencv: Pool) -> dict[str, float]:
    films, again = films_of(videos), films_of(videos)
    gapless = films_of(videos, first_frames=GAPLESS_FRAMES)
    spent: dict[str, float] = defaultdict(float)
    # A few films at a time: other load on the machine then affects all alike.
    for start in range(0, len(films), PROCESSES):
        few = films[start : start + PROCESSES]
        spent["ours"] += worker_seconds(pool, tasks_of(few))
        spent["decoding"] += children_seconds(partial(decode_alone, few))
        spent["opencv"] += sum(opencv.imap_unordered(opencv_seconds, few))
        few = gapless[start : start + PROCESSES]
        spent["ours, gapless"] += worker_seconds(pool, tasks_of(few))
        spent["decoding, gapless"] += children_seconds(partial(decode_alone, few))
    spent["cold"] = children_seconds(partial(run_cold, tasks_of(again)))
    for group in (films, again, gapless):
        shutil.rmtree(group[0].task.part.parent)
    return {
        "work": spent["ours"] / spent["decoding"],
        "cold": spent["cold"] / spent["decoding"],
        "gapless": spent["ours, gapless"] / spent["decoding, gapless"],
        "opencv": spent["opencv"] / spent["ours"],
    }


def measure_memory(videos: Videos) -> Iterator[Figure]:
    films = films_of(videos)
    with WorkerPool(1) as pool:
        run_tasks(pool, tasks_of(films))
        calls = iter([(peak_memory_bytes, None)])
        peak = next(peak for _, peak in pool.run(calls.__next__))
    name = f"memory: a worker's peak after {len(films)} videos of 1080 lines"
    yield figure(name, [peak / 1e6], unit="MB", at_most=800)


def measure_stages(videos: Videos, size: Size) -> Iterator[Figure]:
    """Measure the shares of our time, and compare our decoder with torchcodec, in this process."""
    torch.set_num_threads(1)
    values: dict[str, list[float]] = defaultdict(list)
    for index in range(size.rounds + 1):
        films = films_of(videos)[: size.films_here]
        with stopwatches() as taken:
            for film in films:
                timed("work", run_here, taken)(film.task)
                timed("torchcodec", crop_with_torchcodec, taken)(film)
        shutil.rmtree(films[0].task.part.parent)
        if not index:
            continue  # the first round warms up
        work, cropping, theirs = (taken.pop(name) for name in ("work", "faces", "torchcodec"))
        values["faces"].append(cropping / theirs)
        values["unencoded"].append((cropping - taken["encoding"]) / theirs)
        for name, seconds in (*taken.items(), ("the rest", work - sum(taken.values()))):
            values[f"share of {name}"].append(100 * seconds / work)
    yield figure("our faces, encoding included / torchcodec's, not encoded", values.pop("faces"))
    yield figure("   the same without our encoding", values.pop("unencoded"))
    for name, shares in values.items():
        yield figure(name, shares, unit="%")


@contextlib.contextmanager
def stopwatches() -> Iterator[dict[str, float]]:
    """Wrap the functions that do a video's work; yield the CPU seconds of each stage.

    The stage "faces" includes those from time stamps to encoding.
    """
    taken: dict[str, float] = defaultdict(float)
    stages: list[tuple[str, Any, tuple[str, ...]]] = [
        ("faces", pipeline, ("crop_faces",)),
        ("time stamps", faces, ("read_frame_times",)),
        ("cropping and scaling", faces, ("cut_window",)),
        ("encoding", FaceVideo, ("__init__", "add", "finish")),
        ("audio", pipeline, ("crop_audio",)),
        ("part file", pipeline, ("make_rows", "write_part")),
    ]
    with contextlib.ExitStack() as stack:
        decoding = timed_steps("decoding", VideoFrameDecoder.__iter__, taken)
        stack.enter_context(patch.object(VideoFrameDecoder, "__iter__", decoding))
        for name, owner, attributes in stages:
            for attribute in attributes:
                wrapped = timed(name, getattr(owner, attribute), taken)
                stack.enter_context(patch.object(owner, attribute, wrapped))
        yield taken


def timed(name: str, function: Callable[..., Any], taken: dict[str, float]) -> Callable[..., Any]:
    def wrapper(*args: Any, **options: Any) -> Any:
        started = time.process_time()
        try:
            return function(*args, **options)
        finally:
            taken[name] += time.process_time() - started

    return wrapper


def timed_steps(
    name: str, function: Callable[..., Iterator[Any]], taken: dict[str, float]
) -> Callable[..., Iterator[Any]]:
    """Like :func:`timed`, for a generator: time spent on its values outside is not counted."""

    def wrapper(*args: Any) -> Iterator[Any]:
        step = timed(name, partial(next, function(*args), None), taken)
        while (value := step()) is not None:
            yield value

    return wrapper


def measure(folder: Path, quick: bool) -> Iterator[Figure]:
    size = QUICK if quick else FULL
    make = partial(make_film, preset=size.preset)
    videos = Videos(
        folder / "720", extension="mp4", count=size.films, distinct=size.distinct, make=make
    )
    yield from measure_films(videos, size)
    yield from measure_stages(videos, size)
    make = partial(make, lines=1080)
    large = Videos(folder / "1080", extension="mp4", count=size.large_films, distinct=1, make=make)
    yield from measure_memory(large)


if __name__ == "__main__":
    run_benchmark(__doc__, measure)
