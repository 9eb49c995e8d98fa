"""What a store holds, what is missing and why."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from voxblink2_lib.errors import StoreDamagedError, StoreError, next_command
from voxblink2_lib.foreign_text import visible
from voxblink2_lib.redaction import redact
from voxblink2_lib.store.advice import repair_command
from voxblink2_lib.store.clip_format import read_clip_format, read_versions
from voxblink2_lib.store.layout import Store
from voxblink2_lib.store.ledger import Ledger
from voxblink2_lib.store.ledger_statistics import (
    MissingVideo,
    ReasonCount,
    SoundNotes,
    SpeakerCoverage,
    Throughput,
)
from voxblink2_lib.store.summary import Summary, read_summary
from voxblink2_lib.store.view import View

# Classes of videos that need no warning.
_NOT_UNAVAILABLE = ("done", "planned", "excluded")


@dataclass(frozen=True, slots=True)
class StoreStatus:
    """What a store holds of one configuration.

    Attributes:
        store: the folder.
        config: the configuration.
        videos: number of videos by status.
        utterances: number of clips.
        missing_utterances: utterances that could not be cropped from downloaded videos.
        hours: length of the clips.
        speakers: how complete the speakers are.
        shards: number of sealed shards.
        shard_bytes: their size.
        bytes_fetched: what was downloaded, or read from files.
        waiting: videos that will be retried.
        next_try: Unix time of the first retry.
        videos_an_hour: speed of the last hour in which anything was tried; 0 before.
        bytes_a_second: likewise.
        seconds_left: for the videos that were never tried, at that speed and at most at the
            budget of the last run; ``None`` when that is unknown.
        reasons: the most frequent reasons of unavailable videos.
        sound: what a person should hear of the sound of the videos.
        clip_format: format of the clips.
        made_with: versions of the decoders that made them, in the order of their use.
        archive_problem: why not all of an archive of cut audio is in the store; empty otherwise.
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
    sound: SoundNotes
    clip_format: int
    made_with: tuple[str, ...]
    archive_problem: str

    def as_dict(self) -> dict[str, Any]:
        """Return what ``voxblink2 status --json`` writes."""
        speakers = self.speakers
        return {
            **asdict(self),
            "speakers": {
                "complete": speakers.complete,
                "partial": speakers.partial,
                "empty": speakers.empty,
            },
            "reasons": [
                {"status": reason.status, "words": reason.message, "videos": reason.videos}
                for reason in self.reasons
            ],
            "sound": self.sound.as_dict(),
        }


def open_ledger(store: Store, config: str) -> Ledger:
    """Open a store's ledger for reading.

    Raises:
        StoreError: there is no store.
        StoreDamagedError: the ledger is lost or damaged.
    """
    if store.ledger.exists():
        return Ledger(store.ledger, config, readonly=True)
    if folders := config_folders(store):
        raise StoreDamagedError(
            f"The ledger {store.ledger} is missing, and the store has clips of "
            f"{' and '.join(folders)}. Mend the store with {repair_command(store.root)}."
        )
    raise StoreError(
        f"There is no store at {store.place}: it has no ledger. Name another folder, or create "
        f"a store with {next_command('materialize', data_dir='RELEASE', store=store.place)}."
    )


def config_folders(store: Store) -> list[str]:
    """Return the configurations of which a store has shards or parts on disk, sorted."""
    files = [*store.root.glob("shards/*/*.arrow"), *store.root.glob("parts/*/*/*.arrow")]
    return sorted({path.relative_to(store.root).parts[1] for path in files})


def configurations(store: Store) -> tuple[str, ...]:
    """Return the configurations that a store has anything of, sorted.

    Raises:
        StoreError: there is no store.
        StoreDamagedError: the ledger is lost or damaged.
    """
    with open_ledger(store, "") as ledger:
        return tuple(sorted({*ledger.configs(), *config_folders(store)}))


def chosen_configurations(store: Store, named: str | None) -> tuple[str, ...]:
    """Return the configuration that was named, or all that a store has.

    Raises:
        StoreError: there is no store, or nothing in it of the one that was named.
        StoreDamagedError: the ledger is lost or damaged.
    """
    present = configurations(store)
    if named is None:
        return present
    if named not in present:
        raise StoreError(
            f"The store {store.place} has nothing of the configuration {named!r}; it has "
            f"{' and '.join(present) or 'nothing of any'}."
        )
    return (named,)


def read_status(store: Store, config: str) -> StoreStatus:
    """Summarize a store."""
    with open_ledger(store, config) as ledger, ledger.statistics.snapshot():
        statistics = ledger.statistics
        videos, totals, speed = statistics.videos(), statistics.totals(), statistics.speed()
        shards = ledger.shards()
        waiting, next_try = ledger.waiting()
        return StoreStatus(
            store=store.place,
            config=config,
            videos=videos,
            utterances=totals.clips,
            missing_utterances=statistics.missing_utterances(),
            hours=round(totals.hours, 4),
            speakers=statistics.coverage(),
            shards=len(shards),
            shard_bytes=sum(shard.size_bytes for shard in shards),
            bytes_fetched=totals.bytes_fetched,
            waiting=waiting,
            next_try=next_try,
            videos_an_hour=round(speed.videos_an_hour, 1) if speed else 0.0,
            bytes_a_second=round(speed.bytes_a_second, 1) if speed else 0.0,
            seconds_left=_seconds_left(ledger, speed, videos.get("planned", 0)),
            reasons=tuple(statistics.reasons(10)),
            sound=statistics.sound_notes(),
            clip_format=read_clip_format(store, ledger),
            made_with=read_versions(ledger),
            archive_problem=_archive_problem(store, ledger),
        )


def _archive_problem(store: Store, ledger: Ledger) -> str:
    stream = ledger.cut.stream()
    if stream is None or stream.is_finished or stream.problem:
        return "" if stream is None else stream.problem
    return f"not read to its end yet: {_next_run(store, ledger.config)} goes on with it"


def incomplete_messages(store: Store, config: str, view: View) -> Iterator[str]:
    """Yield what a store that is loaded as is lacks.

    Args:
        store: the store.
        config: the configuration.
        view: what is loaded of it.

    Raises:
        StoreError: there is no store, or its ledger cannot be read.
    """
    if summary := read_summary(store.root, config):
        problem = summary.archive_problem
    else:
        with open_ledger(store, config) as ledger:
            problem = _archive_problem(store, ledger)
    if problem:
        yield f"The store {store.place} is loaded as is. Its cut audio: {problem}"
    if view.videos != view.selected:
        yield (
            f"{view.videos} of the {view.selected} selected videos have clips in the store "
            f"{store.place}, which is used as is. With data_dir=..., those that it was never asked "
            "for are materialized."
        )


def unavailable_messages(store: Store, config: str) -> Iterator[str]:
    """Yield how many videos of a store were tried in vain, if any."""
    if summary := read_summary(store.root, config):
        unavailable = summary.unavailable
    else:
        with open_ledger(store, config) as ledger:
            unavailable = _count_unavailable(ledger)
    if unavailable:
        place = {"store": store.place, "config": config}
        yield (
            f"{unavailable} videos are unavailable. {next_command('status', **place, missing=True)}"
            f" lists them with the reasons; {next_command('materialize', **place)} retries those "
            "that may be temporary."
        )


def _count_unavailable(ledger: Ledger) -> int:
    counts = ledger.statistics.videos()
    return sum(count for status, count in counts.items() if status not in _NOT_UNAVAILABLE)


def summary_of(store: Store, ledger: Ledger) -> Summary:
    """Return what a load has to know of the configuration of a ledger.

    Args:
        store: the store that the ledger is of, or a copy of it.
        ledger: the ledger.
    """
    return Summary(
        tuple(ledger.shards()), _count_unavailable(ledger), _archive_problem(store, ledger)
    )


def _seconds_left(ledger: Ledger, speed: Throughput | None, videos: int) -> int | None:
    budget = float(ledger.setting("videos_an_hour") or "inf")
    tried_an_hour = min(3600 * speed.attempts / speed.seconds, budget) if speed else 0.0
    return round(3600 * videos / tried_an_hour) if videos and tried_an_hour else None


def missing_videos(store: Store, config: str) -> Iterator[MissingVideo]:
    """Yield every video that was tried and is not done, with the reason: there may be millions.

    Raises:
        StoreError: there is no store, or its ledger cannot be read, perhaps half-way.
    """
    with open_ledger(store, config) as ledger:
        yield from (video for video in ledger.statistics.missing() if video.status != "planned")


def empty_store_message(store: Store, config: str) -> str:
    """Return the message for a store without a single clip: the reasons, and what to do."""
    with open_ledger(store, config) as ledger:
        reasons = ledger.statistics.reasons(5)
    if not reasons:
        return (
            f"The store {store.place} has nothing of the configuration {config!r}. Name the "
            f"release with data_dir=..., or first run {_next_run(store, config)}."
        )
    lines = "".join(
        f"\n  {reason.videos} videos: {visible(redact(reason.message))}" for reason in reasons
    )
    return (
        f"No video is available, so there is nothing to load from the store {store.place}. "
        f"The most frequent reasons:{lines}\n"
        f"Check the source, then run {_next_run(store, config)} to try again."
    )


def _next_run(store: Store, config: str) -> str:
    return next_command("materialize", store=store.place, config=config)
