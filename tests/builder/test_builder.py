"""``load_dataset("voxblink2", ...)`` as a user calls it."""

from __future__ import annotations

import copy
import dataclasses
import importlib.util
import inspect
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
from datasets import load_dataset
from datasets.distributed import split_dataset_by_node
from filelock import FileLock
from support import cli_process
from support.plain_corpus import make_corpus, video_ids
from torch.utils.data import DataLoader

import voxblink2
from voxblink2_lib import __version__
from voxblink2_lib.builder.config import VoxBlink2Config
from voxblink2_lib.demo.site import MediaSite
from voxblink2_lib.errors import (
    ReleaseError,
    SelectionError,
    StoreError,
    StoreReadOnlyError,
)
from voxblink2_lib.materialize.request import MaterializeRequest
from voxblink2_lib.outcomes import RUN_TRIES
from voxblink2_lib.release.builtin import FAULTS, MEDIA
from voxblink2_lib.store.joined_columns import joined_file
from voxblink2_lib.store.schema import FEATURES
from voxblink2_lib.store.view import whole_view
from voxblink2_lib.store.view_table import config_id as config_id_of

# Loads bring what is missing in this process, where PyTorch is loaded already.
pytestmark = pytest.mark.usefixtures("inline_workers")

ROWS = 48
COLUMNS = [
    *("audio", "speaker_id", "video_id", "utterance_id", "start_seconds", "end_seconds"),
    *("source", "transcript", "language"),
]


@pytest.fixture
def options(undisturbed: Path, tmp_path: Path) -> dict[str, Any]:
    """A store that is complete, and a cache of this test's own."""
    return {"data_dir": "demo", "store": str(undisturbed), "cache_dir": str(tmp_path / "cache")}


def test_rows_are_what_the_design_says(options: dict[str, Any]) -> None:
    rows = load_dataset("voxblink2", "audio", split="train", **options)
    assert rows.column_names == COLUMNS
    assert len(rows) == ROWS
    assert rows.features["audio"] == datasets.Audio(sampling_rate=16000)
    row = rows[7]
    audio = row["audio"].get_all_samples()
    assert audio.sample_rate == 16000
    assert tuple(audio.data.shape) == (
        1,
        round((row["end_seconds"] - row["start_seconds"]) * 16000),
    )
    assert row["audio"]["array"].dtype == np.float32
    assert set(rows["source"]) == {"url"}
    keys = list(zip(rows["speaker_id"], rows["video_id"], rows["utterance_id"], strict=True))
    assert keys == sorted(keys)
    assert ("id990003", "-demoSailor", "00001") in keys


def test_slices_splits_and_default_config(options: dict[str, Any]) -> None:
    assert len(load_dataset("voxblink2", split="train[:10%]", **options)) == 5
    assert len(load_dataset("voxblink2", split="train[10:12]+train[:1]", **options)) == 3
    assert set(load_dataset("voxblink2", "audio", **options)) == {"train"}
    assert datasets.get_dataset_config_names("voxblink2") == ["audio", "audio-visual"]


def test_shards_are_linked_not_copied(options: dict[str, Any], undisturbed: Path) -> None:
    rows = load_dataset("voxblink2", "audio", split="train", **options)
    sealed = sorted((undisturbed / "shards" / "audio").glob("*.arrow"))
    cached = shards_of(rows)
    assert [path.stat().st_ino for path in cached] == [path.stat().st_ino for path in sealed]
    # Columns that are joined to a shard lie beside its link, and are read together with it.
    files = [Path(file["filename"]) for file in rows.cache_files]
    assert files == [path for link in cached for path in (link, joined_file(link))]


def shards_of(rows: Any) -> list[Path]:
    """Return the shards that a dataset is read from."""
    files = [Path(file["filename"]) for file in rows.cache_files]
    return [path for path in files if path.suffix == ".arrow"]


def test_a_cache_on_another_file_system_gets_symbolic_links(
    options: dict[str, Any], monkeypatch: pytest.MonkeyPatch, undisturbed: Path
) -> None:
    def refuse(source: Any, target: Any) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    rows = load_dataset("voxblink2", "audio", split="train", **options)
    assert len(rows) == ROWS
    assert all(path.is_symlink() for path in shards_of(rows))


def collate(rows: list[dict[str, Any]]) -> list[tuple[str, int]]:
    return [
        (row["video_id"] + row["utterance_id"], row["audio"].get_all_samples().data.shape[1])
        for row in rows
    ]


@pytest.mark.parametrize("workers", [0, 2])
def test_streaming_under_a_data_loader(options: dict[str, Any], workers: int) -> None:
    stream = load_dataset("voxblink2", "audio", split="train", streaming=True, **options)
    assert stream.num_shards > 1
    loader = DataLoader(
        stream,
        batch_size=4,
        num_workers=workers,
        collate_fn=collate,
        multiprocessing_context="forkserver" if workers else None,
    )
    seen = [row for batch in loader for row in batch]
    assert len(set(seen)) == len(seen) == ROWS


def test_streaming_gives_the_rows_of_loading(options: dict[str, Any]) -> None:
    plain = datasets.Audio(decode=False)
    rows = load_dataset("voxblink2", "audio", split="train", **options)
    stream = load_dataset("voxblink2", "audio", split="train", streaming=True, **options)
    assert list(stream.cast_column("audio", plain)) == list(rows.cast_column("audio", plain))
    parts = [split_dataset_by_node(stream, rank=rank, world_size=2) for rank in range(2)]
    assert sum(len(list(part.select_columns(["video_id"]))) for part in parts) == ROWS


def test_parquet_is_written_from_the_same_rows(options: dict[str, Any], tmp_path: Path) -> None:
    builder = datasets.load_dataset_builder("voxblink2", "audio", **options)
    builder.download_and_prepare(str(tmp_path / "parquet"), file_format="parquet")
    files = [str(path) for path in sorted((tmp_path / "parquet").glob("*.parquet"))]
    rows = load_dataset("parquet", data_files=files, split="train", cache_dir=str(tmp_path / "c"))
    assert len(rows) == ROWS
    assert rows.features["audio"].sampling_rate == 16000


def test_the_first_load_downloads_and_the_second_touches_nothing(tmp_path: Path) -> None:
    options = {
        "data_dir": "demo",
        "store": str(tmp_path / "store"),
        "cache_dir": str(tmp_path / "cache"),
        "max_speakers": 2,
        "split": "train",
    }
    with MediaSite(MEDIA) as site:
        rows = load_dataset("voxblink2", source=site.url_template, num_proc=2, **options)
        assert len(rows) == 12
        requests = len(site.requests)
        assert requests == 1 + 11, "whether the site answers, then the media"
        again = load_dataset("voxblink2", source=site.url_template, **options)
        assert len(site.requests) == requests
        assert again._fingerprint == rows._fingerprint
    # Neither the site nor the media exist any more.
    assert len(load_dataset("voxblink2", source="http://127.0.0.1:9/{video_id}", **options)) == 12


def test_a_store_that_has_grown_is_seen(tmp_path: Path) -> None:
    options: dict[str, Any] = {
        "data_dir": "demo",
        "store": str(tmp_path / "store"),
        "cache_dir": str(tmp_path / "cache"),
        "speakers": ["id990003"],
        "split": "train",
    }
    words = ("materialize", "--data-dir", "demo", "--store", tmp_path / "store", "--speakers")
    with MediaSite(MEDIA, faults={"-demoSailor": 403, **FAULTS}) as site:
        first = load_dataset("voxblink2", source=site.url_template, **options)
        assert set(first["video_id"]) == {"demoBicycle"}
        again = load_dataset("voxblink2", source=site.url_template, **options)
        assert len(again) == 3
        assert site.count("-demoSailor") == RUN_TRIES, "a load retried what had failed"
    with MediaSite(MEDIA, faults=FAULTS) as site:
        cli_process.run_inline(*words, "id990003", "--source", site.url_template)
    grown = load_dataset("voxblink2", source="http://127.0.0.1:9/{video_id}", **options)
    assert set(grown["video_id"]) == {"demoBicycle", "-demoSailor"}
    assert grown.column_names == COLUMNS


def test_a_cache_that_another_version_of_datasets_has_made_is_read(tmp_path: Path) -> None:
    corpus = make_corpus(tmp_path, video_ids(1))
    options = {"data_dir": str(corpus), "store": str(tmp_path / "store")}
    options |= {"source": str(tmp_path / "media"), "cache_dir": str(tmp_path / "cache")}
    rows = load_dataset("voxblink2", "audio", split="train", **options)
    (link,) = shards_of(rows)
    other = link.with_stem(f"{link.stem}-00000-of-00001")
    joined_file(link).rename(joined_file(other))
    link.rename(other)
    again = load_dataset("voxblink2", "audio", split="train", **options)
    assert shards_of(again) == [other]
    assert again.to_dict() == rows.with_format(None).to_dict()


def test_a_store_alone_can_be_loaded(options: dict[str, Any]) -> None:
    del options["data_dir"]
    assert len(load_dataset("voxblink2", "audio", split="train", **options)) == ROWS


def test_the_keywords_of_the_configuration() -> None:
    """Callers may rely on these names, on their order, and on leaving them all out."""
    names = [*inspect.signature(VoxBlink2Config).parameters]
    assert names == [
        *("name", "version", "data_dir", "data_files", "description", "source", "store"),
        *("audio_format", "audio_track", "video_size", "video_margin", "video_shape", "video_crf"),
        *("speakers", "videos", "exclude", "max_speakers", "max_videos_per_speaker"),
        *("proxy", "cookies", "cookies_from_browser", "budget", "sleep", "limit_rate"),
        *("extractor_args", "yt_dlp", "fetches", "reasons", "canary", "no_plugins"),
        *("with_speaker_info", "validation", "scratch"),
    ]
    config = VoxBlink2Config(name="audio")
    assert dataclasses.is_dataclass(config)
    assert {getattr(config, name) for name in names[5:]} == {None}
    assert config.request() == MaterializeRequest()
    assert "\n    max_speakers: only the first N speakers" in (config.__doc__ or "")


def test_a_configuration_can_be_pickled_and_copied() -> None:
    config = VoxBlink2Config(name="audio", store="x", speakers=["id000001"])
    assert pickle.loads(pickle.dumps(config)) == copy.deepcopy(config) == config
    assert config != VoxBlink2Config(name="audio", store="x")


def test_the_builder_works_under_the_name_of_a_script() -> None:
    """As datasets 3.6 imports it: under a name of its own, with nothing registered."""
    name = "datasets_modules_voxblink2"
    spec = importlib.util.spec_from_file_location(name, voxblink2.__file__)
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    factory = datasets.load.dataset_module_factory
    sys.modules[name] = script
    try:
        spec.loader.exec_module(script)
        config = script.VoxBlink2Config(name="audio", store="x", budget=3)
        assert type(pickle.loads(pickle.dumps(config))) is script.VoxBlink2Config
        assert config.request().fetch.budget == 3
    finally:
        del sys.modules[name]
    assert datasets.load.dataset_module_factory is factory


def test_the_shards_follow_from_the_store(options: dict[str, Any], undisturbed: Path) -> None:
    """Naming the cache folder keeps nothing in the configuration."""
    config = VoxBlink2Config(name="audio", store=options["store"])
    before = dict(vars(config))
    config_id = config.create_config_id({})
    assert vars(config) == before
    shards = config.sealed_shards()
    assert config_id == config_id_of("audio", {"train": config.view()}, None, config.columns())
    assert config_id != config_id_of(
        "audio", {"train": whole_view(shards[:-1])}, None, config.columns()
    )
    sealed = sorted((undisturbed / "shards" / "audio").glob("*.arrow"))
    assert [shard.name for shard in shards] == [path.name for path in sealed]


def test_splits_are_known_before_a_load(options: dict[str, Any]) -> None:
    assert datasets.get_dataset_split_names("voxblink2", "audio", **options) == ["train"]


def test_a_load_killed_while_linking_does_not_harm_the_next(options: dict[str, Any]) -> None:
    builder = datasets.load_dataset_builder("voxblink2", "audio", **options)
    incomplete = Path(f"{builder.cache_dir}.incomplete")
    incomplete.mkdir(parents=True)
    (incomplete / "voxblink2-train-00000-of-00016.arrow").write_bytes(b"half")
    assert len(load_dataset("voxblink2", "audio", split="train", **options)) == ROWS


def test_custom_features_are_obeyed(options: dict[str, Any]) -> None:
    features = datasets.Features({**FEATURES["audio"], "start_seconds": datasets.Value("float32")})
    rows = load_dataset("voxblink2", "audio", split="train", features=features, **options)
    assert rows.features["start_seconds"] == datasets.Value("float32")
    assert len(rows) == ROWS


def test_ids_may_come_from_a_generator(tmp_path: Path) -> None:
    rows = load_dataset(
        "voxblink2",
        data_dir="demo",
        store=str(tmp_path / "store"),
        cache_dir=str(tmp_path / "cache"),
        speakers=(speaker for speaker in ["id990001"]),
        split="train",
    )
    assert set(rows["speaker_id"]) == {"id990001"}


def test_a_complete_store_may_be_read_only(
    options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Refused(FileLock):
        def acquire(self, *_: Any, **__: Any) -> Any:
            raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("voxblink2_lib.store.lock.FileLock", Refused)
    assert len(load_dataset("voxblink2", "audio", split="train", **options)) == ROWS
    options["store"] += "-new"
    with pytest.raises(StoreReadOnlyError, match="Leave out data_dir to load it as it is"):
        load_dataset("voxblink2", "audio", split="train", **options)


def test_errors_say_what_to_do(options: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(
        ReleaseError, match=r"No release was named.*vb2_meta.tar.gz.*data_dir="
    ) as e:
        load_dataset("voxblink2", "audio")
    assert 'data_dir="demo" names the small built-in release' in str(e.value)
    with pytest.raises(ReleaseError, match="does not exist"):
        load_dataset("voxblink2", "audio", data_dir=str(tmp_path / "nowhere"))
    with pytest.raises(ValueError, match="BuilderConfig 'video' not found"):
        load_dataset("voxblink2", "video", **options)
    with pytest.raises(SelectionError, match="audio_format must be flac, wav or opus, got 'mp3'"):
        load_dataset("voxblink2", "audio", audio_format="mp3", **options)
    with pytest.raises(SelectionError, match="max_speakers must be a whole number"):
        load_dataset("voxblink2", "audio", max_speakers=0, **options)


def test_an_empty_store_is_an_error_with_the_reasons(tmp_path: Path) -> None:
    with (
        MediaSite(MEDIA, faults={"demoHarbour": 404, "demo_Garden": 410}) as site,
        pytest.raises(StoreError, match=r"(?s)No video is available.*1 videos: .*HTTP Error 4"),
    ):
        load_dataset(
            "voxblink2",
            data_dir="demo",
            store=str(tmp_path / "store"),
            cache_dir=str(tmp_path / "cache"),
            source=site.url_template,
            speakers="id990001",
        )


SCRIPT = """
import sys
import voxblink2
from datasets import load_dataset
rows = load_dataset("voxblink2", "audio", store=sys.argv[1], cache_dir=sys.argv[2],
                    source=sys.argv[3], split="train", num_proc=2, data_dir=sys.argv[4])
print(len(rows))
"""


def test_several_processes_load_one_store_at_once(tmp_path: Path) -> None:
    """As under DDP, and from a script without ``if __name__ == "__main__"``."""
    script = tmp_path / "train.py"
    script.write_text(SCRIPT)
    videos = video_ids(6)
    release = make_corpus(tmp_path / "release", videos)
    words = [sys.executable, str(script), str(tmp_path / "store"), str(tmp_path / "cache")]
    with MediaSite(release / "media") as site:
        processes = [
            subprocess.Popen(
                [*words, site.url_template, str(release)],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                env=cli_process.environment(),
            )
            for _ in range(3)
        ]
        results = [
            process.communicate(timeout=cli_process.DEADLINE_SECONDS) for process in processes
        ]
    assert [process.returncode for process in processes] == [0, 0, 0], results
    assert [out.strip() for out, _ in results] == ["6", "6", "6"]
    assert {site.count(video) for video in videos} == {2}, "more than one of them fetched it"


def test_import_pulls_in_neither_torch_nor_yt_dlp() -> None:
    code = (
        "import sys, voxblink2; "
        "print([name for name in ('torch', 'yt_dlp', 'av', 'torchcodec') if name in sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"


def test_other_names_still_go_where_they_went(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("a\n1\n2\n")
    rows = load_dataset(
        "csv", data_files=str(tmp_path / "rows.csv"), cache_dir=str(tmp_path / "c"), split="train"
    )
    assert rows["a"] == [1, 2]
    assert __version__ == voxblink2.VoxBlink2.VERSION
