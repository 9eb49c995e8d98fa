"""One video, from its source to its part file: done, failed or unusable, and nothing left over."""

from __future__ import annotations

import shutil
import socket
from pathlib import Path

import pytest
from truth import M4A, SPEAKER, VIDEO, WAV, Recipe, Studio, delay_samples, heard_in, utterance

from voxblink2_lib.config import ClipOptions
from voxblink2_lib.demo.site import MediaSite
from voxblink2_lib.pipeline import SealTask, VideoTask, run_video, seal_job
from voxblink2_lib.records import Clip, Utterance, VideoKey
from voxblink2_lib.schema import arrow_schema
from voxblink2_lib.shards import check_shard, read_batches, read_part_outcome
from voxblink2_lib.sources import SourceSpec, parse_source

KEY = VideoKey(SPEAKER, VIDEO)
SCHEMA = arrow_schema("audio")


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


def assert_nothing_written(one: VideoTask) -> None:
    assert not one.part.exists()
    assert not one.part.parent.exists() or list(one.part.parent.iterdir()) == []
    assert list(one.tmp.iterdir()) == []


def test_a_done_video_is_in_its_part_file(studio: Studio, media: Path, tmp_path: Path) -> None:
    shutil.copy(studio.make(WAV), media / SPEAKER / f"{VIDEO}.wav")
    one = task(tmp_path, parse_source(str(media)))
    outcome = run_video(one)
    assert (outcome.key, outcome.status, outcome.reason) == (KEY, "done", "")
    assert (outcome.clips, outcome.samples, outcome.missing) == (2, 125 * 640, ())
    assert outcome.digest == 7
    assert outcome.bytes_fetched == studio.make(WAV).stat().st_size
    assert outcome.seconds_taken > 0
    assert not outcome.unreachable
    assert read_part_outcome(one.part) == outcome
    (batch,) = read_batches(one.part)
    rows = batch.to_pylist()
    assert [row["utterance_id"] for row in rows] == ["00000", "00001"]
    assert {(row["speaker_id"], row["video_id"], row["source"]) for row in rows} == {
        (SPEAKER, VIDEO, "folder")
    }
    assert [(row["start_seconds"], row["end_seconds"]) for row in rows] == [(0.0, 2.0), (4.0, 7.0)]
    assert rows[0]["audio"]["path"] == f"{SPEAKER}/{VIDEO}/00000.flac"
    for row, cut in zip(rows, one.utterances, strict=True):
        heard = heard_in(Clip(cut, row["audio"]["bytes"]))
        assert abs(delay_samples(heard, start_sample=cut.samples[0])) < 0.01
    assert [path.name for path in one.part.parent.iterdir()] == [one.part.name]
    assert list(one.tmp.iterdir()) == []


def test_a_done_video_may_lack_utterances(studio: Studio, media: Path, tmp_path: Path) -> None:
    shutil.copy(studio.make(WAV), media / SPEAKER / f"{VIDEO}.wav")
    there, gone = utterance(0, 24, "00000"), utterance(500, 549, "00001")
    one = task(tmp_path, parse_source(str(media)), there, gone)
    outcome = run_video(one)
    assert (outcome.status, outcome.clips, outcome.samples) == ("done", 1, 16_000)
    assert [lacking.utterance_id for lacking in outcome.missing] == ["00001"]
    assert outcome.reason.startswith(
        "1 of 2 utterances could not be cut; the first lies at 20.00-22.00 s, of which 2.00 s "
    )
    assert read_part_outcome(one.part) == outcome


def test_a_video_too_short_for_all_is_unusable(studio: Studio, media: Path, tmp_path: Path) -> None:
    shutil.copy(studio.make(WAV), media / SPEAKER / f"{VIDEO}.wav")
    one = task(tmp_path, parse_source(str(media)), utterance(500, 549), utterance(600, 649))
    outcome = run_video(one)
    assert (outcome.status, outcome.clips, len(outcome.missing)) == ("unusable", 0, 2)
    assert outcome.reason.startswith("2 of 2 utterances could not be cut; the first lies at 20.00")
    assert outcome.bytes_fetched > 0
    assert_nothing_written(one)


def test_a_broken_video_is_unusable(media: Path, tmp_path: Path) -> None:
    (media / SPEAKER / f"{VIDEO}.mp4").write_bytes(b"<html>Log in</html>")
    one = task(tmp_path, parse_source(str(media)))
    outcome = run_video(one)
    assert (outcome.status, outcome.clips, outcome.bytes_fetched) == ("unusable", 0, 19)
    assert outcome.reason.startswith("the media file cannot be read: ")
    assert_nothing_written(one)


def test_a_video_that_is_not_there_failed(media: Path, tmp_path: Path) -> None:
    one = task(tmp_path, parse_source(str(media)))
    outcome = run_video(one)
    assert (outcome.status, outcome.unreachable) == ("failed", False)
    assert outcome.reason.startswith(f"no file {SPEAKER}/{VIDEO}.<ext> in ")
    assert_nothing_written(one)


def test_a_fetched_video_leaves_no_temporary_file(
    studio: Studio, media: Path, tmp_path: Path
) -> None:
    shutil.copy(studio.make(M4A), media / SPEAKER / f"{VIDEO}.m4a")
    with MediaSite(media) as site:
        one = task(tmp_path, parse_source(site.url_template))
        outcome = run_video(one)
    assert (outcome.status, outcome.clips) == ("done", 2)
    assert outcome.bytes_fetched == studio.make(M4A).stat().st_size
    (batch,) = read_batches(one.part)
    assert batch.column("source").to_pylist() == ["url", "url"]
    assert list(one.tmp.iterdir()) == []


def test_a_fetched_video_that_is_broken_leaves_no_temporary_file(
    media: Path, tmp_path: Path
) -> None:
    (media / SPEAKER / f"{VIDEO}.m4a").write_bytes(bytes(3000))
    with MediaSite(media) as site:
        one = task(tmp_path, parse_source(site.url_template))
        outcome = run_video(one)
    assert (outcome.status, outcome.bytes_fetched) == ("unusable", 3000)
    assert_nothing_written(one)


def test_a_refused_video_failed_in_the_words_of_the_site(media: Path, tmp_path: Path) -> None:
    with MediaSite(media, faults={VIDEO: 403}) as site:
        one = task(tmp_path, parse_source(site.url_template))
        outcome = run_video(one)
    assert (outcome.status, outcome.unreachable) == ("failed", False)
    assert "HTTP Error 403: Forbidden" in outcome.reason
    assert_nothing_written(one)


def test_a_site_that_is_down_is_unreachable(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    one = task(tmp_path, parse_source(f"http://127.0.0.1:{port}/{{video_id}}"))
    outcome = run_video(one)
    assert (outcome.status, outcome.unreachable) == ("failed", True)
    assert "refused" in outcome.reason
    assert_nothing_written(one)


def test_what_is_no_fault_of_the_video_is_raised(
    studio: Studio, media: Path, tmp_path: Path
) -> None:
    shutil.copy(studio.make(WAV), media / SPEAKER / f"{VIDEO}.wav")
    one = task(tmp_path, parse_source(str(media)))
    one.part.parent.write_bytes(b"a file where the folder of the parts should be")
    with pytest.raises(FileExistsError, match="parts"):
        run_video(one)


def test_same_media_same_part_and_shard(studio: Studio, media: Path, tmp_path: Path) -> None:
    recipe = Recipe("44100.wav", 44_100, 2)
    shutil.copy(studio.make(recipe), media / SPEAKER / f"{VIDEO}.wav")
    shards = []
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        one = task(tmp_path / name, parse_source(str(media)))
        assert run_video(one).status == "done"
        target = tmp_path / name / "shards" / "shard.arrow"
        sealed = seal_job(SealTask(job=0, parts=(one.part,), target=target, schema=SCHEMA))
        check_shard(target.parent, sealed)
        shards.append(sealed)
    assert shards[0] == shards[1]
    assert (shards[0].rows, shards[0].size_bytes) == (2, target.stat().st_size)
