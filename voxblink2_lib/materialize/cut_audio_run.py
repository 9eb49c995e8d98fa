"""Entry point: materialize cut audio, with annotations or without."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, replace

from voxblink2_lib.archive.reader import ArchiveDamagedError
from voxblink2_lib.archive.recognition import CutAudio, find_cut_audio
from voxblink2_lib.cut_audio.seek_points import SeekPoints
from voxblink2_lib.errors import (
    SelectionError,
    SourceError,
    StoreMismatchError,
    StoreReadOnlyError,
    next_command,
)
from voxblink2_lib.foreign_text import visible
from voxblink2_lib.materialize.clip_format import check_clip_format
from voxblink2_lib.materialize.cut_audio_end import compare_with_annotations, record_absent_videos
from voxblink2_lib.materialize.cut_audio_stream import CutAudioStream, StreamContext, Tally
from voxblink2_lib.materialize.cut_audio_videos import (
    WantedVideos,
    check_limits,
    later_annotations_message,
)
from voxblink2_lib.materialize.gathering import clear_gathered
from voxblink2_lib.materialize.last_run import remember_run
from voxblink2_lib.materialize.places import find_store, named_release
from voxblink2_lib.materialize.planning import (
    check_shards,
    clip_options,
    clip_settings,
    is_complete,
    plan_digest,
)
from voxblink2_lib.materialize.request import MaterializeRequest
from voxblink2_lib.materialize.source_check import check_space
from voxblink2_lib.materialize.speakers import index_speakers, suggest_an_index
from voxblink2_lib.media.options import ClipOptions
from voxblink2_lib.media.versions import decoder_versions
from voxblink2_lib.progress import show_progress
from voxblink2_lib.release.index import Index
from voxblink2_lib.release.index_build import open_index
from voxblink2_lib.release.location import Release
from voxblink2_lib.release.selection import Selection
from voxblink2_lib.sources import SourceSpec
from voxblink2_lib.store.annotations import ANNOTATIONS, NO_ANNOTATIONS
from voxblink2_lib.store.catalogue import local_catalogue
from voxblink2_lib.store.clip_format import record_format
from voxblink2_lib.store.cut_jobs import Stream
from voxblink2_lib.store.layout import Store
from voxblink2_lib.store.ledger import Ledger
from voxblink2_lib.store.outcome_files import outcomes_written, write_stale_outcomes

_MOST_CHANGES = 8
_log = logging.getLogger(__name__)


def materialize_cut_audio(
    request: MaterializeRequest, source: SourceSpec, *, retry: bool, wait: bool
) -> Store:
    """Bring all selected videos of cut audio into a store.

    Args:
        request: what to do, and where.
        source: the cut audio.
        retry: also look for new files in a folder that was read before, and clear up after a kill.
        wait: wait, with a message, while another process works on the store.

    Returns:
        The store. All jobs in it are sealed.

    Raises:
        SelectionError: faces are requested, or a limit without annotations.
        ArchiveDamagedError: a part is damaged or missing; what was before it is kept.
        Exception: see :func:`voxblink2_lib.materialize.run.materialize`.
    """
    if request.with_faces:
        raise SelectionError(
            f"The source {source.label} is cut audio, which has no faces. Use the configuration "
            "'audio'; for 'audio-visual', name a source of videos."
        )
    audio = find_cut_audio(source.place)
    if audio is None:
        raise SourceError(f"The source {source.label} has no cut audio any more.")
    release, store = named_release(request.data_dir), find_store(request)
    is_read = _is_read(request, store, release, source=source, audio=audio)
    if is_read and release is not None:
        suggest_an_index(store, release)
    if is_read and not retry:
        return store
    has_annotations = release is not None or (store.index / "index.json").exists()
    check_limits(request.selection, has_annotations=has_annotations)
    try:
        with store.locked(wait=wait):
            is_read = _is_read(request, store, release, source=source, audio=audio)
            index = _index(store, release, source)
            with Ledger(store.ledger, request.config) as ledger:
                run = _Run(request, store, ledger, source, audio, index)
                run.check()
                if release is not None and index is not None:
                    index_speakers(release, index)
                if is_read and audio.folder is None:
                    run.finish()
                else:
                    run.run()
    except StoreReadOnlyError:
        if not is_read:
            raise
    return store


def _is_read(
    request: MaterializeRequest,
    store: Store,
    release: Release | None,
    *,
    source: SourceSpec,
    audio: CutAudio,
) -> bool:
    """Return whether a store, which is only read, already has all that is requested of an archive.

    Raises:
        StoreMismatchError: the store holds clips of other options or annotations.
        StoreDamagedError: shards are missing.
    """
    if not store.ledger.exists():
        return False
    with Ledger(store.ledger, request.config, readonly=True) as ledger:
        check_shards(request, store, ledger)
        clip_options(request, store, ledger)
        stream = ledger.cut.stream()
        if stream is None or not stream.is_finished or stream.archive != audio.identity:
            return False
        if ledger.setting(ANNOTATIONS) == NO_ANNOTATIONS:
            if release is not None:
                raise StoreMismatchError(later_annotations_message(store, source.label))
            plans = {plan_digest(chosen, None) for chosen in (Selection(), request.selection)}
            return stream.plan in plans and not ledger.open_jobs()
    return is_complete(request, store, release)


def _index(store: Store, release: Release | None, source: SourceSpec) -> Index | None:
    """Return the index of the store, made of a release that is named; ``None`` without any.

    Raises:
        StoreMismatchError: the store was begun without annotations, or with others.
    """
    is_begun = store.ledger.exists()
    if is_begun:
        with Ledger(store.ledger, "audio", readonly=True) as ledger:
            has_none = ledger.setting(ANNOTATIONS) == NO_ANNOTATIONS
        if has_none and release is not None:
            raise StoreMismatchError(later_annotations_message(store, source.label))
        if has_none:
            return None
    if release is not None:
        return open_index(release, store.index, progress=show_progress)
    return Index(store.index) if (store.index / "index.json").exists() else None


@dataclass(slots=True)
class _Run:
    """One run over cut audio, in a store that this process has locked.

    Attributes:
        request: what to do.
        store, ledger: where to.
        source, audio: from where.
        index: the annotations; ``None`` without any.
    """

    request: MaterializeRequest
    store: Store
    ledger: Ledger
    source: SourceSpec
    audio: CutAudio
    index: Index | None
    options: ClipOptions = field(init=False)

    @property
    def plan(self) -> str:
        """Digest of what is selected of which annotations."""
        return plan_digest(self.request.selection, self.index)

    def check(self) -> None:
        """Refuse what would leave two corpora in one store; nothing is written before.

        Raises:
            StoreMismatchError, StoreDamagedError: see :mod:`voxblink2_lib.materialize.planning`.
            ArchiveDamagedError: what was read of this archive is not to be relied on.
            StoreFullError: the disk is full.
        """
        request, store, ledger = self.request, self.store, self.ledger
        check_clip_format(request, store, ledger, index=self.index, retried=0)
        check_shards(request, store, ledger)
        self.options = clip_options(request, store, ledger)
        check_space(store)
        before = ledger.cut.stream()
        if before is not None and before.archive == self.audio.identity and before.problem:
            raise ArchiveDamagedError(before.problem, is_anywhere=True)

    def run(self) -> None:
        """Read what is left of the cut audio; then compare it with the annotations."""
        stream = self._begin()
        ledger, source = self.ledger, self.source
        verdicts = ledger.verdicts(source.label)
        wanted = WantedVideos(
            self.store, ledger, self.index, self.request.selection, first_job=stream.first_job
        )
        context = StreamContext(
            store=self.store,
            ledger=ledger,
            verdicts=verdicts,
            audio=self.audio,
            wanted=wanted,
            first_job=stream.first_job,
            audio_format=self.options.audio_format,
            workers=self.request.worker_count,
        )
        with outcomes_written(self.store, ledger, progress=show_progress):
            reader = CutAudioStream(context)
            try:
                reader.run()
            except ArchiveDamagedError as error:
                raise self._kept(error, stream) from error
            self._end(stream)
        _report(reader.tally, wanted)
        self.finish()

    def _begin(self) -> Stream:
        """Write what the run is about, and return which archive it goes on with."""
        ledger, cut = self.ledger, self.ledger.cut
        before = cut.stream()
        stream = Stream(self.audio.identity, self.plan, cut.next_number())
        is_same = before is not None and before.archive == stream.archive
        if before is not None and is_same and not before.is_finished:
            # With another selection it is read from its start; what is in the store stays.
            stream = replace(stream, first_job=before.first_job)
        if before is None or not is_same or before.is_finished or before.plan != stream.plan:
            cut.set_position(None)
        if not is_same:
            SeekPoints(self.store.root).forget()
        with ledger.together():
            cut.set_stream(stream)
            settings = clip_settings(self.request, ledger, self.options)
            if self.index is None:
                settings[ANNOTATIONS] = NO_ANNOTATIONS
            for name, value in settings.items():
                ledger.set_setting(name, value)
            ledger.set_setting("source", self.source.label)
        remember_run(self.request, self.store, ledger, source=self.source.label)
        record_format(ledger, decoder_versions())
        self.store.clear_leftovers(self.request.config, open_jobs=ledger.open_jobs())
        clear_gathered(self.store, ledger)
        return stream

    def _end(self, stream: Stream) -> None:
        """Compare what came with the annotations, and write that all was read."""
        if self.index is None:
            _log.warning(
                "The times of the utterances in their videos are not known, since no annotations "
                "were named: start_seconds and end_seconds are null."
            )
        else:
            comparison = compare_with_annotations(self.store, self.ledger, self.index)
            comparison.report()
            record_absent_videos(
                self.ledger,
                self.ledger.verdicts(self.source.label),
                self.index,
                self.request.selection,
                self.source.label,
            )
        with self.ledger.together():
            self.ledger.cut.set_stream(replace(stream, is_finished=True))
            self.ledger.set_setting("plan", self.plan)

    def _kept(self, error: ArchiveDamagedError, stream: Stream) -> ArchiveDamagedError:
        """Return the error with what is kept of the archive, and how to go on."""
        totals = self.ledger.statistics.totals()
        message = (
            f"{error} The store {self.store.root} has {totals.clips:,} utterances, which are "
            "kept. Run the same command again when the part is mended: it goes on there."
        )
        if error.is_anywhere:
            command = next_command("archive check", self.audio.place, sums="SUMS")
            message = (
                f"{error} So the clips of the store {self.store.root} are not to be relied on. "
                f"Compare the parts with a list of their checksums: {command}. Then name another "
                "store with --store."
            )
            self.ledger.cut.set_stream(replace(stream, problem=message))
        return ArchiveDamagedError(message, is_anywhere=error.is_anywhere)

    def finish(self) -> None:
        """Leave nothing behind that a killed run may have left."""
        config = self.request.config
        write_stale_outcomes(self.store, self.ledger, progress=show_progress)
        self.store.clear_leftovers(config, open_jobs=self.ledger.open_jobs())
        if any(self.store.shards(config).glob("*.arrow")):
            local_catalogue(self.store.root, config, progress=show_progress)


def _report(tally: Tally, wanted: WantedVideos) -> None:
    """Say what was not taken as it was."""
    for reason, (count, first) in sorted(tally.strangers.items()):
        _log.warning(
            "%s members of the cut audio are no utterances: %s, such as %s.",
            f"{count:,}",
            reason,
            visible(first),
        )
    for change, count in tally.changes.most_common(_MOST_CHANGES):
        _log.warning("%s files were converted to 16 kHz mono: %s.", f"{count:,}", change)
    if tally.duplicates:
        _log.warning(
            "%s files have an utterance that the store had already; the first is kept.",
            f"{tally.duplicates:,}",
        )
    for reason, count in sorted(wanted.skipped.items()):
        _log.info("%s videos were skipped: %s.", f"{count:,}", reason)
