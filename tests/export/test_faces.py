"""A store with faces: formats that carry them have them, the others have the audio."""

from __future__ import annotations

import glob
import json
import tarfile
from pathlib import Path

import datasets
import pytest
from support.cli_process import rows, run_inline, run_inline_json
from support.exported import clips_of, content, export_to

from voxblink2_lib.release.builtin import MEDIA

CONFIG = "audio-visual"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of one speaker with faces, and with audio alone; not to be changed."""
    store = tmp_path_factory.mktemp("faces") / "store"
    words = ("--data-dir", "demo", "--source", MEDIA, "--store", store, "--speakers", "id990003")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("voxblink2_lib.materialize.jobs._SMALL_CORPUS_SHARDS", 1)
        run_inline("materialize", "--config", CONFIG, "--video-size", 32, *words)
    return store


def faces_of(store: Path) -> list[bytes]:
    return [row["video"]["bytes"] for row in rows(store, CONFIG)]


def test_folder(store: Path, tmp_path: Path) -> None:
    export_to(tmp_path, store, "folder", config=CONFIG)
    files = {path: data for path, data in content(tmp_path).items() if path.startswith("id")}
    clips = clips_of(store, CONFIG)
    videos = dict(zip(clips, faces_of(store), strict=True))
    assert files == {f"{name}.flac": data for name, data in clips.items()} | {
        f"{name}.mp4": data for name, data in videos.items()
    }


def test_webdataset(store: Path, tmp_path: Path) -> None:
    export_to(tmp_path, store, "webdataset", config=CONFIG)
    (path,) = tmp_path.glob("*.tar")
    with tarfile.open(path) as archive:
        files = {member.name: archive.extractfile(member) for member in archive}
        data = {name: file.read() for name, file in files.items() if file}
    assert [data[name] for name in data if name.endswith(".mp4")] == faces_of(store)
    about = [json.loads(data[name]) for name in data if name.endswith(".json")]
    stored = rows(store, CONFIG)
    assert [row["boxes"] for row in about] == [row["boxes"] for row in stored]
    assert [row["boxes_fit"] for row in about] == [row["boxes_fit"] for row in stored]


def test_parquet(store: Path, tmp_path: Path) -> None:
    export_to(tmp_path / "out", store, "parquet", config=CONFIG)
    files = glob.glob(str(tmp_path / "out" / "data" / "*.parquet"))
    read = datasets.load_dataset(
        "parquet", data_files=files, split="train", cache_dir=str(tmp_path / "cache")
    )
    assert isinstance(read.features["video"], datasets.Video)
    raw = read.cast_column("video", datasets.Video(decode=False))
    assert [row["bytes"] for row in raw["video"]] == faces_of(store)
    assert read["boxes"][0] == rows(store, CONFIG)[0]["boxes"]


def test_audio_alone_is_said(store: Path, tmp_path: Path) -> None:
    done = run_inline("export", "nemo", "--store", store, "--to", tmp_path / "out")
    assert "Faces      are left out: nemo has audio only" in done.stderr
    assert not list(tmp_path.rglob("*.mp4"))
    record = run_inline_json("export", "nemo", "--store", store, "--to", tmp_path / "out")
    assert (record["config"], record["shards_written"]) == (CONFIG, 0)
