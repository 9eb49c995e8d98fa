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

from voxblink2_lib.crop import decode_audio
from voxblink2_lib.demo import FAULTS, MEDIA
from voxblink2_lib.demo.pictures import WaveformRow, draw_waveforms
from voxblink2_lib.demo.site import MediaSite
from voxblink2_lib.errors import StoreError
from voxblink2_lib.report import MissingVideo, StoreStatus, missing_videos, read_status
from voxblink2_lib.store import Store

# Utterances of each video: id, start and end in seconds.
Cuts = dict[tuple[str, str], list[tuple[str, float, float]]]

_CLIPS_WRITTEN = 4
_VIDEOS_DRAWN = 4


@dataclass(frozen=True, slots=True)
class Tour:
    """What the demonstration made.

    Attributes:
        dataset: ``repr`` of the dataset that ``load_dataset`` returned.
        first_row: its first row, without the audio.
        status: what the store holds.
        missing: videos that did not come.
        came: videos that came, each with its number of clips and their seconds.
        requests: number of requests that the site answered.
        clips: files to listen to.
        picture: waveforms with the utterances' bounds.
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
            "Listen to     " + str(self.clips[0].parent) + "/*.flac",
            f"Look at       {self.picture}",
            "Load it again, without any download:",
            "  import voxblink2",
            "  from datasets import load_dataset",
            '  ds = load_dataset("voxblink2", "audio", data_dir="demo",',
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


def run_tour(out: Path, *, workers: int | None) -> Tour:
    """Serve the built-in media on a loopback address and run the main job on them.

    Args:
        out: folder for store, clips and picture. A store of an earlier demonstration in it is
            removed, so that there is something to see.
        workers: number of worker processes; one a core by default.
    """
    # Imported here: the builder imports this package's ground.
    from datasets import load_dataset

    import voxblink2  # noqa: F401  # registers the builder

    store = _fresh_store(out)
    with _without_proxy(), MediaSite(MEDIA, faults=FAULTS) as site:
        dataset = load_dataset(
            "voxblink2",
            "audio",
            data_dir="demo",
            source=site.url_template,
            store=str(store.root),
            cache_dir=str(out / "cache"),
            split="train",
            num_proc=workers,
        )
        requests = len(site.requests)
    cuts = _cuts(dataset)
    row = dataset[0]
    audio = row.pop("audio").get_all_samples()
    row = {"audio": f"{audio.data.shape[1]} samples at {audio.sample_rate} Hz", **row}
    return Tour(
        dataset=str(dataset),
        first_row=row,
        status=read_status(store, "audio"),
        missing=missing_videos(store, "audio"),
        came={
            key: (len(found), sum(end - start for _, start, end in found))
            for key, found in cuts.items()
        },
        requests=requests,
        clips=_write_clips(dataset, out / "clips"),
        picture=_draw(cuts, out / "waveforms.png"),
    )


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
    table = dataset.data.to_pylist() if len(dataset) < 1000 else []
    seen: dict[str, dict[str, Any]] = {}
    for row in table:
        seen.setdefault(row["speaker_id"], row)
    clips: list[Path] = []
    for row in list(seen.values())[:_CLIPS_WRITTEN]:
        clips.append(folder / row["audio"]["path"].replace("/", "_"))
        clips[-1].write_bytes(row["audio"]["bytes"])
    return clips


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
        path = next(one for one in (MEDIA / speaker).iterdir() if one.stem == video)
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
