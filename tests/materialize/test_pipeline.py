"""One video, from its source to its part file: an outcome, and nothing left over."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import json
import shutil
import socket
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from support import cli_process
from support.gray_frames import (
    BOX,
    corrupted,
    faces,
    gray_video,
    grays_in,
    without_packets,
    wrong_frames,
)
from support.synthetic_audio import (
    M4A,
    SPEAKER,
    VIDEO,
    WAV,
    MediaCache,
    MediaSpec,
    ffmpeg,
    measure_delay,
    samples_of,
    utterance,
)

from voxblink2_lib.demo.site import MediaSite
from voxblink2_lib.errors import StoreFullError
from voxblink2_lib.materialize.fetched_media import FetchRecord, stage
from voxblink2_lib.materialize.pipeline import fetch_video, run_video, seal_job
from voxblink2_lib.materialize.tasks import FetchResult, FetchTask, SealTask, VideoTask
from voxblink2_lib.media.options import ClipOptions
from voxblink2_lib.outcomes import NO_ACTION, MediaFacts, MissingUtterance, Outcome, RouteAction
from voxblink2_lib.records import Clip, FaceTrack, SealedShard, Utterance, VideoKey
from voxblink2_lib.sources import Media, SourceSpec, parse_source
from voxblink2_lib.sources.rate_limits import Budget, Permit, RateLimiter, shared_file
from voxblink2_lib.store.schema import arrow_schema
from voxblink2_lib.store.shards import check_shard, read_batches, read_part_outcome

KEY = VideoKey(SPEAKER, VIDEO)
SCHEMA = arrow_schema("audio")
FACES_SCHEMA = arrow_schema("audio-visual")
FILM = gray_video()


# yt-dlp keeps connections for the life of a worker, and sources here live for one test.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")


@pytest.fixture
def media(tmp_path: Path) -> Path:
    """A folder of media, still without any."""
    folder = tmp_path / "media"
    (folder / SPEAKER).mkdir(parents=True)
    return folder


def task(folder: Path, source: SourceSpec, *utterances: Utterance) -> VideoTask:
    (folder / "tmp").mkdir(exist_ok=True)
    return VideoTask(
        key=KEY,
        utterances=utterances or (utterance(0, 49, "00000"), utterance(100, 174, "00001")),
        digest=7,
        source=source,
        part=folder / "parts" / "part.arrow",
        tmp=folder / "tmp",
        schema=SCHEMA,
        options=ClipOptions(),
    )


def assert_nothing_written(video: VideoTask) -> None:
    assert not video.part.exists()
    assert not video.part.parent.exists() or list(video.part.parent.iterdir()) == []
    assert list(video.tmp.iterdir()) == []


def test_a_done_video_is_in_its_part_file(
    media_cache: MediaCache, media: Path, tmp_path: Path
) -> None:
    shutil.copy(media_cache.make(WAV), media / SPEAKER / f"{VIDEO}.wav")
    video = task(tmp_path, parse_source(str(media)))
    outcome = run_video(video)
    assert (outcome.key, outcome.status, outcome.reason) == (KEY, "done", "")
    assert (outcome.clips, outcome.samples, outcome.missing) == (2, 125 * 640, ())
    assert outcome.digest == 7
    assert outcome.bytes_fetched == media_cache.make(WAV).stat().st_size
    assert outcome.seconds_taken > 0
    assert read_part_outcome(video.part) == outcome
    (batch,) = read_batches(video.part)
    rows = batch.to_pylist()
    assert [row["utterance_id"] for row in rows] == ["00000", "00001"]
    assert {(row["speaker_id"], row["video_id"], row["source"]) for row in rows} == {
        (SPEAKER, VIDEO, "folder")
    }
    assert [(row["start_seconds"], row["end_seconds"]) for row in rows] == [(0.0, 2.0), (4.0, 7.0)]
    assert rows[0]["audio"]["path"] == f"{SPEAKER}/{VIDEO}/00000.flac"
    for row, cut in zip(rows, video.utterances, strict=True):
        heard = samples_of(Clip(cut, row["audio"]["bytes"]))
        assert abs(measure_delay(heard, start_sample=cut.samples[0])) < 0.01
    assert [path.name for path in video.part.parent.iterdir()] == [video.part.name]
    assert list(video.tmp.iterdir()) == []


def test_a_done_video_may_lack_utterances(
    media_cache: MediaCache, media: Path, tmp_path: Path
) -> None:
    shutil.copy(media_cache.make(WAV), media / SPEAKER / f"{VIDEO}.wav")
    inside, outside = utterance(0, 24, "00000"), utterance(500, 549, "00001")
    video = task(tmp_path, parse_source(str(media)), inside, outside)
    outcome = run_video(video)
    assert (outcome.status, outcome.clips, outcome.samples) == ("done", 1, 16_000)
    assert [lacking.utterance_id for lacking in outcome.missing] == ["00001"]
    assert outcome.reason.startswith(
        "1 of 2 utterances could not be cropped; the first spans 20.00-22.00 s, of which 2.00 s "
    )
    assert read_part_outcome(video.part) == outcome


def test_a_part_left_by_the_version_before_is_read(tmp_path: Path) -> None:
    stored = {
        **{"key": list(KEY), "status": "done", "reason": "1 of 2", "clips": 1, "samples": 640},
        **{"missing": [["00002", "is too short"]], "bytes_fetched": 12345, "seconds_taken": 1.5},
        **{"address": "10.0.0.1:8080", "digest": 7},
    }
    schema = SCHEMA.with_metadata({"voxblink2_outcome": json.dumps(stored)})
    with pa.ipc.new_stream(tmp_path / "part.arrow", schema):
        pass
    assert read_part_outcome(tmp_path / "part.arrow") == Outcome(
        KEY,
        "done",
        "1 of 2",
        clips=1,
        samples=640,
        missing=(MissingUtterance("00002", "is too short"),),
        bytes_fetched=12345,
        route="10.0.0.1:8080",
        digest=7,
    )


def test_a_video_too_short_for_all_is_unusable(
    media_cache: MediaCache, media: Path, tmp_path: Path
) -> None:
    shutil.copy(media_cache.make(WAV), media / SPEAKER / f"{VIDEO}.wav")
    video = task(tmp_path, parse_source(str(media)), utterance(500, 549), utterance(600, 649))
    outcome = run_video(video)
    assert (outcome.status, outcome.clips, len(outcome.missing)) == ("media-unusable", 0, 2)
    assert outcome.reason.startswith(
        "2 of 2 utterances could not be cropped; the first spans 20.00"
    )
    assert outcome.bytes_fetched > 0
    assert_nothing_written(video)


def test_a_broken_video_is_unusable(media: Path, tmp_path: Path) -> None:
    (media / SPEAKER / f"{VIDEO}.mp4").write_bytes(b"<html>Log in</html>")
    video = task(tmp_path, parse_source(str(media)))
    outcome = run_video(video)
    assert (outcome.status, outcome.clips, outcome.bytes_fetched) == ("media-unusable", 0, 19)
    assert outcome.reason.startswith("the media file cannot be read: ")
    assert_nothing_written(video)


def test_a_video_that_is_not_there_failed(media: Path, tmp_path: Path) -> None:
    video = task(tmp_path, parse_source(str(media)))
    outcome = run_video(video)
    assert outcome.status == "gone"
    assert outcome.reason.startswith(f"no file {SPEAKER}/{VIDEO}.<ext> in ")
    assert_nothing_written(video)


def test_a_fetched_video_leaves_no_temporary_file(
    media_cache: MediaCache, media: Path, tmp_path: Path
) -> None:
    shutil.copy(media_cache.make(M4A), media / SPEAKER / f"{VIDEO}.m4a")
    with MediaSite(media) as site:
        video = task(tmp_path, parse_source(site.url_template))
        outcome = run_video(video)
    assert (outcome.status, outcome.clips) == ("done", 2)
    # Of 12 s, those up to the end of the last utterance at 7 s, and a little more.
    size = media_cache.make(M4A).stat().st_size
    assert size * 7 / 12 < outcome.bytes_fetched < size
    (batch,) = read_batches(video.part)
    assert batch.column("source").to_pylist() == ["url", "url"]
    assert list(video.tmp.iterdir()) == []


def test_a_fetched_video_that_is_broken_leaves_no_temporary_file(
    media: Path, tmp_path: Path
) -> None:
    (media / SPEAKER / f"{VIDEO}.m4a").write_bytes(bytes(3000))
    with MediaSite(media) as site:
        video = task(tmp_path, parse_source(site.url_template))
        outcome = run_video(video)
    assert (outcome.status, outcome.bytes_fetched) == ("media-unusable", 3000)
    assert_nothing_written(video)


# -- downloading as a step of its own --------------------------------------------------------------


def fetch_task(video: VideoTask, *, permit: Permit | None = None) -> FetchTask:
    assert video.staged is not None
    return FetchTask(
        key=video.key,
        needed_seconds=video.needed_seconds,
        source=video.source,
        with_video=video.tracks is not None,
        target=video.staged,
        tmp=video.tmp,
        permit=permit or Permit(),
        rate_limiter=RateLimiter(shared_file()),
    )


def remote_task(folder: Path, template: str) -> VideoTask:
    plain = task(folder, parse_source(template))
    return dataclasses.replace(plain, staged=folder / "staged" / "video")


def failure_of(video: VideoTask) -> tuple[FetchResult, Outcome]:
    result = fetch_video(fetch_task(video))
    assert result.failure is not None
    assert result.failure.key == result.key == KEY
    assert result.failure.route == "direct"
    assert video.staged is not None
    assert not video.staged.exists()
    assert_nothing_written(video)
    return result, result.failure


def test_downloaded_first_and_cropped_later(
    media_cache: MediaCache, media: Path, tmp_path: Path
) -> None:
    shutil.copy(media_cache.make(M4A), media / SPEAKER / f"{VIDEO}.m4a")
    with MediaSite(media) as site:
        video = remote_task(tmp_path, site.url_template)
        assert video.staged is not None
        assert fetch_video(fetch_task(video)) == FetchResult(KEY)
        assert not video.part.exists()
        assert list(video.tmp.iterdir()) == []
        requests = site.requests
        kept = (video.staged / "media").stat().st_size
        outcome = run_video(video)
        assert site.requests == requests, "a video that is staged was requested again"
    assert (outcome.status, outcome.clips, outcome.samples) == ("done", 2, 125 * 640)
    assert (outcome.route, outcome.digest) == ("direct", 7)
    assert outcome.bytes_fetched == kept < media_cache.make(M4A).stat().st_size
    assert read_part_outcome(video.part) == outcome
    assert not video.staged.exists(), "media are left after cropping"
    # The same as in one step.
    with MediaSite(media) as site:
        (tmp_path / "other").mkdir()
        in_one = task(tmp_path / "other", parse_source(site.url_template))
        assert run_video(in_one).samples == outcome.samples
    assert rows_of(in_one) == rows_of(video)


def test_the_part_counts_the_seconds_of_both_steps(
    media_cache: MediaCache, media: Path, tmp_path: Path
) -> None:
    video = remote_task(tmp_path, "http://127.0.0.1:9/{video_id}")
    assert video.staged is not None
    video.staged.parent.mkdir()
    here = video.tmp / "media"
    shutil.copy(media_cache.make(WAV), here)
    stage(Media(here, 1234), video.staged, FetchRecord(1234, 1000.0, "10.0.0.1:8080"))
    outcome = run_video(video)
    assert (outcome.status, outcome.bytes_fetched) == ("done", 1234)
    assert outcome.route == "10.0.0.1:8080"
    assert 1000 < outcome.seconds_taken < 1000 + cli_process.DEADLINE_SECONDS


def test_staged_media_that_cannot_be_cropped_are_removed(media: Path, tmp_path: Path) -> None:
    (media / SPEAKER / f"{VIDEO}.m4a").write_bytes(bytes(3000))
    with MediaSite(media) as site:
        video = remote_task(tmp_path, site.url_template)
        assert video.staged is not None
        assert fetch_video(fetch_task(video)).failure is None
        outcome = run_video(video)
        assert site.count(VIDEO) == 2
    assert (outcome.status, outcome.bytes_fetched) == ("media-unusable", 3000)
    assert outcome.route == "direct"
    assert outcome.facts.audio_id, "what was downloaded is known of what cannot be cropped"
    assert_nothing_written(video)
    assert not video.staged.exists()


def test_staged_media_that_someone_removed_are_for_a_later_run(
    media_cache: MediaCache, media: Path, tmp_path: Path
) -> None:
    shutil.copy(media_cache.make(M4A), media / SPEAKER / f"{VIDEO}.m4a")
    with MediaSite(media) as site:
        video = remote_task(tmp_path, site.url_template)
        assert video.staged is not None
        assert fetch_video(fetch_task(video)).failure is None
        before = site.requests
        (video.staged / "media").unlink()
        outcome = run_video(video)
        # A process that crops has no permit and no route.
        assert site.requests == before
    assert outcome.status == "transient"
    assert outcome.reason == f"the media in {video.staged} are gone"
    assert_nothing_written(video)


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (403, "transient"),
        (404, "gone"),
        (410, "gone"),
        (451, "geo"),
        (418, "ambiguous"),
        (503, "transient"),
    ],
)
def test_a_refused_video_has_a_class_and_the_message_of_the_site(
    status: int, expected: str, media: Path, tmp_path: Path
) -> None:
    with MediaSite(media, faults={VIDEO: status}) as site:
        video = remote_task(tmp_path, site.url_template)
        result, failure = failure_of(video)
        in_one = run_video(task(tmp_path, video.source))
    assert f"HTTP Error {status}: " in failure.reason
    assert (failure.status, failure.clips, failure.bytes_fetched) == (expected, 0, 0)
    assert failure.seconds_taken > 0
    assert (result.is_unanswered, result.action) == (False, NO_ACTION)
    assert (in_one.status, in_one.reason) == (failure.status, failure.reason)


def test_a_site_that_limits_the_rate_pauses_the_route(media: Path, tmp_path: Path) -> None:
    with MediaSite(media, faults={VIDEO: 429}) as site:
        result, failure = failure_of(remote_task(tmp_path, site.url_template))
    assert (failure.status, result.is_unanswered) == ("rate-limited", False)
    assert result.action == RouteAction(600, pause_grows=True)


def test_a_refused_route_is_closed(media: Path, tmp_path: Path) -> None:
    with MediaSite(media, faults={VIDEO: 407}) as site:
        result, failure = failure_of(remote_task(tmp_path, site.url_template))
    assert (failure.status, result.action.closes_route) == ("credentials", True)


def test_a_site_that_is_down_gives_no_answer(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    result, failure = failure_of(remote_task(tmp_path, f"http://127.0.0.1:{port}/{{video_id}}"))
    assert (failure.status, result.is_unanswered) == ("transient", True)
    assert "refused" in failure.reason


def test_a_permit_is_confirmed_by_the_first_answer(media: Path, tmp_path: Path) -> None:
    limiter = RateLimiter(shared_file())
    with MediaSite(media, faults={VIDEO: 404}) as site:
        video = remote_task(tmp_path, site.url_template)
        permit = limiter.acquire("site direct", Budget(60))
        assert permit is not None
        fetch_video(fetch_task(video, permit=permit))
    with contextlib.closing(sqlite3.connect(shared_file())) as database:
        ((given, arrived),) = database.execute("select given_at, arrived_at from turns").fetchall()
    assert arrived >= given


def test_a_full_disk_is_no_fault_of_the_video(
    media_cache: MediaCache, media: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(media_cache.make(M4A), media / SPEAKER / f"{VIDEO}.m4a")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("voxblink2_lib.materialize.fetched_media.os.fsync", full)
    with MediaSite(media) as site:
        video = remote_task(tmp_path, site.url_template)
        with pytest.raises(StoreFullError, match="No space is left for"):
            fetch_video(fetch_task(video))
    assert video.staged is not None
    assert not video.staged.exists()
    assert list(video.tmp.iterdir()) == []


def test_staged_media_stay_when_there_is_no_space_for_their_clips(
    media_cache: MediaCache, media: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, *_: object) -> None:
        raise StoreFullError(f"No space is left for {path}.")

    shutil.copy(media_cache.make(M4A), media / SPEAKER / f"{VIDEO}.m4a")
    with MediaSite(media) as site:
        video = remote_task(tmp_path, site.url_template)
        assert fetch_video(fetch_task(video)).failure is None
        with monkeypatch.context() as patched:
            patched.setattr("voxblink2_lib.materialize.pipeline.write_part", full)
            with pytest.raises(StoreFullError, match="No space is left for"):
                run_video(video)
        before = site.requests
        assert run_video(video).status == "done"
        assert site.requests == before
    assert video.staged is not None
    assert not video.staged.exists()


def test_what_is_no_fault_of_the_video_is_raised(
    media_cache: MediaCache, media: Path, tmp_path: Path
) -> None:
    shutil.copy(media_cache.make(WAV), media / SPEAKER / f"{VIDEO}.wav")
    video = task(tmp_path, parse_source(str(media)))
    video.part.parent.write_bytes(b"a file where the folder of the parts should be")
    with pytest.raises(FileExistsError, match="parts"):
        run_video(video)


def folders(tmp_path: Path) -> Iterator[Path]:
    """Yield two new folders."""
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        yield tmp_path / name


def sealed(video: VideoTask) -> SealedShard:
    """Run a video and seal a shard of it alone."""
    assert run_video(video).status == "done"
    target = video.tmp.parent / "shards" / "shard.arrow"
    shard = seal_job(SealTask(job=0, parts=(video.part,), target=target, schema=video.schema))
    check_shard(target.parent, shard)
    assert shard.size_bytes == target.stat().st_size
    return shard


def test_same_media_same_part_and_shard(
    media_cache: MediaCache, media: Path, tmp_path: Path
) -> None:
    recipe = MediaSpec("44100.wav", 44_100, 2)
    shutil.copy(media_cache.make(recipe), media / SPEAKER / f"{VIDEO}.wav")
    shards = [sealed(task(folder, parse_source(str(media)))) for folder in folders(tmp_path)]
    assert shards[0] == shards[1]
    assert shards[0].rows == 2


# -- audio and faces -------------------------------------------------------------------------------


def face_task(
    folder: Path,
    source: SourceSpec,
    *utterances: Utterance,
    tracks: tuple[FaceTrack, ...] | None = None,
) -> VideoTask:
    plain = task(folder, source, *utterances)
    return dataclasses.replace(
        plain,
        tracks=faces(plain.utterances) if tracks is None else tracks,
        schema=FACES_SCHEMA,
        options=ClipOptions(video_size=32),
    )


def rows_of(video: VideoTask) -> list[dict[str, Any]]:
    return [row for batch in read_batches(video.part) for row in batch.to_pylist()]


def assert_rows_are_right(video: VideoTask, *utterance_ids: str) -> list[dict[str, Any]]:
    """Check what is heard and seen in every row, and that both are of one length."""
    rows = rows_of(video)
    assert [row["utterance_id"] for row in rows] == list(utterance_ids)
    cuts = {cut.utterance_id: cut for cut in video.utterances}
    for row in rows:
        cut = cuts[row["utterance_id"]]
        frames = cut.last_frame + 1 - cut.first_frame
        heard = samples_of(Clip(cut, row["audio"]["bytes"]))
        assert len(heard) == 640 * frames
        assert abs(measure_delay(heard, start_sample=cut.samples[0])) < 1
        assert len(grays_in(row["video"]["bytes"])) == len(row["boxes"]) == frames
        assert wrong_frames(row["video"]["bytes"], utterance=cut) == []
        assert (row["start_seconds"], row["end_seconds"]) == cut.seconds
    return rows


def test_rows_with_faces(media_cache: MediaCache, media: Path, tmp_path: Path) -> None:
    shutil.copy(media_cache.make(FILM), media / SPEAKER / f"{VIDEO}.mp4")
    video = face_task(tmp_path, parse_source(str(media)))
    outcome = run_video(video)
    assert (outcome.status, outcome.reason, outcome.missing) == ("done", "", ())
    assert (outcome.clips, outcome.samples, outcome.digest) == (2, 125 * 640, 7)
    assert outcome.bytes_fetched == media_cache.make(FILM).stat().st_size
    assert read_part_outcome(video.part) == outcome
    rows = assert_rows_are_right(video, "00000", "00001")
    assert set(rows[0]) == {
        *("audio", "video", "speaker_id", "video_id", "utterance_id", "start_seconds"),
        *("end_seconds", "source", "boxes", "boxes_fit", "boxes_evidence"),
    }
    assert rows[0]["audio"]["path"] == f"{SPEAKER}/{VIDEO}/00000.flac"
    assert rows[0]["video"]["path"] == f"{SPEAKER}/{VIDEO}/00000.mp4"
    assert rows[0]["boxes"] == [list(BOX)] * 50
    assert [row["boxes_fit"] for row in rows] == [True, True]
    assert [row["boxes_evidence"] for row in rows] == ["assumed", "assumed"]
    assert list(video.tmp.iterdir()) == []


def test_rows_keep_the_order_that_is_asked_for(
    media_cache: MediaCache, media: Path, tmp_path: Path
) -> None:
    """Utterances overlap, and the order of their ids is not that of their times."""
    shutil.copy(media_cache.make(FILM), media / SPEAKER / f"{VIDEO}.mp4")
    times = [(200, 229), (10, 49), (205, 209), (0, 29), (10, 49)]
    cuts = [utterance(*frames, f"{number:05}") for number, frames in enumerate(times)]
    video = face_task(tmp_path, parse_source(str(media)), *cuts)
    assert run_video(video).status == "done"
    assert_rows_are_right(video, *(cut.utterance_id for cut in cuts))


def test_an_utterance_without_sound_or_pictures_is_missing_and_the_others_stay(
    media_cache: MediaCache, media: Path, tmp_path: Path
) -> None:
    mute, path = tmp_path / "mute.mp4", media / SPEAKER / f"{VIDEO}.mp4"
    without_packets(media_cache.make(FILM), mute, kind="audio", from_seconds=4, to_seconds=6)
    without_packets(mute, path, kind="video", from_seconds=7, to_seconds=9)
    times = [(0, 49), (170, 229), (90, 119), (240, 269), (60, 69), (500, 510), (275, 284)]
    cuts = [utterance(*frames, f"{number:05}") for number, frames in enumerate(times)]
    tracks = list(faces(cuts))
    tracks[6] = dataclasses.replace(tracks[6], boxes=np.zeros_like(tracks[6].boxes))
    video = face_task(tmp_path, parse_source(str(media)), *cuts, tracks=tuple(tracks))
    outcome = run_video(video)
    assert (outcome.status, outcome.clips, outcome.samples) == ("done", 3, (50 + 30 + 10) * 640)
    assert_rows_are_right(video, "00000", "00003", "00004")
    reasons = dict(outcome.missing)
    assert list(reasons) == ["00001", "00002", "00005", "00006"]
    assert reasons["00001"].startswith("needs a video frame at 7.96 s, but the nearest is 1.")
    assert reasons["00002"].startswith("spans 3.60-4.80 s, of which 0.")
    assert reasons["00005"].startswith("spans 20.00-20.44 s, of which 0.44 s is missing from the")
    assert reasons["00006"] == "has a box with no area at frame 275 (0 x 0 pixels)"
    assert outcome.reason == (
        f"4 of 7 utterances could not be cropped; the first {reasons['00001']}"
    )
    assert read_part_outcome(video.part) == outcome


def test_spoiled_pictures_cost_no_sound(
    media_cache: MediaCache, media: Path, tmp_path: Path
) -> None:
    corrupted(media_cache.make(FILM), media / SPEAKER / f"{VIDEO}.mp4")
    source = parse_source(str(media))
    plain = task(tmp_path, source)
    assert (run_video(plain).status, len(rows_of(plain))) == ("done", 2)
    shutil.rmtree(plain.part.parent)
    video = face_task(tmp_path, source)
    outcome = run_video(video)
    assert (outcome.status, outcome.clips, len(outcome.missing)) == ("media-unusable", 0, 2)
    assert outcome.reason.startswith(
        "2 of 2 utterances could not be cropped; the first needs the video frame"
    )
    assert {video.reason.rpartition(", ")[2] for video in outcome.missing} == {"which is damaged"}
    assert outcome.bytes_fetched > 0
    assert_nothing_written(video)


def test_spoiled_pictures_cost_only_the_utterances_that_need_them(
    media_cache: MediaCache, media: Path, tmp_path: Path
) -> None:
    corrupted(
        media_cache.make(FILM), media / SPEAKER / f"{VIDEO}.mp4", from_seconds=5.2, to_seconds=5.6
    )
    times = [(0, 49), (115, 134), (100, 124), (150, 174), (120, 140)]
    cuts = [utterance(*frames, f"{number:05}") for number, frames in enumerate(times)]
    video = face_task(tmp_path, parse_source(str(media)), *cuts)
    outcome = run_video(video)
    assert outcome.status == "done"
    assert [lacking.utterance_id for lacking in outcome.missing] == ["00001", "00004"]
    assert outcome.missing[0].reason == "needs the video frame at 5.20 s, which is damaged"
    assert_rows_are_right(video, "00000", "00002", "00003")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("-vn", "-c", "copy"), "the media file has no video stream"),
        (("-an", "-c", "copy"), "the media file has no audio stream"),
    ],
    ids=["no pictures", "no sound"],
)
def test_a_file_that_lacks_one_of_both_is_unusable(
    media_cache: MediaCache, media: Path, options: tuple[str, ...], words: str, tmp_path: Path
) -> None:
    path = media / SPEAKER / f"{VIDEO}.mp4"
    ffmpeg("-i", str(media_cache.make(FILM)), *options, str(path))
    video = face_task(tmp_path, parse_source(str(media)))
    outcome = run_video(video)
    assert (outcome.status, outcome.reason, outcome.missing) == ("media-unusable", words, ())
    assert outcome.bytes_fetched == path.stat().st_size
    assert_nothing_written(video)


def test_sound_alone_in_the_folder_is_no_film(
    media_cache: MediaCache, media: Path, tmp_path: Path
) -> None:
    shutil.copy(media_cache.make(WAV), media / SPEAKER / f"{VIDEO}.wav")
    video = face_task(tmp_path, parse_source(str(media)))
    outcome = run_video(video)
    assert outcome.status == "gone"
    assert "(extensions tried: mp4, mkv, " in outcome.reason
    assert_nothing_written(video)
    # A film beside it serves the faces; sound alone is still taken from the smaller file.
    shutil.copy(media_cache.make(FILM), media / SPEAKER / f"{VIDEO}.mp4")
    assert run_video(video).bytes_fetched == media_cache.make(FILM).stat().st_size
    assert (
        run_video(task(tmp_path, video.source)).bytes_fetched
        == media_cache.make(WAV).stat().st_size
    )


def test_what_lies_after_the_end_is_told_as_with_sound_alone(
    media_cache: MediaCache, media: Path, tmp_path: Path
) -> None:
    shutil.copy(media_cache.make(FILM), media / SPEAKER / f"{VIDEO}.mp4")
    cuts = (utterance(500, 549, "00000"), utterance(600, 649, "00001"))
    video = face_task(tmp_path, parse_source(str(media)), *cuts)
    outcome = run_video(video)
    assert outcome == run_video(task(tmp_path, video.source, *cuts))
    assert (outcome.status, len(outcome.missing)) == ("media-unusable", 2)
    assert outcome.reason.startswith(
        "2 of 2 utterances could not be cropped; the first spans 20.00"
    )
    assert_nothing_written(video)


def test_a_fetched_film_leaves_no_temporary_file(
    media_cache: MediaCache, media: Path, tmp_path: Path
) -> None:
    shutil.copy(media_cache.make(FILM), media / SPEAKER / f"{VIDEO}.mp4")
    with MediaSite(media) as site:
        video = face_task(tmp_path, parse_source(site.url_template))
        assert run_video(video).status == "done"
        rows = assert_rows_are_right(video, "00000", "00001")
        assert {row["source"] for row in rows} == {"url"}
        assert list(video.tmp.iterdir()) == []
        shutil.rmtree(video.part.parent)
        # The same worker may serve both configurations.
        assert run_video(task(tmp_path, video.source)).status == "done"


class TwoFiles:
    """A source whose pictures and sound are two files."""

    def __init__(self, gray_video: Path, folder: Path) -> None:
        self.pictures, self.sound = folder / "pictures.mp4", folder / "sound.m4a"
        ffmpeg("-i", str(gray_video), "-an", "-c", "copy", str(self.pictures))
        ffmpeg("-i", str(gray_video), "-vn", "-c", "copy", str(self.sound))

    @contextlib.contextmanager
    def fetch(
        self,
        key: VideoKey,
        *,
        needed_seconds: float,
        tmp: Path,
        answered: Callable[[], None] = lambda: None,
    ) -> Iterator[Media]:
        answered()
        assert (key, needed_seconds, tmp.is_dir()) == (KEY, 7.0, True)
        yield Media(self.pictures, 12345, self.sound)


def test_sound_may_come_in_a_file_of_its_own(
    media_cache: MediaCache, media: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests: list[bool] = []

    def opened(spec: SourceSpec, *, with_video: bool) -> TwoFiles:
        requests.append(with_video)
        return TwoFiles(media_cache.make(FILM), tmp_path)

    monkeypatch.setattr("voxblink2_lib.materialize.pipeline.open_source", opened)
    video = face_task(tmp_path, parse_source(str(media)))
    assert run_video(video).bytes_fetched == 12345
    assert_rows_are_right(video, "00000", "00001")
    assert run_video(task(tmp_path, video.source)).status == "done"
    assert requests == [True, False]


@pytest.mark.parametrize(
    ("pictures", "sound"),
    [(".f137.mp4", ".f140.m4a"), (".mp4", ".m4a"), (".f1.ts", ".f2.ts"), (".mkv", ".f140.m4a")],
)
def test_two_files_in_the_folder_are_cropped_as_one(
    media_cache: MediaCache, media: Path, tmp_path: Path, pictures: str, sound: str
) -> None:
    film, stem = media_cache.make(FILM), media / SPEAKER / VIDEO
    # Both files of a broadcast have its clock.
    clock = ("-copyts", "-output_ts_offset", "3") if pictures.endswith("ts") else ()
    for option, rest in (("-an", pictures), ("-vn", sound)):
        ffmpeg("-i", str(film), option, *clock, "-c", "copy", f"{stem}{rest}")
    heard, seen = folders(tmp_path)
    source = parse_source(str(media))
    with_faces, audio_only = face_task(seen, source), task(heard, source)
    assert run_video(with_faces).status == run_video(audio_only).status == "done"
    rows = assert_rows_are_right(with_faces, "00000", "00001")
    assert [row["audio"] for row in rows] == [row["audio"] for row in rows_of(audio_only)]


def test_boxes_are_scaled_by_what_the_source_knows_of_its_media(
    media_cache: MediaCache, media: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    facts = MediaFacts()

    @contextlib.contextmanager
    def provided(task: VideoTask) -> Iterator[tuple[Media, FetchRecord]]:
        yield Media(media_cache.make(FILM), 1, facts=facts), FetchRecord(1, 0.0, "")

    monkeypatch.setattr("voxblink2_lib.materialize.pipeline.media_for", provided)
    for lines, evidence in ((0, "assumed"), (90, "offered")):
        facts = MediaFacts(reference_height=lines)
        video = face_task(tmp_path, parse_source(str(media)))
        assert run_video(video).status == "done"
        assert {row["boxes_evidence"] for row in rows_of(video)} == {evidence}


def test_same_film_same_part_and_shard(
    media_cache: MediaCache, media: Path, tmp_path: Path
) -> None:
    shutil.copy(media_cache.make(FILM), media / SPEAKER / f"{VIDEO}.mp4")
    shards = [sealed(face_task(folder, parse_source(str(media)))) for folder in folders(tmp_path)]
    assert shards[0] == shards[1]
    assert shards[0].rows == 2
