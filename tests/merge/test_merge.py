"""Stores that were made apart are joined in one: nothing is lost, nothing is there twice."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.bucket import bucket_server
from support.cli_process import run_any, run_inline, run_inline_json
from support.disk_faults import FaultyDisk, KilledError
from support.plain_corpus import make_corpus, video_ids, wav

from voxblink2_lib.errors import UsageError
from voxblink2_lib.merge import run
from voxblink2_lib.merge.run import Merge, merge_stores
from voxblink2_lib.published import remote_errors
from voxblink2_lib.store.arrow_stream import open_stream
from voxblink2_lib.store.layout import Store
from voxblink2_lib.store.ledger import Ledger
from voxblink2_lib.store.rebuild import rebuild_ledger
from voxblink2_lib.store.verify import verify_store

VIDEOS = video_ids(8)


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VOXBLINK2_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "datasets"))
    monkeypatch.setattr(remote_errors, "PAUSES_SECONDS", (0.0, 0.0, 0.0))


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A release of eight videos of two speakers, with the media of all."""
    return make_corpus(tmp_path_factory.mktemp("corpus"), VIDEOS, per_speaker=4)


def make_store(corpus: Path, root: Path, *lacking: int, jobs: int = 2) -> Path:
    """Make a store with two shards, or as many as jobs, of which some videos are not available."""
    media = root.parent / f"{root.name} media"
    shutil.copytree(corpus / "media", media)
    for number in lacking:
        (media / f"id{number // 4:06}" / f"{VIDEOS[number]}.wav").unlink()
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("voxblink2_lib.materialize.jobs._SMALL_CORPUS_SHARDS", jobs)
        places = ("--data-dir", corpus, "--source", media, "--store", root, "--workers", 1)
        run_inline("materialize", *places)
    return root


@pytest.fixture(scope="module")
def whole(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of all."""
    return make_store(corpus, tmp_path_factory.mktemp("whole") / "store")


@pytest.fixture(scope="module")
def apart(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two stores with other videos each; both have videos 2 and 5, none has 7."""
    folder = tmp_path_factory.mktemp("apart")
    return (
        make_store(corpus, folder / "ours", 0, 1, 7),
        make_store(corpus, folder / "theirs", 3, 4, 6, 7),
    )


def rows_in(root: Path) -> dict[str, bytes]:
    """The clips of the ledger's shards by the names of their utterances; each is there once."""
    rows: dict[str, bytes] = {}
    with Ledger(root / "ledger.sqlite", "audio", readonly=True) as ledger:
        names = [shard.name for shard in ledger.shards()]
    for name in names:
        for batch in open_stream(root / "shards" / "audio" / name).batches():
            for row in batch.to_pylist():
                key = f"{row['speaker_id']}/{row['video_id']}/{row['utterance_id']}"
                assert key not in rows, "an utterance is there twice"
                rows[key] = row["audio"]["bytes"]
    return rows


def statuses(root: Path) -> dict[str, str]:
    with Ledger(root / "ledger.sqlite", "audio", readonly=True) as ledger:
        rows = ledger.planned_videos().to_pylist()
    return {row["video_id"]: row["status"] for row in rows}


def files(root: Path) -> dict[str, bytes]:
    """What is in a store, but for what a ledger and its files know of time."""
    paths = [path for path in sorted(root.rglob("*")) if path.is_file()]
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in paths
        # A catalogue is whole without its checksum, which is of use to repair only.
        if path.suffix == ".arrow" or path.name.endswith("0.arrow.sha256")
    }


def check_whole(root: Path) -> None:
    """Check all of a store; and that its ledger is in the files beside the shards as well."""
    store = Store(root)
    assert verify_store(store, sample=1).problems == ()
    with store.locked(wait=False):
        rebuilt = rebuild_ledger(store, dry_run=True)
    assert (rebuilt.later, rebuilt.damaged_files) == (0, ())


# -- What is merged --------------------------------------------------------------------------------


def test_two_places_that_made_parts_of_a_corpus(
    apart: tuple[Path, Path], whole: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    before = [files(store) for store in apart]
    result = merge_stores([*map(str, apart)], str(out))
    assert (result.videos, result.shards, result.rewritten) == ({"audio": 7}, {"audio": 3}, 1)
    clips = rows_in(whole)
    assert rows_in(out) == {name: clips[name] for name in clips if VIDEOS[7] not in name}
    assert statuses(out) == dict.fromkeys(VIDEOS[:7], "done") | {VIDEOS[7]: "gone"}
    check_whole(out)
    assert [files(store) for store in apart] == before
    ours = {path.name: path.stat().st_ino for path in apart[0].glob("shards/audio/*.arrow")}
    # What has all of its clips is the very file.
    assert (
        ours.items()
        <= {path.name: path.stat().st_ino for path in out.glob("shards/audio/*.arrow")}.items()
    )


def test_a_merged_store_goes_on(apart: tuple[Path, Path], corpus: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    merge_stores([*map(str, apart)], str(out))
    before = rows_in(out)
    run_inline("materialize", "--data-dir", corpus, "--source", corpus / "media", "--store", out)
    after = rows_in(out)
    assert before.items() <= after.items()
    assert len(after) == 8
    check_whole(out)


def test_it_is_merged_again_with_the_same_bytes(apart: tuple[Path, Path], tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    merge_stores([*map(str, apart)], str(first))
    merge_stores([*map(str, apart)], str(second))
    assert files(first) == files(second)
    # Once it is done, the same command does nothing.
    result = merge_stores([*map(str, apart)], str(first))
    assert result.rewritten == 1
    assert files(first) == files(second)
    assert not [*tmp_path.glob("*.merging")]


def test_a_store_is_merged_with_a_merged_one(
    apart: tuple[Path, Path], whole: Path, tmp_path: Path
) -> None:
    merge_stores([*map(str, apart)], str(tmp_path / "a"))
    result = merge_stores([str(tmp_path / "a"), str(whole)], str(tmp_path / "b"))
    assert result.videos == {"audio": 8}
    assert rows_in(tmp_path / "b") == rows_in(whole)
    check_whole(tmp_path / "b")
    # Named first, the whole one gives everything.
    result = merge_stores([str(whole), str(tmp_path / "a")], str(tmp_path / "c"))
    assert (result.rewritten, result.shards) == (0, {"audio": 2})


def test_finished_videos_of_open_jobs_come_along(
    corpus: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(shutil.copytree(whole, tmp_path / "store"))
    # As if the run had been stopped before it was sealed: the shard of a job is its parts.
    with Ledger(store.ledger, "audio") as ledger:
        (keys,) = [[key for key, _ in ledger.job_videos(1)]]
        database = ledger._database
        with database.transaction() as connection:
            connection.execute("update jobs set shard = null, sha256 = null where job = 1")
            connection.execute("update videos set status = 'planned', clips = 0 where job = 1")
    (store.shards("audio") / "audio-00001.arrow").unlink()
    part = store.part("audio", 1, keys[0])
    part.parent.mkdir(parents=True)
    part.write_bytes(b"a part")
    merge_stores([str(store.root)], str(tmp_path / "out"))
    out = Store(tmp_path / "out")
    assert out.part("audio", 1, keys[0]).read_bytes() == b"a part"
    with Ledger(out.ledger, "audio", readonly=True) as ledger:
        assert ledger.open_jobs() == [1]


# -- What was purged -------------------------------------------------------------------------------


@pytest.mark.parametrize("is_first", [True, False])
@pytest.mark.parametrize("purged", [["id000000"], [VIDEOS[2]], [f"id000001/{VIDEOS[5]}/00001"]])
def test_what_was_purged_from_one_does_not_come_back_from_another(
    apart: tuple[Path, Path], corpus: Path, tmp_path: Path, purged: list[str], *, is_first: bool
) -> None:
    stores = [Path(shutil.copytree(store, tmp_path / store.name)) for store in apart]
    run_inline("purge", *purged, "--store", stores[0])
    run_inline("purge", VIDEOS[6], "--store", stores[1])
    out = tmp_path / "out"
    result = merge_stores([*map(str, stores if is_first else stores[::-1])], str(out))
    assert result.tombstones >= 2
    for _ in range(2):
        check_whole(out)
        for name in [*purged, VIDEOS[6]]:
            assert not [key for key in rows_in(out) if name in key]
            for path in out.rglob("*"):
                assert not (path.is_file() and name.encode() in path.read_bytes()), path
        # No later run brings it back either.
        places = ("--data-dir", corpus, "--source", corpus / "media")
        run_inline("materialize", *places, "--store", out)


# -- Kills -----------------------------------------------------------------------------------------


def check_kills(stores: list[str], folder: Path, places: range) -> None:
    """Kill a merge at operations: nothing is there or all is, and the same command ends it."""
    undisturbed = folder / "undisturbed"
    merge_stores(stores, str(undisturbed))
    expected = files(undisturbed)
    for at in places:
        out = folder / f"out{at}"
        disk = FaultyDisk(folder, "killed", at)
        with disk.installed(), contextlib.suppress(KilledError):
            merge_stores(stores, str(out))
        if out.exists():
            assert files(out) == expected
            check_whole(out)
        merge_stores(stores, str(out))
        assert files(out) == expected, disk.operations[-1:]
        check_whole(out)
        assert not [*folder.glob("*.merging")]
        shutil.rmtree(out)
        if not disk.is_reached:
            assert at > 100, "the operations were not seen"
            return


@pytest.fixture
def purged_apart(apart: tuple[Path, Path], tmp_path: Path) -> list[str]:
    """The two stores, something of which was purged."""
    stores = [Path(shutil.copytree(store, tmp_path / "stores" / store.name)) for store in apart]
    run_inline("purge", VIDEOS[2], "--store", stores[0])
    return [*map(str, stores)]


def test_killed_at_some_operations(apart: tuple[Path, Path], tmp_path: Path) -> None:
    check_kills([*map(str, apart)], tmp_path / "made", range(5, 10_000, 41))


def test_killed_at_some_operations_of_a_merge_that_purges(
    purged_apart: list[str], tmp_path: Path
) -> None:
    check_kills(purged_apart, tmp_path / "made", range(9, 10_000, 83))


@pytest.mark.slow
@pytest.mark.parametrize("part", range(4))
def test_killed_at_each_operation(apart: tuple[Path, Path], tmp_path: Path, part: int) -> None:
    check_kills([*map(str, apart)], tmp_path / "made", range(part, 10_000, 4))


@pytest.mark.slow
@pytest.mark.parametrize("part", range(4))
def test_killed_at_each_operation_of_a_merge_that_purges(
    purged_apart: list[str], tmp_path: Path, part: int
) -> None:
    check_kills(purged_apart, tmp_path / "made", range(part, 10_000, 4))


def test_a_store_that_was_changed_meanwhile_is_merged_anew(
    apart: tuple[Path, Path],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stores = [Path(shutil.copytree(store, tmp_path / store.name)) for store in apart]
    out = tmp_path / "out"
    with monkeypatch.context() as patched:
        patched.setattr(run, "_rename", stop)
        with pytest.raises(KeyboardInterrupt):
            merge_stores([*map(str, stores)], str(out))
    assert not out.exists()
    media = apart[1].parent / "theirs media" / "id000001"
    (late := media / f"{VIDEOS[7]}.wav").write_bytes(wav())
    run_inline("materialize", "--store", stores[1])
    late.unlink()
    result = merge_stores([*map(str, stores)], str(out))
    assert "it begins anew" in caplog.text
    assert result.videos == {"audio": 8}
    check_whole(out)


def stop(*_: Any) -> None:
    raise KeyboardInterrupt


# -- URLs ------------------------------------------------------------------------------------------


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    with bucket_server(monkeypatch) as system:
        system.mkdir("bucket")
        yield system


def test_slices_in_a_bucket_are_merged_into_a_bucket(
    bucket: Any, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    places = ("--data-dir", corpus, "--source", corpus / "media", "--workers", 1)
    monkeypatch.setattr("voxblink2_lib.materialize.jobs._SMALL_CORPUS_SHARDS", 4)
    run_inline("materialize", *places, "--store", tmp_path / "local")
    for number in (1, 2):
        slices = ("--store", "s3://bucket/parts", "--shard-of-jobs", f"{number}/2")
        run_inline("materialize", *places, *slices)
    done = run_inline_json("merge", "s3://bucket/parts", "--into", "s3://bucket/whole")
    assert (done["store"], done["rewritten"]) == ("s3://bucket/whole", 0)
    assert (done["videos"], done["shards"]) == ({"audio": 8}, {"audio": 4})
    result = run_any("verify", "--store", "s3://bucket/whole")
    assert result.returncode == 0, result.stdout
    # The same with the slices by their own names, into a folder; its shards are one machine's.
    parts = [f"s3://bucket/parts/slices/00{number}-of-002" for number in (1, 2)]
    run_inline("merge", *parts, "--into", tmp_path / "out")
    shards = {
        name: content for name, content in files(tmp_path / "out").items() if "shards/" in name
    }
    assert shards == {
        name: content for name, content in files(tmp_path / "local").items() if "shards/" in name
    }
    check_whole(tmp_path / "out")
    # Whoever is not killed before the end publishes nothing twice.
    again = run_inline_json("merge", "s3://bucket/parts", "--into", "s3://bucket/whole")
    assert again == done


# -- What is refused -------------------------------------------------------------------------------


def refused(*words: object, code: int = 2) -> str:
    result = run_any("merge", *words)
    assert result.returncode == code, result.stderr
    return result.stderr


def test_stores_of_other_clips_are_refused(whole: Path, corpus: Path, tmp_path: Path) -> None:
    other = tmp_path / "wav"
    places = ("--data-dir", corpus, "--source", corpus / "media", "--store", other)
    run_inline("materialize", *places, "--audio-format", "wav", "--workers", 1)
    message = refused(whole, other, "--into", tmp_path / "out")
    assert "audio_format='flac'" in message
    assert "audio_format='wav'. Nothing was merged." in message
    assert not (tmp_path / "out").exists()
    assert not [*tmp_path.glob("*.merging")]


def test_stores_of_other_releases_are_refused(whole: Path, tmp_path: Path) -> None:
    other = make_corpus(tmp_path / "other", video_ids(9), per_speaker=3)
    store = make_store(other, tmp_path / "store")
    message = refused(whole, store, "--into", tmp_path / "out")
    assert "were made from two releases" in message
    assert "Merge stores of one release." in message


def test_places_that_cannot_be(whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert "is named twice" in refused(whole, whole, "--into", out)
    assert "There is no store at" in refused(whole, tmp_path / "none", "--into", out)
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "notes.txt").touch()
    assert "There is something at" in refused(whole, "--into", tmp_path / "taken")
    assert "There is something at" in refused(whole, "--into", whole)
    assert "can only be read" in refused(whole, "--into", "https://example.org/store")
    assert "required: --into" in refused(whole)
    assert "scratch would change nothing" in refused(whole, "--into", out, "--scratch", tmp_path)
    with pytest.raises(UsageError, match="merge needs a store"):
        merge_stores([], str(out))
    with Store(whole).locked(wait=False):
        assert "is working on the store" in refused(whole, "--into", out, code=3)
    assert not [*tmp_path.glob("out*")]


def test_result_in_words(whole: Path, tmp_path: Path) -> None:
    result = run_inline("merge", whole, "--into", tmp_path / "out")
    assert f"Store    {tmp_path / 'out'}" in result.stdout
    assert f"Of       {whole}" in result.stdout
    assert "Has      audio: clips of 8 videos in 2 shards" in result.stdout
    record = Merge("out", ("a",), {"audio": 1}, {"audio": 1}, 0, 0).as_dict()
    assert [*record] == ["store", "stores", "videos", "shards", "rewritten", "tombstones"]
