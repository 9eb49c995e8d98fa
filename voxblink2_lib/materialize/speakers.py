"""Take over what a release has beside its annotations, or tell of it."""

from __future__ import annotations

import logging
from pathlib import Path

from voxblink2_lib.errors import next_command
from voxblink2_lib.progress import show_progress
from voxblink2_lib.release.index import Index
from voxblink2_lib.release.location import Release
from voxblink2_lib.release.speaker_index_build import are_speakers_current, update_speakers
from voxblink2_lib.store.layout import Store

_log = logging.getLogger(__name__)


def index_speakers(release: Release, index: Index) -> None:
    """Bring an index up to date with a release's files about speakers, once all is checked."""
    if not isinstance(release.path, Path):
        return  # at a URL, only annotations are read; what the index has stays
    info = update_speakers(release, index, progress=show_progress)
    if info and info.problems:
        _log.warning(
            "What follows could not be read, and is left out of transcripts and of facts about "
            "speakers: %s.",
            "; ".join(info.problems),
        )


def suggest_an_index(store: Store, release: Release) -> None:
    """Tell of transcripts that a release has and an index lacks: a load writes neither."""
    if isinstance(release.path, Path) and not are_speakers_current(release, Index(store.index)):
        _log.warning(
            "The release %s has other files about speakers, or other transcripts, than the store "
            "%s. %s takes them over.",
            release.path.parent,
            store.root,
            next_command("index", data_dir=release.path, store=store.place),
        )
