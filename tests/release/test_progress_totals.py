"""Whatever form a release has, how much there is to read is known, and all of it is counted."""

from __future__ import annotations

from pathlib import Path

import pytest
from fsspec.implementations.memory import MemoryFileSystem
from support.plain_corpus import make_release, video_ids
from support.recorded_progress import RecordedProgress
from support.speaker_files import transcripts_of, write_speakers

from voxblink2_lib.release.index_build import build_index
from voxblink2_lib.release.location import open_release
from voxblink2_lib.release.speaker_index_build import update_speakers

VIDEOS, PER_SPEAKER = video_ids(12), 3
SPEAKERS = [f"id{number:06}" for number in range(len(VIDEOS) // PER_SPEAKER)]


@pytest.fixture
def release(tmp_path: Path) -> Path:
    return make_release(tmp_path / "release", VIDEOS, per_speaker=PER_SPEAKER)


def shown(progress: RecordedProgress) -> dict[str, tuple[str, int | None]]:
    """Return unit and total of each task, all of which was counted."""
    for task in progress.tasks:
        assert task.done + sum(task.counts) == task.total, task
    return {task.task: (task.unit, task.total) for task in progress.tasks}


def test_a_folder_of_annotations(release: Path, tmp_path: Path) -> None:
    progress = RecordedProgress()
    build_index(open_release(release), tmp_path / "index", progress=progress)
    assert shown(progress) == {
        "Checking the release": ("speaker", len(SPEAKERS)),
        "Reading annotations": ("file", len(VIDEOS)),
    }


def test_a_folder_at_a_url(release: Path, tmp_path: Path) -> None:
    system, progress = MemoryFileSystem(), RecordedProgress()
    system.put(str(release / "meta"), "/totals/meta", recursive=True)
    try:
        remote = open_release("memory://totals")
        build_index(remote, tmp_path / "index", progress=progress)
    finally:
        system.rm("/totals", recursive=True)
    assert shown(progress) == {
        "Checking the release": ("speaker", len(SPEAKERS)),
        "Reading annotations": ("file", len(VIDEOS)),
    }


@pytest.mark.parametrize("is_archive", [False, True])
def test_the_files_of_speakers(is_archive: bool, release: Path, tmp_path: Path) -> None:
    texts = {speaker: transcripts_of(speaker, VIDEOS) for speaker in SPEAKERS}
    write_speakers(release, "spk_info", {**texts, "README": "no speaker"})
    place = write_speakers(release, "asr_res", texts, archive=is_archive)
    files = [place] if is_archive else [*place.iterdir()]
    size_bytes = sum(path.stat().st_size for path in (*files, *(release / "spk_info").iterdir()))
    index = build_index(open_release(release), tmp_path / "index")
    progress = RecordedProgress()
    update_speakers(open_release(release), index, progress=progress)
    assert shown(progress) == {
        "Reading the files of speakers": ("B", size_bytes),
        "Indexing speakers": ("speaker", len(SPEAKERS)),
    }
