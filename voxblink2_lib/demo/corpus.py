"""The demonstration: the real main job on the built-in release, with something to hear and see."""

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
from voxblink2_lib.media.audio import decode_audio
from voxblink2_lib.media.video_decoder import VideoFrameDecoder
from voxblink2_lib.media.video_index import read_frame_times
from voxblink2_lib.records import FRAMES_PER_SECOND
from voxblink2_lib.release.builtin import FAULTS, MEDIA
from voxblink2_lib.store.layout import Store
from voxblink2_lib.store.ledger_statistics import MissingVideo
from voxblink2_lib.store.status import StoreStatus, missing_videos, read_status

# Utterances of each video: id, start and end in seconds.
Cuts = dict[tuple[str, str], list[tuple[str, float, float]]]
_CLIPS_WRITTEN = 4
_VIDEOS_DRAWN = 4
_SPEAKERS_DRAWN, _FACES_DRAWN = 6, 4


@dataclass(frozen=True, slots=True)
class CorpusDemoResult:
    """What the demonstration made.

    Attributes:
        dataset: ``repr`` of the dataset that ``load_dataset`` returned.
        first_row: its first row, without the audio.
        status: what the store holds.
        missing: videos that did not come.
        came: videos that came, each with its number of clips and their seconds.
        requests: number of requests that the site answered.
        clips: files to listen to.
        picture: waveforms with the utterances' bounds, or faces with their boxes.
    """

    dataset: str
    first_row: dict[str, Any]
    status: StoreStatus
    missing: list[MissingVideo]
    came: dict[tuple[str, str], tuple[int, float]]
    requests: int
    clips: list[Path]
    picture: Path

    def as_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            "store": self.status.store,
            "videos": self.status.videos,
            "utterances": self.status.utterances,
            "hours": self.status.hours,
            "first_row": self.first_row,
            "missing": {one.video_id: one.reason for one in self.missing},
            "requests": self.requests,
            "clips": [str(path) for path in self.clips],
            "picture": str(self.picture),
        }

    def lines(self) -> list[str]:
        """Return lines for people."""
        done = self.status.videos.get("done", 0)
        seconds = self.status.hours * 3600
        return [
            "",
            self.dataset,
            "",
            "First row: "
            + ", ".join(f"{name}={value!r}" for name, value in self.first_row.items()),
            "",
            *self._table(),
            f"{done} videos came, {len(self.missing)} did not; "
            f"{self.status.utterances} utterances, {seconds:.0f} s",
            "",
            f"Store         {self.status.store} ({self.status.shards} sealed shards)",
            f"Play          {self.clips[0].parent}/*",
            f"Look at       {self.picture}",
            "Load it again, without any download:",
            "  import voxblink2",
            "  from datasets import load_dataset",
            f'  ds = load_dataset("voxblink2", "{self.status.config}", data_dir="demo",',
            f'                    store="{self.status.store}")',
        ]

    def _table(self) -> list[str]:
        """Return one line a video: what came of it, or why nothing did."""
        lines = {
            key: f"{clips} utterances, {seconds:4.1f} s"
            for key, (clips, seconds) in self.came.items()
        }
        for one in self.missing:
            lines[one.speaker_id, one.video_id] = f"{one.status}: {one.reason}"
        return [f"  {speaker}  {video}  {said}" for (speaker, video), said in sorted(lines.items())]


def run_corpus_demo(out: Path, *, config: str, workers: int | None) -> CorpusDemoResult:
    """Serve the built-in media on a loopback address and run the main job on them.

    Args:
        out: folder for store, clips and picture. A store of an earlier demonstration in it is
            removed, so that there is something to see.
        config: name of the configuration.
        workers: number of worker processes; one a core by default.
    """
    # Imported here: the builder imports this package's ground.
    from datasets import load_dataset

    import voxblink2  # noqa: F401  # registers the builder

    store = _fresh_store(out)
    with _without_proxy(), MediaSite(MEDIA, faults=FAULTS) as site:
        dataset = load_dataset(
            "voxblink2",
            config,
            data_dir="demo",
            source=site.url_template,
            store=str(store.root),
            cache_dir=str(out / "cache"),
            split="train",
            num_proc=workers,
        )
        requests = len(site.requests)
    cuts = _cuts(dataset)
    with_faces = "video" in dataset.features
    return CorpusDemoResult(
        dataset=str(dataset),
        first_row=_described(dataset[0]),
        status=read_status(store, config),
        missing=missing_videos(store, config),
        came={
            key: (len(found), sum(end - start for _, start, end in found))
            for key, found in cuts.items()
        },
        requests=requests,
        clips=_write_clips(dataset, out / "clips"),
        picture=(
            _draw_faces(dataset, out / "faces.png")
            if with_faces
            else _draw(cuts, out / "waveforms.png")
        ),
    )


def _described(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row in which what is long is told by its shape."""
    audio = row["audio"].get_all_samples()
    row["audio"] = f"{audio.data.shape[1]} samples at {audio.sample_rate} Hz"
    if "video" in row:
        about = row["video"].metadata
        row["video"] = f"{about.num_frames} frames of {about.width} x {about.height}"
        row["boxes"] = f"{len(row['boxes'])} x 4"
    return row


def _fresh_store(out: Path) -> Store:
    """Return an empty store; only one that a demonstration made is removed for it."""
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


@contextlib.contextmanager
def _without_proxy() -> Iterator[None]:
    """Keep proxies out of the way: none of them reaches our loopback address."""
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


def _write_clips(dataset: Any, folder: Path) -> list[Path]:
    """Write the encoded bytes of one clip of several speakers, as they lie in the shards."""
    folder.mkdir(parents=True, exist_ok=True)
    kinds = [kind for kind in ("audio", "video") if kind in dataset.features]
    raw = dataset.select_columns(kinds).with_format("arrow")
    clips: list[Path] = []
    for place in _one_a_speaker(dataset)[:_CLIPS_WRITTEN]:
        (row,) = raw[place : place + 1].to_pylist()
        for kind in kinds:
            clips.append(folder / row[kind]["path"].replace("/", "_"))
            clips[-1].write_bytes(row[kind]["bytes"])
    return clips


def _one_a_speaker(dataset: Any) -> list[int]:
    """Return the place of each speaker's first row."""
    first: dict[str, int] = {}
    for place, speaker in enumerate(dataset["speaker_id"]):
        first.setdefault(speaker, place)
    return list(first.values())


def _cuts(dataset: Any) -> Cuts:
    found: Cuts = {}
    columns = ("speaker_id", "video_id", "utterance_id", "start_seconds", "end_seconds")
    for speaker, video, name, start, end in zip(*(dataset[one] for one in columns), strict=True):
        found.setdefault((speaker, video), []).append((name, start, end))
    return found


def _draw(found: Cuts, target: Path) -> Path:
    """Draw videos of different containers, those with overlapping utterances first."""
    by_suffix: dict[str, list[tuple[bool, Path, list[tuple[str, float, float]]]]] = {}
    for (speaker, video), cuts in found.items():
        path = _medium(speaker, video)
        apart = all(one[2] <= two[1] for one, two in itertools.pairwise(cuts))
        by_suffix.setdefault(path.suffix, []).append((apart, path, cuts))
    chosen = [min(candidates) for candidates in by_suffix.values()]
    chosen += [min(rest) for rest in ([c for c in by_suffix[".mp4"] if c not in chosen],) if rest]
    rows = []
    for _, path, cuts in chosen[:_VIDEOS_DRAWN]:
        audio = decode_audio(path, end_seconds=60)
        rows.append(WaveformRow(f"{path.parent.name}  {path.name}", audio.samples, cuts))
    draw_waveforms(target, rows)
    return target


def _draw_faces(dataset: Any, target: Path) -> Path:
    """Draw moments of one utterance of several speakers, evenly spaced."""
    rows = []
    for place in _one_a_speaker(dataset)[:_SPEAKERS_DRAWN]:
        row = dataset[place]
        path = _medium(row["speaker_id"], row["video_id"])
        last = len(row["boxes"]) - 1
        frames = [last * step // (_FACES_DRAWN - 1) for step in range(_FACES_DRAWN)]
        start = round(row["start_seconds"] * FRAMES_PER_SECOND)
        seconds = [(start + frame) / FRAMES_PER_SECOND for frame in frames]
        cuts = row["video"].get_frames_at(frames).data.permute(0, 2, 3, 1).numpy()
        faces = [
            Face(at, picture, tuple(row["boxes"][frame]), cut)
            for at, picture, frame, cut in zip(
                seconds, _pictures(path, seconds), frames, cuts, strict=True
            )
        ]
        rows.append((f"{row['speaker_id']}  {path.name}  {row['utterance_id']}", faces))
    draw_faces(target, rows)
    return target


def _medium(speaker: str, video: str) -> Path:
    return next(one for one in (MEDIA / speaker).iterdir() if one.stem == video)


def _pictures(path: Path, seconds: list[float]) -> list[Any]:
    """Return the source's pictures nearest to some times, RGB, shape (height, width, 3)."""
    times = read_frame_times(path, until_seconds=seconds[-1])
    numbers = times.nearest(np.array(seconds)).tolist()
    decoder = VideoFrameDecoder(path, times, numbers, skip_unneeded=True)
    found = {number: picture.to_ndarray(format="rgb24") for number, picture in decoder}
    return [found[number] for number in numbers]
