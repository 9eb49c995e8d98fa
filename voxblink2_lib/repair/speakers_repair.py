"""The index's files about speakers: whether they are whole, and making them again."""

from __future__ import annotations

from voxblink2_lib.errors import ReleaseError, StoreError, next_command
from voxblink2_lib.progress import Progress
from voxblink2_lib.release.index import Index
from voxblink2_lib.release.location import open_release
from voxblink2_lib.release.speaker_files import find_speaker_files
from voxblink2_lib.release.speaker_index import INFO, SPEAKERS, TRANSCRIPTS, speaker_problems
from voxblink2_lib.release.speaker_index_build import update_speakers
from voxblink2_lib.repair.workbench import Workbench


def mend_speakers(
    bench: Workbench, index: Index | None, *, data_dir: str | None, progress: Progress
) -> None:
    """Make the transcripts and the facts about speakers again if they are damaged.

    Where the release cannot be read any more, they are put away: rows are whole without them.

    Args:
        bench: the store.
        index: its index; ``None`` if it cannot be used.
        data_dir: the release, given or remembered.
        progress: counts files and speakers.
    """
    folder = bench.store.index
    try:
        problem = next(speaker_problems(folder), "")
    except StoreError as error:
        problem = str(error)
    if not problem:
        return
    try:
        release = None if index is None else open_release(data_dir)
    except ReleaseError:
        release = None
    if release is not None and not find_speaker_files(release).paths:
        release = None
    again = next_command("index", data_dir="RELEASE", store=bench.shown_root)
    way = f"Made again from {release.path}" if release else f"{again} makes them again"
    for name in (INFO, SPEAKERS, TRANSCRIPTS):
        if (folder / name).exists():
            bench.put_away("index", folder / name, f"{problem} {way}")
    if release is not None and index is not None and not bench.is_dry:
        update_speakers(release, index, progress=progress)
