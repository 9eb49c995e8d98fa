"""A smaller selection than a store holds is a view: some rows of linked shards, nothing written."""

from __future__ import annotations

import hashlib
import pickle
import shutil
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from itertools import groupby
from pathlib import Path
from typing import Any, NoReturn

import datasets
import pytest
from datasets import load_dataset
from support import cli_process, shard_builder
from support.opened_files import OpenedFiles
from support.plain_corpus import make_corpus, video_ids
from torch.utils.data import DataLoader

import voxblink2  # noqa: F401  # registers the builder
from voxblink2_lib.errors import SelectionError
from voxblink2_lib.release import selection
from voxblink2_lib.store import view, view_table
from voxblink2_lib.store.schema import FEATURES

# Loads bring what is missing in this process, where PyTorch is loaded already.
pytestmark = pytest.mark.usefixtures("inline_workers")

Row = dict[str, Any]
PLAIN = datasets.Audio(decode=False)
# What every row has that is not in its shard, of a release that has only annotations.
UNKNOWN = {"transcript": None, "language": None}
NOWHERE = "http://127.0.0.1:9/{video_id}"


@pytest.fixture(params=["slices", "indices"])
def form(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways in which the rows of a view are named."""
    if request.param == "indices":
        monkeypatch.setattr(view_table, "_SLICES_PER_SHARD", 0)
    return str(request.param)


@pytest.fixture
def store(undisturbed: Path, tmp_path: Path) -> Path:
    """A complete store of eight speakers."""
    return Path(shutil.copytree(undisturbed, tmp_path / "store"))


def load(store: Path, *, split: Any = "train", **options: Any) -> Any:
    cache = str(store.parent / "cache")
    options = {"source": NOWHERE, **options}
    return load_dataset("voxblink2", store=str(store), split=split, cache_dir=cache, **options)


def rows_of(dataset: Any) -> list[Row]:
    return list(dataset.cast_column("audio", PLAIN))


def tree(store: Path) -> dict[str, tuple[int, str]]:
    """Time and digest of every file of a store, but for the memory that readers of SQLite share."""
    return {
        str(path.relative_to(store)): (
            path.stat().st_mtime_ns,
            hashlib.sha256(path.read_bytes()).hexdigest(),
        )
        for path in sorted(store.rglob("*"))
        if path.is_file() and not path.name.endswith("-shm")
    }


# -- Which rows ------------------------------------------------------------------------------------


SELECTIONS: dict[str, tuple[Row, Any]] = {
    "max_speakers": ({"max_speakers": 2}, lambda row: row["speaker_id"] <= "id990002"),
    "speakers": (
        {"speakers": ["id990003", "id990001"]},
        lambda row: row["speaker_id"] in {"id990001", "id990003"},
    ),
    "videos": ({"videos": "demoBicycle"}, lambda row: row["video_id"] == "demoBicycle"),
    "exclude": (
        {"exclude": ["id990002", "-demoSailor"]},
        lambda row: row["speaker_id"] != "id990002" and row["video_id"] != "-demoSailor",
    ),
    "all": (
        {"exclude": "id990001", "max_speakers": 3, "videos": ["demoBicycle", "-demoSailor"]},
        lambda row: row["video_id"] in {"demoBicycle", "-demoSailor"},
    ),
}


@pytest.mark.parametrize("release", [{"data_dir": "demo"}, {}], ids=["release", "store alone"])
@pytest.mark.parametrize("name", SELECTIONS)
def test_a_view_has_the_selected_rows_and_writes_nothing(
    name: str, release: Row, form: str, store: Path
) -> None:
    options, is_selected = SELECTIONS[name]
    expected = [row | UNKNOWN for row in cli_process.rows(store) if is_selected(row)]
    assert 0 < len(expected) < 48
    before = tree(store)
    rows = load(store, **options, **release)
    assert rows_of(rows) == expected
    assert rows.num_rows == rows.info.splits["train"].num_examples == len(expected)
    assert rows_of(load(store, streaming=True, **options, **release)) == expected
    assert tree(store) == before
    # No copy: the cache has the shards that have such rows, under a second name.
    files = {Path(file["filename"]) for file in rows.cache_files}
    cached = {path for path in files if path.suffix != ".joined"}
    links = {path.stat().st_ino for path in cached if path.suffix == ".arrow"}
    assert links <= {path.stat().st_ino for path in store.glob("shards/audio/*.arrow")}
    assert {path.name for path in cached if path.suffix != ".arrow"} == (
        {"view.indices"} if form == "indices" and not is_whole(rows) else set()
    )


def test_a_view_is_looked_up_once(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    for module, name in ((view, "select_of"), (selection, "_ids_in")):
        monkeypatch.setattr(module, name, counted(calls, name, getattr(module, name)))
    ids = tmp_path / "ids.txt"
    ids.write_text("# first\nid990002 -demoSailor\n")
    rows = load(store, exclude=str(ids))
    assert calls.count("select_of") == 1
    assert calls.count("_ids_in") <= 2
    # The same words of another file are another selection.
    ids.write_text("# second\nid990002\n")
    assert len(load(store, exclude=str(ids))) > len(rows)
    assert calls.count("select_of") == 2


def counted(calls: list[str], name: str, function: Any) -> Any:
    def call(*values: Any, **named: Any) -> Any:
        calls.append(name)
        return function(*values, **named)

    return call


def is_whole(rows: Any) -> bool:
    """Return whether a dataset has all rows of its files."""
    return bool(rows._indices is None)


def test_the_first_videos_of_each_speaker(form: str, store: Path) -> None:
    rows = load(store, data_dir="demo", max_videos_per_speaker=1)
    assert {row["speaker_id"] for row in rows_of(rows)} <= set(rows["speaker_id"])
    by_speaker = groupby(zip(rows["speaker_id"], rows["video_id"], strict=True), lambda row: row[0])
    assert all(len({video for _, video in of_one}) == 1 for _, of_one in by_speaker)


def test_a_selection_of_everything_is_the_whole_store(store: Path) -> None:
    whole = load(store, data_dir="demo")
    everything = load(store, data_dir="demo", max_speakers=8)
    assert everything._fingerprint == whole._fingerprint
    assert everything.cache_files == whole.cache_files


@pytest.mark.parametrize(
    "split", ["train[:10%]", "train[3:7]", "train[10:12]+train[:1]", "train[-5:]", "all"]
)
def test_slices_of_a_view(split: str, form: str, store: Path) -> None:
    whole = rows_of(load(store, exclude=["id990002", "-demoSailor"]))
    expected = {
        "train[:10%]": whole[: round(len(whole) / 10)],
        "train[3:7]": whole[3:7],
        "train[10:12]+train[:1]": whole[10:12] + whole[:1],
        "train[-5:]": whole[-5:],
        "all": whole,
    }
    rows = load(store, exclude=["id990002", "-demoSailor"], split=split)
    assert rows_of(rows) == expected[split]
    everything = load(store, exclude=["id990002", "-demoSailor"], split=None)
    assert {name: len(part) for name, part in everything.items()} == {"train": len(whole)}
    with pytest.raises(ValueError, match="corresponds to no data"):
        load(store, exclude=["id990002", "-demoSailor"], split="train[:0]")


def test_a_view_may_be_changed_pickled_and_read_in_processes(form: str, store: Path) -> None:
    rows = load(store, exclude=["id990002", "-demoSailor"])
    expected = rows_of(rows)
    copy = pickle.loads(pickle.dumps(rows))
    assert rows_of(copy) == expected
    plain = rows.cast_column("audio", PLAIN)
    shuffled = plain.shuffle(seed=1)
    assert sorted(map(repr, shuffled)) == sorted(map(repr, expected))
    assert list(shuffled) != expected
    assert rows_of(rows.select([5, 3])) == [expected[5], expected[3]]
    assert rows_of(datasets.concatenate_datasets([rows, rows])) == expected * 2
    plain.save_to_disk(str(store.parent / "saved"))
    saved = datasets.load_from_disk(str(store.parent / "saved"))
    assert list(map(without_folder, saved)) == list(map(without_folder, expected))
    names = plain.map(name_of, num_proc=2, remove_columns=plain.column_names)["name"]
    assert list(names) == [name_of(row)["name"] for row in expected]


def name_of(row: Row) -> Row:
    return {"name": f"{row['video_id']}/{row['utterance_id']}"}


def test_a_view_is_written_as_parquet_and_with_other_columns(store: Path) -> None:
    options = {"store": str(store), "cache_dir": str(store.parent / "cache"), "max_speakers": 2}
    expected = rows_of(load(store, max_speakers=2))
    builder = datasets.load_dataset_builder("voxblink2", **options)
    assert builder.info.splits["train"].num_examples == len(expected)
    builder.download_and_prepare(str(store.parent / "parquet"), file_format="parquet")
    files = [str(path) for path in sorted((store.parent / "parquet").glob("*.parquet"))]
    rows = load_dataset("parquet", data_files=files, split="train", cache_dir=options["cache_dir"])
    assert [without_folder(row) for row in rows_of(rows)] == list(map(without_folder, expected))
    features = datasets.Features({**FEATURES["audio"], "start_seconds": datasets.Value("float32")})
    written = load(store, max_speakers=2, features=features)
    assert written.features["start_seconds"] == datasets.Value("float32")
    assert list(written["video_id"]) == [row["video_id"] for row in expected]


def without_folder(row: Row) -> Row:
    """Return a row as ``datasets`` writes it elsewhere: the name of its audio has no folders."""
    return {**row, "audio": {**row["audio"], "path": Path(row["audio"]["path"]).name}}


# -- Names in the cache ----------------------------------------------------------------------------


def count_calls(row: Row) -> Row:
    return {"seen": row["video_id"]}


def mapped(rows: Any) -> list[str]:
    return list(rows.select_columns(["video_id"]).map(count_calls)["seen"])


def test_a_cached_map_belongs_to_its_view(form: str, store: Path) -> None:
    views: list[Row] = [{"max_speakers": 1}, {"max_speakers": 2}, {"speakers": ["id990002"]}, {}]
    for _ in range(2):
        for options in views:
            rows = load(store, **options)
            assert mapped(rows) == list(rows["video_id"])
    prints = [load(store, **options)._fingerprint for options in views]
    assert len(set(prints)) == len(views)
    assert [load(store, **options)._fingerprint for options in views] == prints
    # Slices as well.
    halves = [load(store, max_speakers=2, split=f"train[{part}]") for part in ("50%:", ":50%")]
    assert [mapped(half) for half in halves] == [list(half["video_id"]) for half in halves]


@pytest.fixture
def release(tmp_path: Path) -> Path:
    """A release of five speakers with two videos each."""
    return make_corpus(tmp_path / "release", video_ids(10), per_speaker=2)


def materialize(release: Path, *more: object, code: int = 0) -> str:
    store = release.parent / "store"
    return cli_process.run_inline(
        *("materialize", "--data-dir", release, "--source", release / "media", "--store", store),
        *more,
        code=code,
    ).stderr


def test_a_cached_map_knows_that_the_store_has_grown(form: str, release: Path) -> None:
    store = release.parent / "store"
    materialize(release, "--speakers", "id000001", "id000003")
    options: Row = {"data_dir": str(release), "source": str(release / "media")}
    alone = load(store, **options, speakers=["id000003"])
    both = load(store, **options, speakers=["id000001", "id000003"])
    assert (mapped(alone), mapped(both)) == (
        video_ids(10)[6:8],
        [*video_ids(10)[2:4], *mapped(alone)],
    )
    materialize(release, "--max-speakers", 4)
    assert sorted(mapped(load(store, **options))) == video_ids(10)
    grown = load(store, **options, speakers=["id000003", "id000004"])
    assert mapped(grown) == video_ids(10)[6:]
    # What has not changed keeps its name, and its cache.
    assert load(store, **options, speakers=["id000003"])._fingerprint == alone._fingerprint


# -- What a store lacks ----------------------------------------------------------------------------


def test_a_selection_that_grows_brings_what_lacks_and_no_more(release: Path) -> None:
    store = release.parent / "store"
    materialize(release, "--max-speakers", 3)
    before = tree(store)
    options: Row = {"data_dir": str(release), "source": str(release / "media")}
    assert list(load(store, **options, max_speakers=2)["video_id"]) == video_ids(10)[:4]
    assert tree(store) == before
    grown = load(store, **options, max_speakers=4)
    assert list(grown["video_id"]) == video_ids(10)[:8]
    # Wider at one end, smaller at the other.
    moved = load(store, **options, speakers=["id000000", "id000004"])
    assert list(moved["video_id"]) == [*video_ids(10)[:2], *video_ids(10)[8:]]
    before = tree(store)
    assert len(load(store, **options)) == 10
    assert tree(store) == before


def test_a_smaller_run_forgets_nothing(release: Path) -> None:
    store, lost = release.parent / "store", video_ids(10)[5]
    (medium,) = (release / "media").glob(f"*/{lost}.wav")
    whole = medium.read_bytes()
    medium.unlink()
    assert "stay in it" not in materialize(release)
    before = videos(store)
    medium.write_bytes(whole)
    for _ in range(2):
        message = materialize(release, "--max-speakers", 2)
        assert f"The store {store} holds 5 more videos than are selected; they stay" in message
    assert videos(store) == before, "what failed is known, and was not asked for"
    assert len(cli_process.rows(store)) == 9
    excluded = materialize(release, "--forget", "max-speakers", "--exclude", "id000000")
    assert "holds 2 more videos than are selected" in excluded
    assert videos(store) == {**before, lost: "done"}
    assert "stay in it" not in materialize(release, "--forget", "exclude")
    assert len(cli_process.rows(store)) == 10


def videos(store: Path) -> dict[str, str]:
    with closing(sqlite3.connect(store / "ledger.sqlite")) as database:
        return dict(database.execute("select video_id, status from videos"))


def test_a_view_of_a_store_that_cannot_be_written_to(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> NoReturn:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patched:
        patched.setattr("voxblink2_lib.store.lock.FileLock", refuse)
        assert len(load(store, data_dir="demo", speakers=["id990003"])) == 6
        assert len(load(store, speakers=["id990003"])) == 6


def test_a_store_without_its_catalogue_stays_without(store: Path) -> None:
    shutil.rmtree(store / "catalogue")
    before = tree(store)
    assert len(load(store, data_dir="demo", speakers=["id990003"])) == 6
    assert tree(store) == before


def test_nothing_that_is_selected_is_in_the_store(release: Path) -> None:
    store = release.parent / "store"
    materialize(release, "--max-speakers", 3)
    match = (
        rf"The store {store} has no clips of the 2 selected videos. It has 6 clips of 3 speakers: "
        r"id000000, id000001, id000002. Select some of these, or see why others are missing: "
        rf"voxblink2 status --store {store} --config audio --missing"
    )
    for streaming in (False, True):
        with pytest.raises(SelectionError, match=match):
            load(store, speakers="id000004", streaming=streaming)
        with pytest.raises(SelectionError, match=r"not in the release.*: id000009"):
            load(store, speakers="id000009", streaming=streaming)
    assert datasets.load_dataset_builder("voxblink2", store=str(store), speakers="id000004")


def test_what_a_store_alone_lacks_is_said(release: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = release.parent / "store"
    materialize(release, "--max-speakers", 3)
    rows = load(store, speakers=["id000002", "id000003"])
    assert list(rows["video_id"]) == video_ids(10)[4:6]
    assert f"2 of the 4 selected videos have clips in the store {store}" in caplog.text


def test_options_of_clips_are_no_view(store: Path) -> None:
    with pytest.raises(SelectionError, match="audio_format would change nothing"):
        load(store, audio_format="wav", max_speakers=1)


# -- Streams ---------------------------------------------------------------------------------------


def test_a_stream_of_a_view_opens_only_its_shards(store: Path) -> None:
    load(store)  # whose shards are checked now
    folder = store / "shards" / "audio"
    with OpenedFiles(folder) as opened:
        stream = load(store, data_dir="demo", streaming=True, speakers=["id990003"])
        seen = {row["video_id"] for row in rows_of(stream)}
    rows = cli_process.rows(store)
    assert seen == {row["video_id"] for row in rows if row["speaker_id"] == "id990003"}
    holding = {
        path.name
        for path in folder.glob("*.arrow")
        if "id990003" in {row["speaker_id"] for row in shard_builder.rows_of(path)}
    }
    assert stream.num_shards == len(holding)
    assert {name for name in opened.names if name.endswith(".arrow")} <= {
        *holding,
        min(path.name for path in folder.glob("*.arrow")),  # which says what the columns are
    }


@pytest.mark.parametrize("at", [1, 4, 9, 20])
def test_a_stream_of_a_view_goes_on_where_it_was(at: int, store: Path) -> None:
    options: Row = {"exclude": ["id990002", "-demoSailor"], "streaming": True}
    stream = load(store, **options).cast_column("audio", PLAIN)
    whole = list(stream)
    iterator = iter(stream)
    before = [next(iterator) for _ in range(at)]
    state = stream.state_dict()
    again = load(store, **options).cast_column("audio", PLAIN)
    again.load_state_dict(pickle.loads(pickle.dumps(state)))
    assert before + list(again) == whole
    loader = DataLoader(
        stream.select_columns(["video_id", "utterance_id"]), batch_size=None, num_workers=0
    )
    assert len(list(loader)) == len(whole)


# -- Several readers -------------------------------------------------------------------------------


def test_four_threads_load_different_views(store: Path) -> None:
    wholes = cli_process.rows(store)
    speakers = sorted({row["speaker_id"] for row in wholes})[:4]

    def count(number: int) -> int:
        return len(load(store, data_dir="demo", speakers=[speakers[number % 4]]))

    with ThreadPoolExecutor(4) as threads:
        counts = list(threads.map(count, range(8)))
    expected = [sum(row["speaker_id"] == speaker for row in wholes) for speaker in speakers]
    assert counts == expected * 2
