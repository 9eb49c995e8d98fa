"""Which videos of cut audio a run wants, and what is known of each before its files are read."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from voxblink2_lib.errors import (
    SelectionError,
    StoreDamagedError,
    StoreMismatchError,
    next_command,
)
from voxblink2_lib.records import VideoKey, option_string
from voxblink2_lib.release.index import Index
from voxblink2_lib.release.selection import Selection, select
from voxblink2_lib.release.tombstones import Tombstones
from voxblink2_lib.release.video_lookup import VideoLookup
from voxblink2_lib.store.annotations import has_no_annotations
from voxblink2_lib.store.cut_jobs import KnownVideo
from voxblink2_lib.store.layout import Store
from voxblink2_lib.store.ledger import Ledger
from voxblink2_lib.store.outcome_files import outcomes_path, read_outcomes
from voxblink2_lib.store.row_digests import row_names
from voxblink2_lib.store.shard_names import shard_name
from voxblink2_lib.store.shards import read_batches

_LIMITS = ("max_speakers", "max_videos_per_speaker")


@dataclass(slots=True)
class WantedVideo:
    """A video whose files are read.

    Attributes:
        key: the video.
        digest: hash of its annotations; 0 without any.
        frames: first and last frame of each annotated utterance, by its id.
        names: ids of the utterances that earlier jobs have, or that have no clip.
    """

    key: VideoKey
    digest: int = 0
    frames: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    names: frozenset[str] = frozenset()


def check_limits(selection: Selection, *, has_annotations: bool) -> None:
    """Refuse limits where nobody knows which videos there are.

    Raises:
        SelectionError: a limit is given, and there are no annotations.
    """
    given = [name for name in _LIMITS if getattr(selection, name) is not None]
    if given and not has_annotations:
        raise SelectionError(
            f"{' and '.join(map(option_string, given))} cannot be applied to cut audio without "
            "annotations: which videos come first is known at its end only. Name ids with "
            "--speakers, --videos or --exclude; or name the release with --data-dir; or take all "
            "first: what is in the store may be loaded with any limit."
        )


class WantedVideos:
    """Decides for each video of cut audio.

    Args:
        store: the store.
        ledger: its ledger.
        index: its index; ``None`` if it has no annotations.
        selection: what is selected.
        first_job: the first job that was cut from this cut audio.

    Attributes:
        skipped: how many videos are not wanted, by the reason.
    """

    def __init__(
        self,
        store: Store,
        ledger: Ledger,
        index: Index | None,
        selection: Selection,
        *,
        first_job: int,
    ) -> None:
        self._store = store
        self._ledger = ledger
        self._cut = ledger.cut
        self._index = index
        self._selection = selection
        self._first_job = first_job
        self._annotated = self._selected = None
        if index is not None:
            self._annotated = VideoLookup(index.videos())
            if selection != Selection():
                self._selected = VideoLookup(select(index, selection)[0])
        # The names of one job by their videos.
        self._names_job = -1
        self._job_names: dict[VideoKey, set[str]] = {}
        self.skipped: Counter[str] = Counter()
        self._tombstones = Tombstones.of(store.root)

    def look_up(self, key: VideoKey, job: int) -> WantedVideo | None:
        """Return a video if its files are to be read.

        Args:
            key: the video.
            job: number of the present job.

        Raises:
            StoreDamagedError: an earlier job that has clips of it cannot be read.
        """
        if self._tombstones.covers(*key):
            self.skipped["purged from the store"] += 1
            return None
        row = self._annotated.row(key) if self._annotated else None
        if not self._is_selected(key, row):
            self.skipped["not selected"] += 1
            return None
        known = self._cut.video(key)
        if known is not None and known.status == "done" and not self._is_of_this(known):
            self.skipped["in the store before"] += 1
            return None
        video = WantedVideo(key)
        if row is not None and self._index is not None:
            annotated = self._index.annotated_at(row)
            video.digest = annotated.digest
            video.frames = {
                each.utterance_id: (each.first_frame, each.last_frame)
                for each in annotated.utterances
            }
        if known is not None and self._is_of_this(known):
            video.names = frozenset(self._known_names(key, known, job))
        return video

    def is_purged(self, key: VideoKey, utterance_id: str) -> bool:
        """Return whether an utterance was purged from the store."""
        return self._tombstones.covers(*key, utterance_id)

    def _is_of_this(self, known: KnownVideo) -> bool:
        return known.is_cut and known.job >= self._first_job

    def _is_selected(self, key: VideoKey, row: int | None) -> bool:
        selection = self._selection
        if selection == Selection():
            return True
        if row is not None and self._selected is not None:
            return self._selected.row(key) is not None
        # Without an annotation a video is in no order that a limit could refer to.
        return (
            not any(getattr(selection, name) is not None for name in _LIMITS)
            and (not selection.speakers or key.speaker_id in selection.speakers)
            and (not selection.videos or key.video_id in selection.videos)
            and not selection.exclude.intersection(key)
        )

    def _known_names(self, key: VideoKey, known: KnownVideo, job: int) -> Iterator[str]:
        """Yield what was read of a video whose files lie apart in the archive."""
        for number in {*self._cut.earlier_jobs(key), known.job} - {job}:
            yield from self._names(number, key)
        for utterance_id, _ in self._cut.missing(key):
            yield utterance_id

    def _names(self, job: int, key: VideoKey) -> frozenset[str]:
        """Return the ids of a video's utterances in one job."""
        if self._names_job != job:  # the next video is mostly of the same one
            videos: dict[VideoKey, set[str]] = {}
            for name in self._names_of_job(job):
                speaker_id, video_id, utterance_id = name.split("/")
                videos.setdefault(VideoKey(speaker_id, video_id), set()).add(utterance_id)
            self._names_job, self._job_names = job, videos
        return frozenset(self._job_names.get(key, ()))

    def _names_of_job(self, job: int) -> Iterable[str]:
        store, config = self._store, self._ledger.config
        with contextlib.suppress(FileNotFoundError, StoreDamagedError):
            digests = read_outcomes(outcomes_path(store.shards(config), config, job)).digests
            if digests is not None:
                return digests
        return self._names_in_shard(job)

    def _names_in_shard(self, job: int) -> list[str]:
        folder = self._store.shards(self._ledger.config)
        path = folder / shard_name(self._ledger.config, job)
        if not path.exists():  # none of its videos has a clip
            return []
        return [name for batch in read_batches(path) for name in row_names(batch)]


def refuse_later_annotations(store: Store) -> None:
    """Refuse to add annotated videos to a store that was begun without annotations.

    Raises:
        StoreMismatchError: it was.
    """
    if has_no_annotations(store):
        with Ledger(store.ledger, "audio", readonly=True) as ledger:
            source = ledger.setting("source") or "SOURCE"
        raise StoreMismatchError(later_annotations_message(store, source))


def later_annotations_message(store: Store, source: str) -> str:
    """Return the message for a release that is named for a store without annotations.

    Args:
        store: the store.
        source: name of its source.
    """
    other = f"{store.root}-annotated"
    command = next_command("materialize", data_dir="RELEASE", source=source, store=other)
    return (
        f"The store {store.root} was begun from cut audio without annotations: the times of its "
        "utterances are not known, and cannot be added to shards that are sealed. Leave out "
        f"--data-dir, or begin another store with them: {command}"
    )
