"""The end of cut audio: what it has in common with the annotations, and what is in one of both."""

from __future__ import annotations

import contextlib
import csv
import logging
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from voxblink2_lib.errors import StoreError
from voxblink2_lib.files import atomic_write
from voxblink2_lib.materialize.jobs import make_jobs
from voxblink2_lib.materialize.planning import diff_plan
from voxblink2_lib.outcomes import Outcome
from voxblink2_lib.progress import show_progress
from voxblink2_lib.records import SAMPLE_RATE_HZ, Utterance, VideoKey
from voxblink2_lib.release.index import Index, VideoKeys
from voxblink2_lib.release.selection import Selection, select
from voxblink2_lib.release.video_lookup import VideoLookup
from voxblink2_lib.store.catalogue import Catalogue, local_catalogue
from voxblink2_lib.store.layout import Store
from voxblink2_lib.store.ledger import Ledger
from voxblink2_lib.store.shard_names import shard_name
from voxblink2_lib.store.verdicts import Verdicts

DIFFERENCES = "archive-differences.csv"
NOT_IN_ARCHIVE = "it is not in the cut audio"
# As long as a frame: an utterance may lack so much of it.
_TOLERANCE_SECONDS = 0.04
_log = logging.getLogger(__name__)


class _Difference(NamedTuple):
    """A row of the table of differences; a time is empty where there is none."""

    utterance: str
    difference: str
    seconds: str
    annotated_seconds: str


@dataclass(slots=True)
class Comparison:
    """How cut audio and annotations agree.

    Attributes:
        both: utterances that are in both.
        damaged: files without a clip, as they cannot be decoded.
        differences: how many are not the same, by what is different.
        table: lists each of those.
    """

    table: Path
    both: int = 0
    damaged: int = 0
    differences: Counter[str] = field(default_factory=Counter)

    def report(self) -> None:
        """Say it in the log."""
        if not self.differences:
            _log.info("All %d utterances are annotated, with these lengths.", self.both)
            return
        counts = ", ".join(f"{count:,} {what}" for what, count in sorted(self.differences.items()))
        _log.warning(
            "%s utterances are in the cut audio and in the annotations. Different are: %s. All "
            "that the archive has is kept; %s lists them.",
            f"{self.both:,}",
            counts,
            self.table,
        )


def record_absent_videos(
    ledger: Ledger, verdicts: Verdicts, index: Index, selection: Selection, place: str
) -> None:
    """Write of selected videos that the cut audio does not have that it has not.

    Args:
        ledger: where to.
        verdicts: those of this cut audio.
        index: all videos.
        selection: which of them are wanted.
        place: where the cut audio is.
    """
    selected, _ = select(index, selection)
    absent = VideoKeys(diff_plan(selected, ledger.planned_videos()).new)
    if absent:
        ledger.add_jobs(make_jobs(absent))
    lookup = VideoLookup(selected)
    # Also those that another source did not have, or was not asked for.
    unanswered = [key for key in verdicts.unanswered() if lookup.row(key) is not None]
    with show_progress("Videos not in it", unit="video", total=len(unanswered)) as advance:
        for start in range(0, len(unanswered), 1024):
            with ledger.together():
                for key in unanswered[start : start + 1024]:
                    verdicts.record(Outcome(key, "gone", f"{NOT_IN_ARCHIVE} {place}"))
            advance(len(unanswered[start : start + 1024]))


def compare_with_annotations(store: Store, ledger: Ledger, index: Index) -> Comparison:
    """Compare all clips of cut audio with the annotations, and write the table of differences.

    Args:
        store: the store.
        ledger: its ledger, in which utterances that are not in the archive become missing.
        index: the annotations.
    """
    clips = _Clips(store, ledger)
    jobs = ledger.cut.jobs()
    split = frozenset(ledger.cut.split_videos())
    with _table(store.root / DIFFERENCES) as add:
        annotations = _Annotations(ledger, index, Comparison(store.root / DIFFERENCES), add)
        with show_progress("Comparing annotations", unit="job", total=len(jobs)) as advance:
            for job in jobs:
                done = [key for key, status in ledger.job_videos(job) if status == "done"]
                annotations.compare(clips.of_job(job, [key for key in done if key not in split]))
                advance(1)
        for key in sorted(split):
            known = ledger.cut.video(key)
            numbers = {*ledger.cut.earlier_jobs(key), *([known.job] if known else [])}
            seconds = {name: at for job in numbers for name, at in clips.of_video(job, key).items()}
            annotations.compare({key: seconds})
    return annotations.comparison


class _Annotations:
    """Compares clips with what an index has of their videos."""

    def __init__(
        self,
        ledger: Ledger,
        index: Index,
        comparison: Comparison,
        add: Callable[[_Difference], object],
    ) -> None:
        self._cut = ledger.cut
        self._index = index
        self._lookup = VideoLookup(index.videos())
        self._add = add
        self.comparison = comparison

    def compare(self, videos: Mapping[VideoKey, Mapping[str, float]]) -> None:
        """Compare the seconds of the clips of videos, by the ids of their utterances."""
        missing = {}
        for key, seconds in videos.items():
            row = self._lookup.row(key)
            utterances = self._index.annotated_at(row).utterances if row is not None else ()
            damaged = {name for name, reason in self._cut.missing(key) if reason != NOT_IN_ARCHIVE}
            self.comparison.damaged += len(damaged)
            annotated = [each for each in utterances if each.utterance_id not in damaged]
            missing[key] = [
                each.utterance_id for each in annotated if each.utterance_id not in seconds
            ]
            self.comparison.both += len(annotated) - len(missing[key])
            for difference in _differences(key, seconds, annotated):
                self.comparison.differences[difference.difference] += 1
                self._add(difference)
        self._cut.set_missing(NOT_IN_ARCHIVE, missing)


def _differences(
    key: VideoKey, seconds: Mapping[str, float], annotated: Iterable[Utterance]
) -> Iterator[_Difference]:
    lengths = {each.utterance_id: each.seconds[1] - each.seconds[0] for each in annotated}
    for name in sorted(lengths.keys() | seconds.keys()):
        texts = [f"{times[name]:.3f}" if name in times else "" for times in (seconds, lengths)]
        utterance = "/".join((*key, name))
        if name not in lengths:
            yield _Difference(utterance, "only in the cut audio", *texts)
        elif name not in seconds:
            yield _Difference(utterance, "only in the annotations", *texts)
        # Lengths are whole samples, and a frame is 640 of them: nothing is rounded.
        elif abs(seconds[name] - lengths[name]) > _TOLERANCE_SECONDS + 1e-9:
            yield _Difference(utterance, "of another length", *texts)


class _Clips:
    """The lengths of the clips of each job."""

    def __init__(self, store: Store, ledger: Ledger) -> None:
        self._config = ledger.config
        self._rows: dict[str, Any] = {}
        # Of archives without a single clip there is no catalogue.
        with contextlib.suppress(StoreError):
            catalogue, _ = local_catalogue(store.root, self._config, progress=show_progress)
            self._rows = dict(_rows_of_shards(catalogue))

    def of_job(self, job: int, videos: Iterable[VideoKey]) -> dict[VideoKey, dict[str, float]]:
        """Return the seconds of each clip by its utterance's id, of some videos of a job."""
        clips: defaultdict[VideoKey, dict[str, float]] = defaultdict(dict)
        wanted = {key: clips[key] for key in videos}
        rows = self._rows.get(shard_name(self._config, job))
        for row in rows.to_pylist() if rows is not None else ():
            names = wanted.get(VideoKey(row["speaker_id"], row["video_id"]))
            if names is not None:
                names[row["utterance_id"]] = row["samples"] / SAMPLE_RATE_HZ
        return wanted

    def of_video(self, job: int, key: VideoKey) -> dict[str, float]:
        """Return the seconds of the clips that a job has of one video."""
        return self.of_job(job, [key])[key]


def _rows_of_shards(catalogue: Catalogue) -> Iterator[tuple[str, Any]]:
    columns = ["speaker_id", "video_id", "utterance_id", "samples"]
    for (name, _), rows in catalogue.tables():
        yield name, rows.select(columns)


@contextlib.contextmanager
def _table(path: Path) -> Iterator[Any]:
    with atomic_write(path) as file:
        text = _Utf8(file)
        writer = csv.writer(text)
        writer.writerow(_Difference._fields)
        yield writer.writerow


class _Utf8:
    """A text file over a binary one that stays open."""

    def __init__(self, file: Any) -> None:
        self._file = file

    def write(self, text: str) -> None:
        """Write a text."""
        self._file.write(text.encode())
