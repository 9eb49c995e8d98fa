"""The corpus demo: materialize and load the built-in release, with clips to play and a plot."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from voxblink2_lib.demo.face_sheet import Face, draw_faces
from voxblink2_lib.demo.site import MediaSite
from voxblink2_lib.demo.waveform_plot import WaveformRow, draw_waveforms
from voxblink2_lib.errors import StoreError
from voxblink2_lib.media.audio_decoder import decode_audio
from voxblink2_lib.media.video_decoder import VideoFrameDecoder
from voxblink2_lib.media.video_index import read_frame_times
from voxblink2_lib.records import FRAMES_PER_SECOND
from voxblink2_lib.release.builtin import FAULTS, MEDIA
from voxblink2_lib.store.layout import Store
from voxblink2_lib.store.ledger import Ledger
from voxblink2_lib.store.ledger_statistics import MissingVideo
from voxblink2_lib.store.status import StoreStatus, missing_videos, read_status

# A speaker and a video of theirs, and an utterance with its start and end in seconds.
_Video = tuple[str, str]
_Interval = tuple[str, float, float]
_CLIPS_WRITTEN = 4
_VIDEOS_DRAWN = 4
_SPEAKERS_DRAWN, _FACES_DRAWN = 6, 4


@dataclass(frozen=True, slots=True)
class CorpusDemoResult:
    """Result of the corpus demo.

    Attributes:
        dataset: ``repr`` of the dataset that ``load_dataset`` returned.
        first_row: its first row, with media described by their shapes.
        status: of the store.
        missing: videos that are unavailable.
        downloaded: number of clips of each other video, and their seconds.
        requests: number of requests that the site answered.
        clips: files to play.
        plot: waveforms with the utterances' bounds, or faces with their boxes.
    """

    dataset: str
    first_row: dict[str, Any]
    status: StoreStatus
    missing: list[MissingVideo]
    downloaded: dict[_Video, tuple[int, float]]
    requests: int
    clips: list[Path]
    plot: Path

    def as_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            "store": self.status.store,
            "videos": self.status.videos,
            "utterances": self.status.utterances,
            "hours": self.status.hours,
            "first_row": self.first_row,
            "missing": {video.video_id: video.reason for video in self.missing},
            "requests": self.requests,
            "clips": [str(path) for path in self.clips],
            "picture": str(self.plot),
        }

    def lines(self) -> list[str]:
        """Return lines to print."""
        done = self.status.videos.get("done", 0)
        seconds = self.status.hours * 3600
        row = ", ".join(f"{name}={value!r}" for name, value in self.first_row.items())
        return [
            "",
            *self.dataset.splitlines(),
            "",
            f"First row: {row}",
            "",
            *self._table(),
            f"{done} videos downloaded, {len(self.missing)} unavailable; "
            f"{self.status.utterances} utterances, {seconds:.0f} s",
            "",
            f"Store         {self.status.store} ({self.status.shards} sealed shards)",
            f"Play          {self.clips[0].parent}/*",
            f"Look at       {self.plot}",
            "Load it again, without any download:",
            "  import voxblink2",
            "  from datasets import load_dataset",
            f'  ds = load_dataset("voxblink2", "{self.status.config}", data_dir="demo",',
            f'                    store={self.status.store!r}, split="train")',
        ]

    def _table(self) -> list[str]:
        """Return one line per video: its result, or why it is unavailable."""
        results = {
            key: f"{clips} utterances, {seconds:4.1f} s"
            for key, (clips, seconds) in self.downloaded.items()
        }
        for video in self.missing:
            results[video.speaker_id, video.video_id] = f"{video.status}: {video.reason}"
        return [
            f"  {speaker}  {video}  {text}" for (speaker, video), text in sorted(results.items())
        ]


def run_corpus_demo(out: Path, *, config: str, workers: int | None) -> CorpusDemoResult:
    """Materialize and load the built-in release, whose media a loopback site serves.

    Args:
        out: folder for store, clips and plot. A store of an earlier demo in it is removed, so that
            there is something to do.
        config: name of the configuration.
        workers: number of worker processes; by default one for each core, at most 8.
    """
    store = _fresh_store(out)
    dataset, requests = _load(store, config, out / "cache", workers)
    intervals = _intervals(dataset)
    with_faces = "video" in dataset.features
    return CorpusDemoResult(
        dataset=str(dataset),
        first_row=_described(dataset[0]),
        status=read_status(store, config),
        missing=[*missing_videos(store, config)],
        downloaded={
            video: (len(clips), sum(end - start for _, start, end in clips))
            for video, clips in intervals.items()
        },
        requests=requests,
        clips=_write_clips(dataset, out / "clips"),
        plot=(
            _draw_faces(dataset, out / "faces.png")
            if with_faces
            else _draw_waveforms(intervals, out / "waveforms.png")
        ),
    )


# -- Store and dataset -----------------------------------------------------------------------------


def _fresh_store(out: Path) -> Store:
    """Return an empty store. An existing one is removed if a demo made it."""
    store = Store(out / "store")
    mark = store.root / ".demo"
    if store.ledger.exists():
        if not mark.exists():
            raise StoreError(
                f"{store.root} is a store that no demo made; it is left alone. "
                "Name another folder with --out."
            )
        shutil.rmtree(store.root)
    try:
        store.root.mkdir(parents=True, exist_ok=True)
        mark.touch()
    except OSError as error:
        raise StoreError(f"The folder {out} cannot be used: {error}. Name another.") from error
    return store


def _load(store: Store, config: str, cache: Path, workers: int | None) -> tuple[Any, int]:
    """Return the dataset, and the number of requests that the site answered."""
    # Imported here: both take seconds to load, and the command line reads this file's records.
    from datasets import load_dataset

    import voxblink2  # noqa: F401  # registers the builder

    with _without_proxy(), MediaSite(MEDIA, faults=FAULTS) as site:
        dataset = load_dataset(
            "voxblink2",
            config,
            data_dir="demo",
            source=site.url_template,
            store=str(store.root),
            cache_dir=str(cache),
            split="train",
            num_proc=workers,
        )
    # The site is gone; whoever goes on with the store takes its media where they lie.
    with Ledger(store.ledger, config) as ledger:
        ledger.set_setting("source", str(MEDIA))
    return dataset, len(site.requests)


@contextlib.contextmanager
def _without_proxy() -> Iterator[None]:
    """Bypass proxies: none of them reaches our loopback address."""
    names = ("no_proxy", "NO_PROXY")
    before = {name: os.environ.get(name) for name in names}
    for name, value in before.items():
        os.environ[name] = ",".join(filter(None, ["127.0.0.1", value]))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _described(row: dict[str, Any]) -> dict[str, Any]:
    """Replace the media of a row by descriptions."""
    audio = row["audio"].get_all_samples()
    row["audio"] = f"{audio.data.shape[1]} samples at {audio.sample_rate} Hz"
    if "video" in row:
        metadata = row["video"].metadata
        row["video"] = f"{metadata.num_frames} frames of {metadata.width} x {metadata.height}"
        row["boxes"] = f"{len(row['boxes'])} x 4"
    return row


def _intervals(dataset: Any) -> dict[_Video, list[_Interval]]:
    """Return the utterances of each video."""
    intervals: dict[_Video, list[_Interval]] = {}
    names = ("speaker_id", "video_id", "utterance_id", "start_seconds", "end_seconds")
    columns = (dataset[name] for name in names)
    for speaker, video, utterance, start, end in zip(*columns, strict=True):
        intervals.setdefault((speaker, video), []).append((utterance, start, end))
    return intervals


# -- Clips and plots -------------------------------------------------------------------------------


def _write_clips(dataset: Any, folder: Path) -> list[Path]:
    """Write the encoded bytes of one clip of several speakers, exactly as in the shards."""
    folder.mkdir(parents=True, exist_ok=True)
    kinds = [kind for kind in ("audio", "video") if kind in dataset.features]
    encoded = dataset.select_columns(kinds).with_format("arrow")
    clips: list[Path] = []
    for index in _first_rows(dataset)[:_CLIPS_WRITTEN]:
        (row,) = encoded[index : index + 1].to_pylist()
        for kind in kinds:
            clips.append(folder / row[kind]["path"].replace("/", "_"))
            clips[-1].write_bytes(row[kind]["bytes"])
    return clips


def _first_rows(dataset: Any) -> list[int]:
    """Return the index of each speaker's first row."""
    first: dict[str, int] = {}
    for index, speaker in enumerate(dataset["speaker_id"]):
        first.setdefault(speaker, index)
    return list(first.values())


def _draw_waveforms(intervals: dict[_Video, list[_Interval]], target: Path) -> Path:
    rows = []
    for path, utterances in _videos_to_draw(intervals):
        audio = decode_audio(path, end_seconds=60)
        rows.append(WaveformRow(f"{path.parent.name}  {path.name}", audio.samples, utterances))
    draw_waveforms(target, rows)
    return target


def _videos_to_draw(
    intervals: dict[_Video, list[_Interval]],
) -> list[tuple[Path, list[_Interval]]]:
    """Choose videos of different containers, if possible with overlapping utterances."""
    by_suffix: dict[str, list[tuple[bool, Path, list[_Interval]]]] = {}
    for (speaker, video), utterances in intervals.items():
        path = _media_file(speaker, video)
        apart = all(first[2] <= second[1] for first, second in itertools.pairwise(utterances))
        by_suffix.setdefault(path.suffix, []).append((apart, path, utterances))
    chosen = [min(candidates) for candidates in by_suffix.values()]
    chosen += sorted(video for video in by_suffix[".mp4"] if video not in chosen)[:1]
    return [(path, utterances) for _, path, utterances in chosen[:_VIDEOS_DRAWN]]


def _draw_faces(dataset: Any, target: Path) -> Path:
    """Draw evenly spaced frames of one utterance of several speakers."""
    rows = [_face_row(dataset[index]) for index in _first_rows(dataset)[:_SPEAKERS_DRAWN]]
    draw_faces(target, rows)
    return target


def _face_row(row: dict[str, Any]) -> tuple[str, list[Face]]:
    """Return title and faces of an utterance."""
    path = _media_file(row["speaker_id"], row["video_id"])
    last = len(row["boxes"]) - 1
    frames = [last * step // (_FACES_DRAWN - 1) for step in range(_FACES_DRAWN)]
    start = round(row["start_seconds"] * FRAMES_PER_SECOND)
    seconds = [(start + frame) / FRAMES_PER_SECOND for frame in frames]
    crops = row["video"].get_frames_at(frames).data.permute(0, 2, 3, 1).numpy()
    boxes = [tuple(row["boxes"][frame]) for frame in frames]
    video_frames = _source_frames(path, seconds)
    faces = [Face(*fields) for fields in zip(seconds, video_frames, boxes, crops, strict=True)]
    return f"{row['speaker_id']}  {path.name}  {row['utterance_id']}", faces


def _media_file(speaker: str, video: str) -> Path:
    return next(path for path in (MEDIA / speaker).iterdir() if path.stem == video)


def _source_frames(path: Path, seconds: list[float]) -> list[Any]:
    """Return the video frames nearest to given times, RGB, shape (height, width, 3)."""
    times = read_frame_times(path, until_seconds=seconds[-1])
    indices = times.nearest(np.array(seconds)).tolist()
    decoder = VideoFrameDecoder(path, times, indices, skip_unneeded=True)
    frames = {index: frame.to_ndarray(format="rgb24") for index, frame in decoder}
    return [frames[index] for index in indices]
