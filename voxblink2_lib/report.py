"""What a store holds, what is missing and why; and whether it is what it says."""

from __future__ import annotations

import io
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from voxblink2_lib.errors import StoreDamagedError, StoreError
from voxblink2_lib.index import Index
from voxblink2_lib.ledger import Ledger
from voxblink2_lib.ledger_views import Reason
from voxblink2_lib.records import FRAMES_PER_SECOND, SAMPLE_RATE_HZ, SealedShard, Utterance
from voxblink2_lib.shards import check_shard, read_batches
from voxblink2_lib.store import Store


@dataclass(frozen=True, slots=True)
class SpeakerCoverage:
    """Number of speakers of which all, some and no selected videos came."""

    complete: int
    partial: int
    empty: int


@dataclass(frozen=True, slots=True)
class StoreStatus:
    """What a store holds of one configuration.

    Attributes:
        store: the folder.
        config: the configuration.
        videos: number of videos by status.
        utterances: number of clips.
        missing_utterances: utterances that could not be cut from videos that came.
        hours: length of the clips.
        speakers: coverage.
        shards: number of sealed shards.
        shard_bytes: their size.
        bytes_fetched: what came from the source.
        waiting: videos that will be asked for again.
        next_try: Unix time of the first of these.
        videos_an_hour: speed of the last hour in which anything was tried; 0 before.
        bytes_a_second: likewise.
        seconds_left: for the videos that were never tried, at that speed and at most at the
            budget of the last run; ``None`` when that cannot be told.
        reasons: the most frequent reasons of videos that did not come.
    """

    store: str
    config: str
    videos: dict[str, int]
    utterances: int
    missing_utterances: int
    hours: float
    speakers: SpeakerCoverage
    shards: int
    shard_bytes: int
    bytes_fetched: int
    waiting: int
    next_try: float | None
    videos_an_hour: float
    bytes_a_second: float
    seconds_left: float | None
    reasons: tuple[Reason, ...]


@dataclass(frozen=True, slots=True)
class MissingVideo:
    """A video that did not come, or came in part."""

    speaker_id: str
    video_id: str
    status: str
    reason: str
    attempts: int


def open_ledger(store: Store, config: str) -> Ledger:
    """Open a store's ledger for reading.

    Raises:
        StoreError: there is none.
    """
    if not store.ledger.exists():
        raise StoreError(
            f"There is no store at {store.root}: it has no ledger. Name the store of an earlier "
            "'voxblink2 materialize', or make one with that command."
        )
    return Ledger(store.ledger, config, readonly=True)


def read_status(store: Store, config: str) -> StoreStatus:
    """Summarise a store."""
    with open_ledger(store, config) as ledger, ledger.views.snapshot():
        videos = ledger.views.videos()
        totals = ledger.views.totals()
        coverage = ledger.views.coverage()
        shards = ledger.shards()
        waiting, next_try = ledger.waiting()
        speed = ledger.views.speed()
        budget = float(ledger.fact(f"{config}.videos_an_hour") or "inf")
        tried_an_hour = min(3600 * speed.attempts / speed.seconds, budget) if speed else 0.0
        left = videos.get("planned", 0)
        return StoreStatus(
            store=str(store.root),
            config=config,
            videos=videos,
            utterances=totals.clips,
            missing_utterances=ledger.missing_utterances(),
            hours=round(totals.hours, 4),
            speakers=SpeakerCoverage(coverage.complete, coverage.partial, coverage.empty),
            shards=len(shards),
            shard_bytes=sum(shard.size_bytes for shard in shards),
            bytes_fetched=totals.bytes_fetched,
            waiting=waiting,
            next_try=next_try,
            videos_an_hour=round(speed.videos_an_hour, 1) if speed else 0.0,
            bytes_a_second=round(speed.bytes_a_second, 1) if speed else 0.0,
            seconds_left=round(3600 * left / tried_an_hour) if left and tried_an_hour else None,
            reasons=tuple(ledger.views.reasons(10)),
        )


def missing_videos(store: Store, config: str) -> list[MissingVideo]:
    """Return every video that was tried and did not come, with the reason."""
    with open_ledger(store, config) as ledger:
        return [
            MissingVideo(one.speaker_id, one.video_id, one.status, one.reason, one.attempts)
            for one in ledger.views.missing()
            if one.status != "planned"
        ]


def nothing_came(store: Store, config: str) -> str:
    """Return the message for a store without a single clip: the reasons, and what to do."""
    with open_ledger(store, config) as ledger:
        reasons = ledger.views.reasons(5)
    if not reasons:
        return (
            f"The store {store.root} has nothing of the configuration {config!r}. Name the release "
            "with data_dir=..., or run 'voxblink2 materialize' with --config "
            f"{config} first."
        )
    said = "".join(f"\n  {one.videos} videos: {one.words}" for one in reasons)
    return (
        f"No video came, so there is nothing to load from the store {store.root}. "
        f"The most frequent reasons:{said}\n"
        "Check the source, then run 'voxblink2 materialize' with the same options to try again."
    )


@dataclass(frozen=True, slots=True)
class Verification:
    """What :func:`verify_store` looked at, and the problems it found."""

    shards: int
    rows: int
    clips_decoded: int
    problems: tuple[str, ...]


def verify_store(
    store: Store,
    config: str,
    *,
    sample: int,
    seed: int = 0,
    progress: Callable[[], object] = lambda: None,
) -> Verification:
    """Hash every shard again, compare rows with index and ledger, decode some clips.

    Args:
        store: the store.
        config: the configuration.
        sample: how many clips of each shard to decode.
        seed: decides which.
        progress: called after each shard.

    Raises:
        StoreError: there is no store, or it has no index.
    """
    with open_ledger(store, config) as ledger:
        if not (store.index / "index.json").exists():
            raise StoreError(
                f"The store {store.root} has no index; run 'voxblink2 index' to make it."
            )
        chooser = random.Random(seed)  # noqa: S311  # a sample, not a secret
        checker = _Checker(store.shards(config), Index(store.index))
        shards = ledger.shards()
        for shard in shards:
            checker.check(ledger, shard, sample, chooser)
            progress()
        checker.check_strangers({shard.name for shard in shards})
    return checker.result()


class _Checker:
    def __init__(self, folder: Path, index: Index) -> None:
        self._folder = folder
        self._index = index
        self._shards = self._rows = self._decoded = 0
        self._problems: list[str] = []

    def result(self) -> Verification:
        return Verification(self._shards, self._rows, self._decoded, tuple(self._problems))

    def check(
        self, ledger: Ledger, shard: SealedShard, sample: int, chooser: random.Random
    ) -> None:
        self._shards += 1
        try:
            check_shard(self._folder, shard)
        except StoreDamagedError as error:
            self._problems.append(str(error))
            return
        path = self._folder / shard.name
        found = self._check_rows(path, sample, chooser)
        videos = ledger.job_videos(shard.job)
        done = {key for key, status in videos if status == "done"}
        wanted: dict[str, Utterance] = {}
        for _, utterances in self._index.utterances(frozenset(done)):
            wanted.update((one.name, one) for one in utterances)
        missing = ledger.missing_names(shard.job)
        self._compare(path, found, wanted, missing)
        if len(found) != shard.rows:
            self._problems.append(f"{path} has {len(found)} rows, the ledger says {shard.rows}.")

    def _check_rows(
        self, path: Path, sample: int, chooser: random.Random
    ) -> dict[str, tuple[float, float]]:
        found: dict[str, tuple[float, float]] = {}
        sampled: list[tuple[str, dict[str, Any]]] = []
        for batch in read_batches(path):
            for row in batch.to_pylist():
                name = f"{row['speaker_id']}/{row['video_id']}/{row['utterance_id']}"
                if name in found:
                    self._problems.append(f"{path}: {name} is there twice.")
                found[name] = (row["start_seconds"], row["end_seconds"])
                # Reservoir sampling: each clip has the same chance, a few are in memory.
                place = len(sampled) if len(sampled) < sample else chooser.randrange(len(found))
                if place < sample:
                    sampled[place : place + 1] = [(name, row)]
        self._rows += len(found)
        for name, row in sampled:
            self._decoded += 1
            self._check_sound(path, name, row)
            if "video" in row:
                self._check_face(path, name, row)
        return found

    def _check_sound(self, path: Path, name: str, row: dict[str, Any]) -> None:
        import soundfile

        try:
            samples, rate = soundfile.read(io.BytesIO(row["audio"]["bytes"]))
        except soundfile.SoundFileError as error:
            self._problems.append(f"{path}: the clip of {name} does not decode: {error}")
            return
        expected = round((row["end_seconds"] - row["start_seconds"]) * SAMPLE_RATE_HZ)
        if rate != SAMPLE_RATE_HZ or len(samples) != expected:
            self._problems.append(
                f"{path}: the clip of {name} has {len(samples)} samples at {rate} Hz, "
                f"expected are {expected} at {SAMPLE_RATE_HZ} Hz."
            )

    def _check_face(self, path: Path, name: str, row: dict[str, Any]) -> None:
        import av

        try:
            with av.open(io.BytesIO(row["video"]["bytes"]), "r") as container:
                pictures = sum(1 for _ in container.decode(video=0))
        except (av.error.FFmpegError, IndexError) as error:  # IndexError: no video stream
            self._problems.append(f"{path}: the face of {name} does not decode: {error}")
            return
        expected = round((row["end_seconds"] - row["start_seconds"]) * FRAMES_PER_SECOND)
        if not pictures == len(row["boxes"]) == expected:
            self._problems.append(
                f"{path}: the face of {name} has {pictures} pictures and {len(row['boxes'])} "
                f"boxes, expected are {expected} of each."
            )

    def _compare(
        self,
        path: Path,
        found: dict[str, tuple[float, float]],
        wanted: dict[str, Utterance],
        missing: set[str],
    ) -> None:
        for name in sorted(found.keys() - wanted.keys()):
            self._problems.append(f"{path}: {name} is not in the index or not done in the ledger.")
        for name in sorted(wanted.keys() - found.keys() - missing):
            self._problems.append(f"{path}: {name} should be there and is not.")
        for name in sorted(found.keys() & wanted.keys()):
            if found[name] != wanted[name].seconds:
                self._problems.append(
                    f"{path}: {name} says {found[name]} seconds, the index {wanted[name].seconds}."
                )

    def check_strangers(self, known: set[str]) -> None:
        """Report shards that no ledger row speaks of."""
        for path in sorted(self._folder.glob("*.arrow")):
            if path.name not in known:
                self._problems.append(
                    f"{path} is in the folder and not in the ledger. If a run was stopped just "
                    "now, 'voxblink2 materialize' settles it; otherwise it is not ours."
                )
