"""What two states of a store differ in: two stores, or one now and when its ledger was copied.

Both ledgers are read once, side by side in the order of their videos, so memory does not grow::

    before    |a/1 a/2     b/1|        b/1 has fewer clips afterwards: changed
    after     |a/1     a/3 b/1|        a/2 is lost, a/3 is gained
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any, Literal, NamedTuple

from voxblink2_lib.errors import StoreError
from voxblink2_lib.files import atomic_write
from voxblink2_lib.foreign_text import csv_cell
from voxblink2_lib.progress import AdvanceWithNote, Progress, no_progress
from voxblink2_lib.redaction import redact
from voxblink2_lib.release.tombstones import Tombstones
from voxblink2_lib.report.missing_csv import text_over
from voxblink2_lib.store.layout import Store, named_store
from voxblink2_lib.store.ledger import Ledger
from voxblink2_lib.store.ledger_videos import VideoEntry
from voxblink2_lib.store.status import open_ledger

Kind = Literal["speaker", "video", "utterance"]
ChangeKind = Literal["gained", "lost", "changed"]
_PURGED, _ABSENT = "purged", "not in the store"
_VIDEOS_PER_STEP = 10_000


class Change(NamedTuple):
    """One difference; the fields are the columns of the CSV file.

    Attributes:
        config: the configuration.
        kind: of what differs: it counts as held if it has clips.
        change: in which way.
        speaker_id, video_id, utterance_id: what it is; empty where it is more, or not known.
        utterances_before, utterances_after: how many clips it has.
        reason: the class; of an utterance why it has no clip.
        words: of the source.
    """

    config: str
    kind: Kind
    change: ChangeKind
    speaker_id: str
    video_id: str
    utterance_id: str
    utterances_before: int
    utterances_after: int
    reason: str
    words: str


@dataclass(frozen=True, slots=True)
class Side:
    """A state of a store.

    Attributes:
        place: the folder or URL of a store, or a copy of a ledger.
        ledger: the file.
        tombstones: what was purged.
    """

    place: str
    ledger: Path
    tombstones: Tombstones

    @classmethod
    def of(cls, place: str) -> Side:
        """Return the state of a folder of a store, or of a file that is a copy of a ledger.

        Raises:
            StoreError: there is neither.
        """
        path = Path(place).expanduser().absolute()
        if path.is_file():
            return cls(str(path), path, Tombstones.of(path.parent))
        return cls.of_store(named_store(place))

    @classmethod
    def of_store(cls, store: Store) -> Side:
        """Return the state of a store.

        Raises:
            StoreError: it has no ledger.
        """
        with open_ledger(store, ""):  # says what is wrong if there is none
            return cls(store.place, store.ledger, Tombstones.of(store.root))

    def open(self, config: str) -> Ledger:
        """Open the ledger for reading."""
        is_copy = self.place == str(self.ledger)
        return Ledger(self.ledger, config, readonly=True, is_copy=is_copy)

    @classmethod
    def before(cls, store: Store) -> Side:
        """Return the state that a store had when its ledger was copied last.

        Raises:
            StoreError: it was not copied yet.
        """
        if not store.backup.exists():
            raise StoreError(
                f"The store {store.root} has no copy of its ledger to compare it with: a run makes "
                "one every hour. Name another store, or a ledger that was kept."
            )
        return cls(str(store.backup), store.backup, Tombstones.of(store.root))


@dataclass(slots=True)
class Differences:
    """Numbers of differences.

    Attributes:
        before, after: the two states.
        counts: how many of each kind are gained, lost and changed, by configuration and reason.
            Utterances of a video that is gained or lost count with the reason of the video.
    """

    before: str
    after: str
    counts: dict[str, Counter[tuple[Kind, ChangeKind, str]]] = field(default_factory=dict)

    def add(self, change: Change) -> None:
        """Count a difference."""
        counts = self.counts.setdefault(change.config, Counter())
        difference = change.utterances_after - change.utterances_before
        if change.kind != "utterance":
            counts[change.kind, change.change, change.reason] += 1
        if change.kind != "speaker" and difference and change.change != "changed":
            counts["utterance", change.change, change.reason] += abs(difference)
        if change.kind == "utterance" and not difference:
            counts["utterance", "changed", change.reason] += change.utterances_after

    def total(self, config: str, kind: Kind, change: ChangeKind) -> int:
        """Return how many of a kind have changed in a way, for any reason."""
        counts = self.counts.get(config, Counter())
        return sum(number for key, number in counts.items() if key[:2] == (kind, change))

    def as_dict(self) -> dict[str, Any]:
        """Return what ``voxblink2 diff --json`` writes."""
        kinds: tuple[Kind, ...] = ("speaker", "video", "utterance")
        ways: tuple[ChangeKind, ...] = ("gained", "lost", "changed")
        configs = {
            config: {
                **{
                    f"{kind}s": {way: self.total(config, kind, way) for way in ways}
                    for kind in kinds
                },
                "reasons": [
                    {"kind": kind, "change": way, "reason": reason, "count": number}
                    for (kind, way, reason), number in sorted(counts.items())
                ],
            }
            for config, counts in self.counts.items()
        }
        return {"before": str(self.before), "after": str(self.after), "configs": configs}


def compare(
    before: Side,
    after: Side,
    *,
    config: str | None = None,
    csv_file: Path | None = None,
    progress: Progress = no_progress,
) -> Differences:
    """Compare two states of a store, or two stores.

    Args:
        before: the earlier, or the first.
        after: the other.
        config: only this configuration; default: all that one of them has.
        csv_file: written with a row for each difference.
        progress: counts videos.

    Raises:
        StoreError: a ledger cannot be read, or neither has the configuration.
    """
    differences = Differences(before.place, after.place)
    with ExitStack() as stack:
        writer = None
        if csv_file is not None:
            file = stack.enter_context(atomic_write(csv_file))
            writer = csv.writer(stack.enter_context(text_over(file)), lineterminator="\n")
            writer.writerow(Change._fields)
        for name in _configs(before, after, config):
            differences.counts[name] = Counter()
            for change in changes(before, after, name, progress=progress):
                differences.add(change)
                if writer is not None:
                    writer.writerow([*change[:-1], csv_cell(redact(change.words))])
    return differences


def _configs(before: Side, after: Side, config: str | None) -> list[str]:
    names = set()
    for side in (before, after):
        with side.open("") as ledger:
            names.update(ledger.configs())
    if config is None:
        return sorted(names)
    if config not in names:
        raise StoreError(
            f"Neither {before.place} nor {after.place} has anything of the configuration "
            f"{config!r}; they have {' and '.join(sorted(names)) or 'nothing of any'}."
        )
    return [config]


def changes(
    before: Side, after: Side, config: str, *, progress: Progress = no_progress
) -> Iterator[Change]:
    """Yield the differences of a configuration: each speaker, then its videos and utterances."""
    with (
        before.open(config) as first,
        after.open(config) as second,
        first.videos.snapshot(),
        second.videos.snapshot(),
        progress(
            f"Comparing {config}", unit="video", total=first.videos.count() + second.videos.count()
        ) as advance,
    ):
        pairs = video_pairs(first.videos.entries(), second.videos.entries(), advance)
        yield from Comparison(config, after.tombstones).changes(pairs)


VideoPair = tuple[VideoEntry | None, VideoEntry | None]


def _key(pair: VideoPair) -> tuple[str, str]:
    entry = pair[0] or pair[1]
    assert entry is not None
    return entry[:2]


def video_pairs(
    before: Iterator[VideoEntry], after: Iterator[VideoEntry], advance: AdvanceWithNote
) -> Iterator[VideoPair]:
    """Yield each video as it was and as it is; ``None`` where it is not known."""
    first, second = next(before, None), next(after, None)
    passed = 0
    while first is not None or second is not None:
        is_first = second is None or (first is not None and first[:2] <= second[:2])
        is_second = first is None or (second is not None and second[:2] <= first[:2])
        yield (first if is_first else None, second if is_second else None)
        first = next(before, None) if is_first else first
        second = next(after, None) if is_second else second
        passed += is_first + is_second
        if passed >= _VIDEOS_PER_STEP:
            advance(passed)
            passed = 0
    advance(passed)


class Comparison:
    """Compares the videos of one configuration.

    Args:
        config: the configuration.
        tombstones: what was purged from the later state.
    """

    def __init__(self, config: str, tombstones: Tombstones) -> None:
        self._config = config
        self._tombstones = tombstones

    def changes(self, pairs: Iterable[VideoPair]) -> Iterator[Change]:
        """Yield what has changed of each speaker, whose videos follow each other."""
        for speaker_id, group in groupby(pairs, key=lambda pair: _key(pair)[0]):
            yield from self._speaker(speaker_id, list(group))

    def _speaker(self, speaker_id: str, pairs: list[VideoPair]) -> Iterator[Change]:
        inner = [change for pair in pairs for change in self._video(*_key(pair), *pair)]
        before, after = (
            sum(entry.clips for pair in pairs if (entry := pair[side])) for side in (0, 1)
        )
        if bool(before) != bool(after):
            reasons = Counter(change.reason for change in inner if change.kind == "video")
            ((reason, _),) = reasons.most_common(1)
            way: ChangeKind = "gained" if after else "lost"
            ids = (speaker_id, "", "")
            yield Change(self._config, "speaker", way, *ids, before, after, reason, "")
        yield from inner

    def _video(
        self, speaker_id: str, video_id: str, before: VideoEntry | None, after: VideoEntry | None
    ) -> Iterator[Change]:
        had, has = (entry.clips if entry else 0 for entry in (before, after))
        difference = self._difference(before, after)
        if difference is not None:
            way, reason = difference
            words = after.reason if after and not has else ""
            ids = (speaker_id, video_id, "")
            yield Change(self._config, "video", way, *ids, had, has, reason, words)
        if before and after and had and has:
            yield from self._utterances(before, after)

    def _difference(
        self, before: VideoEntry | None, after: VideoEntry | None
    ) -> tuple[ChangeKind, str] | None:
        """Return in which way a video has changed, and why; ``None`` if it has not."""
        statuses = [entry.status if entry else _ABSENT for entry in (before, after)]
        had, has = (bool(entry and entry.clips) for entry in (before, after))
        if has and not had:
            return "gained", "new" if before is None else f"was {statuses[0]}"
        if had and not has:
            return "lost", self._lost(before, statuses[1])
        if not had:
            return ("changed", " to ".join(statuses)) if statuses[0] != statuses[1] else None
        if before and after and before.digest != after.digest and before.digest and after.digest:
            return "changed", "annotations"
        if before and after and before[4:6] != after[4:6]:
            return "changed", "clips"
        return None

    def _lost(self, before: VideoEntry | None, status: str) -> str:
        is_purged = before is not None and self._tombstones.covers(*before[:2])
        return _PURGED if is_purged else status

    def _utterances(self, before: VideoEntry, after: VideoEntry) -> Iterator[Change]:
        """Yield the utterances that a video has lost or gained while it kept others."""
        lost = sorted(after.missing.keys() - before.missing.keys())
        gained = sorted(before.missing.keys() - after.missing.keys())
        key = (after.speaker_id, after.video_id)
        for name in lost:
            words = after.missing[name]
            yield Change(self._config, "utterance", "lost", *key, name, 1, 0, "no clip", words)
        for name in gained:
            words = before.missing[name]
            yield Change(self._config, "utterance", "gained", *key, name, 0, 1, "no clip", words)
        # What was purged is nowhere any more, and what was annotated later was missing nowhere.
        rest = after.clips - before.clips - len(gained) + len(lost)
        if rest:
            way: ChangeKind = "gained" if rest > 0 else "lost"
            reason = "new" if rest > 0 else (_PURGED if self._tombstones else _ABSENT)
            counts = (0, rest) if rest > 0 else (-rest, 0)
            yield Change(self._config, "utterance", way, *key, "", *counts, reason, "")
