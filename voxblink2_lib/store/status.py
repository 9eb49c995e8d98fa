"""What a store holds, what is missing and why; and whether it is what it says."""

from __future__ import annotations

from dataclasses import dataclass

from voxblink2_lib.errors import StoreError
from voxblink2_lib.store.layout import Store
from voxblink2_lib.store.ledger import Ledger
from voxblink2_lib.store.ledger_statistics import ReasonCount


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
    reasons: tuple[ReasonCount, ...]


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
    with open_ledger(store, config) as ledger, ledger.statistics.snapshot():
        videos = ledger.statistics.videos()
        totals = ledger.statistics.totals()
        coverage = ledger.statistics.coverage()
        shards = ledger.shards()
        waiting, next_try = ledger.waiting()
        speed = ledger.statistics.speed()
        budget = float(ledger.setting("videos_an_hour") or "inf")
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
            reasons=tuple(ledger.statistics.reasons(10)),
        )


def missing_videos(store: Store, config: str) -> list[MissingVideo]:
    """Return every video that was tried and did not come, with the reason."""
    with open_ledger(store, config) as ledger:
        return [
            MissingVideo(one.speaker_id, one.video_id, one.status, one.reason, one.attempts)
            for one in ledger.statistics.missing()
            if one.status != "planned"
        ]


def empty_store_message(store: Store, config: str) -> str:
    """Return the message for a store without a single clip: the reasons, and what to do."""
    with open_ledger(store, config) as ledger:
        reasons = ledger.statistics.reasons(5)
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
