"""The audio-visual configuration from end to end: store, kills, ``load_dataset``, command line."""

from __future__ import annotations

import dataclasses
import io
import itertools
import operator
import pkgutil
import re
import shutil
import signal
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import pyarrow as pa
import pytest
import soundfile
import torch
from datasets import Audio, Video, load_dataset
from filelock import FileLock
from support import cli_process
from support.gray_frames import BOX, gray_video, without_packets
from support.synthetic_audio import MediaCache
from torch.utils.data import DataLoader

import voxblink2
from voxblink2_lib.demo.site import MediaSite
from voxblink2_lib.errors import SelectionError, StoreError, StoreMismatchError
from voxblink2_lib.files import sha256_of
from voxblink2_lib.materialize.planning import plan_run, write_plan
from voxblink2_lib.materialize.request import MaterializeRequest
from voxblink2_lib.materialize.run import materialize
from voxblink2_lib.media.faces import crop_faces
from voxblink2_lib.media.options import ClipOptions
from voxblink2_lib.records import VideoKey
from voxblink2_lib.release.builtin import MEDIA
from voxblink2_lib.release.index import AnnotatedVideo, Index
from voxblink2_lib.release.index_build import open_index
from voxblink2_lib.release.location import open_release
from voxblink2_lib.release.selection import Selection
from voxblink2_lib.store.checksums import checksum_file
from voxblink2_lib.store.layout import Store
from voxblink2_lib.store.ledger import Ledger
from voxblink2_lib.store.schema import FEATURES
from voxblink2_lib.store.shards import read_batches
from voxblink2_lib.store.status import missing_videos, read_status
from voxblink2_lib.store.verify import verify_store

CONFIG = "audio-visual"
ROWS = 9
SPEAKERS = 2
COLUMNS = [
    *("audio", "video", "speaker_id", "video_id", "utterance_id", "start_seconds", "end_seconds"),
    *("source", "boxes", "boxes_fit", "boxes_evidence", "transcript", "language"),
]
HARBOUR = VideoKey("id990001", "demoHarbour")
# For each option two values that are not the default.
OTHER_OPTIONS: dict[str, tuple[Any, Any]] = {
    "audio_format": ("wav", "opus"),
    "video_size": (64, 96),
    "video_margin": (0.25, 0.5),
    "video_shape": ("stretched", "square"),
    "video_crf": (30, 0),
}


# yt-dlp keeps connections for the life of a worker, and sources here live for one test.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A store of the command line, and what was printed. Not to be changed."""
    store = tmp_path_factory.mktemp("seen") / "store"
    said = cli_process.run_inline_json(
        *("materialize", "--config", CONFIG, "--data-dir", "demo", "--store", store),
        *("--max-speakers", SPEAKERS, "--workers", 1),
    )
    return store, said


@pytest.fixture
def copy(seen: tuple[Path, dict[str, Any]], tmp_path: Path) -> Path:
    shutil.copytree(seen[0], tmp_path / "store")
    return tmp_path / "store"


@pytest.fixture
def options(seen: tuple[Path, dict[str, Any]], tmp_path: Path) -> dict[str, Any]:
    """How to load that store, with a cache of this test's own."""
    return {
        "data_dir": "demo",
        "store": str(seen[0]),
        "cache_dir": str(tmp_path / "cache"),
        "max_speakers": SPEAKERS,
        "split": "train",
    }


def annotated(store: Path, key: VideoKey) -> AnnotatedVideo:
    (video,) = Index(store / "index").annotated({key}, with_tracks=True)
    return video


def plain(rows: Any) -> Any:
    """Return rows whose clips are bytes."""
    return rows.cast_column("audio", Audio(decode=False)).cast_column("video", Video(decode=False))


def frames_in(clip: bytes) -> list[tuple[int, int]]:
    """Return width and height of every picture of an MP4 clip."""
    with av.open(io.BytesIO(clip), "r") as container:
        assert container.streams.video[0].average_rate == 25
        return [(frame.width, frame.height) for frame in container.decode(video=0)]


def samples_in(clip: bytes) -> int:
    samples, rate = soundfile.read(io.BytesIO(clip))
    assert rate == 16_000
    return len(samples)


# The store


def test_rows_hold_as_many_pictures_as_boxes_and_640_samples_each(
    seen: tuple[Path, dict[str, Any]],
) -> None:
    rows = cli_process.rows(seen[0], CONFIG)
    keys = [(row["speaker_id"], row["video_id"], row["utterance_id"]) for row in rows]
    assert keys == sorted(keys)
    assert len(set(keys)) == len(rows) == ROWS
    for row in rows:
        frames = len(row["boxes"])
        assert round(25 * (row["end_seconds"] - row["start_seconds"])) == frames > 25
        assert frames_in(row["video"]["bytes"]) == [(112, 112)] * frames
        assert samples_in(row["audio"]["bytes"]) == 640 * frames
        assert row["boxes_fit"] is True
        assert row["boxes_evidence"] == "assumed"  # a folder lists no renditions
        assert row["source"] == "folder"


def test_boxes_are_those_of_the_release(seen: tuple[Path, dict[str, Any]]) -> None:
    said = {}
    for file in open_release("demo").annotations():
        lines = file.data.decode().split("FRAME\tX\tY\tW\tH\n")[1].splitlines()
        name = file.path.removeprefix("meta/").removesuffix(".txt")
        said[name] = [[int(word) for word in line.split()] for line in lines]
    for row in cli_process.rows(seen[0], CONFIG):
        lines_said = said[f"{row['speaker_id']}/{row['video_id']}/{row['utterance_id']}"]
        assert row["boxes"] == [box for _, *box in lines_said]
        assert row["start_seconds"] == lines_said[0][0] / 25


def test_clips_are_what_the_media_give(seen: tuple[Path, dict[str, Any]]) -> None:
    tracks = annotated(seen[0], HARBOUR).tracks
    assert tracks is not None
    cut = crop_faces(MEDIA / HARBOUR.speaker_id / "demoHarbour.mp4", tracks, options=ClipOptions())
    rows = [row for row in cli_process.rows(seen[0], CONFIG) if row["video_id"] == "demoHarbour"]
    assert [row["video"]["bytes"] for row in rows] == [clip.data for clip in cut.clips]


def test_the_sound_is_that_of_the_audio_configuration(copy: Path, inline_workers: None) -> None:
    """Both configurations live in one store, and neither touches the other."""
    before = cli_process.shards(copy, CONFIG)
    selection = Selection.of(max_speakers=SPEAKERS)
    request = MaterializeRequest(data_dir="demo", store=str(copy), selection=selection)
    store = materialize(request, retry=True, wait=False)
    assert cli_process.shards(copy, CONFIG) == before
    faces, sound = cli_process.rows(copy, CONFIG), cli_process.rows(copy)
    # Sound alone came for the video without pictures too.
    assert {row["video_id"] for row in sound} - {row["video_id"] for row in faces} == {
        "demoChess_1"
    }
    assert len(sound) == ROWS + 3
    everywhere = {(row["video_id"], row["utterance_id"]): row for row in sound}
    for row in faces:
        same = everywhere[row["video_id"], row["utterance_id"]]
        assert {name: row[name] for name in same} == same
    assert read_status(store, "audio").videos == {"done": 4}
    assert read_status(store, CONFIG).videos == {"done": 3, "gone": 1}
    # Nothing is left to do, so that the source is not asked.
    again = dataclasses.replace(
        request, config="audio-visual", source="http://127.0.0.1:9/{video_id}"
    )
    materialize(again, retry=False, wait=False)
    assert cli_process.shards(copy, CONFIG) == before


# Planning


@pytest.fixture
def fresh(tmp_path: Path) -> Store:
    """A store that has an index, and nothing else."""
    store = Store(tmp_path / "fresh")
    open_index(open_release("demo"), store.index)
    return store


def plan(
    store: Store, config: Any = CONFIG, *, selection: Selection | None = None, **clips: Any
) -> ClipOptions:
    request = MaterializeRequest(
        config=config,
        store=str(store.root),
        selection=selection or Selection(),
        clips=clips,
    )
    with Ledger(store.ledger, config) as ledger:
        planned = plan_run(request, store, Index(store.index), ledger)
        write_plan(planned, ledger, ledger.verdicts("youtube"))
        return planned.options


@pytest.mark.parametrize("name", OTHER_OPTIONS)
def test_a_store_keeps_the_options_that_it_began_with(name: str, fresh: Store) -> None:
    held, other = OTHER_OPTIONS[name]
    begun = plan(fresh, **{name: held})
    assert begun == dataclasses.replace(ClipOptions(), **{name: held})
    for _ in range(2):  # each opens the ledger anew
        again = plan(fresh)
        assert again == begun
        assert type(getattr(again, name)) is type(held)
        assert plan(fresh, **{name: held}) == begun
        default = getattr(ClipOptions(), name)
        for asked in (other, default):
            words = (
                f"The store {fresh.root} holds clips with {name}={held!r}, requested is "
                f"{asked!r}. Use {name}={held!r}, or name another store."
            )
            with pytest.raises(StoreMismatchError, match=f"^{re.escape(words)}$"):
                plan(fresh, **{name: asked})


@pytest.mark.parametrize("name", OTHER_OPTIONS)
def test_defaults_are_kept_as_well(name: str, fresh: Store) -> None:
    assert plan(fresh) == plan(fresh) == ClipOptions()
    asked = OTHER_OPTIONS[name][0]
    default = getattr(ClipOptions(), name)
    with pytest.raises(
        StoreMismatchError, match=re.escape(f"{name}={default!r}, requested is {asked!r}. Use")
    ):
        plan(fresh, **{name: asked})
    assert plan(fresh, **{name: default}) == ClipOptions()


def test_a_whole_number_is_a_margin_too(fresh: Store) -> None:
    assert plan(fresh, video_margin=1).video_margin == 1
    assert plan(fresh, video_margin=1.0).video_margin == plan(fresh).video_margin == 1


def test_each_configuration_has_options_of_its_own(fresh: Store) -> None:
    assert plan(fresh, "audio", audio_format="wav").audio_format == "wav"
    assert plan(fresh, audio_format="opus", video_size=64).audio_format == "opus"
    assert plan(fresh, "audio").audio_format == "wav"
    assert plan(fresh) == ClipOptions(audio_format="opus", video_size=64)
    with pytest.raises(StoreMismatchError, match="audio_format='wav', requested is 'opus'"):
        plan(fresh, "audio", audio_format="opus")


def test_a_refused_request_plans_nothing(fresh: Store) -> None:
    def planned() -> dict[str, int]:
        with Ledger(fresh.ledger, CONFIG) as ledger:
            return ledger.statistics.videos()

    one, two = Selection.of(max_speakers=1), Selection.of(max_speakers=2)
    plan(fresh, selection=one)
    assert planned() == {"planned": 2}
    for name, (asked, _) in OTHER_OPTIONS.items():
        with pytest.raises(StoreMismatchError, match=f"holds clips with {name}="):
            plan(fresh, selection=two, **{name: asked})
    assert planned() == {"planned": 2}
    plan(fresh, selection=two)
    assert planned() == {"planned": 4}


# Loading


def test_a_store_without_faces_says_so(fresh: Store, tmp_path: Path) -> None:
    plan(fresh, "audio")
    with pytest.raises(StoreError, match="audio-visual"):
        load_dataset("voxblink2", CONFIG, store=str(fresh.root), cache_dir=str(tmp_path / "cache"))


def test_features_are_what_the_design_says(options: dict[str, Any]) -> None:
    rows = load_dataset("voxblink2", CONFIG, **options)
    assert rows.column_names == COLUMNS
    assert rows.features == FEATURES[CONFIG]
    assert (rows.features["audio"], rows.features["video"]) == (Audio(sampling_rate=16000), Video())
    assert rows.features.arrow_schema.field("boxes").type == pa.list_(pa.list_(pa.int16(), 4))
    assert rows.features["boxes_fit"].dtype == "bool"
    assert rows.features["boxes_evidence"].dtype == "string"
    assert len(rows) == ROWS
    sealed = sorted((Path(options["store"]) / "shards" / CONFIG).glob("*.arrow"))
    cached = [Path(one["filename"]) for one in rows.cache_files if ".arrow" in one["filename"]]
    assert [one.stat().st_ino for one in cached] == [one.stat().st_ino for one in sealed]
    assert CONFIG in {one.name for one in voxblink2.VoxBlink2.BUILDER_CONFIGS}


def test_rows_decode(options: dict[str, Any]) -> None:
    rows = load_dataset("voxblink2", CONFIG, **options)
    for row in rows:
        frames = len(row["boxes"])
        assert len(row["video"]) == frames
        assert row["video"].metadata.average_fps == pytest.approx(25)
        assert row["video"][0].shape == row["video"][frames - 1].shape == (3, 112, 112)
        assert row["video"].get_frames_in_range(0, frames).data.shape == (frames, 3, 112, 112)
        assert row["audio"].get_all_samples().data.shape == (1, 640 * frames)
        # A face is no even area, and no row shows the picture of another.
        assert row["video"][0].float().std() > 10
    assert len({row["video"][0].numpy().tobytes() for row in rows}) == ROWS


def test_streaming_gives_the_rows_of_loading(options: dict[str, Any]) -> None:
    rows = load_dataset("voxblink2", CONFIG, **options)
    stream = load_dataset("voxblink2", CONFIG, streaming=True, **options)
    assert stream.features == rows.features
    assert stream.num_shards == 3
    assert list(plain(stream)) == list(plain(rows))
    first, second = next(iter(stream)), rows[0]
    assert torch.equal(first["video"][7], second["video"][7])


def test_rows_as_tensors(options: dict[str, Any]) -> None:
    rows = load_dataset("voxblink2", CONFIG, **options).with_format("torch")
    release = cli_process.rows(Path(options["store"]), CONFIG)
    for row, said in zip(rows, release, strict=True):
        assert isinstance(row["boxes"], torch.Tensor)
        assert not row["boxes"].is_floating_point()
        assert row["boxes"].tolist() == said["boxes"]
        assert row["boxes_fit"].item() is True
        assert row["video"][3].dtype == torch.uint8
        assert row["video"][3].shape == (3, 112, 112)
        assert row["end_seconds"].item() == pytest.approx(said["end_seconds"])


def lengths(rows: list[dict[str, Any]]) -> list[tuple[str, int, int, tuple[int, ...]]]:
    return [
        (
            f"{row['video_id']}/{row['utterance_id']}",
            len(row["video"]),
            row["audio"].get_all_samples().data.shape[1],
            tuple(row["boxes"].shape),
        )
        for row in rows
    ]


def test_streaming_under_a_data_loader(options: dict[str, Any]) -> None:
    stream = load_dataset("voxblink2", CONFIG, streaming=True, **options).with_format("torch")
    loader = DataLoader(
        stream,
        batch_size=2,
        num_workers=2,
        collate_fn=lengths,
        multiprocessing_context="forkserver",
    )
    seen = sorted(one for batch in loader for one in batch)
    expected = []
    for row in cli_process.rows(Path(options["store"]), CONFIG):
        frames = len(row["boxes"])
        name = f"{row['video_id']}/{row['utterance_id']}"
        expected.append((name, frames, 640 * frames, (frames, 4)))
    assert seen == sorted(expected)


def test_a_store_alone_can_be_loaded(options: dict[str, Any]) -> None:
    alone = {name: options[name] for name in ("store", "cache_dir", "split")}
    assert len(load_dataset("voxblink2", CONFIG, **alone)) == ROWS
    for name, (value, _) in OTHER_OPTIONS.items():
        with pytest.raises(SelectionError, match=f"no release is given; {name} would change noth"):
            load_dataset("voxblink2", CONFIG, **{name: value}, **alone)


def test_options_reach_the_clips(
    inline_workers: None, options: dict[str, Any], tmp_path: Path
) -> None:
    chosen: dict[str, Any] = {name: values[0] for name, values in OTHER_OPTIONS.items()}
    options.update(store=str(tmp_path / "store"), videos=["demoHarbour"])
    del options["max_speakers"]
    rows = load_dataset("voxblink2", CONFIG, **chosen, **options)
    assert rows[0]["video"][0].shape == (3, 64, 64)
    tracks = annotated(tmp_path / "store", HARBOUR).tracks
    assert tracks is not None
    media = MEDIA / HARBOUR.speaker_id / "demoHarbour.mp4"
    cut = crop_faces(media, tracks, options=ClipOptions(**chosen))
    found = list(plain(rows))
    assert [row["video"]["bytes"] for row in found] == [clip.data for clip in cut.clips]
    assert {row["audio"]["path"].rpartition(".")[2] for row in found} == {"wav"}
    assert {row["audio"]["bytes"][:4] for row in found} == {b"RIFF"}
    # They are the store's now: left out, they are taken; others are refused.
    again = load_dataset("voxblink2", CONFIG, **options)
    assert again._fingerprint == rows._fingerprint
    with pytest.raises(StoreMismatchError, match="holds clips with video_size=64, requested is 6"):
        load_dataset("voxblink2", CONFIG, video_size=66, **options)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("video_size", 63, "video_size must be an even number of pixels from 32 to 1024, got 63"),
        ("video_margin", -1, "video_margin must be a number from 0 to 2, .* got -1"),
        ("video_shape", "round", "video_shape must be square or stretched, got 'round'"),
        ("video_crf", 52, r"video_crf must be a whole number from 0 \(lossless\) to 51, got 52"),
    ],
)
def test_bad_options_are_refused(
    name: str, value: Any, words: str, options: dict[str, Any]
) -> None:
    with pytest.raises(SelectionError, match=words):
        load_dataset("voxblink2", CONFIG, **{name: value}, **options)


def test_options_of_faces_are_refused_with_sound_alone(options: dict[str, Any]) -> None:
    with pytest.raises(SelectionError, match=r"^video_size would change nothing .* 'audio-visual'"):
        load_dataset("voxblink2", "audio", video_size=64, **options)


def test_other_options_are_refused_on_a_store_that_cannot_be_written_to(
    options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Refused(FileLock):
        def acquire(self, *_: Any, **__: Any) -> Any:
            raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("voxblink2_lib.store.lock.FileLock", Refused)
    assert len(load_dataset("voxblink2", CONFIG, video_size=112, **options)) == ROWS
    with pytest.raises(StoreMismatchError, match="video_size=112, requested is 64"):
        load_dataset("voxblink2", CONFIG, video_size=64, **options)


# The command line


def test_materialize_says_what_came_and_what_did_not(
    seen: tuple[Path, dict[str, Any]],
) -> None:
    store, said = seen
    assert (said["config"], said["videos"]) == (CONFIG, {"done": 3, "gone": 1})
    assert (said["utterances"], said["missing_utterances"], said["shards"]) == (ROWS, 0, 3)
    assert said["speakers"] == {"complete": 1, "partial": 1, "empty": 0}
    (missing,) = missing_videos(Store(store), CONFIG)
    assert (missing.video_id, missing.status) == ("demoChess_1", "gone")
    assert missing.reason.startswith("no file id990002/demoChess_1.<ext> in ")
    assert "(extensions tried: mp4, mkv, " in missing.reason
    names = {path.name for path in (store / "shards" / CONFIG).iterdir()}
    shards = {f"{CONFIG}-0000{number}.arrow" for number in range(4)}
    assert {name for name in names if not name.endswith(".outcomes.parquet")} <= shards | {
        f"{name}.sha256" for name in shards
    }


def test_status_and_verify(seen: tuple[Path, dict[str, Any]]) -> None:
    store, said = seen
    status = cli_process.run_inline_json(
        "status", "--config", CONFIG, "--store", store, "--missing"
    )
    assert {name: status[name] for name in said} == said
    assert [one["video_id"] for one in status["missing"]] == ["demoChess_1"]
    verified = cli_process.run_inline_json(
        "verify", "--config", CONFIG, "--store", store, "--sample", 2
    )
    assert verified["problems"] == []
    assert (verified["shards"], verified["rows"], verified["clips_decoded"]) == (3, ROWS, 6)


Rows = list[dict[str, Any]]


def resealed(store: Path, name: str, change: Callable[[Rows], None]) -> None:
    """Change the rows of a shard, and make hashes and ledger agree with it again."""
    path = store / "shards" / CONFIG / name
    (batch,) = read_batches(path)
    rows = batch.to_pylist()
    change(rows)
    changed = pa.RecordBatch.from_pylist(rows, schema=batch.schema)
    path.unlink()
    with pa.ipc.new_stream(str(path), batch.schema) as writer:
        writer.write_batch(changed)
    digest = sha256_of(path)
    checksum_file(path).write_text(f"{digest}  {name}\n")
    database = sqlite3.connect(store / "ledger.sqlite")
    with database:
        database.execute("update jobs set sha256 = ? where shard = ?", (digest, name))
    database.close()


def other_clip(rows: Rows) -> None:
    rows[1]["video"]["bytes"] = rows[0]["video"]["bytes"]


def no_clip(rows: Rows) -> None:
    rows[1]["video"]["bytes"] = b"no clip at all"


def one_box_less(rows: Rows) -> None:
    del rows[1]["boxes"][-1]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (other_clip, "has 75 frames and 63 boxes, expected are 63 of each"),
        (one_box_less, "has 63 frames and 62 boxes, expected are 63 of each"),
        (no_clip, "does not decode: "),
    ],
)
def test_verify_looks_at_faces(copy: Path, change: Callable[[Rows], None], words: str) -> None:
    resealed(copy, f"{CONFIG}-00000.arrow", change)
    result = verify_store(Store(copy), CONFIG, sample=8)
    assert result.configs[CONFIG].clips_decoded == ROWS
    # Besides, the ledger and the outcomes beside the shard are not of this one.
    (problem,) = (problem for problem in result.problems if "the face of" in problem)
    assert f"the face of id990001/demoHarbour/00002 {words}" in problem


# Kills

VIDEOS = 16
FRAMES, LAST_FRAMES = 12, 65
WORDS = ("--config", CONFIG, "--video-size", 32)


@pytest.fixture(scope="module")
def corpus(media_cache: MediaCache, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A release with many short videos, whose media are all the same film."""
    folder = tmp_path_factory.mktemp("films")
    # A hole after the last utterance: sound with holes is decoded by PyAV, and not by torchcodec,
    # so that no worker has to import PyTorch before it can be killed.
    media = without_packets(
        media_cache.make(gray_video()),
        folder / "film.mp4",
        kind="audio",
        from_seconds=3.3,
        to_seconds=3.4,
    )
    for number in range(VIDEOS):
        speaker, video = f"id99{number % 4:04}", f"many-film{number:02}"
        meta = folder / "meta" / speaker / video
        meta.mkdir(parents=True)
        for utterance, first in enumerate((3 * number, LAST_FRAMES)):
            lines = ["\t".join(map(str, (frame, *BOX))) for frame in range(first, first + FRAMES)]
            (meta / f"{utterance:05}.txt").write_text("\n".join(["FRAME X Y W H", *lines]))
        (folder / "media" / speaker).mkdir(parents=True, exist_ok=True)
        (folder / "media" / speaker / f"{video}.mp4").write_bytes(media.read_bytes())
    return folder


@pytest.fixture(scope="module")
def whole(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The shards of an undisturbed run with one worker."""
    store = tmp_path_factory.mktemp("whole") / "store"
    with MediaSite(corpus / "media") as site:
        cli_process.run_inline(
            *("materialize", *WORDS, "--data-dir", corpus, "--store", store, "--workers", 1),
            *("--source", site.url_template),
        )
    rows = cli_process.rows(store, CONFIG)
    assert len(rows) == 2 * VIDEOS
    assert {size for row in rows for size in frames_in(row["video"]["bytes"])} == {(32, 32)}
    return cli_process.shards(store, CONFIG)


def finished_videos(store: Path) -> set[str]:
    parts = cli_process.listed(store, f"parts/{CONFIG}/*/*.arrow")
    return {path.stem.split("_", 1)[1] for path in parts} | cli_process.finished_videos(store)


def progress(site: MediaSite, store: Path) -> tuple[int, int, int]:
    """Return how many requests came, videos were finished and shards sealed; none grows less."""
    shards = (store / "shards" / CONFIG).glob("*.sha256")
    return len(site.requests), len(finished_videos(store)), len(list(shards))


# So much more of each is waited for. Two requests bring a video: after three the second one is
# on its way.
MOMENTS = [(3, 0, 0), (0, 1, 0), (0, 0, 2)]


def test_killed_runs_end_in_the_shards_of_an_undisturbed_one(
    corpus: Path, whole: dict[str, bytes], tmp_path: Path
) -> None:
    store = tmp_path / "store"
    counts: dict[str, int] = {}
    with MediaSite(corpus / "media") as site:
        words: tuple[object, ...] = (
            *("materialize", "--config", CONFIG, "--data-dir", corpus, "--store", store),
            *("--source", site.url_template),
        )
        # The moment of a kill is told by what is there, not by a clock.
        for wanted in MOMENTS:
            goals = [now + more for now, more in zip(progress(site, store), wanted, strict=True)]
            process = cli_process.start(*words, "--video-size", 32, "--workers", 1)
            assert cli_process.wait_for(
                lambda goals=goals: all(map(operator.ge, progress(site, store), goals)),  # type: ignore[misc]
                process,
            )
            _, err = cli_process.stop(process, signal.SIGKILL)
            assert process.returncode == -signal.SIGKILL, err
            for video in finished_videos(store):
                counts.setdefault(video, site.count(video))
        assert 0 < len(counts) < VIDEOS
        # The last run takes the options from the store.
        cli_process.run_inline(*words, "--workers", 2)
        for video, count in counts.items():
            assert site.count(video) == count, f"{video} was fetched again after it was finished"
    assert cli_process.shards(store, CONFIG) == whole
    assert not list(store.glob(f"parts/{CONFIG}/*"))
    assert not list((store / "tmp").iterdir())


def request(corpus: Path, site: MediaSite, store: Path, *, workers: int) -> MaterializeRequest:
    return MaterializeRequest(
        config="audio-visual",
        data_dir=str(corpus),
        source=site.url_template,
        store=str(store),
        clips={"video_size": 32},
        workers=workers,
    )


def test_number_of_workers_does_not_change_the_shards(
    corpus: Path, whole: dict[str, bytes], tmp_path: Path
) -> None:
    with MediaSite(corpus / "media") as site:
        store = materialize(
            request(corpus, site, tmp_path / "store", workers=2), retry=False, wait=False
        )
        before = len(site.requests)
        assert before == 1 + 3 * VIDEOS, "whether the site answers, then the videos"
        materialize(request(corpus, site, store.root, workers=1), retry=False, wait=False)
        assert len(site.requests) == before, "a second run asked the site again"
    assert cli_process.shards(store.root, CONFIG) == whole


@pytest.mark.parametrize(
    "moment",
    [
        "voxblink2_lib.materialize.pipeline.crop_faces",
        "voxblink2_lib.materialize.pipeline.write_part",
        "voxblink2_lib.store.verdicts.Verdicts.record",
        "voxblink2_lib.store.ledger.Ledger.seal",
    ],
)
def test_stopped_at_any_step_of_the_third_video(
    moment: str, corpus: Path, whole: dict[str, bytes], tmp_path: Path, inline_workers: None
) -> None:
    """Files are ahead of the ledger by one step at most, and the next run finds them."""
    original = pkgutil.resolve_name(moment)
    calls = itertools.count(1)

    def stopping(*arguments: Any, **options: Any) -> Any:
        if next(calls) == 3:
            raise KeyboardInterrupt
        return original(*arguments, **options)

    store = tmp_path / "store"
    with MediaSite(corpus / "media") as site:
        config = request(corpus, site, store, workers=1)
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(moment, stopping)
            with pytest.raises(KeyboardInterrupt):
                materialize(config, retry=False, wait=False)
        finished = {video: site.count(video) for video in finished_videos(store)}
        assert len(finished) >= 2
        materialize(config, retry=False, wait=False)
        assert {video: site.count(video) for video in finished} == finished
    assert cli_process.shards(store, CONFIG) == whole
