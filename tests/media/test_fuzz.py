"""Damaged media give clips, missing utterances, or a MediaError: nothing else, whatever the damage.

For each damaged file: no other error, no other file opened or written, at most ``CPU_SECONDS`` of
time, at most ``TOUCHED_BYTES`` of memory, and no array of more than ``ASKED_BYTES`` even where it
is never touched. At least 30% of the files still give a clip, so damage is not only found in the
first bytes.

A crash of the interpreter ends this test's process. The seed is then the one in ``seed.txt`` in the
test's folder.
"""

from __future__ import annotations

import contextlib
import io
import math
import resource
import time
from collections.abc import Iterator
from pathlib import Path

import av
import pytest
import soundfile
from support.gray_frames import faces
from support.mutated_media import SPECS, mutated, write_mutated
from support.opened_files import OpenedFiles
from support.synthetic_audio import SPEAKER, VIDEO, MediaCache, utterance

from voxblink2_lib.errors import MediaError
from voxblink2_lib.materialize.pipeline import run_video
from voxblink2_lib.materialize.tasks import VideoTask
from voxblink2_lib.media.audio import crop_audio
from voxblink2_lib.media.coverage import covered_seconds
from voxblink2_lib.media.damage import named_if_damaged
from voxblink2_lib.media.faces import crop_faces
from voxblink2_lib.media.options import ClipOptions
from voxblink2_lib.outcomes import MissingUtterance
from voxblink2_lib.records import FaceTrack, Utterance, VideoKey
from voxblink2_lib.sources import mp4_index, parse_source
from voxblink2_lib.store.schema import arrow_schema
from voxblink2_lib.store.shards import read_batches

# A damaged file takes 0.04 s, and decoders have tens of megabytes.
CPU_SECONDS = 10.0
TOUCHED_BYTES = 128 << 20
ASKED_BYTES = 1 << 30
LEAST_DECODED = 0.3

BATCH = 50
DEFAULT_SEEDS = 200
SLOW_SEEDS = 2000
# Of so many files, one goes through the pipeline as well.
PIPELINE_EVERY = 5

CUTS = (utterance(0, 19), utterance(10, 34), utterance(25, 46))
OPTIONS = ClipOptions(video_size=32)


def tracks() -> tuple[FaceTrack, ...]:
    return faces(CUTS)


def assert_accounted(cropped: list[Utterance], missing: tuple[MissingUtterance, ...]) -> None:
    """Check that each utterance is cropped, or missing with a reason."""
    names = [*(cut.utterance_id for cut in cropped), *dict(missing)]
    assert sorted(names) == [cut.utterance_id for cut in CUTS]
    assert all(lacking.reason for lacking in missing)


@contextlib.contextmanager
def limited_memory() -> Iterator[None]:
    """Let this process ask for `ASKED_BYTES` more, or fail; where the system tells what it has."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
    except OSError:
        yield
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    most = pages * resource.getpagesize() + ASKED_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (most, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def reset_peak() -> int:
    """Return the resident bytes, from which the peak is counted from now on; 0 if unknown."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    return peak_bytes()


def peak_bytes() -> int:
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) << 10
    return 0


class Batch:
    """The checks of one batch of damaged files.

    Args:
        media_cache: of the media that are damaged.
        root: a new folder.

    Attributes:
        decoded: how many files gave a clip.
    """

    def __init__(self, media_cache: MediaCache, root: Path) -> None:
        self._cache = media_cache
        self._root = root
        self._media = root / "media" / SPEAKER
        self._media.mkdir(parents=True)
        for name in ("secret.wav", "media", "video000000.ts"):
            (self._media / name).write_bytes(b"not to be opened")
        self.decoded = 0

    def run(self, seeds: range) -> None:
        before = self._names()
        for seed in seeds:
            (self._root / "seed.txt").write_text(str(seed))
            path = write_mutated(self._cache, seed, self._media, VIDEO)
            where = f"seed {seed} ({SPECS[seed % len(SPECS)].name})"
            try:
                with OpenedFiles(self._media) as opened:
                    self._check(path, seed)
            except Exception as error:
                error.add_note(where)
                raise
            assert opened.names <= {path.name}, where
            path.unlink()
            assert self._names() == before, where

    def _names(self) -> set[str]:
        return {str(path.relative_to(self._root)) for path in self._root.rglob("*")} | {"seed.txt"}

    def _check(self, path: Path, seed: int) -> None:
        before_bytes, started = reset_peak(), time.process_time()
        with limited_memory():
            clips = self._audio(path) + self._faces(path)
            self._sources(path)
        assert time.process_time() - started <= CPU_SECONDS
        assert peak_bytes() - before_bytes <= TOUCHED_BYTES
        self.decoded += bool(clips)
        if seed % PIPELINE_EVERY == 0:
            self._pipeline(has_sound_and_pictures=False)
            self._pipeline(has_sound_and_pictures=True)

    @staticmethod
    def _audio(path: Path) -> int:
        """Return the number of clips; each is whole."""
        with contextlib.suppress(MediaError), named_if_damaged(path):
            cut = crop_audio(path, CUTS, audio_format="flac")
            assert_accounted([clip.utterance for clip in cut.clips], cut.missing)
            for clip in cut.clips:
                start, stop = clip.utterance.samples
                assert soundfile.info(io.BytesIO(clip.data)).frames == stop - start
            return len(cut.clips)
        return 0

    @staticmethod
    def _faces(path: Path) -> int:
        """Return the number of clips; each is whole."""
        with contextlib.suppress(MediaError), named_if_damaged(path):
            cut = crop_faces(path, tracks(), options=OPTIONS)
            assert_accounted([clip.utterance for clip in cut.clips], cut.missing)
            for clip in cut.clips:
                with av.open(io.BytesIO(clip.data), "r") as container:
                    assert container.streams.video[0].frames == len(clip.boxes)
            return len(cut.clips)
        return 0

    @staticmethod
    def _sources(path: Path) -> None:
        """Read the file as a partial download, which must not fail either."""
        for audio, video in ((True, False), (True, True)):
            seconds = covered_seconds(path, audio=audio, video=video)
            assert not math.isnan(seconds)
            needed = mp4_index.needed_bytes(path, seconds=1.0, audio=audio, video=video)
            assert needed is None or needed.end_bytes >= 0
        with open(path, "rb") as file:
            layout = mp4_index.read_layout(file, path.stat().st_size)
        if layout is not None and layout.data is not None:
            mp4_index.moved_index(path.read_bytes()[layout.data.end :], layout.data)

    def _pipeline(self, *, has_sound_and_pictures: bool) -> None:
        tmp, part = self._root / "tmp", self._root / "parts" / "part.arrow"
        tmp.mkdir()
        task = VideoTask(
            key=VideoKey(SPEAKER, VIDEO),
            utterances=CUTS,
            digest=1,
            source=parse_source(str(self._media.parent)),
            part=part,
            tmp=tmp,
            schema=arrow_schema("audio-visual" if has_sound_and_pictures else "audio"),
            options=OPTIONS,
            tracks=tracks() if has_sound_and_pictures else None,
            # What it claims to contain is judged, and no second try is asked for.
            is_alone=True,
        )
        outcome = run_video(task)
        # A damaged file of sound only is none with pictures.
        allowed = {"done", "media-unusable"} | ({"gone"} if has_sound_and_pictures else set())
        assert outcome.status in allowed
        assert (outcome.status == "done") == part.exists()
        if outcome.status == "done":
            assert sum(len(batch) for batch in read_batches(part)) == outcome.clips
            part.unlink()
            part.parent.rmdir()
        else:
            assert outcome.reason
            if part.parent.exists():
                part.parent.rmdir()
        tmp.rmdir()


def batches(first: int, count: int) -> list[range]:
    return [range(start, start + BATCH) for start in range(first, first + count, BATCH)]


def check(media_cache: MediaCache, folder: Path, seeds: range) -> None:
    whole = media_cache.make(SPECS[0])
    crop_audio(whole, CUTS, audio_format="flac")  # libraries are loaded before anything is measured
    crop_faces(whole, tracks(), options=OPTIONS)
    batch = Batch(media_cache, folder)
    batch.run(seeds)
    assert batch.decoded >= LEAST_DECODED * len(seeds)


@pytest.mark.parametrize("seeds", batches(0, DEFAULT_SEEDS), ids=str)
def test_damaged_media_give_outcomes_only(
    media_cache: MediaCache, tmp_path: Path, seeds: range, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # what is written to the working folder is seen
    check(media_cache, tmp_path, seeds)


@pytest.mark.slow
@pytest.mark.parametrize("seeds", batches(DEFAULT_SEEDS, SLOW_SEEDS), ids=str)
def test_ten_times_as_many_damaged_media_give_outcomes_only(
    media_cache: MediaCache, tmp_path: Path, seeds: range, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    check(media_cache, tmp_path, seeds)


def test_undamaged_media_give_clips(media_cache: MediaCache) -> None:
    """What is damaged above is whole before: a file that never decodes would test nothing.

    Of WMA, the first 50 ms and so the first utterance may be missing: its decoder drops them. ADPCM
    is left out: a file of it may be refused as a whole.
    """
    for spec in SPECS:
        if "adpcm" in spec.name:
            continue
        path = media_cache.make(spec)
        least = len(CUTS) - spec.name.endswith("wmv")
        assert len(crop_audio(path, CUTS, audio_format="flac").clips) >= least, spec.name
        if spec.fps:
            assert len(crop_faces(path, tracks(), options=OPTIONS).clips) == len(CUTS), spec.name


def test_damage_is_the_same_for_a_seed_each_time(media_cache: MediaCache) -> None:
    assert mutated(media_cache, 7) == mutated(media_cache, 7)
    differ = [
        mutated(media_cache, seed)[1] != media_cache.make(SPECS[seed % len(SPECS)]).read_bytes()
        for seed in range(len(SPECS))
    ]
    assert sum(differ) >= len(SPECS) - 2
